"""Recipes of the SO8T line: collect, validate, fine-tune. ``training`` lists them; heavy libraries are loaded by what runs."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from genba_llm import lineage
from genba_llm.event_files import with_event_files
from genba_llm.finetune_config import config_of
from genba_llm.line_settings import LineSettings
from genba_llm.refused import Refused
from genba_llm.report_plots import bars
from genba_llm.so8t_bundle import MODEL
from genba_llm.synthesise import SHARES
from genba_llm.verdict import DOMAINS, Domain
from genba_shared.patterns import pattern
from genba_shared.problems import Conflict
from genba_shared.recipe import Gate, Params, Recipe, Registration, Result, Run

if TYPE_CHECKING:
    from genba_llm.so8t_line import Finished

MODEL_NAME = "llm.so8t"
ShardKey = Annotated[
    str,
    Field(pattern=pattern(r"^[0-9a-f]{2}/[0-9a-f]{64}\.jsonl(\.gz)?$", "must be a shard's key from a job's result")),
]
FileName = Annotated[str, Field(min_length=1, max_length=400)]


class CollectParams(Params):
    """Corpus files on the worker's disk."""

    files: Annotated[list[FileName], Field(min_length=1, max_length=10_000)]
    keep_from: Annotated[float, Field(ge=0.0, le=1.0)] = 0.7
    max_bad_rows: Annotated[int, Field(ge=0)] = 100


def collect(params: CollectParams, run: Run) -> Result:
    """Read, score and label documents; the kept ones lie in shards that the result names."""
    from genba_llm import data_line

    settings = LineSettings()
    paths = [settings.data_file(name) for name in params.files]
    try:
        collected = data_line.collect(paths, run, keep_from=params.keep_from, max_bad=params.max_bad_rows)
    except Refused as err:
        raise Conflict(str(err)) from err
    return _told("Collected documents", collected, run)


