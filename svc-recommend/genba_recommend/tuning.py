"""Weigh the terms of a score by what users did in the newest slice of the training period: half-life, prior, towers, neighbours.

A weight is changed, one after the other, while NDCG@10 grows. Each trial ranks, for every user, only the few hundred items that
any term puts near the top, so that some hundred trials cost seconds; what is reported in the end is ranked in full. What does not
help by more than chance is left out: neighbours and the second stage stay only if they gain more than one standard error of the
paired difference, and towers for people of whom nothing is known only if they gain more than two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba_recommend.blending import MOST_HISTORY, Blend
from genba_recommend.dataset import Dataset, Floats, Interactions, Ints
from genba_recommend.features import latest_windows
from genba_recommend.metrics import Quality, Questions, Scores, ScoreUsers, ndcg_at_k, quality, rank, rank_alike, top_k
from genba_recommend.neighbours import Neighbours, choices, ease, item_knn, low_rank
from genba_recommend.prior import Prior
from genba_recommend.reranker import SHORTLIST, Reranker
from genba_recommend.scoring import blended, lasting_now, popularity_now, reranked, with_prior

Float32s = npt.NDArray[np.float32]

KINDS: Final[Mapping[str, Callable[[Any], Neighbours]]] = {
    "item_knn": item_knn,
    "ease_100": lambda seen: ease(seen, penalty=100.0),
    "ease_500": lambda seen: ease(seen, penalty=500.0),
    "svd_16": lambda seen: low_rank(seen, rank=16),
    "svd_32": lambda seen: low_rank(seen, rank=32),
}
NEIGHBOUR_WEIGHTS: Final = (0.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
RERANKER_WEIGHTS: Final = (0.0, 0.5, 0.75, 1.0, 1.5)
TOWERS: Final = (0.0, 0.5, 1.0)  # beside neighbours
TOWERS_BEFORE_RERANKER: Final = (0.25, 0.5, 1.0)  # some remain: discovery and similar items are theirs
FADES: Final = (1.0, 0.97, 0.9)
DOUBTS: Final = (0.0, 1.0, 3.0, 10.0)
STRANGERS: Final = (0.25, 0.5, 1.0)
LEAST_STRANGERS: Final = 100  # fewer say nothing, and what is popular is safe
LASTING: Final = 0.05  # of an event that fades slowly, in the places after the first; from 0.01 to 0.1 much the same
NEAR_THE_TOP: Final = 60  # items of each term that are looked at
USERS_AT_ONCE: Final = 256
ALONE_AT_LEAST: Final = 0.9  # of the best half-life's NDCG@10, what another must reach by itself to be kept


@dataclass(frozen=True)
class Tuned:
    """The best prior and blend, how good they are with everything and popularity alone, and every trial's NDCG@10."""

    prior: Prior
    blend: Blend
    blended: Quality
    alone: Quality  # popularity under its own best half-life
    trials: tuple[tuple[Prior, Blend, float], ...]
    first_prior: Prior  # and blend, of the first stage where it ranks alone, as in exports
    first_blend: Blend


def sample_questions(asked: Questions, most: int, *, seed: int) -> Questions:
    """Return the questions of at most so many users, drawn at random."""
    if len(asked) <= most:
        return asked
    chosen = np.sort(np.random.default_rng(seed).choice(len(asked), most, replace=False))
    return asked.of(chosen)


def half_lives_within(half_lives_days: Sequence[float], interactions: Interactions) -> tuple[float, ...]:
    """Those that are not longer than the log, and one so long that nothing fades."""
    span_days = float(np.ptp(interactions.time_s)) / 86_400 if len(interactions) else 0.0
    kept = tuple(days for days in half_lives_days if days <= span_days)
    return (*(kept or half_lives_days[:1]), max(100.0 * span_days, *half_lives_days))


def fit_neighbours(kind: str, interactions: Interactions, *, n_users: int, n_items: int) -> Neighbours:
    return KINDS[kind](choices(interactions, n_users=n_users, n_items=n_items))


