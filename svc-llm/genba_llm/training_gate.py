"""``llm.gate_classifier``: train the gate's classifier and its fusion, compare them with what serves, hand them over.

The rows are the project's generator's and, where they are given, a company's own. A version must not be worse than the one
that ships, nor than the champion, on rows that neither saw: those that the company's rows hold out, and the generator's
with another seed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from genba_llm.build_champion import build, split_by_subject, training_rows
from genba_llm.classifier import BadClassifier, Classifier, champion
from genba_llm.classifier_fit import Row
from genba_llm.compositions import Amounts as LongAmounts
from genba_llm.compositions import compose
from genba_llm.contrast import Recipe as Amounts
from genba_llm.contrast import generate
from genba_llm.fusion import Fusion, Signals, default_fusion, load_fusion, signals_of
from genba_llm.gate_metrics import auroc, expected_calibration_error, gated
from genba_llm.line_settings import LineSettings
from genba_llm.normalise import language_of, normalise
from genba_llm.verdict import Decision
from genba_shared.patterns import pattern
from genba_shared.problems import Conflict, Invalid, NotFound
from genba_shared.recipe import Gate, Params, Recipe, Registration, Result, Run

MODEL = "llm.gate_classifier"
MOST_ROWS = 500_000
_HELD_SHARE = 0.2
_EVALUATED_ROWS = 1200
_TOLERANCE = 0.01

RowsKey = Annotated[
    str,
    Field(
        pattern=pattern(
            r"^[0-9a-f]{2}/[0-9a-f]{64}(\.[a-z0-9]{1,8})?$",
            "must be an artifact's key: two hex digits, a slash, 64 hex digits and perhaps a suffix",
        )
    ),
]
RowsFile = Annotated[
    str,
    Field(
        pattern=pattern(
            r"^[\w][\w.-]{0,120}$", "must be the name of a file in GENBA_LLM_LINE_DATA_DIR, without a folder"
        )
    ),
]


class GateClassifierParams(Params):
    """Where the company's own rows lie, if there are any: an uploaded artifact, or a file in the folder of corpora.

    One JSON object a line: ``text`` (or ``instruction`` and ``input``) and ``decision``; ``subject`` keeps what belongs
    together on one side of the split.
    """

    rows_key: RowsKey | None = None
    rows_file: RowsFile | None = None
    own_rows_count: Annotated[float, Field(gt=0, le=100)] = 3.0
    amount: Annotated[float, Field(gt=0, le=1)] = 1.0
    promote: Literal["when_gates_pass", "never"] = "when_gates_pass"


def gate_classifier(params: GateClassifierParams, run: Run) -> Result:
    """Train, calibrate, evaluate against champion and shipped version, register."""
    own = own_rows(params.rows_key, params.rows_file, run)
    kept, held = split_by_subject(own, share=_HELD_SHARE, seed=run.seed)
    weighted = [replace(row, weight=params.own_rows_count) for row in kept]
    run.note(f"{len(own)} rows of your own: {len(kept)} to train on, {len(held)} held out.")
    generated = training_rows(run.seed % 10_000)
    wanted = max(2000, int(params.amount * len(generated)))
    rows = generated[:wanted] + weighted
    run.progress(0.1, f"training on {len(rows)} rows")
    try:
        made = build(rows, name="gate", seed=run.seed % 10_000, step=_stepper(run))
    except ValueError as error:
        raise Conflict(f"The gate cannot be trained on these rows: {error}") from error
    run.progress(0.8, "evaluating")
    test = evaluation_rows(held, run.seed)
    metrics = evaluate(test, made.classifier, made.fusion)
    shipped = evaluate(test, champion(), default_fusion())
    bundle = run.workdir / "bundle"
    made.save(bundle, metrics=metrics, own_rows=len(own), seed=run.seed)
    registration = Registration(
        MODEL,
        bundle,
        metrics,
        data_hash=made.data_hash,
        gates=_gates(shipped),
        champion_metrics=_champion_metrics(run, test),
        promote=params.promote,
    )
    value = {
        "version": made.classifier.version,
        "rows": made.rows,
        "own_rows": len(own),
        "allow_from": made.fusion.allow_from,
    }
    return Result(value={**value, "shipped": shipped}, metrics=metrics, register=registration)


def evaluate(rows: Sequence[Row], classifier: Classifier, fusion: Fusion) -> dict[str, float]:
    """The measures of a classifier and its fusion together, as the gate would decide."""
    return measures(rows, signals_on(rows, classifier), fusion)


def signals_on(rows: Sequence[Row], classifier: Classifier) -> list[Signals]:
    """What the classifier says of each row: nearly all the work, and the same for every fusion."""
    return [signals_of(normalise(row.text), classifier) for row in rows]


def measures(rows: Sequence[Row], signals: Sequence[Signals], fusion: Fusion) -> dict[str, float]:
    """The measures of what a fusion makes of the rows' signals."""
    fused = [fusion.decide(each) for each in signals]
    truth = np.array([int(row.decision) for row in rows], np.int64)
    decided = np.array([int(each.decision) for each in fused], np.int64)
    danger = np.array([1.0 - float(each.probs[Decision.ALLOW]) for each in fused])
    confidence = np.maximum(danger, 1.0 - danger)
    right = (danger >= 0.5) == (truth > 0)
    found = gated(truth, decided)
    return {
        "macro_f1": found.macro_f1,
        "refuse_recall": found.refuse_recall,
        "recall": found.recall,
        "false_allow_rate": found.false_allow_rate,
        "over_refusal_rate": found.over_refusal_rate,
        "balanced_accuracy": found.balanced_accuracy,
        "auroc": auroc(truth > 0, danger),
        "expected_calibration_error": expected_calibration_error(right, confidence),
    }


