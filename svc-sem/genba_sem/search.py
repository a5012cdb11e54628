"""Find particles by words or by a picture, without a vision-language model, and say of each hit what matched.

Words meet labels (names, synonyms, definitions, in both languages; BM25 with character n-grams), shapes (``lexicon``) and what people
wrote (names, notes, tags). A picture meets the vectors of the lane that decides. Hits are particles, never single views.
Knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from sqlalchemy import ColumnElement, String, and_, cast, or_, select
from sqlalchemy.orm import Session, load_only

from genba_sem import lexicon
from genba_sem.labels import LabelBook
from genba_sem.lexicon import Concept, Condition
from genba_sem.tables import ParticleRow
from genba_shared import records
from genba_shared.lexical import Bm25, terms
from genba_shared.principal import Principal

PICTURED: Final = (
    "Text is matched with names, synonyms, definitions, notes, tags and measured shapes, and by {encoder} with the pictures of "
    "{count} particles; sem.index_pictures looks at the others."
)
NOTICE: Final = (
    "Text is matched with names, synonyms, definitions, notes, tags and measured shapes; "
    "no vision-language model looks at pictures."
)
_MOST_CANDIDATES: Final = 2000  # of each source; what lies beyond matched worse or is older
_LABEL_WEIGHT, _SHAPE_WEIGHT, _NOTE_WEIGHT, _PICTURE_WEIGHT = 0.9, 0.8, 0.6, 0.7
_PAGE: Final = 500
_LEAST_LABEL: Final = 0.35
_COLUMNS: Final = (
    ParticleRow.id, ParticleRow.label_id, ParticleRow.confidence, ParticleRow.status, ParticleRow.name, ParticleRow.note,
    ParticleRow.tags, ParticleRow.aspect_ratio, ParticleRow.circularity, ParticleRow.solidity, ParticleRow.diameter_um,
    ParticleRow.decision,
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """A particle that fits; ``matched`` says by what, as codes with the words that met."""

    particle_id: str
    score: float
    matched: tuple[str, ...]


@dataclass(frozen=True)
class Query:
    """What a text was understood as."""

    text: str
    labels: Mapping[str, float]  # label id → how well its words fit, in (0, 1]
    concepts: tuple[Concept, ...]
    bounds: Mapping[Condition, tuple[float, float]] = field(default_factory=dict)


def understand(session: Session, principal: Principal, book: LabelBook, text: str) -> Query:
    """Which labels and shapes a text speaks of."""
    concepts = tuple(lexicon.concepts_in(text))
    return Query(text, _labels(book, principal, text), concepts, _bounds(session, principal, concepts))


def by_text(
    session: Session,
    principal: Principal,
    book: LabelBook,
    query: Query,
    where: Sequence[ColumnElement[bool]],
    *,
    pictured: Mapping[str, float] | None = None,
) -> list[Found]:
    """Particles by words, best first. pictured: how well the pictures of particles fit, in (0, 1], where something looks at them."""
    pictured = pictured or {}
    visible = (records.visible(ParticleRow, principal), ParticleRow.status != "waiting", *where)
    rows: dict[str, ParticleRow] = {}
    for clause, order in _sources(book, query):
        chosen = select(ParticleRow).options(load_only(*_COLUMNS)).where(*visible, clause)
        rows |= {row.id: row for row in session.scalars(chosen.order_by(*order).limit(_MOST_CANDIDATES))}
    best = sorted(pictured, key=lambda each: (-pictured[each], each))[:_MOST_CANDIDATES]
    for start in range(0, len(best), _PAGE):
        chosen = select(ParticleRow).options(load_only(*_COLUMNS)).where(*visible)
        rows |= {row.id: row for row in session.scalars(chosen.where(ParticleRow.id.in_(best[start : start + _PAGE])))}
    notes = _note_scores(query.text, list(rows.values()))
    found = [_scored(row, book, query, notes.get(row.id, 0.0), pictured.get(row.id, 0.0)) for row in rows.values()]
    return sorted((each for each in found if each.score > 0.02), key=lambda each: (-each.score, each.particle_id))


def _sources(book: LabelBook, query: Query) -> list[tuple[ColumnElement[bool], tuple[Any, ...]]]:
    """Where candidates may come from, each with what to read first."""
    sources: list[tuple[ColumnElement[bool], tuple[Any, ...]]] = []
    ids = [each for label_id in query.labels for each in book.meaning(label_id)]
    if ids:
        sources.append((ParticleRow.label_id.in_(ids), (ParticleRow.confidence.desc(), ParticleRow.id)))
    for concept in query.concepts:
        clauses = [_roughly(condition, query.bounds) for condition in concept.conditions]
        if clauses:
            first = getattr(ParticleRow, concept.conditions[0].measure)
            order = first.asc() if concept.conditions[0].side == "below" else first.desc()
            sources.append((and_(*clauses), (order, ParticleRow.id)))
        decision = cast(ParticleRow.decision, String)
        newest = (ParticleRow.id.desc(),)
        sources += [(decision.contains(f'"{code}"', autoescape=True), newest) for code in concept.quality]
    if words := _written_words(query.text):
        columns = (ParticleRow.name, ParticleRow.note, cast(ParticleRow.tags, String))
        spelt = [form for word in words for form in {word, _escaped(word)}]
        clauses = [column.icontains(form, autoescape=True) for column in columns for form in spelt]
        sources.append((or_(*clauses), (ParticleRow.id.desc(),)))
    return sources


def _escaped(word: str) -> str:
    """How SQLite's JSON text holds a word that is not ASCII; Postgres holds it as it is."""
    return word.encode("ascii", "backslashreplace").decode()


