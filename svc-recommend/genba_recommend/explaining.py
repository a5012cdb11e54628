"""What moved an item's score for a user, by ablation: leave out one thing after the other and see what the user tower says then.

One item of the history, or one part of the profile, at a time; the difference is what it brought. Differences do not add up to
the score, because the parts work together. Arrays and words; knows no table and no HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from genba_recommend.features import UserFeatures
from genba_recommend.people import Person
from genba_recommend.reasons import Act
from genba_recommend.serving_model import Aligned

Float32s = npt.NDArray[np.float32]
Int32s = npt.NDArray[np.int32]
Part = Literal["history_item", "top_genres", "top_makers", "age_range", "region", "activity", "popularity"]
MOST_ITEMS: Final = 50  # of the history, the newest

ACTS: Final[dict[Act, tuple[str, str]]] = {
    "liked": ("You liked “{0}”", "「{0}」を気に入ったこと"),
    "watched": ("You watched “{0}”", "「{0}」を見たこと"),
    "looked": ("You looked at “{0}”", "「{0}」をチェックしたこと"),
}
WORDS: Final[dict[Part, tuple[str, str]]] = {
    "top_genres": ("The genres that you watch most", "よく見るジャンル"),
    "top_makers": ("The makers that you watch most", "よく見るメーカー"),
    "age_range": ("Your age range", "年代"),
    "region": ("Your region", "地域"),
    "activity": ("How much you watch", "視聴の頻度"),
    "popularity": ("How popular it is now", "いまの人気"),
}
_COLUMNS: Final[dict[Part, str]] = {
    "top_genres": "genre",
    "top_makers": "maker",
    "age_range": "age_range",
    "region": "region",
    "activity": "number",
}


@dataclass(frozen=True)
class Moved:
    """How much a part moved the score; negative when it spoke against the item."""

    part: Part
    by: float
    en: str
    ja: str
    item_id: str | None = None


@dataclass(frozen=True)
class Explained:
    """A score and what moved it, the strongest first."""

    score: float
    moved: tuple[Moved, ...]


def explain(
    aligned: Aligned, person: Person, row: int, *, ids: list[str], titles: list[str], now_s: float
) -> Explained:
    """Args: row: of an item that is present.   ids, titles: by row of the catalogue. One run of the tower for all ablations."""
    rows, window = aligned.window(person, aligned.model.history_len)
    loaded = aligned.model.loaded
    features = loaded.encoders.users([person.user], window, aligned.features(rows))
    n = min(len(rows), MOST_ITEMS)
    batch = _repeated(features, 1 + n + len(_COLUMNS))
    for place in range(n):  # left out of the history, the rest keeps its order
        batch.weight[1 + place, place] = 0.0
        batch.history[1 + place, place] = 0
    for at, column in enumerate(_COLUMNS.values()):
        getattr(batch, column)[1 + n + at] = 0
    vectors = loaded.embed_features(batch, aligned.vectors[rows])  # (1 + n + parts, D)
    known = np.full(len(batch), window.n_events[0])
    known[1 : 1 + n] -= 1
    scores = loaded.blend.towers_at(known) * (vectors @ aligned.vectors[row]) / np.float32(loaded.temperature)
    scores += _spoken(aligned, person, row, n, len(batch))
    scores += _gained(aligned, person, row, rows[:n], len(batch), now_s)
    by = (scores[0] - scores[1:]).tolist()
    moved = [_did(person, its, by[at], titles[its], ids[its]) for at, its in enumerate(rows[:n].tolist())]
    moved += [_moved(part, by[n + at]) for at, part in enumerate(_COLUMNS)]
    moved.append(_moved("popularity", float(aligned.bias[row] - aligned.bias.mean())))
    told = sorted((each for each in moved if abs(each.by) > 1e-6), key=lambda each: -abs(each.by))
    return Explained(float(scores[0] + aligned.bias[row]), tuple(told))


def _spoken(aligned: Aligned, person: Person, row: int, n: int, size: int) -> Float32s:
    """What the neighbours add to an item's score: (size,), whole, without each of n items of the history, then whole again."""
    blend = aligned.model.loaded.blend
    rows, weight = aligned.spoken(person)
    if not blend.neighbours or aligned.neighbours.is_empty or not len(rows):
        return np.zeros(size, np.float32)
    of_item = np.where(aligned.neighbours.item[rows] == row, aligned.neighbours.weight[rows], 0.0).sum(1)  # (T,)
    whole = float(blend.of_history(weight) @ of_item)
    out = np.full(size, whole, np.float32)
    for place in range(n):
        kept = np.arange(len(rows)) != place
        out[1 + place] = blend.of_history(weight[kept]) @ of_item[kept]
    return out


def _gained(aligned: Aligned, person: Person, row: int, left_out: Int32s, size: int, now_s: float) -> Float32s:
    """What the second stage adds to an item's score: (size,), whole, without each of n items of the history, then whole again."""
    out = np.zeros(size, np.float32)
    if (whole := aligned.profile(person)) is None:
        return out
    profiles = [whole] + [aligned.profile(person, without=int(each)) or whole for each in left_out]
    weight, item = aligned.model.loaded.blend.reranker, np.array([row])
    found = [float(aligned.reranker.gains(profile, item, now_s=now_s)[0]) for profile in profiles]
    out[:] = weight * found[0]
    out[1 : 1 + len(left_out)] = np.multiply(weight, found[1:])
    return out


def _repeated(features: UserFeatures, n: int) -> UserFeatures:
    """One user n times, in arrays of their own."""
    return replace(features, **{name: np.repeat(column, n, axis=0) for name, column in features.columns().items()})


def _moved(part: Part, by: float) -> Moved:
    english, japanese = WORDS[part]
    return Moved(part, round(float(by), 5), english, japanese)


def _did(person: Person, row: int, by: float, title: str, item_id: str) -> Moved:
    english, japanese = ACTS[person.act(row)]
    return Moved("history_item", round(float(by), 5), english.format(title), japanese.format(title), item_id)
