"""Find what is said in videos: an index of words over transcripts, beside them in the database. Knows nothing of HTTP.

A row holds a term and where one transcript has it, so a query reads the rows of its own terms and no transcript. Scores are
those that ``lexical.Bm25`` gives over all cues that the caller may see; nobody else's cues count into them. It works on SQLite
and on Postgres alike, which full-text search of either does not: neither knows Japanese, nor counts one tenant alone.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import and_, insert, or_, select, tuple_
from sqlalchemy.orm import Session

from genba_shared import records
from genba_shared.db import Database
from genba_shared.lexical import K1, B, lone, rarity, terms, weight
from genba_shared.principal import Principal
from genba_sop.tables import CueRow, CueTermRow, TranscriptRow, Video
from genba_sop.transcripts import Cue

MOST_FOUND: Final = 200
MOST_AROUND: Final = 20_000  # cues of the transcripts that are read whole
_LONGEST: Final = 64  # of a term, as it is stored
_BATCH: Final = 20
_UINT16: Final = np.dtype("<u2")


@dataclass(frozen=True)
class Inverted:
    """A transcript by its terms, ready to be stored."""

    lengths: bytes
    places: Mapping[str, bytes]


@dataclass(frozen=True)
class Said:
    """A cue that meets the query."""

    video_id: str
    cue: Cue
    score: float


@dataclass(frozen=True)
class Heard:
    """The cues that meet the query best, best first, and what a word weighs that only one of all cues holds."""

    said: Sequence[Said] = field(default_factory=list)
    rarest: float = 1.0


@dataclass(frozen=True)
class _Library:
    """The transcripts that the caller may see, newest first, their cues numbered through."""

    rows: Mapping[int, int]  # a transcript's id → its place below
    videos: Sequence[str]
    starts: npt.NDArray[np.int64]  # (T + 1,) the number of each transcript's first cue
    lengths: npt.NDArray[np.float64]  # (N,) terms of each cue


def inverted(cues: Sequence[Cue]) -> Inverted:
    """The index of one transcript."""
    places: dict[str, list[int]] = defaultdict(list)
    lengths = []
    for position, cue in enumerate(cues):
        held = terms(cue.words)
        lengths.append(held.total())
        for term, count in held.items():
            places[_key(term)] += (position, count)
    return Inverted(_packed(lengths), {term: _packed(pairs) for term, pairs in places.items()})


def _packed(numbers: Sequence[int]) -> bytes:
    return np.array(numbers, _UINT16).tobytes()


def _key(term: str) -> str:
    """A term as it is stored: what is too long by its beginning and its hash."""
    return term if len(term) <= _LONGEST else term[:32] + hashlib.sha256(term.encode()).hexdigest()[:32]


def enter(session: Session, video_id: str, index: Inverted) -> None:
    """Store the index of a video's transcript, which has none yet; it goes with its row or with the video."""
    row = TranscriptRow(video_id=video_id, lengths=index.lengths)
    session.add(row)
    session.flush()
    if index.places:
        rows = [{"term": term, "transcript_id": row.id, "places": at} for term, at in sorted(index.places.items())]
        session.execute(insert(CueTermRow), rows)


def enter_missing(database: Database) -> int:
    """Index transcripts that are not: those from before there was an index. How many."""
    entered = 0
    while True:
        with database.transaction() as session:
            there = select(TranscriptRow.id).where(TranscriptRow.video_id == CueRow.video_id).exists()
            videos = session.scalars(select(CueRow.video_id).where(~there).distinct().limit(_BATCH)).all()
            for video_id in session.scalars(select(Video.id).where(Video.id.in_(videos)).with_for_update()).all():
                if session.scalar(select(TranscriptRow.id).where(TranscriptRow.video_id == video_id)) is None:
                    enter(session, video_id, inverted([cue for _, cue in _cues(session, [video_id])]))
                    entered += 1
        if not videos:
            return entered


def find(session: Session, principal: Principal, text: str, *, videos: Collection[str] | None = None) -> Heard:
    """The cues that meet a text best, in the videos that the caller may see, or in these of them."""
    library = _library(session, principal, videos)
    asked = _known(session, text)
    if not asked or not len(library.lengths):
        return Heard()
    norm = K1 * (1 - B + B * library.lengths / (library.lengths.mean() or 1.0))  # (N,)
    scores = np.zeros(len(norm))
    for term, at, counts in _postings(session, library, asked):
        idf = rarity(len(norm), len(at))
        scores[at] += weight(term) * idf * counts * (K1 + 1) / (counts + norm[at])
    met = np.flatnonzero(scores)
    if len(met) > MOST_FOUND:  # sorting all takes longer than scoring them
        met = met[scores[met] >= np.partition(scores[met], -MOST_FOUND)[-MOST_FOUND]]
    best = met[np.argsort(-scores[met], kind="stable")][:MOST_FOUND]
    return Heard(_read(session, library, best, scores), math.log(1 + len(norm)))


