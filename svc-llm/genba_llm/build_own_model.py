"""Make the model that ships: ``python -m genba_llm.build_own_model [FOLDER]``. From a seed and the project's own generator alone.

    rows ──► llm.so8t: tokenizer, random weights, training, safetensors ──► int8 ──┐
        └──► a reader of topics ───────────────────────────────────────────────────┴──► from where both are sure ──► lineage

Nothing is downloaded and no data set is read, so that what ships carries nobody else's licence, and anybody can make it
again: on one machine the same commit gives the same bytes. A part of the questions, and whole wordings, are never learnt;
``benchmarks/so8t_model.py`` asks those. What decides from where the model is sure, are held-out wordings.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.numpy import load_file

from genba_llm import contrast, lineage
from genba_llm.finetune_config import FinetuneConfig, config_of
from genba_llm.live_model import OWN_MODEL, OWN_NAME, load_bundle
from genba_llm.policy import Policy
from genba_llm.sft_rows import Row
from genba_llm.shards import ShardWriter
from genba_llm.small_phi3 import WEIGHTS, save_int8
from genba_llm.so8t_bundle import BUNDLE, MODEL, describe
from genba_llm.so8t_line import FreshShape
from genba_llm.sureness import fit_bound, read_alone, spoken_of, told_apart
from genba_llm.synthesise import Mix, core_of, is_small_talk, synthesise, topic_of, work_names
from genba_llm.topics import TOPICS, fit_topics
from genba_llm.training_so8t import MODEL_NAME, FreshParams, So8tParams, so8t
from genba_llm.verdict import DOMAINS
from genba_shared.artifacts import Artifacts
from genba_shared.bundles import code_commit
from genba_shared.db import Database
from genba_shared.principal import Clearance, Principal
from genba_shared.recipe import Checkpoint, LocalReporter, Run
from genba_shared.settings import Platform

SEED: Final = 20260101
ROWS: Final = 36_000
HELD_SHARE: Final = 0.1
HELD_WORDINGS: Final = 400
SHARES: Final = (0.80, 0.10, 0.10)  # the gate decides first: most of what reaches this model may be answered
# Sentences of documents answer where there are any; the model's own part is what it knows, and what it does not.
MIX: Final = Mix(work=0.56, unknown=0.32, talk=0.10, documents=0.02, own_words=0.75, other_forms=0.4, japanese=0.6)
SHAPE: Final = FreshShape(vocab_size=4096, hidden_size=256, layers=3, heads=8, kv_heads=2)
CONFIG: Final = config_of(
    {
        "preset": "tiny",
        "max_tokens": 256,
        "batch_size": 4,
        "max_steps": 1900,
        "token_splits": 0.1,
        "validation_share": 0.01,
        "checkpoint_every_s": 120.0,
    }
)
_SHIPPED: Final = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


class _Seldom(LocalReporter):
    """Says how far it is every hundred steps."""

    def metrics(self, step: int, values: Any) -> None:
        if step % 100 == 0:
            super().metrics(step, {name: values[name] for name in ("loss", "lr")})

    def progress(self, fraction: float, message: str) -> None:
        """Nothing: the steps are told."""


def all_rows(n: int = ROWS) -> list[Row]:
    """Learnt and held out, domain by domain; of each domain as many as it has pieces of work."""
    pieces = {domain: len(work_names(domain, "ja")) for domain in DOMAINS}
    return [
        row
        for domain in DOMAINS
        for row in synthesise(domain, n * pieces[domain] // sum(pieces.values()), seed=SEED, shares=SHARES, mix=MIX)
    ]


def taught_rows(n: int) -> list[Row]:
    """Rows as this model was taught, of its domains alike, drawn by another seed: what it knows."""
    return [
        row
        for domain in DOMAINS
        for row in synthesise(domain, n // len(DOMAINS), seed=SEED + 2, shares=SHARES, mix=MIX)
    ]


def held_wordings(n: int = HELD_WORDINGS) -> list[Row]:
    """Questions about what is learnt, and others that sound alike, in wordings of which no row to learn is made."""
    mix = replace(MIX, talk=0.0, documents=0.0, own_words=1.0, part="held")
    return list(synthesise("general", n, seed=SEED + 1, shares=(1.0, 0.0, 0.0), mix=mix))


def split(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Rows to learn, and rows whose core question none of those asks: another wording, or a thing that none mentions.

    Greetings are few and all learnt: held out, they would only not be known.
    """
    unheard = unheard_things()
    held = [
        (_is_held(core_of(row.instruction)) and not is_small_talk(row))
        or any(thing in row.instruction for thing in unheard)
        for row in rows
    ]
    return [r for r, h in zip(rows, held, strict=True) if not h], [r for r, h in zip(rows, held, strict=True) if h]


def unheard_things() -> list[str]:
    """Things that the model knows nothing of and that no row to learn mentions."""
    found = contrast.lexicon("synthesise")["unknown"]
    return [str(thing) for names in found.values() for thing in names if _is_held(thing, share=1 / 6)]


