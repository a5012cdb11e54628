"""``llm.gate_review`` and ``llm.gate_reasoner``: the same classifier with a fusion that people, or a language model, have a say in.

Both take the champion (or what ships), refit its fusion, and hand over a new version of ``llm.gate_classifier`` through gates
that keep the promised bound: of dangerous requests, at most ``alpha`` allowed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from genba_llm.build_champion import save_bundle
from genba_llm.classifier import CHAMPION, BadClassifier, Classifier
from genba_llm.classifier_fit import Row
from genba_llm.compositions import Amounts as LongAmounts
from genba_llm.compositions import compose
from genba_llm.contrast import Recipe as Amounts
from genba_llm.contrast import generate
from genba_llm.escalations import reviewed_of
from genba_llm.fusion import Fusion, load_fusion, signals_of
from genba_llm.gate import Gate as TheGate
from genba_llm.gate import Reasoner
from genba_llm.normalise import normalise
from genba_llm.reasoner_fit import Judged, fit_joined
from genba_llm.review import Refitted, Reviewed, refit
from genba_llm.settings import Settings
from genba_llm.tables import DecisionRow
from genba_llm.training_gate import MODEL, RowsFile, RowsKey, evaluation_rows, measures, own_rows, signals_on
from genba_shared import records
from genba_shared.db import utc_now
from genba_shared.problems import Conflict, Invalid
from genba_shared.recipe import Gate, Params, Recipe, Registration, Result, Run

_FALSE_ALLOW = "false_allow_rate"


class GateReviewParams(Params):
    """Which decisions count: those since a number of days."""

    days: Annotated[int, Field(ge=1, le=3650)] = 365
    promote: Literal["when_gates_pass", "never"] = "when_gates_pass"


class GateReasonerParams(Params):
    """Labelled rows of your own, as ``llm.gate_classifier`` takes them, or none: then generated ones. ``rows`` is how many are asked."""

    rows_key: RowsKey | None = None
    rows_file: RowsFile | None = None
    rows: Annotated[int, Field(ge=200, le=20_000)] = 600
    promote: Literal["when_gates_pass", "never"] = "when_gates_pass"


def gate_review(params: GateReviewParams, run: Run) -> Result:
    """Let what people decided set the gate's confidence and, within the bound, its threshold."""
    classifier, fusion, name = serving(run)
    since = utc_now() - timedelta(days=params.days)
    with run.database.read() as session:
        visible = records.visible(DecisionRow, run.principal)
        reviewed = reviewed_of(session, f"{name}+{fusion.version}", visible, since=since)
    run.note(f"{len(reviewed.allow)} decisions of people on {name}, {reviewed.spot_checks} of them spot checks.")
    run.progress(0.2, "fitting")
    try:
        found = refit(fusion, reviewed, version=f"{fusion.version}.review-{_digest(reviewed)}")
    except ValueError as error:
        raise Conflict(f"The gate cannot learn from people yet: {error}") from error
    run.progress(0.4, "evaluating")
    test = evaluation_rows([], run.seed)
    signals = signals_on(test, classifier)
    measured, before = measures(test, signals, found.fusion), measures(test, signals, fusion)
    metrics = {**measured, **_of_review(found)}
    gates = (
        Gate(_FALSE_ALLOW, at_most=_may_allow(before, fusion, lowered=found.threshold == "lowered")),
        Gate("review_loss", at_most=found.loss_before),
    )
    compared = {**before, "review_loss": found.loss_before} if run.champion(MODEL) else None
    value = {"version": found.fusion.version, **_of_review(found), "threshold": found.threshold}
    return _handed_over(run, classifier, found.fusion, metrics, gates, compared, value, params.promote)


def gate_reasoner(params: GateReasonerParams, run: Run, *, reasoner: Reasoner | None = None) -> Result:
    """Ask the configured language model about labelled rows, and fit what its answer is worth."""
    reasoner = reasoner or _configured(run)
    classifier, fusion, _ = serving(run)
    rows = labelled_rows(params, run)
    judged = _judged(rows, classifier, fusion, reasoner, run)
    try:
        found = fit_joined(judged, reasoner.version, alpha=fusion.alpha, least_allow=fusion.allow_from, seed=run.seed)
    except ValueError as error:
        raise Conflict(f"These rows do not say what the model is worth: {error}") from error
    digest = hashlib.sha256(f"{reasoner.version}\t{found.joined}".encode()).hexdigest()[:8]
    made = replace(fusion, joined=found.joined, version=f"{fusion.version}.with-{digest}")
    metrics = {
        "weight": found.joined.weight,
        "allow_from": found.joined.allow_from,
        "loss_alone": found.loss_alone,
        "loss_joined": found.loss_joined,
        _FALSE_ALLOW: found.false_allow_rate,
        "over_refusal_rate": found.over_refusal_rate,
        "over_refusal_rate_alone": found.over_refusal_rate_alone,
    }
    gates = (
        Gate("loss_joined", at_most=found.loss_alone + 1e-9),
        Gate(_FALSE_ALLOW, at_most=_upper(fusion.alpha, found.dangerous)),
    )
    compared = metrics if run.champion(MODEL) else None
    value = {"version": made.version, "reasoner": reasoner.version, "rows": len(rows), **asdict(found.joined)}
    return _handed_over(run, classifier, made, metrics, gates, compared, value, params.promote)


