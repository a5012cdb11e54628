"""Stage 2: personal data and secrets in a text, above all Japan's, for which the usual recognisers have nothing.

A number counts only where its check digit holds; one without a check digit, or one that other numbers look like, needs a word
nearby that says what it is; numbers read aloud or taken apart come from ``spoken_numbers``. Offsets are those of the text given: full-width and kanji digits and long dashes are read in place.
``presidio.recognizers()`` plugs these into Microsoft Presidio. Knows no policy: what a kind leads to is the policy's.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from genba_llm.check_digits import (
    is_card,
    is_corporate_number,
    is_driver_license,
    is_insurer_number,
    is_my_number,
)
from genba_llm.spoken_numbers import said_numbers
from genba_llm.words import words

Kind = Literal[
    "my_number", "corporate_number", "driver_license", "passport", "health_insurance", "residence_card", "pension_number",
    "phone", "postal_code", "bank_account", "credit_card", "address", "name", "email", "birth_date", "secret_key",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)
_NEAR_CHARS = 24


@dataclass(frozen=True, order=True)
class Finding:
    """Characters ``start`` to ``end`` of the text are of ``kind``."""

    start: int
    end: int
    kind: Kind


_READ = {ord("　"): " ", ord("～"): "-"}
_READ |= {0xFF01 + i: chr(0x21 + i) for i in range(94)}
_READ |= {ord(dash): "-" for dash in "‐‑‒–—―−﹣－ｰ"}
_KANJI_DIGITS = str.maketrans("〇零一二三四五六七八九", "00123456789")
_KANJI_NUMBER = re.compile(r"[〇零一二三四五六七八九\d](?:[-ー() ]{0,2}[〇零一二三四五六七八九\d]){6,}")
_LONG_AS_DASH = re.compile(r"(?<=\d)ー(?=\d)")  # the key beside the digits; NFKC makes it of the half-width one as well
_D = r"(?<![\d-])"
_E = r"(?![\d-]|\.\d)"


@dataclass(frozen=True)
class _Number:
    """A pattern for a number, what it must fulfil, and the words of which one must be near (None: it stands alone)."""

    kind: Kind
    pattern: re.Pattern[str]
    holds: Callable[[str], bool]
    near: re.Pattern[str] | None = None


def _near(*words: str) -> re.Pattern[str]:
    return re.compile("|".join(words), re.IGNORECASE)


def _any(_: str) -> bool:
    return True


def _is_phone(digits: str) -> bool:
    digits = "0" + digits[2:].removeprefix("0") if digits.startswith("81") else digits
    if re.match(r"0[5-9]0", digits):
        return len(digits) == 11 and digits[3] != "0"
    return len(digits) == 10 and digits[1] != "0" and len(set(digits)) > 2


_MY_NUMBER_WORDS = _near("マイナンバー", "個人番号", "my ?number", "individual number", "マイナ")
_NUMBERS = (
    _Number("credit_card", re.compile(rf"{_D}(?:\d{{4}}[ -]){{3}}\d{{4}}{_E}|{_D}\d{{4}}[ -]\d{{6}}[ -]\d{{4,5}}{_E}|{_D}\d{{14,16}}{_E}"), is_card),
    _Number("my_number", re.compile(rf"{_D}\d{{4}}[ -]?\d{{4}}[ -]?\d{{4}}{_E}"), is_my_number, _MY_NUMBER_WORDS),
    _Number("driver_license", re.compile(rf"{_D}\d{{12}}{_E}|{_D}\d{{4}}[ -]\d{{4}}[ -]\d{{4}}{_E}"), is_driver_license, _near("免許", "driver'?s? licen[cs]e", "licen[cs]e (?:no|number)")),
    _Number("corporate_number", re.compile(rf"{_D}T?\d[ -]?\d{{4}}[ -]?\d{{4}}[ -]?\d{{4}}{_E}|(?<![A-Za-z\d])T\d{{13}}{_E}"), is_corporate_number, _near("法人番号", "登録番号", "インボイス", "corporate number", "invoice registration", r"T\d{13}")),
    _Number("health_insurance", re.compile(rf"{_D}(?:\d{{8}}|\d{{6}}|\d{{2}}[ -]\d{{2}}[ -]\d{{3}}[ -]\d){_E}"), is_insurer_number, _near("保険者番号", "保険証", "健康保険", "health insurance", "insurer (?:no|number)")),
    _Number("passport", re.compile(r"(?<![A-Za-z\d])[A-Z]{2}[ -]?\d{7}(?![A-Za-z\d-])"), _any, _near("旅券", "パスポート", "passport")),
    _Number("residence_card", re.compile(r"(?<![A-Za-z\d])[A-Z]{2}[ -]?\d{8}[ -]?[A-Z]{2}(?![A-Za-z\d])"), _any, _near("在留", "residence card", "特別永住")),
    _Number("pension_number", re.compile(rf"{_D}\d{{4}}-\d{{6}}{_E}"), _any, _near("年金", "pension")),
    _Number("phone", re.compile(rf"(?<![\dA-Za-z-])(?:\+81[ -]?\(?0?\)?\d{{1,4}}|\(?0\d{{1,4}}\)?)(?:[ -]?\(?\d{{1,4}}\)?[ -]|\(\d{{1,4}}\))\d{{3,4}}{_E}|(?<![\dA-Za-z-])(?:\+81|0)[5-9]0\d{{8}}{_E}"), _is_phone),
    _Number("phone", re.compile(rf"{_D}0\d{{9,10}}{_E}"), _is_phone, _near("電話", "tel", "携帯", "連絡先", "phone", "mobile", "fax", "ファクス", "ファックス")),
    _Number("bank_account", re.compile(rf"{_D}\d{{7}}{_E}"), _any, _near("口座", "普通預金", "当座", r"普通\s*$", "account (?:no|number)", "bank account", "振込先")),
    _Number("bank_account", re.compile(rf"{_D}1\d{{3}}0[ -]\d{{7}}1{_E}"), _any, _near("ゆうちょ", "記号", "通帳", "japan post bank", "yucho")),
)  # fmt: skip
_NEAR_SAID = {
    "phone": _near("電話", "tel", "携帯", "ケータイ", "連絡", "phone", "mobile", "fax", "ファクス", "ファックス", "かけて", r"\bcall\b"),
    "credit_card": _near("カード", "クレジット", "card", "visa", "master"),
}  # fmt: skip
_OTHER_NUMBER = _near(
    "型番",
    "品番",
    "部品",
    "管理番号",
    "ロット",
    "図面",
    "シリアル",
    "注文",
    "伝票",
    "会員",
    "serial",
    "lot",
    "part",
    "order",
    "drawing",
)
_POSTAL = re.compile(rf"(?:(〒)\s?|{_D})(?!000)(\d{{3}}-\d{{4}}){_E}|〒\s?(?!000)\d{{7}}{_E}")
_POSTAL_WORDS = _near("〒", "郵便番号", "postal code", "zip ?code", "postcode")
_PREFECTURE = "|".join(words("prefectures"))
_ADDRESS = re.compile(
    rf"(?:{_PREFECTURE})[ ]?[\u3040-\u30ff\u4e00-\u9fff々ヶ]{{1,8}}?(?:市|区|町|村|郡)[\u3040-\u30ff\u4e00-\u9fff々ヶ]{{0,16}}?"
    r"[ ]?(?:[\d〇一二三四五六七八九十百]{1,4}(?:丁目|番地?|号|-)[の ]?){1,4}[\d〇一二三四五六七八九十]{0,4}(?:号|番地?)?"
    r"(?:[ ][\u3040-\u30ff\u4e00-\u9fffA-Za-z]{2,14}[ ]?\d{1,4}(?:号室?)?)?"
)
_ENGLISH_ADDRESS = re.compile(
    r"\b\d{1,3}-\d{1,3}(?:-\d{1,4})?,? [A-Z][a-z]+(?:-?[a-z]+)*,? (?:[A-Z][a-z]+-(?:ku|shi|cho|machi|gun),? ){1,2}(?:Tokyo|Osaka|Kyoto|Hokkaido|[A-Z][a-z]+(?:-ken|-fu)?)\b"
)
_HONORIFIC = r"(?:さん|様|さま|氏|くん|君|ちゃん|先生|殿|社長|部長|課長|係長|主任|教授|医師|取締役|専務|常務|弁護士|選手|容疑者|被告)"
_SURNAME = "|".join(sorted(words("surnames"), key=len, reverse=True))
_GIVEN = "|".join(sorted(words("given_names"), key=len, reverse=True))
_NAME = re.compile(
    rf"(?<![\u4e00-\u9fff々])(?:{_SURNAME})[ ]?(?:{_GIVEN})(?![\u4e00-\u9fff々])"
    rf"|(?<![\u4e00-\u9fff々])(?:{_SURNAME})(?:[ ]?(?:{_GIVEN})|[ ][\u3040-\u30ff\u4e00-\u9fff々]{{1,4}}?)?(?={_HONORIFIC}(?!業))"
    rf"|(?:{_SURNAME})[ ]?(?:{_GIVEN})(?={_HONORIFIC})|(?<=[\u3040-\u309f])(?:{_SURNAME})(?={_HONORIFIC})"
)
_LABELLED_NAME = re.compile(
    r"(?:氏名|名前|担当者?|患者名|契約者|受取人|宛名|名義|full name)\s?[:は=]\s?([\u4e00-\u9fff々]{1,4}[ ]?[\u3040-\u30ff\u4e00-\u9fff々]{1,5}|[ァ-ヴー]{2,8}[ ][ァ-ヴー]{2,8}|[A-Z][a-z]+ [A-Z][A-Za-z]+)(?![\u4e00-\u9fff])",
    re.IGNORECASE,
)
_EMAIL = re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}(?![\w-])", re.ASCII)
_BIRTH = re.compile(
    r"(?:生年月日|誕生日|date of birth|birth ?date|dob|born on)\s?(?:[:は=]|is)?\s?((?:(?:19|20)\d{2}|(?:昭和|平成|令和|大正|[SHRT])\s?(?:\d{1,2}|元))[年/.-]\s?\d{1,2}[月/.-]\s?\d{1,2}日?|(?:January|February|March|April|May|June|July|August|September|October|November|December) \d{1,2}, (?:19|20)\d{2})"
    r"|((?:19\d{2}|20[01]\d|昭和\d{1,2}|平成\d{1,2})年\d{1,2}月\d{1,2}日)(?=生まれ)",
    re.IGNORECASE,
)
_SECRET = re.compile(
    r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----"
    r"|(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"
    r"|(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{30,}|sk-(?:proj-|ant-)?[A-Za-z0-9_-]{20,}|xox[abprs]-[A-Za-z0-9-]{10,}|AIza[\w-]{35}|glpat-[\w-]{20}|gnb_[A-Za-z0-9_-]{20,})"
    r"|(?<![\w.])eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"
    r"|(?:password|passwd|パスワード|api[_ -]?key|secret[_ -]?key)\s?(?:[:=は]|is)\s?(?=[!-~]{0,127}\d)(?=[!-~]{0,127}[A-Za-z])[!-~]{8,}",
    re.IGNORECASE,
)


def find_personal_data(text: str) -> list[Finding]:
    """Everything recognised in ``text``, by position; where two findings overlap, the longer one stays."""
    found = sorted(
        _candidates(text if text.isascii() else _read(text)), key=lambda each: (each.start - each.end, each.start)
    )
    kept: list[Finding] = []  # by position, and apart: only its neighbours can touch a further one
    for each in found:
        at = bisect.bisect(kept, each)
        if (at == 0 or kept[at - 1].end <= each.start) and (at == len(kept) or each.end <= kept[at].start):
            kept.insert(at, each)
    return kept


def _read(text: str) -> str:
    """``text`` with the digits and dashes that Japanese has for ASCII's, character by character. Kanji count as digits where
    seven or more stand together: 〇九〇―一二三四―五六七八, and not 一石二鳥.
    """
    read = _KANJI_NUMBER.sub(lambda found: found.group().translate(_KANJI_DIGITS), text.translate(_READ))
    return _LONG_AS_DASH.sub("-", read)


def mask(text: str, findings: list[Finding]) -> str:
    """``text`` with each finding replaced by its kind in angle brackets."""
    parts, at = [], 0
    for each in sorted(findings):
        parts += [text[at : each.start], f"<{each.kind}>"]
        at = each.end
    return "".join([*parts, text[at:]])


def _candidates(text: str) -> Iterator[Finding]:
    yield from _said(text)
    if any(c.isdigit() for c in text):
        yield from _numbers(text)
        yield from _postal_codes(text)
        for pattern in (_ADDRESS, _ENGLISH_ADDRESS):
            yield from (
                Finding(*_trim(text, match.start(), match.end()), "address") for match in pattern.finditer(text)
            )
        for match in _BIRTH.finditer(text):
            group = 1 if match[1] else 2
            yield Finding(match.start(group), match.end(group), "birth_date")
    elif "県" in text or "都" in text or "府" in text or "道" in text:
        yield from (Finding(*_trim(text, match.start(), match.end()), "address") for match in _ADDRESS.finditer(text))
    if not text.isascii():
        yield from (Finding(match.start(), match.end(), "name") for match in _NAME.finditer(text))
    yield from (Finding(match.start(1), match.end(1), "name") for match in _LABELLED_NAME.finditer(text))
    if "@" in text:
        yield from (Finding(match.start(), match.end(), "email") for match in _EMAIL.finditer(text))
    yield from (Finding(match.start(), match.end(), "secret_key") for match in _SECRET.finditer(text))


def _numbers(text: str) -> Iterator[Finding]:
    for number in _NUMBERS:
        for match in number.pattern.finditer(text):
            digits = re.sub(r"[^\d]", "", match.group())
            if number.holds(digits) and (number.near is None or _has_near(text, match, number.near)):
                yield Finding(match.start(), match.end(), number.kind)


def _said(text: str) -> Iterator[Finding]:
    """Numbers read aloud or taken apart. What needs no word nearby when it is written plainly may need one here."""
    for said in said_numbers(text):
        digits = said.digits.replace("-", "")
        around = text[max(0, said.start - _NEAR_CHARS) : said.start], text[said.end : said.end + _NEAR_CHARS // 2]
        for number in _NUMBERS:
            near = _NEAR_SAID.get(number.kind) or number.near
            firm = said.firm or (
                digits[0] == "0" and digits[2] == "0" and not said.loose
            )  # の and dashes; or a mobile's
            stands_alone = number.kind == "phone" and firm and not _OTHER_NUMBER.search(around[0][-16:])
            if (
                number.pattern.fullmatch(said.digits)
                and number.holds(digits)
                and ((number.near is None and stands_alone) or (near is not None and any(map(near.search, around))))
            ):
                yield Finding(said.start, said.end, number.kind)
        code = f"{digits[:3]}-{digits[3:]}" if said.loose and len(digits) == 7 else said.digits
        if _POSTAL.fullmatch(code) and any(map(_POSTAL_WORDS.search, around)):
            yield Finding(said.start, said.end, "postal_code")


def _postal_codes(text: str) -> Iterator[Finding]:
    for match in _POSTAL.finditer(text):
        follows = re.match(rf"\s?(?:{_PREFECTURE})", text[match.end() :])
        if match.group().startswith("〒") or follows or _has_near(text, match, _POSTAL_WORDS):
            start = match.end() - len(match.group().lstrip("〒 "))
            yield Finding(start, match.end(), "postal_code")


def _has_near(text: str, match: re.Match[str], words: re.Pattern[str]) -> bool:
    """Whether one of ``words`` stands before the match or right behind it, with no other number's word in between."""
    before = text[max(0, match.start() - _NEAR_CHARS) : match.start()]
    behind = text[match.end() : match.end() + _NEAR_CHARS // 2]
    return bool(words.search(before) or words.search(match.group()) or words.search(behind))


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    return start, start + len(text[start:end].rstrip(" -の"))
