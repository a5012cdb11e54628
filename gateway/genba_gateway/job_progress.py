"""A job's events for a person: a live bar in a terminal, plain lines in a log. Asks nobody anything."""

from __future__ import annotations

from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from genba_gateway.client import GenbaError
from genba_gateway.client_records import JobEvent

_LEAST_STEP = 0.1  # of the progress that is worth a line in a log


class Display:
    """``with Display(console, job_id) as display: display.show(event)``"""

    def __init__(self, console: Console, job_id: str) -> None:
        self._console = console
        self._live = console.is_terminal
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn(),
            TextColumn("{task.fields[said]}", style="dim"), console=console, transient=True, disable=not self._live,
        )  # fmt: skip
        self._task = self._bars.add_task(job_id, total=1.0, said="")
        self._shown = 0.0
        self._metrics = ""
        self._in_trouble = False

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._bars.stop()

    def trouble(self, error: GenbaError) -> None:
        """Said once until something is heard again: the job goes on, and so does following it."""
        if not self._in_trouble:
            self._say(f"[yellow]{escape(str(error))}; trying again[/]")
        self._in_trouble = True

    def show(self, event: JobEvent) -> None:
        """Events of an earlier attempt come again after a reconnect only if they had not been seen."""
        data, self._in_trouble = event.data, False
        match event.kind:
            case "progress":
                self._progress(float(data["fraction"]), str(data["message"]))
            case "metrics":
                values = "  ".join(f"{name}={value:.4g}" for name, value in data["values"].items() if value is not None)
                self._metrics = f"step {data['step']}  {values}"
                self._bars.update(self._task, said=escape(self._metrics))
            case "line":
                colour = {"warning": "yellow", "error": "red"}.get(str(data.get("level")), "default")
                self._say(f"[{colour}]{escape(str(data['message']))}[/]")
            case "status":
                is_over = data["status"] in {"failed", "dead"}  # whoever follows says why, and which fields are wrong
                why = data.get("reason") or (None if is_over else (data.get("error") or {}).get("detail"))
                stopping = " (asked to stop)" if data.get("cancel_requested") else ""
                self._say(f"{data['status']}{stopping}" + (f": {escape(str(why))}" if why else ""))

    def _progress(self, fraction: float, message: str) -> None:
        self._bars.update(self._task, completed=fraction, said=escape(message or self._metrics))
        if fraction < self._shown:
            self._shown = 0.0  # a new attempt
        if not self._live and fraction >= min(self._shown + _LEAST_STEP, 1.0):
            self._shown = fraction
            self._say(f"{fraction:.0%}  {escape('  '.join(filter(None, (message, self._metrics))))}")

    def _say(self, line: str) -> None:
        self._bars.console.print(line, highlight=False, soft_wrap=True)