def _roughly(condition: Condition, bounds: Mapping[Condition, tuple[float, float]]) -> ColumnElement[bool]:
    bound, soft = bounds.get(condition, (condition.bound, condition.soft))
    column = getattr(ParticleRow, condition.measure)
    clause: ColumnElement[bool] = column < bound + soft if condition.side == "below" else column > bound - soft
    return clause


def _labels(book: LabelBook, principal: Principal, text: str) -> dict[str, float]:
    """Labels whose words meet the text, those merged into them included; the best possible match of a name is 1."""
    entries = [
        (now.id, said)
        for label in book.by_id.values()
        if (now := book.now(label.id)) is not None and now.clearance <= principal.clearance
        for said in [*label.name.values(), *(word for words in label.synonyms.values() for word in words)]
        if said
    ]
    definitions = [
        (label.id, said) for label in book.by_id.values() if label.clearance <= principal.clearance
        for said in label.definition.values() if said and label.status == "active"
    ]  # fmt: skip
    found: dict[str, float] = {}
    for group, weight in ((entries, 1.0), (definitions, 0.6)):
        if not group:
            continue
        index = Bm25([said for _, said in group])
        for (label_id, said), score in zip(group, index.scores(text), strict=True):
            ideal = _ideal(index, said, text)
            fit = weight * min(1.0, score / ideal) if ideal > 0 else 0.0
            if fit >= _LEAST_LABEL:
                found[label_id] = max(found.get(label_id, 0.0), fit)
    return found


def _ideal(index: Bm25, said: str, text: str) -> float:
    """What a text would score that says exactly this; of a definition, what the text would score if all of it were there."""
    shorter = said if len(terms(said)) <= len(terms(text)) else text
    return index.ideal(shorter)


def _bounds(
    session: Session, principal: Principal, concepts: Sequence[Concept]
) -> dict[Condition, tuple[float, float]]:
    """Percentiles of what the caller may see, and the spread that is soft around them."""
    wanted = [condition for concept in concepts for condition in concept.conditions if condition.percentile]
    found = {}
    for condition in wanted:
        column = getattr(ParticleRow, condition.measure)
        query = select(column).where(records.visible(ParticleRow, principal), column.is_not(None)).limit(200_000)
        values = np.array(session.scalars(query).all(), float)
        if len(values):
            at = float(np.percentile(values, condition.bound))
            near = np.percentile(
                values, (max(0, condition.bound - condition.soft), min(100, condition.bound + condition.soft))
            )
            found[condition] = (at, max(float(np.ptp(near)), 1e-9))
    return found


def _written_words(text: str) -> list[str]:
    """Parts of the query that a note may hold: words of three letters and more, and runs of Japanese."""
    return [term[2:] for term in terms(text) if (term.startswith("w:") and len(term) > 4) or term.startswith("j:")][:12]


def _note_scores(text: str, rows: Sequence[ParticleRow]) -> dict[str, float]:
    """How well what people wrote fits, in [0, 1]."""
    written = [(row.id, " ".join([row.name, row.note, *row.tags])) for row in rows]
    if not written:
        return {}
    index = Bm25([said for _, said in written])
    ideal = index.ideal(text)
    return (
        {row_id: min(1.0, score / ideal) for (row_id, _), score in zip(written, index.scores(text), strict=True)}
        if ideal
        else {}
    )


def _scored(row: ParticleRow, book: LabelBook, query: Query, note: float, picture: float) -> Found:
    label = None if row.label_id is None else book.now(row.label_id)
    label_fit = query.labels.get(label.id, 0.0) if label else 0.0
    sure = 1.0 if row.status == "reviewed" else 0.5 + 0.5 * (row.confidence or 0.0)
    measured = {each: getattr(row, each) for each in ("aspect_ratio", "circularity", "solidity", "diameter_um")}
    fits = {c.name: lexicon.shape_fit(c, measured, query.bounds) for c in query.concepts if c.conditions}
    seen = {reason for view in row.decision.get("views", []) for reason in view["quality_reasons"]}
    fits |= {c.name: 1.0 if seen & set(c.quality) else 0.0 for c in query.concepts if c.quality}
    shape = min(fits.values(), default=0.0)
    score = 1 - (1 - _LABEL_WEIGHT * label_fit * sure) * (1 - _SHAPE_WEIGHT * shape) * (1 - _NOTE_WEIGHT * note)
    score = 1 - (1 - score) * (1 - _PICTURE_WEIGHT * picture)
    matched = [f"label:{label.words}"] if label and label_fit else []
    matched += [f"shape:{name}" for name, fit in fits.items() if fit > 0.5]
    matched += ["written"] if note > 0.3 else []
    matched += ["picture"] if picture > 0.3 else []
    return Found(row.id, round(float(score), 6), tuple(matched))


def by_vector(
    session: Session,
    principal: Principal,
    vector: Any,
    *,
    encoder: str,
    where: Sequence[ColumnElement[bool]],
    candidates: Sequence[str] | None = None,
) -> list[Found]:
    """Particles by likeness to a unit vector of the same encoder, best first; read a page at a time."""
    visible = [records.visible(ParticleRow, principal), ParticleRow.encoder == encoder, *where]
    if candidates is not None:
        visible.append(ParticleRow.id.in_(candidates))
    query = select(ParticleRow.id, ParticleRow.vector).where(*visible).execution_options(yield_per=2000)
    found: list[Found] = []
    for page in session.execute(query).partitions():
        rows = [(row_id, held) for row_id, held in page if held is not None]
        if not rows:
            continue
        cosines = np.stack([np.frombuffer(held, np.float32) for _, held in rows]) @ vector
        found += [Found(row_id, round(float(c), 6), ("picture",)) for (row_id, _), c in zip(rows, cosines, strict=True)]
        found = sorted(found, key=lambda each: (-each.score, each.particle_id))[:_MOST_CANDIDATES]
    return found