def tune(
    towers: ScoreUsers,
    data: Dataset,
    asked: Questions,
    *,
    half_lives_days: Sequence[float],
    prior_weights: Sequence[float],
    reranker: Reranker | None = None,
    strangers: Questions | None = None,
) -> Tuned:
    """Climb to the best half-life and weights.

    Args: towers: their scores before the questions.   data: what had happened by then.   reranker: learnt from it.
        strangers: questions of users without any history; nobody is asked without.
    """
    n_items, n_users, interactions = len(data.catalogue), len(data.users), data.interactions
    second = Reranker.none(n_items) if reranker is None else reranker
    priors = {days: popularity_now(Prior(days), interactions, n_items=n_items) for days in half_lives_days}
    alone = {days: quality(rank_alike(popular, asked), asked) for days, popular in priors.items()}
    best_alone = max(alone.values(), key=lambda found: float(found.ndcg_at_10.mean()))
    least = ALONE_AT_LEAST * float(best_alone.ndcg_at_10.mean())
    kept = {days: priors[days] for days, found in alone.items() if found.ndcg_at_10.mean() >= least}
    seen = choices(interactions, n_users=n_users, n_items=n_items)
    kinds = {name: found for name, fit in KINDS.items() if not (found := fit(seen)).is_empty}
    past = data.histories
    field = _Field.of(towers, data, asked, kept, kinds, second)
    climb = _Climb(field, tuple(kept), tuple(prior_weights), tuple(kinds), with_reranker=not second.is_empty)
    first_prior, first_blend = climb.best()
    prior, blend = climb.with_second_stage((first_prior, first_blend))
    prior = replace(prior, newcomer_half_life_days=_of_newcomers(priors, alone, strangers))
    if strangers is not None and len(strangers) >= LEAST_STRANGERS:
        popular = priors[prior.of_newcomers.half_life_days]
        blend = replace(blend, stranger=_of_strangers(towers, popular, prior.weight, strangers))
        first_blend = replace(first_blend, stranger=_of_strangers(towers, popular, first_prior.weight, strangers))
    found = Neighbours.none(n_items) if not blend.neighbours else kinds[blend.kind]
    scores = with_prior(blended(towers, found, past, blend), kept[prior.half_life_days], prior.weight)
    judged = quality(rank(reranked(scores, second, blend.reranker, data), asked), asked)
    if blend.reranker:
        lasting = replace(prior, lasting=LASTING)
        whole = reranked(scores, second, blend.reranker, data, lasting_now(lasting, data))
        other = quality(rank(whole, asked), asked)
        is_worse = _is_better(judged.ndcg_at_10, other.ndcg_at_10)
        if _is_better(other.recall_at_50, judged.recall_at_50) and not is_worse:
            prior, judged = lasting, other
    return Tuned(prior, blend, judged, best_alone, tuple(climb.trials), first_prior, first_blend)


def _of_newcomers(
    priors: Mapping[float, Float32s], alone: Mapping[float, Quality], strangers: Questions | None
) -> float:
    """The shortest half-life that the best by itself does not beat by more than chance, over everybody who was asked.

    People without history alone are few. What is best by a little in one slice is often not in the next.
    """
    found = {days: each.ndcg_at_10 for days, each in alone.items()}
    if strangers is not None and len(strangers):
        new = {days: quality(rank_alike(popular, strangers), strangers).ndcg_at_10 for days, popular in priors.items()}
        found = {days: np.concatenate([found[days], new[days]]) for days in found}
    best = max(found.values(), key=lambda each: float(each.mean()))
    return min(days for days, each in found.items() if not _is_better(best, each))


def _of_strangers(towers: ScoreUsers, popular: Float32s, weight: float, asked: Questions) -> float:
    """The weight of the towers that helps people of whom nothing is known by more than chance; 0 where none does."""

    def ndcg(of_towers: float) -> Floats:
        lists = rank(lambda users: of_towers * towers(users) + np.float32(weight) * popular, asked, k=50)
        return quality(lists, asked).ndcg_at_10

    without = ndcg(0.0)
    trials = {of_towers: ndcg(of_towers) for of_towers in STRANGERS}
    best = max(trials, key=lambda of_towers: float(trials[of_towers].mean()))
    return best if _is_better(trials[best], without, by=2.0) else 0.0


def _is_better(ours: Floats, theirs: Floats, *, by: float = 1.0) -> bool:
    """Whether the mean difference is above so many of its standard errors, over the same users."""
    gain = ours - theirs
    return bool(gain.mean() > by * gain.std() / np.sqrt(len(gain)))


