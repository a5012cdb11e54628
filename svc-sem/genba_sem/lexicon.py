"""Words for shapes in English and Japanese, compiled to conditions on what was measured. Texts in, conditions out.

Where no vision-language weights exist, "needle-like" can still be found: a needle is a particle whose aspect ratio is below .35.
Words for size have no absolute meaning, so they become percentiles of what there is to search.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from genba_shared.text_forms import nfkc

Measure = Literal["aspect_ratio", "circularity", "solidity", "diameter_um"]


@dataclass(frozen=True)
class Condition:
    """``measure`` below or above ``bound``; ``soft`` is how far beyond it still counts a little.

    percentile: the bound is that percentile of the particles searched, and not a value.
    """

    measure: Measure
    side: Literal["below", "above"]
    bound: float
    soft: float
    percentile: bool = False

    def fit(self, value: float | None, *, bound: float | None = None, soft: float | None = None) -> float:
        """How well a value meets the condition, in (0, 1): one half at the bound; 0 for what was not measured."""
        if value is None:
            return 0.0
        at, width = self.bound if bound is None else bound, self.soft if soft is None else soft
        distance = (at - value) if self.side == "below" else (value - at)
        return 1 / (1 + math.exp(-max(-40.0, min(40.0, 4 * distance / max(width, 1e-9)))))

    def words(self) -> str:
        """For people: ``aspect ratio < 0.35``."""
        sign = "<" if self.side == "below" else ">"
        name = {"diameter_um": "diameter", "aspect_ratio": "aspect ratio"}.get(self.measure, self.measure)
        return f"{name} {sign} {self.bound:g}{'th percentile' if self.percentile else ''}"


@dataclass(frozen=True)
class Concept:
    """What a word of the lexicon means: every condition holds, and the view has these quality codes."""

    name: str
    words: tuple[str, ...]
    conditions: tuple[Condition, ...] = ()
    quality: tuple[str, ...] = ()


def _below(measure: Measure, bound: float, soft: float) -> Condition:
    return Condition(measure, "below", bound, soft)


def _above(measure: Measure, bound: float, soft: float) -> Condition:
    return Condition(measure, "above", bound, soft)


_LONG, _ROUND = _below("aspect_ratio", 0.35, 0.1), _above("circularity", 0.9, 0.05)
CONCEPTS: Final = (
    Concept("needle", ("needle", "acicular", "rod", "fibre", "fiber", "whisker", "針状", "針", "棒状", "繊維状", "ウィスカ"), (_LONG,)),
    Concept("elongated", ("elongated", "elongate", "oblong", "細長い", "細長", "伸長"), (_below("aspect_ratio", 0.6, 0.12),)),
    Concept(
        "spherical",
        ("spherical", "sphere", "globular", "round", "circular", "球状", "球形", "真球", "丸い", "円形"),
        (_ROUND, _above("aspect_ratio", 0.85, 0.08)),
    ),
    Concept("aggregate", ("aggregate", "agglomerate", "aggregated", "agglomerated", "cluster", "clump", "凝集", "凝集体", "塊状"),
            (_below("solidity", 0.85, 0.06),)),
    Concept("dendritic", ("dendrite", "dendritic", "branched", "樹枝状", "デンドライト", "枝分かれ"), (_below("solidity", 0.7, 0.08),)),
    Concept("irregular", ("irregular", "jagged", "不定形", "不規則", "いびつ"),
            (_below("circularity", 0.7, 0.08), _below("solidity", 0.93, 0.04))),
    Concept("angular", ("angular", "faceted", "polygonal", "blocky", "角張", "多角形", "角ばった", "ファセット"),
            (_below("circularity", 0.87, 0.04), _above("solidity", 0.93, 0.03), _above("aspect_ratio", 0.5, 0.1))),
    Concept("cubic", ("cube", "cubic", "square", "立方", "四角", "正方"),
            (_below("circularity", 0.87, 0.04), _above("solidity", 0.95, 0.02), _above("aspect_ratio", 0.66, 0.08))),
    Concept("smooth", ("smooth", "滑らか", "なめらか", "平滑"), (_above("circularity", 0.85, 0.06), _above("solidity", 0.95, 0.03))),
    Concept("cracked", ("cracked", "crack", "broken", "chipped", "fractured",
                        "ひび", "割れ", "クラック", "亀裂", "き裂", "欠け", "破断", "破砕"),
            (_below("circularity", 0.75, 0.08), _below("solidity", 0.95, 0.03))),
    Concept("large", ("large", "big", "coarse", "大きい", "大きな", "粗大", "粗粒"),
            (Condition("diameter_um", "above", 80, 5, percentile=True),)),
    Concept("small", ("small", "fine", "tiny", "小さい", "小さな", "微細", "微粒", "微小"),
            (Condition("diameter_um", "below", 20, 5, percentile=True),)),
    Concept("blurred", ("blurred", "blurry", "out of focus", "ぼけ", "ボケ", "ピンぼけ"), quality=("blurred",)),
    Concept("charging", ("charging", "charged", "帯電", "チャージアップ"), quality=("charging",)),
    Concept("noisy", ("noisy", "noise", "ノイズ"), quality=("noisy",)),
    Concept("cut off", ("cropped", "cut off", "見切れ"), quality=("outline_cut",)),
)  # fmt: skip

_JAPANESE: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
_LIKE: Final = re.compile(r"[-‐ ]?(?:like|shaped|ish)\b")


def concepts_in(text: str) -> list[Concept]:
    """The concepts that a text names, in the lexicon's order; of two Japanese words, one in the other, the longer counts."""
    plain = _LIKE.sub(" ", nfkc(text).lower())
    words = {
        form
        for word in re.findall(r"[a-z]+", plain)
        for form in (word, word.removesuffix("s"), word.removesuffix("es"))
    }
    taken: list[tuple[int, int, Concept]] = []
    spans = sorted(
        ((match.start(), match.end(), concept) for concept in CONCEPTS for match in _matches(plain, concept)),
        key=lambda span: span[0] - span[1],
    )
    for start, end, concept in spans:
        if not any(start < other_end and other_start < end for other_start, other_end, _ in taken):
            taken.append((start, end, concept))
    named = {concept.name for _, _, concept in taken}
    named |= {concept.name for concept in CONCEPTS for word in concept.words if word in words}
    named |= {concept.name for concept in CONCEPTS for word in concept.words if " " in word and word in plain}
    return [concept for concept in CONCEPTS if concept.name in named]


def _matches(plain: str, concept: Concept) -> Sequence[re.Match[str]]:
    japanese = [nfkc(word) for word in concept.words if _JAPANESE.search(word)]
    return [match for word in japanese for match in re.finditer(re.escape(word), plain)]


def shape_fit(
    concept: Concept, measured: Mapping[str, float | None], bounds: Mapping[Condition, tuple[float, float]]
) -> float:
    """How well a particle meets a concept's conditions: the worst of them; 1 where it has none.

    bounds: of conditions by percentile, the value and its softness among what is searched.
    """
    fits = []
    for condition in concept.conditions:
        bound, soft = bounds.get(condition, (condition.bound, condition.soft))
        fits.append(condition.fit(measured.get(condition.measure), bound=bound, soft=soft))
    return min(fits, default=1.0)
