"""The data line as resumable steps: documents collected and scored, rows written from them, rows checked and reported.

Each step streams, holds a shard in memory at most, and gives the same bytes for the same input and seed.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from genba_llm import synthesise as templates
from genba_llm.corpus_quality import domain_of, quality
from genba_llm.corpus_readers import Document, read_documents
from genba_llm.duplicates import Seen
from genba_llm.sft_rows import BadRows, Row
from genba_llm.shards import ROWS_PER_SHARD, ShardWriter, batches, read_shards

if TYPE_CHECKING:
    from genba_llm.verdict import Domain
    from genba_shared.recipe import Run

_BATCH = 512


@dataclass
class Tally:
    """What became of what was read."""

    n_read: int = 0
    n_kept: int = 0
    by_domain: Counter[str] = field(default_factory=Counter)
    by_decision: Counter[str] = field(default_factory=Counter)
    by_licence: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    quality_deciles: list[int] = field(default_factory=lambda: [0] * 10)

    def keep(self, row: Row) -> None:
        """Count a row that stays."""
        self.n_kept += 1
        self.by_domain[row.domain] += 1
        self.by_decision[row.decision] += 1
        self.by_licence[row.licence] += 1

    def as_json(self) -> dict[str, Any]:
        """Plain values, sorted."""
        return {
            "n_read": self.n_read,
            "n_kept": self.n_kept,
            **{
                name: dict(sorted(getattr(self, name).items()))
                for name in ("by_domain", "by_decision", "by_licence", "dropped")
            },
            "quality_deciles": self.quality_deciles,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Tally:
        """What ``as_json`` gave."""
        counters = {name: Counter(document[name]) for name in ("by_domain", "by_decision", "by_licence", "dropped")}
        return cls(
            document["n_read"], document["n_kept"], **counters, quality_deciles=list(document["quality_deciles"])
        )


@dataclass(frozen=True)
class Collected:
    """The shards of a step, and the tally."""

    shards: list[str]
    tally: Tally

    @property
    def data_hash(self) -> str:
        """SHA-256 over the shards' keys, which are the hashes of their bytes."""
        return hashlib.sha256("\n".join(self.shards).encode()).hexdigest()


def collect(
    paths: Sequence[Path], run: Run, *, keep_from: float, max_bad: int = 0, rows_per_shard: int = ROWS_PER_SHARD
) -> Collected:
    """Documents of corpus files with their quality, domain, licence and robots; those below ``keep_from`` are dropped.

    Resumes from its checkpoint after the last stored shard.

    Raises: Unreadable (a ValueError) naming the file; TooManyBadRows above ``max_bad`` lines that hold no document.
    """
    saved = run.checkpoint.load()
    state: dict[str, Any] = (
        saved.state if saved else {"file": 0, "document": 0, "shards": [], "tally": Tally().as_json(), "bad": 0}
    )
    tally = Tally.from_json(state["tally"])
    writer = ShardWriter(run.artifacts, run.workdir, list(state["shards"]), rows_per_shard)
    bad = BadRows(max_bad, int(state.get("bad", 0)))
    for index in range(int(state["file"]), len(paths)):
        done, bad_before = (
            int(state["document"]) if index == state["file"] else 0,
            bad.n,
        )  # a file is read from its start
        for batch in batches(itertools.islice(read_documents(paths[index], bad=bad.add), done, None), _BATCH):
            filled = _keep(batch, writer, tally, keep_from)
            done += len(batch)
            if filled:  # what the batch left over goes into a short shard, so that the position is exact
                writer.flush()
                at = {"file": index, "document": done, "bad": bad_before}
                run.checkpoint.save({**at, "shards": writer.keys, "tally": tally.as_json()})
            run.progress(0.99 * index / len(paths), f"{paths[index].name}: {done} documents")
    writer.flush()
    if bad.n:
        tally.dropped["malformed"] = bad.n
        run.note(f"{bad.n} lines hold no document and were skipped: {'; '.join(bad.reasons[:3])}", level="warning")
    return Collected(writer.keys, tally)


def _keep(batch: list[Document], writer: ShardWriter, tally: Tally, keep_from: float) -> bool:
    filled = False
    for document, score in zip(batch, quality([each.text for each in batch]).tolist(), strict=True):
        tally.n_read += 1
        tally.quality_deciles[min(9, int(score * 10))] += 1
        if score < keep_from:
            tally.dropped["quality"] += 1
            continue
        domain = domain_of(document.text)
        tally.n_kept += 1
        tally.by_domain[domain] += 1
        tally.by_licence[document.licence] += 1
        filled |= writer.add(
            {
                "text": document.text,
                "source": document.source,
                "licence": document.licence,
                "robots": document.robots,
                "quality": round(score, 4),
                "domain": domain,
            }
        )
    return filled