@dataclass(frozen=True)
class _Field:
    """Every term of the items that could be listed, by asked user; (U, C) each, C of the user with the most.

    relevant: whether the item is right.   out: True where there is none (padding), or it may not be listed.
    neighbours: by kind and fade, of weight 1.   gains: of the second stage.
    """

    relevant: npt.NDArray[np.bool_]
    out: npt.NDArray[np.bool_]
    towers: Float32s
    priors: Mapping[float, Float32s]
    neighbours: Mapping[tuple[str, float], Float32s]
    gains: Float32s
    n_history: Ints
    n_relevant: Ints

    @classmethod
    def of(
        cls,
        towers: ScoreUsers,
        data: Dataset,
        asked: Questions,
        priors: Mapping[float, Float32s],
        kinds: Mapping[str, Neighbours],
        reranker: Reranker,
    ) -> _Field:
        parts = []
        for at in range(0, len(asked), USERS_AT_ONCE):
            part = asked.of(np.arange(at, min(at + USERS_AT_ONCE, len(asked))))
            parts.append(_part(towers, data, part, priors, kinds, reranker))
        width = max(part.out.shape[1] for part in parts)

        def joined(take: Callable[[_Field], npt.NDArray[Any]], nothing: float) -> npt.NDArray[Any]:
            padded = [np.pad(x := take(p), ((0, 0), (0, width - x.shape[1])), constant_values=nothing) for p in parts]
            return np.concatenate(padded)

        return cls(
            relevant=joined(lambda part: part.relevant, 0),
            out=joined(lambda part: part.out, 1),
            towers=joined(lambda part: part.towers, 0),
            priors={days: joined(lambda part, days=days: part.priors[days], 0) for days in priors},  # type: ignore[misc]
            neighbours={key: joined(lambda part, key=key: part.neighbours[key], 0) for key in parts[0].neighbours},  # type: ignore[misc]
            gains=joined(lambda part: part.gains, 0),
            n_history=np.concatenate([part.n_history for part in parts]),
            n_relevant=asked.n_relevant,
        )

    def ndcg(self, prior: Prior, blend: Blend) -> Floats:
        """NDCG@10 of each user under some weights, (U,)."""
        scores = blend.towers_at(self.n_history)[:, None] * self.towers
        scores += np.float32(prior.weight) * self.priors[prior.half_life_days]
        if blend.neighbours:
            scores += np.float32(blend.neighbours) * self.neighbours[blend.kind, blend.fade]
        scores[self.out] = -np.inf
        if blend.reranker:
            if scores.shape[1] > SHORTLIST:
                last = np.partition(scores, -SHORTLIST, axis=1)[:, -SHORTLIST]
                scores[scores < last[:, None]] = -np.inf
            scores += np.float32(blend.reranker) * self.gains
        return ndcg_at_k(np.take_along_axis(self.relevant, top_k(scores, 10), 1), self.n_relevant, 10)


def _part(
    towers: ScoreUsers,
    data: Dataset,
    asked: Questions,
    priors: Mapping[float, Float32s],
    kinds: Mapping[str, Neighbours],
    reranker: Reranker,
) -> _Field:
    """The field of a few users, from scores of every item."""
    past = data.histories
    window = latest_windows(past, asked.users, length=MOST_HISTORY)
    terms: dict[Any, Scores] = {"towers": np.asarray(towers(asked.users), np.float32)}
    for kind, found in kinds.items():
        for fade in FADES:
            spoken = Blend(neighbours=1.0, fade=fade).of_history(window.weight)
            terms[kind, fade] = found.scores(window.history, spoken)
    n_items, rows = len(asked.candidates), np.arange(len(asked))
    out = np.tile(~asked.candidates, (len(asked), 1))
    out[np.repeat(rows, np.diff(asked.seen_offsets)), asked.seen] = True
    right = np.zeros((len(asked), n_items), np.bool_)
    right[np.repeat(rows, asked.n_relevant), asked.relevant] = True
    near = np.zeros((len(asked), n_items), np.bool_)
    wanted = [*terms.values()]
    for popular in priors.values():
        wanted += [np.broadcast_to(popular, out.shape), terms["towers"] + popular]
    for scores in wanted:
        best = top_k(np.where(out, -np.inf, scores), NEAR_THE_TOP)
        near[np.repeat(rows, best.shape[1])[best.ravel() >= 0], best[best >= 0]] = True
    n_near = near.sum(1)
    index = np.argsort(~near, axis=1, kind="stable")[:, : max(1, int(n_near.max(initial=0)))]
    gains = np.zeros(index.shape, np.float32)
    if not reranker.is_empty:
        now_s = float(data.interactions.time_s.max())
        for at, user in enumerate(asked.users.tolist()):
            gains[at] = reranker.gains(reranker.profile_in(past, user), index[at], now_s=now_s)
    return _Field(
        relevant=np.take_along_axis(right, index, 1),
        out=np.arange(index.shape[1])[None, :] >= n_near[:, None],
        towers=np.take_along_axis(terms.pop("towers"), index, 1),
        priors={days: popular[index] for days, popular in priors.items()},
        neighbours={key: np.take_along_axis(scores, index, 1) for key, scores in terms.items()},
        gains=gains,
        n_history=window.n_events,
        n_relevant=asked.n_relevant,
    )