def around(session: Session, heard: Heard) -> list[tuple[str, Cue]]:
    """The whole transcripts in which something was found, as many of the best as hold 20,000 cues, each in its order."""
    videos = list(dict.fromkeys(said.video_id for said in heard.said))
    rows = session.execute(
        select(TranscriptRow.video_id, TranscriptRow.lengths).where(TranscriptRow.video_id.in_(videos))
    )
    sizes = {video_id: len(lengths) // _UINT16.itemsize for video_id, lengths in rows}
    taken: list[str] = []
    room = MOST_AROUND
    for video_id in videos:
        room -= sizes.get(video_id, 0)
        if room >= 0 or not taken:
            taken.append(video_id)
    return _cues(session, taken)


def _cues(session: Session, videos: Sequence[str]) -> list[tuple[str, Cue]]:
    columns = (CueRow.video_id, CueRow.start_s, CueRow.end_s, CueRow.words)
    query = select(*columns).where(CueRow.video_id.in_(videos)).order_by(CueRow.video_id.desc(), CueRow.position)
    return [(video_id, Cue(start_s, end_s, words)) for video_id, start_s, end_s, words in session.execute(query)]


def _library(session: Session, principal: Principal, videos: Collection[str] | None) -> _Library:
    where = records.visible(Video, principal)
    if videos is not None:
        where = and_(where, Video.id.in_(videos))
    columns = (TranscriptRow.id, TranscriptRow.video_id, TranscriptRow.lengths)
    query = select(*columns).join(Video, Video.id == TranscriptRow.video_id).where(where).order_by(Video.id.desc())
    rows = session.execute(query).all()
    sizes = [len(lengths) // _UINT16.itemsize for _, _, lengths in rows]
    return _Library(
        {row_id: place for place, (row_id, _, _) in enumerate(rows)},
        [video_id for _, video_id, _ in rows],
        np.concatenate(([0], np.cumsum(sizes, dtype=np.int64))),
        np.frombuffer(b"".join(lengths for _, _, lengths in rows), _UINT16).astype(np.float64),
    )


def _known(session: Session, text: str) -> dict[str, str]:
    """The terms of a query as they are stored, each beside itself."""
    asked = set(terms(text))
    if alone := lone(asked):
        held = or_(*(CueTermRow.term.like(f"j:%{character}%") for character in alone))
        asked |= set(session.scalars(select(CueTermRow.term).where(held).distinct()))
    return {_key(term): term for term in asked}


def _postings(
    session: Session, library: _Library, asked: Mapping[str, str]
) -> Iterator[tuple[str, npt.NDArray[np.int64], npt.NDArray[np.float64]]]:
    """Each term, the numbers of the cues that hold it, and how often each does."""
    query = select(CueTermRow.term, CueTermRow.transcript_id, CueTermRow.places)
    rows = session.execute(query.where(CueTermRow.term.in_(asked)).order_by(CueTermRow.term))
    for key, of_term in groupby(rows, key=lambda row: row[0]):
        mine = [(library.rows[row_id], places) for _, row_id, places in of_term if row_id in library.rows]
        if mine:
            pairs = np.frombuffer(b"".join(places for _, places in mine), _UINT16).reshape(-1, 2)
            sizes = [len(places) // (2 * _UINT16.itemsize) for _, places in mine]
            starts = np.repeat(library.starts[[place for place, _ in mine]], sizes)
            yield asked[key], starts + pairs[:, 0], pairs[:, 1].astype(np.float64)


def _read(
    session: Session, library: _Library, best: npt.NDArray[np.intp], scores: npt.NDArray[np.float64]
) -> list[Said]:
    """The cues of these numbers."""
    at = np.searchsorted(library.starts, best, side="right") - 1
    places = [(library.videos[row], int(n - library.starts[row])) for row, n in zip(at, best, strict=True)]
    columns = (CueRow.video_id, CueRow.position, CueRow.start_s, CueRow.end_s, CueRow.words)
    rows = session.execute(select(*columns).where(tuple_(CueRow.video_id, CueRow.position).in_(places)))
    cues = {(video_id, position): Cue(start_s, end_s, said) for video_id, position, start_s, end_s, said in rows}
    return [Said(place[0], cues[place], float(scores[n])) for place, n in zip(places, best, strict=True)]
