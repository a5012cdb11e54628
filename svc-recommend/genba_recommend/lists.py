"""Make a list for somebody from one view: personal if it can be, else what users alike, trends or everybody give, and say which.

    personal → segment → trending → popular

A later source also fills the places that filters left empty. Knows no table and no HTTP.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple
from weakref import ref

import numpy as np
import numpy.typing as npt

from genba_recommend import reasons
from genba_recommend.catalogue import Shelf, Wanted, words_of
from genba_recommend.discovering import Discovery, When
from genba_recommend.heads import LEAST_PROBABILITY, Heads, Task
from genba_recommend.index import Choice, Rows, raise_some
from genba_recommend.people import Person
from genba_recommend.ranking import Picked, intra_list_distance, pick, pool_size
from genba_recommend.reasons import Reason
from genba_recommend.reranker import SHORTLIST, head_first
from genba_recommend.serving_model import Aligned, Taste
from genba_recommend.view import View

Aim = Literal["fit", "watched", "liked", "returns"]  # what a list is ordered by: the score alone, or with a head's say
Source = Literal["personal", "similar", "segment", "trending", "popular"]
Float32s = npt.NDArray[np.float32]

ALIKE: Final = 0.3  # cosine from which one item is named as the reason for another
TOP_WORDS: Final = 3
LEAST_TO_DISCOVER: Final = 5  # places; a shorter list gives none away
NEW_S: Final = 14 * 86_400.0
FALLBACKS: Final[tuple[Source, ...]] = ("segment", "trending", "popular")
TREND_DAYS: Final = 14.0  # a half-life up to which what is popular now is called a trend


@dataclass(frozen=True)
class Ask:
    """What is wanted. ``version`` None is the champion; ``start`` is the first source that may serve."""

    wanted: Wanted
    k: int = 20
    diversity: float = 0.0
    explore: float = 0.0
    discover: When = "sometimes"
    exclude: tuple[int, ...] = ()
    drop_seen: bool = True
    version: int | None = None
    aim: Aim = "fit"
    predict: bool = False
    start: Source = "personal"


class Listed(NamedTuple):  # not a dataclass: twenty of them are made for every list
    """One place of a list."""

    item_id: str
    title: str
    score: float
    source: Source
    propensity: float
    reasons: tuple[Reason, ...]
    predicted: dict[str, float] | None = None


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A source that gave nothing, and why."""

    source: Source
    why: str


@dataclass
class Made:
    """A list in the making, and what made it."""

    view: View
    items: list[Listed] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    passed_over: list[PassedOver] = field(default_factory=list)
    aligned: Aligned | None = None  # of the version that gave the personal items
    newcomer_to: Aligned | None = (
        None  # a version with a list of its own for people without history, of whom this is one
    )
    aim: Aim = "fit"  # that the personal items are ordered by
    among: list[int] = field(default_factory=list)  # rows that chance chose from, where it chose

    @property
    def source(self) -> Source:
        return self.items[0].source if self.items else "popular"

    @property
    def distance(self) -> float | None:
        """How far the items lie from each other, where a version knows them all."""
        aligned = self.aligned or self.view.models.get(self.view.champion or -1)
        if aligned is None or not self.rows or not aligned.present[self.rows].all():
            return None
        return intra_list_distance(aligned.vectors[self.rows])


def for_person(
    view: View, person: Person, ask: Ask, rng: np.random.Generator, discovery: Discovery | None = None
) -> Made:
    """A list for somebody; with a discovery, its last place may go to what is seldom shown."""
    made = Made(view)
    without = person.seen if ask.drop_seen else np.zeros(0, np.int32)
    without = without[without < len(view.shelf)]
    if ask.exclude:
        without = np.union1d(without, np.array(ask.exclude, np.int32))
    if ask.start == "personal":
        _personal(made, person, ask, without, rng, discovery)
    for source, aligned in _fallbacks(made, ask):
        if len(made.items) >= ask.k:
            break
        _fill(made, source, person, ask, without, aligned)
    return made


def _fallbacks(made: Made, ask: Ask) -> list[tuple[Source, Aligned | None]]:
    """What fills a list that is not full, and a version where it is that one's own list for people without history."""
    start = FALLBACKS.index(ask.start) if ask.start in FALLBACKS else 0
    found: list[tuple[Source, Aligned | None]] = [(source, None) for source in FALLBACKS[start:]]
    if made.newcomer_to is not None:
        half_life_days = made.newcomer_to.model.prior.of_newcomers.half_life_days
        named: Source = "trending" if half_life_days <= TREND_DAYS else "popular"
        found.insert(FALLBACKS.index("trending"), (named, made.newcomer_to))
    return found


