"""Say aloud what a generated run shows, as a speech recogniser would write it down: runs in, cues out.

People say most of what they do, early or late, with fillers, with talk that has nothing to do with it, and with what they will do
or have done. A recogniser hears words wrongly, joins and splits them, drops small ones, writes little punctuation, breaks
sentences over cues, and its clock is off and drifts. Words are those of ``sop_spoken.yaml``; everything else follows from the seed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import yaml

from genba_sop.procedure import Span
from genba_sop.transcripts import Cue

Language = Literal["en", "ja"]
LANGUAGES: Final[tuple[Language, ...]] = ("en", "ja")

SAID: Final = 0.8  # of the steps are spoken of
WRONG: Final = 0.12  # of the words are heard wrongly
SMALL_LOST: Final = 0.25  # of small words are not heard at all
FILLED: Final = 0.4  # of the sentences begin with a filler
CHATTER: Final = 0.2  # of the steps have other talk beside them
MENTIONS: Final = 0.25  # of the steps have what comes later, or came before, beside them
ACROSS: Final = 0.35  # of the sentences go over two cues
SPEED: Final[Mapping[Language, float]] = {"en": 14.0, "ja": 7.5}  # characters a second

_FILLERS: Final[Mapping[Language, Sequence[str]]] = {
    "en": ("um", "so", "okay", "uh right", "you know", "let me see", "well"),
    "ja": ("えーと、", "あの、", "まあ、", "はい、", "じゃあ、", "そうですね、", "ええ、"),
}
_CHATTER: Final[Mapping[Language, Sequence[str]]] = {
    "en": (
        "did anyone see my coffee", "line three is down again I heard", "can you hear me with this microphone",
        "the auditor comes on Thursday", "somebody left the door open", "my back hurts today", "is the camera still running",
        "ask Tanaka he knows that better", "this light is too bright", "we had that last year as well",
    ),
    "ja": (
        "今日は暑いですね", "マイク入ってますか", "木曜に監査がありますから", "三番ラインがまた止まったそうです", "カメラ回ってますよね",
        "田中さんの方が詳しいですけど", "ちょっと電気がまぶしい", "去年もそうでした", "ドアを閉めてください", "腰が痛くて",
    ),
}  # fmt: skip
_MENTION: Final[Mapping[Language, Sequence[str]]] = {
    "en": ("after that it is {}", "later on, {}", "as I did before, {}"),
    "ja": ("このあと{}", "後でやりますが、{}", "さっきの、{}"),
}
_HEARD: Final = {
    "plug": "plaque", "torque": "talk", "wrench": "ranch", "ratchet": "rachel", "gloves": "clubs", "dipstick": "dip stick",
    "caliper": "calipher", "pads": "pats", "piston": "pistol", "funnel": "final", "rust": "trust", "brake": "break",
    "bolt": "bold", "bolts": "bolds", "filter": "filler", "drain": "train", "oil": "all", "litres": "leaders",
    "soap": "soup", "foam": "phone", "rinse": "prince", "thumb": "some", "nail": "mail", "towel": "tower",
    "mask": "mast", "goggles": "goggle's", "vest": "best", "helmet": "element", "strap": "trap", "mirror": "mira",
    "valve": "wealth", "hose": "those", "gasket": "basket", "clamps": "camps", "tape": "type", "label": "table",
    "manual": "annual", "carton": "cartoon", "sheet": "seat", "seal": "steel", "rotor": "router", "clamp": "lamp",
}  # fmt: skip
_SMALL: Final = frozenset(
    [
        "a",
        "the",
        "it",
        "is",
        "of",
        "on",
        "to",
        "and",
        "in",
        "I",
        "at",
        "by",
        "so",
        "my",
        "me",
        "we",
        "with",
        "this",
        "that",
    ]
)
_HOMOPHONES: Final = (
    ("締め", "閉め"), ("外し", "はずし"), ("抜い", "ぬい"), ("栓", "線"), ("量", "料"), ("拭", "吹"), ("貼", "張"), ("甲", "コウ"),
    ("油", "脂"), ("戻", "もど"), ("新品", "神品"), ("箱", "ハコ"), ("底", "そこ"), ("粉", "コナ"), ("爪", "つめ"), ("泡", "粟"),
    ("フィルター", "フィルタ"), ("プラグ", "フラグ"), ("レンチ", "ベンチ"), ("ボルト", "ボトル"), ("ゴーグル", "グーグル"),
    ("マスク", "マス"), ("ゲージ", "ケージ"), ("バルブ", "バブル"), ("ホース", "コース"), ("ガスケット", "バスケット"),
    ("ラチェット", "ラケット"), ("キャリパー", "キャリバー"), ("ピストン", "ピストル"), ("手袋", "手ぶくろ"), ("送り状", "送り場"),
)  # fmt: skip
_LATIN_WORD: Final = re.compile(r"[A-Za-z']+")


@dataclass(frozen=True)
class Words:
    """What is said while a step is done, and how it is asked for, in each language."""

    said: Mapping[Language, Sequence[str]]
    asked: Mapping[Language, Sequence[str]]


@functools.cache
def words(kind: str) -> dict[str, Words]:
    """Of each step of a procedure."""
    steps = yaml.safe_load(Path(__file__).with_name("sop_spoken.yaml").read_text(encoding="utf-8"))[kind]
    return {
        step: Words({"en": row["en"], "ja": row["ja"]}, {"en": row["ask_en"], "ja": row["ask_ja"]})
        for step, row in steps.items()
    }


def transcript(
    kind: str, spans: Sequence[Span], *, language: Language, duration_s: float, rng: np.random.Generator
) -> list[Cue]:
    """The cues of one run in the order of their starts."""
    steps = words(kind)
    offset_s, drift = rng.normal(0.3, 0.7), rng.normal(0.0, 0.01)
    sentences: list[tuple[float, str]] = []
    for n, span in enumerate(spans):
        length_s = span.end_s - span.start_s
        if rng.random() < SAID:
            sentence = str(rng.choice(list(steps[span.step_id].said[language])))
            sentences.append((span.start_s + rng.uniform(-0.8, 0.35 * length_s), sentence))
        if rng.random() < CHATTER:
            sentences.append((span.start_s + rng.uniform(0.3, 1.0) * length_s, str(rng.choice(_CHATTER[language]))))
        if rng.random() < MENTIONS and len(spans) > 2:
            other = spans[int(rng.choice([m for m in range(len(spans)) if abs(m - n) > 1] or [n]))]
            there = str(rng.choice(list(steps[other.step_id].said[language]))).rstrip(".。")
            mention = str(rng.choice(_MENTION[language])).format(there)
            sentences.append((span.start_s + rng.uniform(0.5, 1.0) * length_s, mention))
    cues: list[Cue] = []
    free_s = 0.0
    for start_s, sentence in sorted(sentences):
        for part in _cues(sentence, language, rng):
            spoken_s = max(len(part) / SPEED[language], 0.5)
            begins_s = max(start_s, free_s)
            free_s = begins_s + spoken_s
            said_s = (max(offset_s + (1 + drift) * begins_s, 0.0), offset_s + (1 + drift) * free_s)
            if part and said_s[0] < said_s[1] < duration_s:
                cues.append(Cue(*said_s, part))
    return cues


def _cues(sentence: str, language: Language, rng: np.random.Generator) -> list[str]:
    """The sentence as it is heard, over one cue or two."""
    if rng.random() < FILLED:
        sentence = f"{rng.choice(_FILLERS[language])}{' ' if language == 'en' else ''}{sentence}"
    heard = _heard_en(sentence, rng) if language == "en" else _heard_ja(sentence, rng)
    at = len(heard) // 2
    if rng.random() < ACROSS and len(heard) > 12:
        cut = heard.find(" ", at) if language == "en" else at
        if cut > 0:
            return [heard[:cut].strip(), heard[cut:].strip()]
    return [heard]


def _heard_en(sentence: str, rng: np.random.Generator) -> str:
    heard: list[str] = []
    for word in sentence.split():
        bare = (_LATIN_WORD.search(word) or [""])[0]
        if bare in _SMALL and rng.random() < SMALL_LOST:
            continue
        said = word
        if bare and rng.random() < WRONG:
            said = word.replace(bare, _HEARD.get(bare.lower(), _near(bare, rng)))
        if heard and rng.random() < 0.02:
            heard[-1] += said
        else:
            heard.append(said)
    text = " ".join(heard)
    return text if rng.random() < 0.5 else re.sub(r"[.,]", "", text).lower()  # half of the recognisers punctuate


def _near(word: str, rng: np.random.Generator) -> str:
    """A word that sounds a little like it: a vowel changed, or an ending lost or won."""
    vowels = [at for at, letter in enumerate(word) if letter in "aeiou"]
    if vowels and rng.random() < 0.6:
        at = int(rng.choice(vowels))
        return word[:at] + str(rng.choice(list("aeiou"))) + word[at + 1 :]
    return word[:-1] if len(word) > 3 and rng.random() < 0.5 else word + str(rng.choice(["s", "ed", "er"]))


def _heard_ja(sentence: str, rng: np.random.Generator) -> str:
    heard = sentence
    for right, wrong in _HOMOPHONES:
        if right in heard and rng.random() < 3 * WRONG:
            heard = heard.replace(right, wrong, 1)
    heard = re.sub(r"[をはにが]", lambda found: "" if rng.random() < 0.5 * SMALL_LOST else found[0], heard)
    return heard if rng.random() < 0.5 else re.sub("[、。]", "", heard)