_Step = Callable[[Prior, Blend], list[tuple[Prior, Blend]]]


class _Climb:
    """Changes one weight after the other; remembers what was tried."""

    def __init__(
        self,
        field: _Field,
        half_lives: tuple[float, ...],
        weights: tuple[float, ...],
        kinds: tuple[str, ...],
        *,
        with_reranker: bool,
    ) -> None:
        self._field, self._half_lives, self._weights, self._kinds = field, half_lives, weights, kinds
        self._with_reranker = with_reranker
        self._tried: dict[tuple[Prior, Blend], Floats] = {}

    @property
    def trials(self) -> list[tuple[Prior, Blend, float]]:
        return [(prior, blend, float(found.mean())) for (prior, blend), found in self._tried.items()]

    def with_second_stage(self, first: tuple[Prior, Blend]) -> tuple[Prior, Blend]:
        """The best of both stages, or the first's where the second does not help by more than chance."""
        if not self._with_reranker:
            return first
        # It knows some of what the towers know, so that fewer of them may be the better start.
        prior, blend = first
        least = min(TOWERS_BEFORE_RERANKER)
        starts = [(prior, replace(blend, reranker=1.0, towers=each)) for each in (max(blend.towers, least), least)]
        steps = self._steps(with_neighbours=False, towers=TOWERS_BEFORE_RERANKER)  # neighbours stay as they are
        steps.append(lambda p, b: [(p, replace(b, reranker=weight)) for weight in RERANKER_WEIGHTS])
        both = max((self._climbed(start, steps) for start in starts), key=self._mean)
        return both if _is_better(self._ndcg(both), self._ndcg(first)) else first

    def best(self) -> tuple[Prior, Blend]:
        """The best of towers and prior, or of all three where neighbours help by more than chance."""
        pairs = [(Prior(days, weight), Blend()) for days in self._half_lives for weight in self._weights]
        start = max(pairs, key=self._mean)
        simple = self._climbed(start, self._steps(with_neighbours=False))
        if not self._kinds:
            return simple
        # From where neighbours lead, too: the best of two terms need not lie on the way to the best of three.
        least = min(self._weights, key=lambda weight: abs(weight - 0.25))
        starts = [(start[0], Blend(kind=self._kinds[0]))] + [
            (Prior(start[0].half_life_days, least), Blend(neighbours=16.0, kind=kind)) for kind in self._kinds
        ]
        whole = max(
            (self._climbed(each, self._steps(with_neighbours=True, towers=TOWERS)) for each in starts), key=self._mean
        )
        return whole if _is_better(self._ndcg(whole), self._ndcg(simple)) else simple

    def _climbed(self, at: tuple[Prior, Blend], steps: Sequence[_Step]) -> tuple[Prior, Blend]:
        while True:
            before = at
            for step in steps:
                at = max([at, *step(*at)], key=self._mean)
            if at == before:
                return at

    def _steps(self, *, with_neighbours: bool, towers: Sequence[float] = (1.0,)) -> list[_Step]:
        steps: list[_Step] = [
            lambda p, b: [(replace(p, half_life_days=days), b) for days in self._half_lives],
            lambda p, b: [(replace(p, weight=weight), b) for weight in self._weights],
            lambda p, b: [(p, replace(b, doubt=doubt)) for doubt in DOUBTS],
        ]
        if with_neighbours:
            steps[1:1] = [
                lambda p, b: [(p, replace(b, neighbours=weight)) for weight in NEIGHBOUR_WEIGHTS],
                lambda p, b: [(p, replace(b, kind=kind, fade=fade)) for kind in self._kinds for fade in FADES],
            ]
        steps.append(lambda p, b: [(p, replace(b, towers=weight)) for weight in towers])
        return steps

    def _ndcg(self, at: tuple[Prior, Blend]) -> Floats:
        if at not in self._tried:
            self._tried[at] = self._field.ndcg(*at)
        return self._tried[at]

    def _mean(self, at: tuple[Prior, Blend]) -> float:
        return float(self._ndcg(at).mean())
