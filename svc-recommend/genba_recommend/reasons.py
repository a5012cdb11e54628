"""Why an item is on a list, in words for a person, in English and Japanese. Knows no arrays, no table and no HTTP."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import orjson

Kind = Literal[
    "because_of", "genre", "maker", "for_you", "segment", "trending", "popular", "new", "explored", "seldom", "similar"
]

Act = Literal["liked", "watched", "looked"]  # the most that somebody did with an item

_SAID: dict[Kind, tuple[str, str]] = {  # and ``because_of``, by what was done
    "genre": ("You often watch {0}", "よく見るジャンル：{0}"),
    "maker": ("From {0}, whose videos you watch", "よく見るメーカー：{0}"),
    "for_you": ("Picked for you", "あなたへのおすすめ"),
    "segment": ("Popular with viewers like you", "同じ年代・地域で人気"),
    "trending": ("Trending now", "いま話題"),
    "popular": ("Popular with everybody", "みんなに人気"),
    "new": ("New", "新着"),
    "explored": ("Something different", "いつもと違う一本"),
    "seldom": ("Something seldom shown", "あまり表示されない作品"),
    "similar": ("Similar to “{0}”", "「{0}」に似ています"),
}

_BECAUSE: dict[Act, tuple[str, str]] = {
    "liked": ("Because you liked “{0}”", "「{0}」を気に入った方へ"),
    "watched": ("Because you watched “{0}”", "「{0}」を見た方へ"),
    "looked": ("Because you looked at “{0}”", "「{0}」をチェックした方へ"),
}


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason, in both languages. ``item_id`` is the item that it speaks of, if any.   json: itself, written once for many lists."""

    kind: Kind
    en: str
    ja: str
    item_id: str | None = None
    json: orjson.Fragment = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        said = {"kind": self.kind, "en": self.en, "ja": self.ja, "item_id": self.item_id}
        object.__setattr__(self, "json", orjson.Fragment(orjson.dumps(said)))


@lru_cache(maxsize=16_384)  # the same titles and genres are named in list after list
def said(kind: Kind, *names: str, item_id: str | None = None) -> Reason:
    """A reason with its names put in."""
    english, japanese = _SAID[kind]
    return Reason(kind, english.format(*names), japanese.format(*names), item_id)


@lru_cache(maxsize=16_384)
def because_of(title: str, act: Act, *, item_id: str) -> Reason:
    """What somebody did with another item is the reason."""
    english, japanese = _BECAUSE[act]
    return Reason("because_of", english.format(title), japanese.format(title), item_id)