def similar(view: View, row: int, ask: Ask) -> Made:
    """Items like one item: near it under the champion, or sharing its words where there is no vector of it."""
    made = Made(view)
    without = np.union1d(np.array(ask.exclude, np.int32), np.array([row], np.int32))
    aligned = view.models.get(view.champion) if view.champion is not None else None
    title = view.shelf.entries[row].item.title
    why = reasons.said("similar", title, item_id=view.shelf.ids[row]) if title else reasons.said("for_you")
    if aligned is not None and aligned.present[row]:
        made.aligned = aligned
        choice = view.choice(aligned, ask.wanted, by="alike")
        size = pool_size(ask.k, diversity=ask.diversity, explore=0.0)
        rows, scores = aligned.index.best(aligned.vectors[row], choice, without, size)
        picked = pick(
            rows, scores, aligned.vectors[rows], ask.k,
            diversity=ask.diversity, explore=0.0, rng=np.random.default_rng(0),
        )  # fmt: skip
        _put(made, picked, "similar", [(why,)] * len(picked.rows))
        return made
    made.passed_over.append(PassedOver("personal", "no_model" if aligned is None else "no_vector"))
    rows, scores = _sharing_words(view, row, ask, without)
    _put(made, _as_they_are(rows, scores), "similar", [(why,)] * len(rows))
    return made


def _personal(
    made: Made,
    person: Person,
    ask: Ask,
    without: npt.NDArray[np.integer],
    rng: np.random.Generator,
    discovery: Discovery | None,
) -> None:
    view = made.view
    number = ask.version if ask.version is not None else view.champion
    aligned = None if number is None else view.models.get(number)
    if aligned is None:
        made.passed_over.append(PassedOver("personal", "no_model"))
        return
    taste = taste_of(aligned, person)
    if not len(taste.rows):
        made.passed_over.append(PassedOver("personal", "no_history"))
        made.newcomer_to = aligned if aligned.newcomers is not None else None
        return
    heads = aligned.model.loaded.heads
    made.aim = ask.aim if ask.aim in heads.tasks else "fit"  # a version without that head says so in its answer
    wide = ask.explore if made.aim == "fit" else 1.0  # a head chooses among more than fit in
    size = pool_size(ask.k, diversity=ask.diversity, explore=wide)
    # Where chance draws, scores are those that off-policy estimates compute again for any candidates.
    lasting = aligned.lasting if taste.profile is not None and ask.explore == 0 else None
    choice = view.choice(aligned, ask.wanted, by="now" if lasting is None else "lasting")
    rows, scores = _candidates(aligned, person, ask, taste, choice, without, size, view.now_s, lasting)
    if not len(rows):
        made.passed_over.append(PassedOver("personal", "nothing_allowed"))
        return
    made.aligned = aligned
    if made.aim != "fit":
        rows, scores = _by_head(heads, made.aim, taste.vector, aligned.vectors[rows], rows, scores)
    vectors = aligned.vectors.take(rows, axis=0) if ask.diversity > 0 else None
    picked = pick(rows, scores, vectors, ask.k, diversity=ask.diversity, explore=ask.explore, rng=rng)
    if discovery is not None and made.aim == "fit" and discovery.is_wanted(ask.discover):
        picked = _discover(discovery, choice, aligned, person, ask, taste, picked, without, view.now_s)
    made.among = picked.among.tolist()
    said = None
    if heads.tasks and (ask.predict or made.aim != "fit"):
        said = heads.predict(taste.vector, aligned.vectors[picked.rows])
    why = _personal_reasons(view, aligned, person, taste.rows, picked, clearance=ask.wanted.clearance)
    _put(made, picked, "personal", why, _told(heads, said))