def _is_held(text: str, share: float = HELD_SHARE) -> bool:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32 < share


def local_run(folder: Path, *, seed: int = SEED) -> Run:
    """A run from a shell."""
    return Run(
        job_id="job_build",
        attempt=1,
        seed=seed,
        workdir=folder,
        checkpoint=Checkpoint(folder / "checkpoints"),
        principal=Principal("builder", ("admin",), frozenset({"*"}), Clearance.SECRET),
        platform=Platform(home=folder / "home"),
        database=Database(f"sqlite:///{folder / 'genba.db'}"),
        artifacts=Artifacts(str(folder / "artifacts")),
        reporter=_Seldom(sys.stderr),
    )


def train(rows: Sequence[Row], folder: Path, config: FinetuneConfig = CONFIG, shape: FreshShape = SHAPE) -> Path:
    """The bundle that the recipe ``llm.so8t`` makes of ``rows``; ``folder`` keeps checkpoints: a killed training goes on."""
    torch.set_num_threads(1)  # sums in another order are other sums
    run = replace(local_run(folder), compared={MODEL_NAME: None})  # a shell has no registry
    shards = ShardWriter(run.artifacts, folder)
    for row in rows:
        shards.add(row.model_dump())
    shards.flush()
    params = So8tParams(
        shards=shards.keys, base="fresh", fresh=FreshParams(**asdict(shape)), config=config.model_dump(mode="json")
    )
    made = so8t(params, run).register
    if made is None:
        raise AssertionError("The recipe registers what it trained.")
    return made.bundle


def ship(bundle: Path, folder: Path, *, rows: int) -> None:
    """Write a bundle as it ships: matrices in int8, only what serving reads, and how it was made of how many rows."""
    commit = code_commit()  # before the folder changes, which is part of the code
    (folder / MODEL).mkdir(parents=True, exist_ok=True)
    for name in _SHIPPED:
        shutil.copy(bundle / MODEL / name, folder / MODEL / name)
    tokenizer = folder / MODEL / "tokenizer.json"  # in one line: half the size, and no thousands of lines in a diff
    tokenizer.write_text(
        json.dumps(json.loads(tokenizer.read_text("utf-8")), ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8"
    )
    save_int8(load_file(bundle / MODEL / WEIGHTS), folder / MODEL / WEIGHTS)
    trained = describe(bundle)
    (folder / TOPICS).unlink(missing_ok=True)
    made = {
        "shipped": True,
        "name": OWN_NAME,
        "weights": "int8, a scale for each row",
        "code_commit": commit,
        "recipe": MODEL_NAME,
        "seed": SEED,
        "steps": trained["config"]["max_steps"],
        "rows": rows,
        "source": "genba_llm.synthesise",
    }
    _write(folder, {**trained, **made})


def add_reader(folder: Path, rows: Sequence[Row]) -> None:
    """Teach a reader all topics, note of which the model in ``folder`` can speak, and find from where both are sure."""
    plain = [row for row in rows if not row.input]  # what is not to be answered is about none, as what is not known
    topics = fit_topics([row.instruction for row in plain], [topic_of(row.output) for row in plain], seed=SEED)
    topics.save(folder / TOPICS)
    model, held = load_bundle(folder, OWN_NAME, Policy()), held_wordings()
    model.speaks_of = spoken_of(model, [name for domain in DOMAINS for name in work_names(domain, "ja")])
    model.topic_from = fit_bound(read_alone(model, held))
    answers = told_apart(model, held)
    sure_from = fit_bound(answers)
    document = describe(folder)
    counted = {f"held_wordings_{name}": share for name, share in answers.counted(sure_from).items()}
    learnt = {
        "speaks_of": model.speaks_of,
        "topic_from": model.topic_from,
        "sure_from": sure_from,
        "reader": {"code_commit": document["code_commit"], "rows": len(plain), "seed": SEED},
        "metrics": {**document["metrics"], **counted},
    }
    _write(folder, {**document, **learnt})
    lineage.begin(folder, data=document["data_hash"], base=document["base"])
    lineage.extend(folder, "weights", (f"{MODEL}/{name}" for name in (*_SHIPPED, WEIGHTS)))
    lineage.extend(folder, "topics", [TOPICS])


def _write(folder: Path, document: dict[str, Any]) -> None:
    (folder / BUNDLE).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")


def main() -> None:
    """The whole line, or the reader alone for the model that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=OWN_MODEL, help="where it is written")
    parser.add_argument("--reader", action="store_true", help="keep the model and teach its reader anew")
    given = parser.parse_args()
    learnt = split(all_rows())[0]
    if not given.reader:
        with tempfile.TemporaryDirectory() as name:
            ship(train(learnt, Path(name)), given.folder, rows=len(learnt))
    add_reader(given.folder, learnt)


if __name__ == "__main__":
    main()