class SynthesiseParams(Params):
    """How many rows of which domains."""

    per_domain: Annotated[int, Field(ge=1, le=100_000)] = 25_000
    domains: list[Domain] = Field(default_factory=lambda: list(DOMAINS), min_length=1, max_length=len(DOMAINS))
    seed: Annotated[int, Field(ge=0)] = 0
    shares: Annotated[
        tuple[float, float, float],
        Field(description="Of rows that may be answered, that a person decides, and that are denied or refused."),
    ] = SHARES

    @field_validator("shares")
    @classmethod
    def _are_shares(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(value) < 0 or sum(value) <= 0:
            raise ValueError("must be shares, of which at least one is above 0")
        return value


def synthesise(params: SynthesiseParams, run: Run) -> Result:
    """Write rows from templates and contrast pairs. The same parameters give the same shards."""
    from genba_llm import data_line

    try:
        made = data_line.synthesise(
            params.domains, run, per_domain=params.per_domain, seed=params.seed, shares=params.shares
        )
    except Refused as err:
        raise Conflict(str(err)) from err
    return _told("Synthesised rows", made, run)


class ValidateParams(Params):
    """Shards of rows, and evaluation texts (a line each) that must not be learnt."""

    shards: Annotated[list[ShardKey], Field(min_length=1, max_length=100_000)]
    evaluation_files: list[FileName] = Field(default_factory=list, max_length=1000)
    max_bad_rows: Annotated[int, Field(ge=0)] = 100


def validate(params: ValidateParams, run: Run) -> Result:
    """Drop rows that do not match the schema, repeat another, or stand in an evaluation set; report the balance."""
    from genba_llm import data_line

    try:
        texts = [line for name in params.evaluation_files for line in _lines_of(name)]
        collected = data_line.validate(params.shards, run, evaluation=texts, max_bad=params.max_bad_rows)
    except Refused as err:
        raise Conflict(str(err)) from err
    return _told("Validated rows", collected, run)


def _lines_of(name: str) -> list[str]:
    try:
        lines = LineSettings().data_file(name).read_text("utf-8").splitlines()
    except UnicodeDecodeError as err:
        raise Conflict(f"{name} is no text in UTF-8: {err}") from err
    return [line for line in lines if line.strip()]


def _told(title: str, collected: Any, run: Run) -> Result:
    from genba_llm import data_line

    report, plots = run.workdir / "report.md", run.workdir / "report.svg"
    report.write_text(data_line.report(title, collected), "utf-8")
    plots.write_text(bars(title, data_line.counted(collected.tally)), "utf-8")
    if not collected.tally.n_kept:
        why = ", ".join(f"{name} {n}" for name, n in sorted(collected.tally.dropped.items()))
        said = f"Nothing was kept of {collected.tally.n_read} read" + (f" (dropped: {why})." if why else ".")
        run.note(said, level="warning")
    metrics = {"read": float(collected.tally.n_read), "kept": float(collected.tally.n_kept)}
    value = {"shards": collected.shards, "data_hash": collected.data_hash, "tally": collected.tally.as_json()}
    return Result(value=value, metrics=metrics, artifacts={"report.md": report, "report.svg": plots})


class MultimodalParams(Params):
    """How many pictures of what."""

    n: Annotated[int, Field(ge=1, le=100_000)] = 1200
    kinds: Annotated[list[Literal["chart", "contract", "report"]], Field(min_length=1, max_length=3)] = [  # noqa: RUF012 - pydantic copies it
        "chart",
        "contract",
        "report",
    ]
    domains: list[Domain] = Field(default_factory=lambda: list(DOMAINS), min_length=1, max_length=len(DOMAINS))
    seed: Annotated[int, Field(ge=0)] = 0


def draw_pictures(params: MultimodalParams, run: Run) -> Result:
    """Draw documents with their text and safety level, and write rows about them. The same parameters give the same shards."""
    if importlib.util.find_spec("PIL") is None:
        raise Conflict("This worker cannot draw: install genba[so8t] there.")
    from genba_llm.multimodal import multimodal

    try:
        drawn = multimodal(params.domains, params.kinds, run, n=params.n, seed=params.seed)
    except Refused as err:
        raise Conflict(str(err)) from err
    told = _told("Drawn documents", drawn.rows, run)
    return replace(told, value={**told.value, "pictures": drawn.pictures})


class FreshParams(Params):
    """The shape of a model that is made from nothing."""

    vocab_size: Annotated[int, Field(ge=512, le=200_064)] = 4096
    hidden_size: Annotated[int, Field(ge=64, le=4096, multiple_of=32)] = 128
    layers: Annotated[int, Field(ge=1, le=64)] = 4
    heads: Annotated[int, Field(ge=1, le=64)] = 4
    kv_heads: Annotated[int, Field(ge=1, le=64)] = 2

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> FreshParams:
        if self.hidden_size % (8 * self.heads):  # three quarters of a head are rotated, in pairs
            raise ValueError(f"hidden_size {self.hidden_size} must be {self.heads} heads of a multiple of 8 each")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")
        return self


class So8tParams(Params):
    """A fine-tuning. The rows come from shards of ``llm.validate`` or files on the worker; the base is a folder there, the
    champion, or made from nothing.
    """

    shards: list[ShardKey] = Field(default_factory=list, max_length=100_000)
    files: list[FileName] = Field(default_factory=list, max_length=1000)
    texts: list[ShardKey] = Field(
        default_factory=list,
        max_length=100_000,
        description="Shards of llm.collect, learnt as plain text beside the rows.",
    )
    base: Annotated[str, Field(max_length=400, description="fresh, champion, or a folder of base models.")] = "fresh"
    fresh: FreshParams = FreshParams()
    config: dict[str, Any] = Field(
        default_factory=lambda: {"preset": "tiny"},
        description="A preset and what differs from it, as in a YAML run file.",
    )
    gguf: list[Literal["F32", "F16", "Q8_0", "Q4_K_M", "Q6_K"]] = Field(default_factory=list)
    prefer_thinking: bool = False
    dry_run: bool = False
    promote: Literal["when_gates_pass", "never"] = "when_gates_pass"

    @field_validator("config")
    @classmethod
    def _describes_a_run(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            config_of(value)
        except ValidationError as err:
            wrong = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in err.errors())
            raise ValueError("; ".join(wrong)) from err
        return value


def so8t(params: So8tParams, run: Run) -> Result:
    """Fine-tune a model of the Phi-3 family with LoRA and rotations, burn it in, export it and register the bundle."""
    if importlib.util.find_spec("transformers") is None or importlib.util.find_spec("torch") is None:
        raise Conflict("This worker cannot fine-tune: install genba[so8t] there.")
    from genba_llm import so8t_line
    from genba_llm.base_model import check_base

    config = config_of(params.config)
    device, settings = _device(), LineSettings()
    processes = min(settings.processes, config.accumulation)  # micro-batches are what they share
    run, files = with_event_files(run, settings.tensorboard_dir)
    try:
        if params.base not in {"fresh", "champion"}:  # before a million rows are read
            check_base(settings.model_folder(params.base))
        rows, documents = _rows(params, run, config.max_bad_rows), _documents(params, run)
        base = _base(params, rows, documents, run, config.max_tokens)
        if params.dry_run:
            planned = so8t_line.plan(base, config, device=device, processes=processes)
            run.note(planned.table())
            return Result(value={"memory_plan": planned.table(), "trainable_parameters": planned.n_trainable})
        finished = so8t_line.train_line(
            rows, base, config, run, device=device, processes=processes, gguf=params.gguf, documents=documents
        )
    except Refused as err:
        raise Conflict(str(err)) from err
    finally:
        if files is not None:
            files.close()
    chain = [asdict(link) for link in lineage.read(finished.folder)]
    return Result(
        value={"data_hash": finished.data_hash, "lineage": chain},
        metrics=finished.metrics,
        register=_registration(finished, params, run, device),
    )


def _registration(finished: Finished, params: So8tParams, run: Run, device: str) -> Registration:
    """A version, which must beat the most frequent token and be no worse than the champion: on its own held-out rows, and on
    those that the champion knows.
    """
    from genba_llm import what_is_known
    from genba_llm.base_model import compute_dtype

    metrics, compared, gates = dict(finished.metrics), None, []
    if "token_accuracy" in metrics:
        gates.append(Gate("token_accuracy", at_least=metrics["token_accuracy_of_most_frequent"]))
    champion = run.champion(MODEL_NAME)
    if champion is not None:
        compared = _champion_on_the_same_rows(champion.folder, params, run)
        gates.append(Gate("log2_likelihood_per_byte", not_below_champion_by=0.0))
        config, known = config_of(params.config), what_is_known.known_rows(champion.folder)
        theirs = what_is_known.likelihood_of_known(champion.folder / MODEL, known, config)
        ours = what_is_known.likelihood_of_known(
            finished.folder / MODEL, known, config, dtype=compute_dtype(device, config), device=device
        )
        if theirs is not None and ours is not None:
            metrics[what_is_known.METRIC], compared[what_is_known.METRIC] = ours, theirs
            gates.append(Gate(what_is_known.METRIC, not_below_champion_by=what_is_known.TOLERANCE))
            if ours < theirs - what_is_known.TOLERANCE:
                run.note(
                    f"It knows less of what version {champion.number} knows than that does ({ours:.3g} bits a byte, {theirs:.3g})"
                    " and will not take its place by itself. Whoever decides that it shall:"
                    " genba models promote --override-gates.",
                    level="warning",
                )
    return Registration(
        model=MODEL_NAME,
        bundle=finished.folder,
        metrics=metrics,
        data_hash=finished.data_hash,
        gates=tuple(gates),
        champion_metrics=compared,
        promote=params.promote,
    )


def _champion_on_the_same_rows(folder: Path, params: So8tParams, run: Run) -> dict[str, float]:
    """What the champion reaches on the same validation rows, with its own tokenizer."""
    from genba_llm import so8t_line
    from genba_llm.base_model import load_base, load_tokenizer
    from genba_llm.line_data import prepare

    config = config_of(params.config)
    tokenizer = load_tokenizer(folder / MODEL)
    prepared = prepare(_rows(params, run, config.max_bad_rows), tokenizer, config)
    reached: dict[str, float] = so8t_line.measure(
        load_base(folder / MODEL), tokenizer, prepared.data, batch_size=config.batch_size
    )
    return reached


def _rows(params: So8tParams, run: Run, max_bad: int) -> list[Any]:
    return read_all_rows(params.shards, params.files, run, max_bad, prefer_thinking=params.prefer_thinking)


def read_all_rows(shards: list[str], files: list[str], run: Run, max_bad: int, *, prefer_thinking: bool) -> list[Any]:
    """Rows of shards and files. With ``prefer_thinking`` those that carry their thinking stand for their question."""
    from genba_llm.sft_rows import BadRows, Row, read_rows
    from genba_llm.shards import read_shards

    settings, bad = LineSettings(), BadRows(limit=max_bad)
    rows = []
    for place, document in read_shards(run.artifacts, shards):
        try:
            rows.append(Row.model_validate(document))
        except ValidationError as err:
            bad.add(place, str(err.errors()[0]["msg"]))
    rows += list(read_rows([settings.data_file(name) for name in files], bad))
    if bad.n:
        run.note(
            f"{bad.n} rows do not match the schema and were skipped: {'; '.join(bad.reasons[:3])}", level="warning"
        )
    if prefer_thinking:
        best: dict[str, Any] = {}
        for row in rows:
            known = best.get(f"{row.instruction}\n{row.input}")
            if known is None or (row.has_thinking and not known.has_thinking):
                best[f"{row.instruction}\n{row.input}"] = row
        rows = list(best.values())
    return rows


def _documents(params: So8tParams, run: Run) -> list[str]:
    """The texts of collected shards."""
    from genba_llm.shards import read_shards

    return [str(document["text"]) for _, document in read_shards(run.artifacts, params.texts) if "text" in document]


def _base(params: So8tParams, rows: list[Any], documents: list[str], run: Run, max_tokens: int) -> Path:
    from genba_llm import so8t_line

    if params.base == "fresh":
        shape = so8t_line.FreshShape(**params.fresh.model_dump())
        folder = run.workdir / "base"
        return so8t_line.make_fresh_base(rows, shape, folder, max_tokens=max_tokens, seed=run.seed, documents=documents)
    if params.base == "champion":
        champion = run.champion(MODEL_NAME)
        if champion is None:
            raise Conflict(f"There is no champion of {MODEL_NAME} to train on.")
        return so8t_line.copy_base(champion.folder, run.workdir / "base")
    return LineSettings().model_folder(params.base)


def _device() -> str:
    import torch

    wanted = LineSettings().device
    return ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted


SO8T_RECIPES: dict[str, Recipe[Any]] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "llm.collect",
            CollectParams,
            collect,
            summary="Read and score corpora.",
            scope="llm:write",
            time_limit_s=24 * 3600.0,
        ),
        Recipe("llm.synthesise", SynthesiseParams, synthesise, summary="Write rows from templates.", scope="llm:write"),
        Recipe(
            "llm.multimodal",
            MultimodalParams,
            draw_pictures,
            summary="Draw documents with their text and safety level.",
            scope="llm:write",
        ),
        Recipe("llm.validate", ValidateParams, validate, summary="Check rows before training.", scope="llm:write"),
        Recipe(
            "llm.so8t",
            So8tParams,
            so8t,
            summary="Fine-tune with LoRA and SO8T, burn in, export, register.",
            queue="gpu",
            scope="llm:write",
            time_limit_s=7 * 24 * 3600.0,
            max_running=1,
        ),
    )
}