def _discover(
    discovery: Discovery,
    choice: Choice,
    aligned: Aligned,
    person: Person,
    ask: Ask,
    taste: Taste,
    picked: Picked,
    without: npt.NDArray[np.integer],
    now_s: float,
) -> Picked:
    """Give the last place that chance did not fill to what is seldom shown, if the list is one that does; for a day the same."""
    place = len(picked.rows) - int(np.count_nonzero(picked.explored)) - 1
    if place < LEAST_TO_DISCOVER - 1:
        return picked
    # What chance might have drawn stays with chance: its propensities are logged.
    out = np.concatenate([without, picked.rows])
    if len(picked.among):  # of which some were picked
        out = np.union1d(out, picked.among)
    key = (person.user.user_id, (aligned.model.number, ask.wanted, ask.discover))
    kept = discovery.kept(key)
    if kept is not None and (kept.row is None or (choice.allowed[kept.row] and kept.row not in out)):
        return picked if kept.row is None else _giving(picked, place, kept.row, aligned, taste, now_s)
    seldom = discovery.seldom.penalty(len(choice.allowed), now_s=discovery.clock())
    rows, fits = aligned.index.best(taste.query, choice.under(seldom), out, 1, lift=taste.lift)
    given = None
    if len(rows):
        loss = float(picked.scores[place] - (fits[0] - seldom[rows[0]]))
        if ask.discover == "always" or discovery.seldom.gives(loss):
            given = int(rows[0])
            picked = _giving(picked, place, given, aligned, taste, now_s)
    discovery.give(key, given, picked.rows)
    return picked


def _giving(picked: Picked, place: int, row: int, aligned: Aligned, taste: Taste, now_s: float) -> Picked:
    score = (aligned.vectors[[row]] @ taste.query + aligned.bias[[row]]).astype(np.float32)
    raise_some(score, np.array([row]), taste.lift)
    score += aligned.gains(taste, np.array([row]), now_s=now_s)
    return picked.giving(place, row, float(score[0]))


def _by_head(
    heads: Heads, aim: Task, vector: Float32s, vectors: Float32s, rows: Rows, scores: Float32s
) -> tuple[Rows, Float32s]:
    """Order by score plus the logarithm of a head's probability: scores are logits, so the two multiply as chances do."""
    chance = np.maximum(heads.of(aim, vector, vectors), LEAST_PROBABILITY)
    scores = (scores + np.log(chance)).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    return rows[order], scores[order]


def _told(heads: Heads, said: Float32s | None) -> list[dict[str, float]] | None:
    if said is None:
        return None
    return [dict(zip(heads.tasks, (round(p, 4) for p in row), strict=True)) for row in said.tolist()]


def taste_of(aligned: Aligned, person: Person) -> Taste:
    """What a version makes of somebody; remembered with the person."""
    key = (aligned.model.number, aligned.generation)
    found = person.memory.get(key)
    if found is None:
        person.memory[key] = found = aligned.taste(person)
    return found  # type: ignore[return-value]  # what was put there above


def _candidates(
    aligned: Aligned,
    person: Person,
    ask: Ask,
    taste: Taste,
    choice: Choice,
    without: npt.NDArray[np.integer],
    size: int,
    now_s: float,
    lasting: Float32s | None,
) -> tuple[Rows, Float32s]:
    """The best for somebody under a choice; the last answer is remembered, for people who come back to the same page.

    A choice belongs to one moment's view, so what is remembered ends when popularity, a filter or the version is another; what
    the person does makes another person.
    """
    kept: tuple[ref[Choice], Taste, int, bool, tuple[Rows, Float32s]] | None = person.memory.get("candidates")  # type: ignore[assignment]
    if kept and kept[0]() is choice and kept[1] is taste and kept[2:4] == (size, ask.drop_seen) and not ask.exclude:
        return kept[4]
    wide = size if taste.profile is None else max(size, SHORTLIST)
    rows, scores = aligned.index.best(taste.query, choice, without, wide, lift=taste.lift)
    if taste.profile is not None and len(rows):
        scores = scores + aligned.gains(taste, rows, now_s=now_s)
        if lasting is None:
            order = np.argsort(-scores, kind="stable")[:size]
            scores = scores[order]
        else:
            order, scores = head_first(scores, lasting.take(rows), size)
        rows = rows[order]
    found = (rows, scores)
    if not ask.exclude:
        # A weak reference: a choice is as long as the catalogue, and must go with its view.
        person.memory["candidates"] = (ref(choice), taste, size, ask.drop_seen, found)
    return found


def _fill(
    made: Made,
    source: Source,
    person: Person,
    ask: Ask,
    without: npt.NDArray[np.integer],
    aligned: Aligned | None,
) -> None:
    """Fill what is left of the list from a source that does not depend on the user, or for newcomers on the version alone."""
    segment = (person.user.age_range or "", person.user.region or "")
    if source == "segment" and segment == ("", ""):
        made.passed_over.append(PassedOver(source, "no_profile"))
        return
    tops = made.view.tops(source, ask.wanted, segment=segment if source == "segment" else None, aligned=aligned)
    if tops is None:
        made.passed_over.append(PassedOver(source, "too_few_events"))
        return
    if made.rows:
        without = np.union1d(without, np.array(made.rows, np.int32))
    rows, scores = tops.best(without, ask.k - len(made.items))
    if not len(rows):
        made.passed_over.append(PassedOver(source, "nothing_allowed" if len(made.view.shelf) else "no_items"))
        return
    kind: reasons.Kind = source  # type: ignore[assignment]  # the fallbacks' names are reasons too
    _put(made, _as_they_are(rows, scores), source, [(reasons.said(kind),)] * len(rows))


