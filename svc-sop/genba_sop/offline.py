"""Score files against files, in this process, without a service or a database: what ``genba sop score`` does.

Knows nothing of terminals: it says how far it is through a callback and returns what a service would have answered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from genba_shared.problems import Invalid, Problem, fault
from genba_sop import reference as references
from genba_sop.authoring import AuthoredProcedure, gold_spans, parse, read_steps_file
from genba_sop.bundles import Thumbnails
from genba_sop.encoders import FrameEncoder
from genba_sop.evaluations import MODEL_VERSION, described, path_in_seconds
from genba_sop.procedure import Procedure, Span
from genba_sop.report import Page, Pictures, assemble, extra_of
from genba_sop.rows import moments_s
from genba_sop.schemas import EvaluationOut
from genba_sop.scoring import evaluate
from genba_sop.video import Extraction, extract

Progress = Callable[[str, float], None]  # what is being read, share done


@dataclass(frozen=True)
class Result:
    """An evaluation and the page of its report."""

    evaluation: EvaluationOut
    page: Page
    warnings: tuple[str, ...]


def score(
    *,
    steps_path: Path,
    golds: Sequence[Path],
    trainee: Path,
    encoder: FrameEncoder | None = None,
    progress: Progress | None = None,
) -> Result:
    """Score ``trainee``, by motion-hog-v1 unless another ``encoder`` is given.

    Without ``golds`` those that the steps file names are used, relative to it.

    Raises:  Problem that names the file or field; OSError for a file that cannot be read.
    """
    started_s = time.perf_counter()
    authored = read_steps_file(steps_path)
    procedure = parse(authored, procedure_id=steps_path.stem)
    paths = list(golds) or [steps_path.parent / gold.video for gold in authored.golds]
    marked = [_marks(authored, path, steps_path.parent) for path in paths]
    if not paths:
        raise Invalid(f"{steps_path.name} names no golds: give --gold.", errors=[{"field": "golds", "message": "none"}])
    seen = _extract(trainee, encoder, progress)
    runs = [(path, _extract(path, encoder, progress)) for path in paths]
    extracted_s = time.perf_counter()
    fitted = references.fit(
        procedure,
        [
            references.Gold(run.features, _spans(procedure, authored, index, run))
            for index, (_, run) in zip(marked, runs, strict=True)
        ],
    )
    fitted_s = time.perf_counter()
    found = evaluate(fitted, seen.features)
    done_s = time.perf_counter()
    shown = found.trace.gold_index
    names = _names([*(path for path, _ in runs), trainee])
    document = described(
        found,
        procedure,
        gold_video_id=names[shown],
        gold_spans=fitted.spans(shown),
        gold_duration_s=runs[shown][1].info.duration_s,
        level=0.9,
    ) | {
        "golds": [
            {"gold_id": name, "video_id": name, "vote": vote}
            for name, vote in zip(names, found.gold_votes, strict=False)
        ],
        "trainee_duration_s": seen.info.duration_s,
        "path_s": path_in_seconds(found, fitted, seen.features),
    }
    timings_ms = {
        "extract_ms": 1000 * (extracted_s - started_s),
        "trainee_extract_ms": seen.timings_ms["total_ms"],
        "reference_ms": 1000 * (fitted_s - extracted_s),
        "evaluate_ms": 1000 * (done_s - fitted_s),
    }
    evaluation = EvaluationOut.model_validate(
        {
            **document,
            "id": f"{steps_path.stem}-{trainee.stem}",
            "clearance": "internal",
            "created_at": datetime.now(UTC),
            "created_by": "genba sop score",
            "procedure_id": procedure.id,
            "procedure_version": procedure.version,
            "video_id": names[-1],
            "operator": None,
            "score": found.score,
            "verdict": found.verdict,
            "reviewed_verdict": None,
            "encoder": found.encoder,
            "model_version": MODEL_VERSION,
            "timings_ms": {name: round(value, 2) for name, value in timings_ms.items()},
        }
    )
    frames = dict(zip(names, [*(run for _, run in runs), seen], strict=True))
    page = assemble(evaluation, extra_of(document), reviews=(), pictures=Pictures(_loader(frames)))
    return Result(evaluation, page, fitted.warnings)


def _extract(path: Path, encoder: FrameEncoder | None, progress: Progress | None) -> Extraction:
    """The features of one file; a problem then names it."""
    try:
        return extract(
            path, encoder=encoder, progress=None if progress is None else lambda share: progress(path.name, share)
        )
    except Problem as problem:
        problem.detail = f"{path.name}: {problem.detail}"
        raise


def _marks(authored: AuthoredProcedure, path: Path, folder: Path) -> int | None:
    """Which of the steps file's golds speaks of this file; None when none does.

    Raises:  Invalid when only the name says which, and several have it.
    """
    if same := [i for i, gold in enumerate(authored.golds) if (folder / gold.video).resolve() == path.resolve()]:
        return same[0]
    named = [i for i, gold in enumerate(authored.golds) if Path(gold.video).name == path.name]
    if len(named) > 1:
        message = f"{len(named)} golds have the file name {path.name}, and none is {path}"
        raise Invalid(f"golds: {message}.", errors=[fault("golds", message)])
    return named[0] if named else None


def _spans(procedure: Procedure, authored: AuthoredProcedure, index: int | None, run: Extraction) -> tuple[Span, ...]:
    """Where the steps file puts the steps of this gold; nothing when it does not speak of it."""
    gold = None if index is None else authored.golds[index]
    if gold is None or not gold.steps:
        return ()
    return gold_spans(
        procedure,
        gold.steps,
        duration_s=run.info.duration_s,
        seen_s=moments_s(run.features),
        field=f"golds[{index}].steps",
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """File names, made different where two are equal."""
    names: list[str] = []
    for path in paths:
        name, count = path.name, 2
        while name in names:
            name, count = f"{path.name} ({count})", count + 1
        names.append(name)
    return names


def _loader(runs: Mapping[str, Extraction]) -> Callable[[str], Thumbnails | None]:
    def load(name: str) -> Thumbnails | None:
        run = runs.get(name)
        if run is None:
            return None
        times_s = np.array([each.time_s for each in run.thumbnails], np.float64)
        return Thumbnails(times_s, tuple(each.jpeg for each in run.thumbnails))

    return load
