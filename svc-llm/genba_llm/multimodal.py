"""Rows about pictures: a rendered document, what stands on it, its safety level, and what may be answered of it.

The level decides: what is public or internal is summed up, what is confidential goes to a person, what is secret is denied.
The row holds the picture's text as its input, so that a model that reads text alone can learn it, and whoever reads pictures
finds the picture by its key.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from genba_llm.data_line import Collected, Tally
from genba_llm.pictures import KINDS, LEVELS, LevelName, Picture, PictureKind, draw
from genba_llm.policy_state import default_identities, default_policy
from genba_llm.sft_rows import DecisionName, Row
from genba_llm.shards import ShardWriter
from genba_llm.synthesise import decided_row
from genba_llm.verdict import Domain, Language

if TYPE_CHECKING:
    from genba_shared.recipe import Run

DECIDED: Final[dict[LevelName, DecisionName]] = {
    "public": "ALLOW",
    "internal": "ALLOW",
    "confidential": "ESCALATE",
    "secret": "DENY",
}
_ASKED: Final[dict[Language, tuple[str, ...]]] = {
    "ja": (
        "この{kind}の内容を教えてください。",
        "この{kind}を要約してください。",
        "この{kind}の数値を読み上げてください。",
    ),
    "en": ("What does this {kind} say?", "Sum up this {kind}.", "Read out the figures of this {kind}."),
}
_NAMES: Final[dict[Language, dict[PictureKind, str]]] = {
    "ja": {"chart": "グラフ", "contract": "契約書", "report": "報告書"},
    "en": {"chart": "chart", "contract": "contract", "report": "report"},
}
_PER_SHARD = 256


@dataclass(frozen=True)
class Drawn:
    """``rows``: shards to train on, as ``llm.validate`` takes them. ``pictures``: shards of records with keys, boxes, levels."""

    rows: Collected
    pictures: list[str]


def row_of(picture: Picture, domain: Domain, rng: random.Random) -> Row:
    """What is asked of a picture, and what may be answered."""
    decision, language = DECIDED[picture.level], picture.language
    name = _NAMES[language][picture.kind]
    about = f"{name}「{picture.about}」" if language == "ja" else f"the {name} on {picture.about}"
    which = rng.randrange(len(_ASKED[language]))
    question = _ASKED[language][which].format(kind=name)
    lines = [line.text for line in picture.lines]
    said = (lines, lines[:3], [line for line in lines if any(map(str.isdigit, line))])[which]
    final = "\n".join([f"{about}:", *said])
    identity, policy = default_identities()[domain], default_policy()
    return decided_row(
        question, decision, final, domain, language, identity=identity, policy=policy, given=picture.ocr_text
    )


def multimodal(
    domains: Sequence[Domain], kinds: Sequence[PictureKind], run: Run, *, n: int, seed: int, per_shard: int = _PER_SHARD
) -> Drawn:
    """``n`` pictures with their rows, kinds, levels and domains in turn; picture ``i`` depends on the seed and ``i`` alone.

    Resumes after the last stored shard. Raises: NoFont.
    """
    saved = run.checkpoint.load()
    state: dict[str, Any] = (
        saved.state if saved else {"done": 0, "rows": [], "pictures": [], "tally": Tally().as_json()}
    )
    tally = Tally.from_json(state["tally"])
    rows = ShardWriter(run.artifacts, run.workdir, list(state["rows"]), per_shard + 1)
    records = ShardWriter(run.artifacts, run.workdir, list(state["pictures"]), per_shard + 1)
    for start in range(int(state["done"]), n, per_shard):
        end = min(n, start + per_shard)
        for index in range(start, end):
            picture, row = _one(index, domains, kinds, seed)
            tally.n_read += 1
            tally.keep(row)
            rows.add(row.model_dump())
            records.add(_record(picture, row, _store(picture, index, run)))
            run.progress(0.99 * (index + 1) / n, f"{index + 1} pictures")
        rows.flush()
        records.flush()
        state = {"done": end, "rows": rows.keys, "pictures": records.keys, "tally": tally.as_json()}
        run.checkpoint.save(state)
    return Drawn(Collected(rows.keys, tally), records.keys)


def _one(index: int, domains: Sequence[Domain], kinds: Sequence[PictureKind], seed: int) -> tuple[Picture, Row]:
    rng = random.Random(f"{seed}/picture/{index}")  # noqa: S311 - sampling, no secret
    kind = kinds[index % len(kinds)]
    level = LEVELS[index // len(kinds) % len(LEVELS)]
    domain = domains[index // (len(kinds) * len(LEVELS)) % len(domains)]
    language: Language = "ja" if rng.random() < 0.75 else "en"
    picture = draw(kind, domain, level, language, rng)
    return picture, row_of(picture, domain, rng)


def _store(picture: Picture, index: int, run: Run) -> str:
    path = run.workdir / f"picture-{index:08d}.png"
    path.write_bytes(picture.png)
    key = run.artifacts.put(path, suffix=".png")
    path.unlink()
    return key


def _record(picture: Picture, row: Row, key: str) -> dict[str, Any]:
    return {
        "image": key,
        "kind": picture.kind,
        "level": picture.level,
        "language": picture.language,
        "domain": row.domain,
        "decision": row.decision,
        "ocr_text": picture.ocr_text,
        "lines": [{"text": line.text, "box": list(line.box)} for line in picture.lines],
        "licence": row.licence,
    }


__all__ = ["DECIDED", "KINDS", "Drawn", "multimodal", "row_of"]