def _as_they_are(rows: Rows, scores: Float32s) -> Picked:
    return Picked(rows, scores, np.ones(len(rows)), np.zeros(len(rows), np.bool_))


def _put(
    made: Made,
    picked: Picked,
    source: Source,
    why: list[tuple[Reason, ...]],
    predicted: list[dict[str, float]] | None = None,
) -> None:
    shelf = made.view.shelf
    told: Sequence[dict[str, float] | None] = [None] * len(why) if predicted is None else predicted
    for row, score, chance, because, foreseen in zip(
        picked.rows.tolist(), picked.scores.tolist(), picked.propensities.tolist(), why, told, strict=True
    ):
        made.rows.append(row)
        title = shelf.entries[row].item.title
        made.items.append(Listed(shelf.ids[row], title, round(score, 4), source, chance, because, foreseen))


def _personal_reasons(
    view: View, aligned: Aligned, person: Person, history: npt.NDArray[np.int32], picked: Picked, *, clearance: int
) -> list[tuple[Reason, ...]]:
    """For each place the item of the history that it resembles most, and what it shares with what the user watches.

    An item of the history above the clearance of who asks is not named.
    """
    cosines = aligned.vectors.take(history, axis=0) @ aligned.vectors.take(picked.rows, axis=0).T  # (H, K)
    nearest, closeness = cosines.argmax(0).tolist(), cosines.max(0).tolist()
    genres, makers = _tops_of(view.shelf, person, history)
    entries, explored = view.shelf.entries, picked.explored.tolist()
    out = []
    for place, row in enumerate(picked.rows.tolist()):
        item = entries[row].item
        why = [_EXPLORED] if explored[place] else []
        if place == picked.newcomer:
            why.append(_SELDOM)
        if closeness[place] >= ALIKE:
            at = int(history[nearest[place]])
            likest = entries[at]
            liked = likest.item
            if liked.title and likest.clearance <= clearance:
                why.append(reasons.because_of(liked.title, person.act(at), item_id=liked.item_id))
        for word in item.genre:
            if word in genres:
                why.append(genres[word])
                break
        else:
            if item.maker and item.maker in makers:
                why.append(makers[item.maker])
        if item.published_at_s is not None and 0 <= view.now_s - item.published_at_s < NEW_S:
            why.append(_NEW)
        out.append(tuple(why[:2]) or _FOR_YOU)
    return out


_EXPLORED, _SELDOM, _NEW = reasons.said("explored"), reasons.said("seldom"), reasons.said("new")
_FOR_YOU = (reasons.said("for_you"),)


def _tops_of(
    shelf: Shelf, person: Person, history: npt.NDArray[np.int32]
) -> tuple[dict[str, Reason], dict[str, Reason]]:
    """The genres and makers that a user watches most, each as a reason; remembered with the person."""
    found = person.memory.get("tops")
    if found is None:
        entries = [shelf.entries[row] for row in history.tolist()]
        kinds: tuple[Literal["genre", "maker"], ...] = ("genre", "maker")
        found = tuple(
            {
                word: reasons.said(kind, word)
                for word, n in Counter(word for e in entries for word in words_of(e, kind)).most_common(TOP_WORDS)
                if n > 1
            }
            for kind in kinds
        )
        person.memory["tops"] = found
    return found  # type: ignore[return-value]  # what was put there above


def _sharing_words(view: View, row: int, ask: Ask, without: npt.NDArray[np.integer]) -> tuple[Rows, Float32s]:
    """Items that share genre, maker, tags or performers with one, the more the better, the more popular first."""
    shelf, entry = view.shelf, view.shelf.entries[row]
    shared = np.zeros(len(shelf), np.float32)
    for name in ("genre", "maker", "tags", "performers"):
        for word in words_of(entry, name):
            shared += shelf.carrying(name, (word,))
    rows = np.flatnonzero(shelf.allowed(ask.wanted) & (shared > 0))
    rows = rows[~np.isin(rows, without)]
    popular = np.maximum(view.popular[rows], 0.0)
    scores = shared[rows] + popular / (1.0 + popular)
    order = np.lexsort((rows, -scores))[: ask.k]
    return rows[order], scores[order].astype(np.float32)
