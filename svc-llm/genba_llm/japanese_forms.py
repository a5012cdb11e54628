"""The forms of a Japanese verb phrase that the contrast generator needs: 作る → 作り, 作って. Strings in, strings out."""

from __future__ import annotations

_GODAN_STEM = {
    "う": "い",
    "く": "き",
    "ぐ": "ぎ",
    "す": "し",
    "つ": "ち",
    "ぬ": "に",
    "ぶ": "び",
    "む": "み",
    "る": "り",
}
_GODAN_TE = {
    "う": "って",
    "く": "いて",
    "ぐ": "いで",
    "す": "して",
    "つ": "って",
    "ぬ": "んで",
    "ぶ": "んで",
    "む": "んで",
    "る": "って",
}
_SPECIAL = {"行く": "行って", "いく": "いって", "持って行く": "持って行って"}
# Verbs in -iru and -eru that bend like 切る, and kanji verbs in -る of the other class, told by their last character.
_GODAN_RU = "切知入走減蹴散握滑喋参帰限遮罵煽嘲偽煎練要絞縛貼釣撮盛刷掘振操売作乗取送破潜降配払折守貰殴移図回祈語被渡去釣謝眠踊怒帰測掛探因綴募奪当在陥殺彫巡走頼茂破誇太鼓叱湿盗狩凍"
_ICHIDAN_KANJI = "見着寝得経出似煮居射観診看"


def stem(phrase: str) -> str | None:
    """The form before たい; None for a phrase that does not end in a verb's dictionary form."""
    if phrase.endswith("する"):
        return phrase[:-2] + "し"
    if phrase.endswith(("来る", "くる")) and not phrase.endswith("つくる"):
        return phrase[:-2] + ("来" if phrase.endswith("来る") else "き")
    if phrase[-1] not in _GODAN_STEM or phrase.endswith(("ない", "たい")):
        return None
    if phrase.endswith("る") and _is_ichidan(phrase):
        return phrase[:-1]
    return phrase[:-1] + _GODAN_STEM[phrase[-1]]


def te(phrase: str) -> str | None:
    """The て-form; None as for ``stem``."""
    found = stem(phrase)
    if found is None:
        return None
    if phrase.endswith("する"):
        return phrase[:-2] + "して"
    for plain, joined in _SPECIAL.items():
        if phrase.endswith(plain):
            return phrase[: -len(plain)] + joined
    if phrase.endswith(("来る", "くる")) and not phrase.endswith("つくる"):
        return found + "て"
    if phrase.endswith("る") and _is_ichidan(phrase):
        return found + "て"
    return phrase[:-1] + _GODAN_TE[phrase[-1]]


def _is_ichidan(phrase: str) -> bool:
    before = phrase[-2:-1]
    if before in _GODAN_RU:
        return False
    if before in _ICHIDAN_KANJI:
        return True
    return before in "いきしちにひみりぎじびえけせてねへめれげぜべ"
