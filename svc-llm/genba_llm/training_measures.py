"""Recipes that measure the line's models and act on it: calibrate the champion, evaluate a version, retrain the champion."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from genba_llm.refused import Refused
from genba_llm.training_so8t import MODEL_NAME, FileName, ShardKey, So8tParams, read_all_rows, so8t
from genba_shared.problems import Conflict
from genba_shared.recipe import Champion, Gate, Params, Recipe, Registration, Result, Run

if TYPE_CHECKING:
    from genba_llm.evaluation import Answered
    from genba_llm.sft_rows import Row

_TOLERANCE = 0.01


class HeldOutParams(Params):
    """Rows that the champion was not trained on."""

    shards: list[ShardKey] = Field(default_factory=list, max_length=100_000)
    files: list[FileName] = Field(default_factory=list, max_length=1000)
    held_out_share: Annotated[
        float,
        Field(gt=0.0, le=1.0, description="Share of the rows that the training held out; 1 for rows it never had."),
    ] = 1.0
    max_tokens: Annotated[int, Field(ge=8, le=131_072)] = 256
    max_bad_rows: Annotated[int, Field(ge=0)] = 100


class CalibrateParams(HeldOutParams):
    """Rows that the champion was not trained on, and what becomes of the calibrated version."""

    promote: Literal["when_gates_pass", "never"] = "when_gates_pass"


def calibrate(params: CalibrateParams, run: Run) -> Result:
    """Fit one temperature on half of the held-out rows; a version with it if the other half becomes likelier."""
    from genba_llm import calibration, lineage
    from genba_llm.base_model import load_base, load_tokenizer
    from genba_llm.so8t_bundle import BUNDLE, CALIBRATION, MODEL

    champion = _champion(run)
    bundle = Path(shutil.copytree(champion.folder, run.workdir / "bundle"))
    try:
        rows = _held_out(params, run)
        tokenizer = load_tokenizer(bundle / MODEL)
        data = _measured(rows, tokenizer, params.max_tokens)
        run.progress(0.2, f"reading {len(rows)} rows")
        found = calibration.calibrate(load_base(bundle / MODEL), data, batch_size=8)
    except Refused as err:
        raise Conflict(str(err)) from err
    found.save(bundle)
    lineage.extend(bundle, "calibration", [CALIBRATION])
    metrics = {
        "temperature": found.temperature,
        "temperature_grid": found.temperature_grid,
        "calibrated_loss": found.loss_after,
        "uncalibrated_loss": found.loss_before,
        "calibrated_ece": found.ece_after,
        "uncalibrated_ece": found.ece_before,
    }
    document = json.loads((bundle / BUNDLE).read_text("utf-8"))
    known = {**document.get("metrics", {}), **metrics}
    (bundle / BUNDLE).write_text(json.dumps({**document, "metrics": known}, indent=2, ensure_ascii=False), "utf-8")
    registration = Registration(
        MODEL_NAME,
        bundle,
        known,
        data_hash=str(document.get("data_hash", "")),
        gates=(Gate("calibrated_loss", at_most=found.loss_before + 1e-6),),
        champion_metrics={"calibrated_loss": found.loss_before},
        promote=params.promote,
    )
    return Result(value={"calibrated": f"{MODEL_NAME}@{champion.number}"}, metrics=metrics, register=registration)


class EvaluateParams(HeldOutParams):
    """Rows that the champion was not trained on, and what it is compared with."""

    most_rows: Annotated[int, Field(ge=30, le=100_000)] = 400
    base: Annotated[
        str | None, Field(max_length=400, description="Folder of the base model on the worker, to be compared with.")
    ] = None
    quantised: bool = Field(default=True, description="Compare with the model as its Q8_0 GGUF holds it.")


def evaluate(params: EvaluateParams, run: Run) -> Result:
    """Decisions and answers of the champion by domain and family, beside its base and its quantised self. Changes nothing."""
    from genba_llm.base_model import load_base, load_tokenizer
    from genba_llm.gguf_export import as_q8_0
    from genba_llm.line_settings import LineSettings
    from genba_llm.so8t_bundle import MODEL

    champion = _champion(run)
    try:
        rows = _held_out(params, run)[: params.most_rows]
        tokenizer = load_tokenizer(champion.folder / MODEL)
        tuned = load_base(champion.folder / MODEL)
        compared: dict[str, tuple[Any, Any]] = {"tuned": (tuned, tokenizer)}
        if params.base is not None:
            folder = LineSettings().model_folder(params.base)
            compared["base"] = (load_base(folder), load_tokenizer(folder))
        found: dict[str, dict[str, float]] = {}
        for name, (model, reads) in compared.items():
            found[name], answers = _measure(rows, model, reads, params.max_tokens, run)
            if name == "tuned":
                details = _details(answers)
        if params.quantised:
            found["quantised"], _ = _measure(rows, as_q8_0(tuned), tokenizer, params.max_tokens, run)
    except Refused as err:
        raise Conflict(str(err)) from err
    path = run.workdir / "report.md"
    path.write_text(report(f"{MODEL_NAME}@{champion.number}", len(rows), found, details), "utf-8")
    value = {"version": champion.number, "rows": len(rows), "compared": found, **details}
    return Result(value=value, metrics=found["tuned"], artifacts={"report.md": path})


def _details(answers: Sequence[Answered]) -> dict[str, Any]:
    from genba_llm import evaluation

    return {
        "by_domain": evaluation.grouped(answers, lambda row: row.domain),
        "by_family": evaluation.grouped(answers, evaluation.family_of),
        "trivial": evaluation.trivial(answers),
        "too_few_rows": evaluation.too_few(answers),
    }


def _measure(
    rows: Sequence[Row], model: Any, tokenizer: Any, max_tokens: int, run: Run
) -> tuple[dict[str, float], list[Answered]]:
    """Finite figures of one model, and its answers."""
    from genba_llm import evaluation
    from genba_llm.pet import PHASES
    from genba_llm.so8t_line import measure

    data = _measured(rows, tokenizer, max_tokens)
    answers = evaluation.answer_rows(
        model, tokenizer, rows, step=lambda done: run.progress(0.9 * done / len(rows), f"{done} rows answered")
    )
    reached = measure(model, tokenizer, data, batch_size=8)
    pet = evaluation.pet_of(model, data, batch_size=8)
    weighted = PHASES[-1][1] * pet
    found = {**evaluation.scores(answers), **reached, "pet": pet, "pet_share": weighted / (weighted + reached["loss"])}
    return {name: value for name, value in found.items() if math.isfinite(value)}, answers


def report(title: str, n_rows: int, found: dict[str, dict[str, float]], details: dict[str, Any]) -> str:
    """Markdown for people: the models side by side, then the champion by domain and family."""
    names = sorted({name for scores in found.values() for name in scores})
    lines = [f"# Evaluation of {title}", "", f"{n_rows} rows.", "", "| | " + " | ".join(found) + " |"]
    lines.append("|---|" + "---:|" * len(found))
    for name in names:
        cells = [f"{scores[name]:.4f}" if name in scores else "–" for scores in found.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for name, share in details["trivial"].items():
        lines.append(f"| {name} | {share:.4f} |" + " |" * (len(found) - 1))
    for heading in ("by_domain", "by_family"):
        lines += [
            "",
            f"## {heading.replace('_', ' ').capitalize()}",
            "",
            "| | rows | decision | final |",
            "|---|---:|---:|---:|",
        ]
        for name, part in details[heading].items():
            lines.append(
                f"| {name} | {part['rows']:.0f} | {part['decision_accuracy']:.3f} | {part['final_accuracy']:.3f} |"
            )
    if details["too_few_rows"]:
        lines += ["", f"Too few rows to say anything of: {', '.join(details['too_few_rows'])}."]
    return "\n".join(lines) + "\n"


class RetrainParams(So8tParams):
    """As ``llm.so8t``, from the champion; rows with their thinking stand for their question."""

    base: Literal["champion"] = "champion"
    prefer_thinking: bool = True
    most_rows: Annotated[int, Field(ge=30, le=100_000, description="Held-out rows that both models answer.")] = 200


def retrain(params: RetrainParams, run: Run) -> Result:
    """Evaluate the champion, train it further, and promote only what decides no worse and lets no more through."""
    from genba_llm.base_model import load_base, load_tokenizer
    from genba_llm.finetune_config import config_of
    from genba_llm.line_data import is_held_out
    from genba_llm.so8t_bundle import MODEL

    champion = _champion(run)
    given = So8tParams(**params.model_dump(exclude={"most_rows"}))
    made = so8t(given, run)
    if made.register is None:
        return made
    config = config_of(params.config)
    rows = read_all_rows(given.shards, given.files, run, config.max_bad_rows, prefer_thinking=params.prefer_thinking)
    held = [row for row in rows if is_held_out(row, config.validation_share)][: params.most_rows]
    scored = {}
    for name, folder in (("before", champion.folder / MODEL), ("after", made.register.bundle / MODEL)):
        scored[name], _ = _measure(held, load_base(folder), load_tokenizer(folder), config.max_tokens, run)
    before, after = scored["before"], scored["after"]
    gates = [*made.register.gates, Gate("macro_f1", at_least=before["macro_f1"] - _TOLERANCE)]
    shares = [name for name in ("false_allow_rate", "over_refusal_rate") if name in before and name in after]
    gates += [Gate(name, at_most=before[name] + _TOLERANCE) for name in shares]
    registration = Registration(
        made.register.model,
        made.register.bundle,
        {**after, **made.register.metrics},
        data_hash=made.register.data_hash,
        gates=tuple(gates),
        champion_metrics=made.register.champion_metrics,
        promote=params.promote,
    )
    value = {**made.value, "champion": champion.number, "held_out_rows": len(held), "before": before, "after": after}
    return Result(value=value, metrics=registration.metrics, artifacts=made.artifacts, register=registration)


def _champion(run: Run) -> Champion:
    found = run.champion(MODEL_NAME)
    if found is None:
        raise Conflict(f"There is no champion of {MODEL_NAME}.")
    return found


def _held_out(params: HeldOutParams, run: Run) -> list[Row]:
    """The rows of the params that the training held out, in their order. Raises: Conflict when there is none."""
    from genba_llm.line_data import is_held_out

    rows = read_all_rows(params.shards, params.files, run, params.max_bad_rows, prefer_thinking=False)
    held = [row for row in rows if is_held_out(row, params.held_out_share)]
    if not held:
        raise Conflict(f"None of {len(rows)} rows is held out; give rows, or a larger held_out_share.")
    return held


def _measured(rows: Sequence[Row], tokenizer: Any, max_tokens: int) -> Any:
    from genba_llm.finetune_config import config_of
    from genba_llm.line_data import as_validation

    return as_validation(rows, tokenizer, config_of({"preset": "tiny", "max_tokens": max_tokens}))


MEASURE_RECIPES: dict[str, Recipe[Any]] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "llm.calibrate",
            CalibrateParams,
            calibrate,
            summary="Fit the champion's temperature on held-out rows.",
            queue="gpu",
            scope="llm:write",
            time_limit_s=6 * 3600.0,
        ),
        Recipe(
            "llm.evaluate",
            EvaluateParams,
            evaluate,
            summary="Measure the champion by domain, beside its base and its quantised self.",
            queue="gpu",
            scope="llm:write",
            time_limit_s=24 * 3600.0,
        ),
        Recipe(
            "llm.retrain",
            RetrainParams,
            retrain,
            summary="Evaluate the champion, train it further, promote what is no worse.",
            queue="gpu",
            scope="llm:write",
            time_limit_s=7 * 24 * 3600.0,
            max_running=1,
        ),
    )
}
