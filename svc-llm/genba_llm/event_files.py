"""A run's metrics as TensorBoard's event files too, where a folder is set and the package is there; never at the cost of the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from genba_shared.recipe import PassingReporter, Reporter, Run


class EventFiles(PassingReporter):
    """Passes everything on, and writes metrics as scalars. A resumed attempt takes back what it is about to say again."""

    def __init__(self, reporter: Reporter, folder: Path) -> None:
        """``folder`` belongs to the job; its attempts share it."""
        super().__init__(reporter)
        self._folder = folder
        self._writer: Any = None
        self._off = False

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        super().metrics(step, values)
        if self._writer is None and not self._off:
            self._open(step)
        if self._writer is not None:
            try:
                for name, value in values.items():
                    self._writer.add_scalar(name, value, step)
            except Exception as error:  # noqa: BLE001 - where TensorFlow is installed, a full disk is an error of its own
                self._end(error)

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            try:
                self._writer.close()
            except Exception as error:  # noqa: BLE001 - where TensorFlow is installed, a full disk is an error of its own
                self._end(error)
            self._writer = None

    def _end(self, error: Exception) -> None:
        self._writer, self._off = None, True
        self._reporter.line("warning", f"No event files for TensorBoard: {error}")

    def _open(self, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=step)
        except Exception as error:  # noqa: BLE001 - as above, or TensorBoard is not installed
            self._end(error)


def with_event_files(run: Run, folder: Path | None) -> tuple[Run, EventFiles | None]:
    """The run whose metrics go to ``folder``/job too; as it is without a folder."""
    if folder is None:
        return run, None
    files = EventFiles(run.reporter, folder / run.job_id)
    return replace(run, reporter=files), files
