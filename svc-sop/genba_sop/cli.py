"""``genba sop``: score files offline, film demo videos, and speak to a running Genba. Speaks to people: every failure
is one line.

Exit codes: 0 passed or done, 1 scored but not passed or nothing found, 2 bad input, 3 the server said no, 130 interrupted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from genba_shared.commands import BAD_INPUT, complain
from genba_shared.problems import Problem
from genba_sop.cli_api import ask, complain_of, evaluate, procedures, report, review, videos

if TYPE_CHECKING:
    from genba_sop.schemas import EvaluationOut

NOT_PASSED = 1
NOT_FOUND = 1
PROPOSED = "steps_proposed"

out = Console()
err = Console(stderr=True)
app = typer.Typer(help="Score a procedure from video.", no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(procedures, name="procedures")
app.add_typer(videos, name="videos")
app.command()(evaluate)
app.command()(review)
app.command()(report)
app.command()(ask)

Kind = Literal["oil_change", "brake_pad", "ppe", "hand_wash", "kit_packing", "all"]


@app.command()
def score(
    trainee: Annotated[Path, typer.Option(help="The video to score.")],
    steps: Annotated[
        Path, typer.Option(help="steps.yaml: the procedure and, if marked, where its steps lie in the golds.")
    ],
    gold: Annotated[
        list[Path] | None,
        typer.Option(help="A gold run; repeat it for several. Those named in the steps file when absent."),
    ] = None,
    report_path: Annotated[Path | None, typer.Option("--report", help="Write the report here (.html or .pdf).")] = None,
    lang: Annotated[Literal["en", "ja"], typer.Option(help="Language of the report and the step names.")] = "en",
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole evaluation as JSON.")] = False,  # noqa: FBT002
) -> None:
    """Score a video on this machine, without a service, by the encoder of GENBA_SOP_ENCODER. Exit 0 only if it passes."""
    with _one_line_failures():
        _check([trainee, steps, *(gold or [])], report_path)
        from genba_sop import offline
        from genba_sop import report as reports
        from genba_sop.encoders import open_encoder
        from genba_sop.settings import Settings

        settings = Settings()
        encoder = open_encoder(settings.encoder, weights=settings.encoder_weights)
        with _bars() as bars:
            tasks: dict[str, int] = {}

            def progress(name: str, share: float) -> None:
                if name not in tasks:
                    tasks[name] = bars.add_task(f"Reading {escape(name)}", total=1.0)
                bars.update(tasks[name], completed=share)  # type: ignore[arg-type]  # rich's TaskID is an int

            result = offline.score(
                steps_path=steps, golds=gold or [], trainee=trainee, encoder=encoder, progress=progress
            )
        for warning in result.warnings:
            err.print(f"[yellow]note:[/] {escape(explain(warning))}", highlight=False)
        if as_json:
            typer.echo(result.evaluation.model_dump_json(indent=2))
        else:
            show(result.evaluation, lang=lang)
        if report_path is not None:
            if report_path.suffix == ".pdf":
                from genba_sop.report_pdf import to_pdf

                report_path.write_bytes(to_pdf(result.page, language=lang))
            else:
                report_path.write_text(reports.to_html(result.page, language=lang), encoding="utf-8")
            err.print(f"Report: {report_path.resolve().as_uri()}", highlight=False, soft_wrap=True)
    raise typer.Exit(0 if result.evaluation.verdict == "pass" else NOT_PASSED)


def _check(files: Sequence[Path], report_path: Path | None) -> None:
    """What can be said before a film is decoded for nothing. Raises: FileNotFoundError; ValueError."""
    for path in files:
        if not path.is_file():
            raise FileNotFoundError(2, "There is no such file", str(path))
    if report_path is None:
        return
    if not report_path.absolute().parent.is_dir():
        raise FileNotFoundError(2, "There is no such folder", str(report_path.absolute().parent))
    if report_path.suffix not in {".html", ".pdf"}:
        raise ValueError(f"{report_path.name} must end in .html or .pdf.")


def explain(warning: str) -> str:
    """A warning of the reference, as a sentence."""
    kind, *rest = warning.split(":")
    number = int(rest[0]) + 1 if rest and rest[0].isdigit() else 0
    said = {
        PROPOSED: "no gold has its steps marked; they were proposed by change points. Mark them under golds in the steps file.",
        "steps_transferred": f"gold {number} has no steps marked; they were carried over from the other golds.",
        "gold_outlier": f"gold {number} lies far from the others; is it a good example?",
        "step_not_shown": f"gold {number} does not show step {rest[-1] if rest else ''}.",
    }
    return said.get(kind, warning)


def show(evaluation: EvaluationOut, *, lang: Literal["en", "ja"] = "en") -> None:
    """Print an evaluation: verdict, deviations with their times, steps, timings."""
    from genba_sop import report_words as words
    from genba_sop.report import both, clock, p_text

    at = 1 if lang == "ja" else 0
    names = {step.step_id: both(step.name, step.step_id) for step in evaluation.steps}
    colour = {"pass": "green", "fail": "red"}.get(evaluation.verdict, "yellow")
    interval = evaluation.interval
    state = words.UI["calibrated" if interval.calibrated else "uncalibrated"][at]
    out.print(
        f"[bold {colour}]{words.VERDICTS[evaluation.verdict][at]}[/]  {words.UI['score'][at]} [bold]{evaluation.score:.1f}[/] / 100"
        f"  {interval.level:.0%} {words.UI['interval'][at]} {interval.low:.0f}–{interval.high:.0f} ({state})",
        highlight=False,
    )
    for code in evaluation.reasons:
        out.print(f"  • {escape(words.reason(code, names)[at])}", highlight=False)
    table = Table("#")
    for key in ("deviations", "step", "where", "severity", "chance"):
        table.add_column(words.UI[key][at], overflow="fold")  # Japanese has no blanks to wrap at
    for number, each in enumerate(evaluation.deviations, start=1):
        where = f"{clock(each.start_s)}–{clock(each.end_s)}" if each.end_s > each.start_s else clock(each.start_s)
        step = both(each.step_name, each.step_id or "")[at] if each.step_name else "–"
        chance = "–" if each.p_value is None else p_text(each.p_value).removeprefix("= ")
        kind, severity = words.KINDS[each.kind][at], words.SEVERITIES[each.severity][at]
        table.add_row(str(number), kind, escape(step), where, severity, chance)
    out.print(table if evaluation.deviations else words.UI["no_deviations"][at])
    timings = " · ".join(f"{name.removesuffix('_ms')} {value:.0f} ms" for name, value in evaluation.timings_ms.items())
    out.print(f"{evaluation.encoder} · {timings}", style="dim", highlight=False)


@app.command("demo-videos")
def demo_videos(
    folder: Annotated[Path, typer.Option("--out", help="Folder to write to.")],
    kind: Annotated[Kind, typer.Option(help="Which procedure.")] = "oil_change",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same videos.")] = 0,
    golds: Annotated[int, typer.Option(min=1, max=30, help="How many gold runs.")] = 3,
    variants: Annotated[
        int, typer.Option(min=0, max=10_000, help="Further runs with planted deviations and known truth.")
    ] = 0,
) -> None:
    """Film gold and trainee runs with known truth, as real video files."""
    from genba_sop import data

    with _one_line_failures(), _bars() as bars:
        for name in data.KINDS if kind == "all" else (kind,):
            target = folder / name if kind == "all" else folder
            task = bars.add_task(f"Filming {name}", total=1.0)
            made = data.generate(
                name,
                target,
                seed=seed,
                golds=golds,
                progress=lambda share, what: bars.update(task, completed=share, description=f"Filming {what}"),  # noqa: B023
            )
            err.print(f"{name}: {made.steps_path}, {len(made.golds)} golds, {made.trainee.path.name}", highlight=False)
            if variants:
                _film_variants(name, target / "variants", variants, seed, bars)


def _film_variants(kind: str, folder: Path, count: int, seed: int, bars: Progress) -> None:
    import json

    from genba_sop import data

    task = bars.add_task(f"Filming {count} variants", total=count)
    truths = []
    for index, plan in enumerate(data.plans(kind, count, seed)):
        path = folder / f"{kind}_{index:04d}.mp4"
        made = data.variant(kind, path, seed=plan.seed, plan=plan.planted, conditions=plan.conditions)
        truths.append(made.document())
        bars.update(task, completed=index + 1)
    (folder / "truth.json").write_text(json.dumps(truths, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _bars() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn(),
        console=err, transient=True,
    )  # fmt: skip


@contextlib.contextmanager
def _one_line_failures() -> Iterator[None]:
    """Bad input is said in one line per fault, without a traceback."""
    try:
        yield
    except Problem as problem:
        complain_of(problem)
        raise typer.Exit(BAD_INPUT) from problem
    except (OSError, ValueError) as failure:
        said = str(failure)
        if isinstance(failure, OSError) and failure.filename:
            said = f"{failure.strerror}: {failure.filename}"
        complain(said)
        raise typer.Exit(BAD_INPUT) from failure