def synthesise(
    domains: Sequence[Domain],
    run: Run,
    *,
    per_domain: int,
    seed: int,
    shares: tuple[float, float, float] = templates.SHARES,
    rows_per_shard: int = ROWS_PER_SHARD,
) -> Collected:
    """Rows of every domain, a shard boundary after each, so that a killed job goes on with the domain it was in.

    Raises: Refused when the templates do not give as many.
    """
    saved = run.checkpoint.load()
    state: dict[str, Any] = saved.state if saved else {"done": 0, "shards": [], "tally": Tally().as_json()}
    tally = Tally.from_json(state["tally"])
    writer = ShardWriter(run.artifacts, run.workdir, list(state["shards"]), rows_per_shard)
    for index in range(int(state["done"]), len(domains)):
        for row in templates.synthesise(domains[index], per_domain, seed=seed, shares=shares):
            tally.n_read += 1
            tally.keep(row)
            writer.add(row.model_dump())
            if tally.n_read % _BATCH == 0:
                run.progress(0.99 * tally.n_read / (per_domain * len(domains)), domains[index])
        writer.flush()
        run.checkpoint.save({"done": index + 1, "shards": writer.keys, "tally": tally.as_json()})
    return Collected(writer.keys, tally)


def validate(
    shards: Sequence[str],
    run: Run,
    *,
    evaluation: Sequence[str],
    max_bad: int,
    rows_per_shard: int = ROWS_PER_SHARD,
) -> Collected:
    """Rows that match the schema, repeat no other and stand in no evaluation set.

    ``evaluation`` are texts that must not be learnt: a row is dropped when its question or answer is nearly one of them
    (NFKC, character 5-grams, Jaccard ≥ .8). Resumes from its checkpoint after the last stored shard: what was seen before
    is remembered anew from the rows kept, without comparing them again.

    Raises: TooManyBadRows (a ValueError) above ``max_bad`` rows that do not match; UnreadableShard.
    """
    saved = run.checkpoint.load()
    state: dict[str, Any] = (
        saved.state if saved else {"shard": 0, "row": 0, "shards": [], "tally": Tally().as_json(), "reasons": []}
    )
    tally = Tally.from_json(state["tally"])
    bad = BadRows(max_bad, tally.dropped["schema"], list(state["reasons"]))
    writer = ShardWriter(run.artifacts, run.workdir, list(state["shards"]), rows_per_shard)
    with Seen() as held_out, Seen() as seen:
        for number, text in enumerate(evaluation):
            held_out.add(text, f"evaluation:{number}")
            _tick(number, run, 0.0, "reading what must not be learnt")
        for number, (place, kept) in enumerate(read_shards(run.artifacts, writer.keys)):
            seen.remember(_question(Row.model_validate(kept)), place)
            _tick(number, run, 0.99 * int(state["shard"]) / len(shards), f"{number} rows remembered")
        for index in range(int(state["shard"]), len(shards)):
            done = int(state["row"]) if index == state["shard"] else 0
            for place, found in itertools.islice(read_shards(run.artifacts, [shards[index]]), done, None):
                done, tally.n_read = done + 1, tally.n_read + 1
                row = _checked(place, found, tally, bad)
                if row is not None and _is_new(row, place, held_out if evaluation else None, seen, tally):
                    tally.keep(row)
                    if writer.add(row.model_dump()):
                        at = {"shard": index, "row": done, "reasons": bad.reasons}
                        run.checkpoint.save({**at, "shards": writer.keys, "tally": tally.as_json()})
                _tick(tally.n_read, run, 0.99 * index / len(shards), f"{tally.n_read} rows")
    writer.flush()
    return Collected(writer.keys, tally)


def _tick(number: int, run: Run, fraction: float, message: str) -> None:
    if number % _BATCH == 0:
        run.progress(fraction, message)


def _question(row: Row) -> str:
    return f"{row.instruction}\n{row.input}"


def _is_new(row: Row, place: str, held_out: Seen | None, seen: Seen, tally: Tally) -> bool:
    """Whether a row repeats nothing; remembered then, else counted by what it repeats."""
    question = _question(row)
    if held_out and any(held_out.most_alike(text) for text in (question, row.instruction, row.output)):
        tally.dropped["leaked"] += 1
    elif repeated := seen.add(question, place):  # answers repeat by nature: one rule, one wording
        tally.dropped["copy" if repeated[1] == 1.0 else "near copy"] += 1
    else:
        return True
    return False


def _checked(place: str, found: dict[str, Any], tally: Tally, bad: BadRows) -> Row | None:
    try:
        return Row.model_validate(found)
    except ValidationError as err:
        first = err.errors()[0]
        tally.dropped["schema"] += 1
        bad.add(place, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
        return None


def counted(tally: Tally) -> list[tuple[str, dict[str, int]]]:
    """What a report shows, heading by heading; nothing under a heading that counted nothing."""
    deciles = {f"{i / 10:.1f}–{(i + 1) / 10:.1f}": n for i, n in enumerate(tally.quality_deciles) if n}
    groups: list[tuple[str, dict[str, int]]] = [
        (heading, dict(sorted(counts.items())))
        for heading, counts in (
            ("Domains", tally.by_domain),
            ("Decisions", tally.by_decision),
            ("Licences", tally.by_licence),
            ("Dropped", tally.dropped),
        )
    ]
    return [*groups, ("Quality", deciles)]


def report(title: str, collected: Collected) -> str:
    """The tally as Markdown with bars, for people."""
    tally = collected.tally
    lines = [f"# {title}", "", f"{tally.n_read} read, {tally.n_kept} kept, data hash `{collected.data_hash[:16]}`.", ""]
    for heading, counts in counted(tally):
        if counts:
            most = max(counts.values())
            lines += [f"## {heading}", "", "| | rows | |", "|---|---:|---|"]
            lines += [f"| {name} | {n} | {'█' * max(1, round(24 * n / most))} |" for name, n in counts.items()]
            lines.append("")
    return "\n".join(lines)