def serving(run: Run) -> tuple[Classifier, Fusion, str]:
    """The classifier and fusion that decide now, and the name under which decisions are on record."""
    found = run.champion(MODEL)
    folder = found.folder if found else CHAMPION
    try:
        classifier, fusion = Classifier.load(folder), load_fusion(folder)
    except (ValueError, KeyError, TypeError) as error:
        raise Conflict(f"The champion cannot be read: {error}") from BadClassifier(str(error))
    return classifier, fusion, f"gate@{found.number}" if found else classifier.version


def labelled_rows(params: GateReasonerParams, run: Run) -> list[Row]:
    """Own rows, or generated ones of subjects and seeds that training did not see, at most ``params.rows``."""
    found = own_rows(params.rows_key, params.rows_file, run)
    if not found:
        seed = run.seed % 10_000 + 20_000
        found = generate(seed, Amounts(2, 2, 1, 1, 2, 2, 800, 60)) + compose(seed, LongAmounts().scaled(0.1))
    rng = random.Random(run.seed)  # noqa: S311  # a sample, no secret
    return rng.sample(found, min(len(found), params.rows))


def _judged(rows: Sequence[Row], classifier: Classifier, fusion: Fusion, reasoner: Reasoner, run: Run) -> list[Judged]:
    judged: list[Judged] = []
    domain_of = TheGate().policy.domain_of
    for number, row in enumerate(rows):
        plain = normalise(row.text)
        alone = fusion.decide(signals_of(plain, classifier)).probs
        said = reasoner.probs(plain.prompt, domain=domain_of(plain.text), action="ask")
        judged.append(Judged(alone, said, row.decision))
        if number % 10 == 0:
            run.progress(0.05 + 0.85 * number / len(rows), f"asking the model: {number} of {len(rows)}")
    return judged


def _configured(run: Run) -> Reasoner:
    """The model that svc-llm's settings name. Raises: Invalid where they name none that can judge."""
    from genba_llm.backend_transformers import TransformersModel

    settings = Settings(platform=run.platform)
    if settings.backend_folder is None:
        raise Invalid("Set GENBA_LLM_BACKEND=transformers and GENBA_LLM_BACKEND_FOLDER for the workers, too.")
    try:
        return TransformersModel(settings.backend_folder, starts_hidden=settings.backend_starts_hidden).as_reasoner()
    except ValueError as error:
        raise Invalid(str(error)) from error


def _of_review(found: Refitted) -> dict[str, float]:
    return {
        "review_rows": float(found.rows),
        "review_spot_checks": float(found.spot_checks),
        "review_temperature": found.fusion.review_temperature,
        "review_loss": found.loss_after,
        "allow_from": found.fusion.allow_from,
    }


def _may_allow(before: dict[str, float], fusion: Fusion, *, lowered: bool) -> float:
    """On generated rows: no more than now, and where the threshold falls no more than the bound."""
    return max(before[_FALSE_ALLOW], fusion.alpha if lowered else 0.0)


def _upper(alpha: float, rows: int) -> float:
    """What a share of ``alpha`` may look like on so many rows: two standard errors more."""
    return float(alpha + 2 * (alpha * (1 - alpha) / max(rows, 1)) ** 0.5)


def _digest(reviewed: Reviewed) -> str:
    parts = (reviewed.allow, reviewed.allowed, reviewed.weight)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:8]


def _handed_over(
    run: Run,
    classifier: Classifier,
    fusion: Fusion,
    metrics: dict[str, float],
    gates: tuple[Gate, ...],
    champion_metrics: dict[str, float] | None,
    value: dict[str, Any],
    promote: Literal["when_gates_pass", "never"],
) -> Result:
    bundle: Path = run.workdir / "bundle"
    digest = hashlib.sha256(f"{classifier.version}\t{fusion.version}".encode()).hexdigest()
    save_bundle(bundle, classifier, fusion, data_hash=digest, metrics=metrics, refitted=value)
    registration = Registration(
        MODEL, bundle, metrics, data_hash=digest, gates=gates, champion_metrics=champion_metrics, promote=promote
    )
    return Result(value=value, metrics=metrics, register=registration)


REVIEW_RECIPES: dict[str, Recipe[Any]] = {
    "llm.gate_review": Recipe(
        "llm.gate_review",
        GateReviewParams,
        gate_review,
        summary="Let what people decided set the gate's confidence and threshold, within its bound.",
        scope="llm:train",
        time_limit_s=1800.0,
        max_running=1,
    ),
    "llm.gate_reasoner": Recipe(
        "llm.gate_reasoner",
        GateReasonerParams,
        gate_reasoner,
        summary="Fit how much the language model's judgement counts in the gate.",
        scope="llm:train",
        time_limit_s=4 * 3600.0,
        max_running=1,
    ),
}
