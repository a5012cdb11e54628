"""A run without a queue, for recipes' own code: real checkpoints in a folder, and a way to be killed at a step."""

from __future__ import annotations

import io
from pathlib import Path

from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_shared.principal import Clearance, Principal
from genba_shared.recipe import Cancelled, Checkpoint, LocalReporter, Run, Stopped
from genba_shared.settings import Platform


class StopsAt(LocalReporter):
    """Asks to stop once progress was reported this many times; remembers what was logged."""

    def __init__(self, after: int | None = None) -> None:
        super().__init__(io.StringIO())
        self._left = after
        self.logged: dict[int, dict[str, float]] = {}
        self.notes: list[str] = []

    def metrics(self, step: int, values: object) -> None:
        assert isinstance(values, dict)
        self.logged[step] = dict(values)

    def progress(self, _fraction: float, _message: str) -> None:
        if self._left is not None:
            self._left -= 1

    def line(self, _level: object, message: str) -> None:
        self.notes.append(message)

    def stop_reason(self) -> Stopped | None:
        return Cancelled("stopped by the test") if self._left is not None and self._left <= 0 else None


def local_run(folder: Path, reporter: LocalReporter | None = None, *, attempt: int = 1, seed: int = 7) -> Run:
    """A run whose checkpoints lie below ``folder``, so that another with the same folder resumes."""
    platform = Platform(home=folder / "home")
    workdir = folder / f"attempt-{attempt}"
    workdir.mkdir(parents=True, exist_ok=True)
    return Run(
        job_id="job_test",
        attempt=attempt,
        seed=seed,
        workdir=workdir,
        checkpoint=Checkpoint(folder / "checkpoints", attempt=attempt),
        principal=Principal(
            subject="tester", tenant="t", roles=("admin",), scopes=frozenset({"*"}), clearance=Clearance.SECRET
        ),
        platform=platform,
        database=Database(f"sqlite:///{folder / 'genba.db'}"),
        artifacts=Artifacts(str(folder / "artifacts")),
        reporter=reporter or StopsAt(),
    )