def rows_of(lines: Iterable[str]) -> list[Row]:
    """The labelled rows of a JSONL file. Raises: Invalid naming the lines that are wrong, never quoting them."""
    rows: list[Row] = []
    wrong: list[int] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if len(rows) >= MOST_ROWS:
            raise Invalid(f"More than {MOST_ROWS} rows.")
        try:
            rows.append(_row(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError):
            wrong.append(number)
            if len(wrong) == 20:
                break
    if wrong:
        raise Invalid(
            f"Lines {', '.join(map(str, wrong))} are no rows: each needs text (or instruction) and a decision."
        )
    return rows


def load_model(folder: Path, version: str) -> tuple[Classifier, Fusion]:
    """What a registered bundle holds, for ``Gate.use``. Raises: BadClassifier."""
    try:
        return Classifier.load(folder, version=version), load_fusion(folder)
    except (ValueError, KeyError, TypeError) as error:
        raise BadClassifier(f"{folder.name}: {error}") from error


def _row(found: Mapping[str, Any]) -> Row:
    text = found.get("text") or "\n".join(filter(None, (found["instruction"], found.get("input"))))
    if not isinstance(text, str) or not text.strip():
        raise ValueError("no text")
    decision = Decision.parse(str(found["decision"]))
    subject = str(found.get("subject") or text)
    return Row(
        text[:20_000],
        decision,
        str(found.get("source", "own")),
        "own",
        subject,
        str(found.get("language") or language_of(text)),
    )


def own_rows(rows_key: str | None, rows_file: str | None, run: Run) -> list[Row]:
    """The company's rows from where the parameters say; none where they say nothing. Raises: Invalid, NotFound."""
    if rows_key and rows_file:
        raise Invalid("Give rows_key or rows_file, not both.")
    if rows_key:
        try:
            path = run.artifacts.local_path(rows_key)
        except NotFound as error:
            raise NotFound("The uploaded rows are not there; upload them again.") from error
    elif rows_file:
        path = LineSettings().data_file(rows_file)
    else:
        return []
    with path.open(encoding="utf-8", errors="replace") as file:
        return rows_of(file)


def evaluation_rows(held: Sequence[Row], seed: int) -> list[Row]:
    """The company's held-out rows and the generators' of another seed, short and long, at most ``_EVALUATED_ROWS`` of each."""
    rng = random.Random(seed)  # noqa: S311  # a sample, no secret
    small = Amounts(2, 2, 1, 1, 2, 2, 800, 60)
    fresh, long = generate(seed % 10_000 + 10_000, small), compose(seed % 10_000 + 10_000, LongAmounts().scaled(0.1))
    return [row for part in (held, fresh, long) for row in rng.sample(list(part), min(len(part), _EVALUATED_ROWS))]


def _gates(shipped: Mapping[str, float]) -> tuple[Gate, ...]:
    """No worse than what ships by more than a hundredth, nor than the champion."""
    return (
        Gate("macro_f1", at_least=shipped["macro_f1"] - _TOLERANCE, not_below_champion_by=_TOLERANCE),
        Gate("auroc", at_least=shipped["auroc"] - _TOLERANCE, not_below_champion_by=_TOLERANCE),
        Gate("false_allow_rate", at_most=shipped["false_allow_rate"] + _TOLERANCE),
        Gate("over_refusal_rate", at_most=shipped["over_refusal_rate"] + _TOLERANCE),
    )


def _champion_metrics(run: Run, test: Sequence[Row]) -> dict[str, float] | None:
    found = run.champion(MODEL)
    if found is None:
        return None
    try:
        return evaluate(test, *load_model(found.folder, f"v{found.number}"))
    except BadClassifier as error:
        run.note(f"The champion cannot be evaluated: {error}", level="warning")
        return {}


def _stepper(run: Run) -> Callable[[int, float], None]:
    calls = 0

    def step(iteration: int, loss: float) -> None:
        nonlocal calls
        calls += 1
        if iteration % 5 == 0:
            run.log(calls, loss=loss)
        run.progress(min(0.1 + 0.0035 * calls, 0.79), "training")

    return step


GATE_RECIPES: dict[str, Recipe[Any]] = {
    MODEL: Recipe(
        MODEL,
        GateClassifierParams,
        gate_classifier,
        summary="Train the gate's classifier on generated rows and your own.",
        scope="llm:train",
        time_limit_s=2 * 3600.0,
        max_running=1,
    )
}
