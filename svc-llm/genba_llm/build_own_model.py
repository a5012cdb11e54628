"""Train the model that ships: ``python -m genba_llm.build_own_model [FOLDER]``. From the project's own generator, by the line.

Nothing is downloaded and no data set is read, so that what ships carries nobody else's licence, and anybody can make it
again. A part of the questions is never learnt: ``benchmarks/so8t_model.py`` asks those.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.numpy import load_file

from genba_llm import contrast
from genba_llm.finetune_config import FinetuneConfig, config_of
from genba_llm.live_model import OWN_MODEL
from genba_llm.sft_rows import Row
from genba_llm.small_phi3 import WEIGHTS, load_tensors, save_int8
from genba_llm.so8t_bundle import BUNDLE, MODEL, describe
from genba_llm.so8t_line import FreshShape, make_fresh_base, train_line
from genba_llm.synthesise import Mix, core_of, is_small_talk, synthesise, work_names
from genba_llm.verdict import DOMAINS
from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_shared.principal import Clearance, Principal
from genba_shared.recipe import Checkpoint, LocalReporter, Run
from genba_shared.settings import Platform
from genba_shared.torchvision import make_torchvision_importable

SEED: Final = 20260101
ROWS: Final = 72_000
HELD_SHARE: Final = 0.1
SHARES: Final = (0.80, 0.10, 0.10)  # the gate decides first: most of what reaches this model may be answered
# Sentences of documents answer where there are any; the model's own part is what it knows, and what it does not.
MIX: Final = Mix(work=0.55, unknown=0.35, talk=0.04, documents=0.06, own_words=0.75)
SHAPE: Final = FreshShape(vocab_size=4096, hidden_size=256, layers=4, heads=8, kv_heads=2)
CONFIG: Final = config_of(
    {
        "preset": "tiny",
        "max_tokens": 256,
        "batch_size": 8,
        "max_steps": 2400,
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


def held_wordings(n: int) -> list[Row]:
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


def train(rows: Sequence[Row], folder: Path, config: FinetuneConfig = CONFIG) -> Path:
    """The bundle of a model trained on ``rows``; ``folder`` keeps checkpoints, so that a killed training goes on."""
    torch.set_num_threads(1)  # sums in another order are other sums
    base = folder / "base"
    if not (base / "config.json").is_file():
        make_fresh_base(rows, SHAPE, base, max_tokens=config.max_tokens, seed=SEED)
    return train_line(rows, base, config, local_run(folder), device="cpu", gguf=["F16"]).folder


def ship(bundle: Path, folder: Path) -> None:
    """Write a bundle as it ships: matrices in int8, and only what serving reads."""
    (folder / MODEL).mkdir(parents=True, exist_ok=True)
    for name in _SHIPPED:
        shutil.copy(bundle / MODEL / name, folder / MODEL / name)
    tokenizer = folder / MODEL / "tokenizer.json"  # in one line: half the size, and no thousands of lines in a diff
    tokenizer.write_text(
        json.dumps(json.loads(tokenizer.read_text("utf-8")), ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8"
    )
    save_int8(load_file(bundle / MODEL / WEIGHTS), folder / MODEL / WEIGHTS)
    document = {**describe(bundle), "weights": "int8, a scale for each row"}
    (folder / BUNDLE).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")


def as_transformers(folder: Path) -> Any:
    """A model folder as it ships, in transformers and in single precision: to be measured, exported, trained on."""
    make_torchvision_importable()
    from transformers import Phi3Config, Phi3ForCausalLM

    model = Phi3ForCausalLM(Phi3Config.from_pretrained(folder, local_files_only=True))
    tensors = {name: torch.from_numpy(values) for name, values in load_tensors(folder).items()}
    model.load_state_dict(tensors, strict=False)  # the head is tied to the embedding
    return model.eval()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        ship(train(split(all_rows())[0], Path(name)), Path(sys.argv[1]) if len(sys.argv) > 1 else OWN_MODEL)
