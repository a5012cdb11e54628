"""The version of a model that a service serves: looked for, loaded aside, warmed up, and swapped by one assignment.

    loaded = live.current    # once per request: the value and its version belong together, whatever is swapped meanwhile
    answer(loaded.value.predict(x), version=loaded.version.number)

Moving an alias is somebody else's business (registry.py); this follows it, forwards or back, and so a rollback needs no
code in any service. A version that does not load leaves the one before it serving. Knows no domain and no HTTP.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from genba_shared.readiness import Degraded
from genba_shared.registry import Alias, Registry, Version
from genba_shared.telemetry import get_logger

T = TypeVar("T")

_RETRY_FIRST_S, _RETRY_CAP_S = 1.0, 60.0
_FORGET_AFTER_S = 24 * 3600.0
_MAX_CHASES = 3
_BLIND_AFTER_S = 60.0

log = get_logger(__name__)


@dataclass(frozen=True)
class Loaded(Generic[T]):
    """What serves, and which version it is."""

    value: T
    version: Version


@dataclass(frozen=True)
class _Failure:
    """Where the alias pointed when loading failed, and when to try that again."""

    pointer: tuple[int | None, int]
    reason: str
    times: int
    retry_at_s: float


class Live(Generic[T]):
    """Follows one alias of one model.

    ``load(folder, version)`` makes the value from a bundle that is whole; ``warm_up(value)`` is called before anybody
    else sees it, and what it raises counts as a failure to load. ``cache`` keeps fetched bundles; processes may share it.
    """

    def __init__(
        self,
        registry: Registry,
        model: str,
        load: Callable[[Path, Version], T],
        *,
        cache: Path,
        refresh_s: float,
        alias: Alias = "champion",
        warm_up: Callable[[T], object] | None = None,
    ) -> None:
        self._registry, self._model, self._alias = registry, model, alias
        self._load, self._warm_up = load, warm_up
        self._cache, self._refresh_s = cache, refresh_s
        self._loaded: Loaded[T] | None = None
        self._folder: Path | None = None
        self._failure: _Failure | None = None
        self._looked_s = time.monotonic()
        self._one_at_a_time = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"live-{model}-{alias}", daemon=True)

    @property
    def current(self) -> Loaded[T] | None:
        """What serves now, as one pair; None when the alias points nowhere or nothing could be loaded yet."""
        return self._loaded

    def start(self) -> None:
        """Load what the alias points to, if it can be, and follow it from then on."""
        self._refresh_or_say()
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what is loaded stays."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def refresh(self) -> bool:
        """Look where the alias points and follow it; whether another version serves afterwards than before.

        Raises: whatever kept it from looking. What keeps a version from loading is said by ``unwell``.
        """
        with self._one_at_a_time:
            before = self._loaded
            for _ in range(_MAX_CHASES):
                pointer = self._registry.peek(self._model, self._alias)
                self._looked_s = time.monotonic()
                if self._serves(pointer[0]):
                    self._failure = None
                    break
                if self._waits(pointer) or not self._follow_to(pointer):
                    break
            if self._folder is not None:
                self._tidy(self._folder)
            return self._loaded is not before

    def unwell(self) -> str | None:
        """For readiness: what keeps this from following its alias. No reason to take it out while an older version serves."""
        failure, loaded = self._failure, self._loaded
        if failure is not None:
            said = f"version {failure.pointer[0]} of {self._model} does not load: {failure.reason}"
            return Degraded(f"{said}; version {loaded.version.number} serves") if loaded else said
        silent_s = time.monotonic() - self._looked_s
        if self._thread.is_alive() and silent_s > max(_BLIND_AFTER_S, 10 * self._refresh_s):
            return Degraded(f"could not look for {silent_s:.0f} s which version of {self._model} serves")
        return None

    def _serves(self, number: int | None) -> bool:
        loaded = self._loaded
        return number == (None if loaded is None else loaded.version.number)

    def _waits(self, pointer: tuple[int | None, int]) -> bool:
        failure = self._failure
        return failure is not None and failure.pointer == pointer and time.monotonic() < failure.retry_at_s

    def _follow_to(self, pointer: tuple[int | None, int]) -> bool:
        """Load aside and swap. False when there is no sense in looking again at once."""
        number = pointer[0]
        if number is None:
            self._loaded, self._failure, self._folder = None, None, None
            log.info("model_cleared", model=self._model, alias=self._alias)
            return False
        try:
            loaded, folder = self._load_aside(number)
        except Exception as error:  # noqa: BLE001 - whatever a bundle or a domain's loader raises, the old one serves on
            self._note_failure(pointer, error)
            self._fall_back()
            return False
        if self._registry.peek(self._model, self._alias)[0] != number:
            return True  # it moved while we loaded: what was loaded is no longer wanted, look again
        self._loaded, self._folder, self._failure = loaded, folder, None
        return False

    def _load_aside(self, number: int) -> tuple[Loaded[T], Path]:
        started_s = time.monotonic()
        version = self._registry.get(self._model, number)
        folder = self._registry.fetch(version, self._cache)
        value = self._load(folder, version)
        if self._warm_up is not None:
            self._warm_up(value)
        load_ms = round((time.monotonic() - started_s) * 1000)
        log.info("model_loaded", model=self._model, alias=self._alias, version=number, load_ms=load_ms)
        return Loaded(value, version), folder

    def _fall_back(self) -> None:
        """A process that starts on a champion that does not load serves what its elder siblings still do: the one before."""
        if self._loaded is not None or self._alias != "champion":
            return
        try:
            before = self._registry.previous(self._model)
            if before is not None:
                self._loaded, self._folder = self._load_aside(before)
        except Exception as error:  # noqa: BLE001 - then there is nothing to serve, and unwell says why
            log.warning("model_fallback_failed", model=self._model, error=type(error).__name__)

    def _note_failure(self, pointer: tuple[int | None, int], error: Exception) -> None:
        last = self._failure
        times = last.times + 1 if last is not None and last.pointer == pointer else 1
        wait_s = min(_RETRY_CAP_S, _RETRY_FIRST_S * 2.0 ** min(times - 1, 16))
        reason = f"{type(error).__name__}: {error}"[:300]
        self._failure = _Failure(pointer, reason, times, time.monotonic() + wait_s)
        log.warning(
            "model_load_failed", model=self._model, alias=self._alias, version=pointer[0], times=times, exc_info=error
        )

    def _tidy(self, folder: Path) -> None:
        """Say that this bundle is in use, and delete those that no process has used for a day."""
        with suppress(OSError):
            os.utime(folder)
            for other in folder.parent.iterdir():
                with suppress(OSError):  # another process tidies here, too
                    if other != folder and time.time() - other.stat().st_mtime > _FORGET_AFTER_S:
                        shutil.rmtree(other, ignore_errors=True)

    def _refresh_or_say(self) -> None:
        try:
            self.refresh()
        except Exception as error:  # noqa: BLE001 - a database that is away must not end the thread
            log.warning("model_refresh_failed", model=self._model, alias=self._alias, error=type(error).__name__)

    def _follow(self) -> None:
        while not self._over.wait(self._refresh_s):
            self._refresh_or_say()
