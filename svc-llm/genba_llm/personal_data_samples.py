"""Texts with personal data whose place is known, and texts that only look so: what the recognisers are measured on.

Every number is made here, valid by its check digit or broken in it; none belongs to anybody on purpose.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from genba_llm.check_digits import corporate_number_digit, driver_license_digit, luhn_digit, my_number_digit
from genba_llm.personal_data import Kind
from genba_llm.words import words

Rng = random.Random


@dataclass(frozen=True)
class Sample:
    """``value`` stands in ``text`` at ``start`` and is of ``kind``; for a near-miss, nothing in the text is."""

    text: str
    kind: Kind
    value: str
    start: int


def sample(kind: Kind, rng: Rng) -> Sample:
    """A sentence with one value of ``kind``, in one of the ways in which people write it."""
    make, sentences = _KINDS[kind]
    return _place(rng.choice(sentences), kind, make(rng), rng)


def near_miss(kind: Kind, rng: Rng) -> Sample:
    """A sentence with what looks like ``kind`` and is not: a wrong check digit, a part number, a place without a house."""
    make, sentences = _NEAR_MISSES[kind]
    return _place(rng.choice(sentences), kind, make(rng), rng)


def spoken_sample(kind: Kind, rng: Rng) -> Sample:
    """A sentence with one value of ``kind`` as it is read aloud or taken apart."""
    make, sentences = _KINDS[kind][0], _SPOKEN[kind]
    while (value := make(rng)).startswith(("+", "T")):  # nobody reads these so
        pass
    return _place_as_is(rng.choice(sentences), kind, rng.choice(_WAYS)(_groups(kind, value), rng))


def spoken_near_miss(kind: Kind, rng: Rng) -> Sample:
    """A sentence in which digits are read aloud or taken apart and are nothing of ``kind``."""
    if kind in _BROKEN and rng.random() < 0.6:
        value = _BROKEN[kind](rng)
        value = value.removeprefix("T")
        return _place_as_is(rng.choice(_SPOKEN[kind]), kind, rng.choice(_WAYS)(_groups(kind, value), rng))
    groups = [
        _text(_digits(rng, size))
        for size in rng.choice(((3, 4, 4), (4, 4), (2, 4, 4), (4, 2, 2), (7,), (3, 4), (12,), (1,) * 10))
    ]
    if kind in {"phone", "postal_code", "bank_account"} or rng.random() < 0.5:
        return _place_as_is(rng.choice(_OTHERS), kind, rng.choice(_WAYS)(groups, rng))
    return Sample(rng.choice(_COUNTING), kind, "", 0)


def _place_as_is(sentence: str, kind: Kind, value: str) -> Sample:
    before, after = sentence.split("{}")
    return Sample(before + value + after, kind, value, len(before))


_SIZES: dict[Kind, tuple[int, ...]] = {
    "my_number": (4, 4, 4), "corporate_number": (1, 4, 4, 4), "driver_license": (4, 4, 4), "health_insurance": (8,),
    "phone": (3, 4, 4), "postal_code": (3, 4), "bank_account": (7,), "credit_card": (4, 4, 4, 4),
}  # fmt: skip


def _groups(kind: Kind, value: str) -> list[str]:
    parts = re.findall(r"\d+", value)
    return parts if len(parts) > 1 else _grouped(parts[0], _SIZES[kind], "-").split("-")


def _kana(groups: list[str], words: str, between: str) -> str:
    said = dict(zip("0123456789", words.split(), strict=True))
    return between.join("".join(said[digit] for digit in group) for group in groups)


def _each(groups: list[str], between: str) -> str:
    return between.join("".join(groups))


_HIRAGANA, _KATAKANA = (
    "ぜろ いち に さん よん ご ろく なな はち きゅう",
    "ゼロ イチ ニ サン ヨン ゴ ロク ナナ ハチ キュウ",
)
_MIXED, _ENGLISH = (
    "ゼロ いち に さん し ごー ろく しち はち きゅー",
    "zero one two three four five six seven eight nine",
)
_KANJI = "〇 一 二 三 四 五 六 七 八 九"
_WAYS: tuple[Callable[[list[str], Rng], str], ...] = (
    lambda groups, rng: _kana(groups, _KANJI, rng.choice(("の", "・", "、"))),
    lambda groups, rng: _kana(groups, rng.choice((_HIRAGANA, _KATAKANA, _MIXED)), rng.choice(("の", "、", " ", "、の、"))),
    lambda groups, _: _fullwidth("・".join(groups)),
    lambda groups, rng: _each(groups, rng.choice((" ", "・", "\n", "　", "、"))),
    lambda groups, rng: _fullwidth(_each(groups, rng.choice((" ", "　")))),
    lambda groups, _: ", ".join(" ".join(_ENGLISH.split()[int(digit)] for digit in group) for group in groups),
    lambda groups, rng: rng.choice(("の", "、次に", "、それから", "ハイフン")).join(groups),
)  # fmt: skip
_SPOKEN: dict[Kind, tuple[str, ...]] = {
    "my_number": ("マイナンバーは{}です。", "個人番号を読み上げます。{}。", "My Number: {}"),
    "corporate_number": ("法人番号は{}です。", "取引先の法人番号 {} を控えて"),
    "driver_license": ("免許証番号は{}です。", "運転免許証の番号、{} を控えました"),
    "health_insurance": ("保険者番号は{}です。", "保険証の番号 {} を確認"),
    "phone": ("電話番号は{}です。", "田中さんの携帯、{} にかけて", "連絡先は {} まで", "call me at {} tomorrow"),
    "postal_code": ("郵便番号は{}です。", "postal code {}"),
    "bank_account": ("口座番号は{}です。", "振込先の普通預金、{} です"),
    "credit_card": ("カード番号は{}です。", "クレジットカード、{} で払います", "card number {} please"),
}  # fmt: skip
_OTHERS = ("図面番号は{}です。", "ロット {} を確認", "部品番号 {} を発注", "serial {} failed", "型番{}の在庫を見て", "測定値は {} でした", "整理券は{}番です", "点数は{}だった")  # fmt: skip
_COUNTING = (
    "いち、に、さん、し、ご、ろく、しち、はち、きゅう、じゅう",
    "1、2、3、4、5、6、7、8、9、10、11、12",
    "0 1 0 1 1 0 0 1 0 1 1 0",
    "ににんがし、にさんがろく、にしがはち、にごじゅう",
    "二〇二六の一一の二八に開催、参加は一二三名",
    "スコアは三対二、一対〇、四対五、二対二",
    "one two three four five six seven eight nine ten",
    "三の丸、二の丸、一の宮、四の五の言わず",
    "2026・1・28から2026・3・15まで",
    "口座数は 3、4、5、6、7 と増えた",
    "電話は午前9・10・11時にかけて",
)  # fmt: skip


def _place(sentence: str, kind: Kind, value: str, rng: Rng) -> Sample:
    before, after = sentence.split("{}")
    value = _fullwidth(value) if kind not in _NEVER_WIDE and rng.random() < 0.08 else value
    return Sample(before + value + after, kind, value, len(before))


def _fullwidth(value: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if c.isdigit() else c for c in value)


def _digits(rng: Rng, count: int) -> list[int]:
    return [rng.randrange(10) for _ in range(count)]


def _text(digits: list[int]) -> str:
    return "".join(map(str, digits))


def _grouped(digits: str, sizes: tuple[int, ...], separator: str) -> str:
    parts, at = [], 0
    for size in sizes:
        parts.append(digits[at : at + size])
        at += size
    return separator.join(parts)


def _my_number(rng: Rng, wrong: int = 0) -> str:
    body = _digits(rng, 11)
    number = _text(body) + str((my_number_digit(body) + wrong) % 10)
    return rng.choice((number, _grouped(number, (4, 4, 4), " "), _grouped(number, (4, 4, 4), "-")))


def _corporate_number(rng: Rng, wrong: int = 0) -> str:
    body = _digits(rng, 12)
    first = (corporate_number_digit(body) - 1 + wrong) % 9 + 1
    return rng.choice(("T", "")) + str(first) + _text(body)


def _driver_license(rng: Rng, wrong: int = 0) -> str:
    body = [
        int(c) for c in f"{rng.choice((10, 22, 30, 43, 45, 54, 62, 73, 90, 97))}{rng.randrange(100):02d}"
    ] + _digits(rng, 6)
    return _text(body) + str((driver_license_digit(body) + wrong) % 10) + str(rng.randrange(3))


def _health_insurance(rng: Rng, wrong: int = 0) -> str:
    body = [int(c) for c in f"{rng.choice(('01', '06', '31', '39', '63'))}{rng.randint(1, 47):02d}"] + _digits(rng, 3)
    return _text(body) + str((luhn_digit(body) + wrong) % 10)


def _card(rng: Rng, wrong: int = 0) -> str:
    prefix = rng.choice(("4", "51", "55", "3528", "3530", "3566"))
    body = [int(c) for c in prefix] + _digits(rng, 15 - len(prefix))
    number = _text(body) + str((luhn_digit(body) + wrong) % 10)
    return rng.choice((number, _grouped(number, (4, 4, 4, 4), " "), _grouped(number, (4, 4, 4, 4), "-")))


def _wrong(make: Callable[[Rng, int], str]) -> Callable[[Rng], str]:
    """The same with a check digit that does not hold."""
    return lambda rng: make(rng, rng.randint(1, 8))


def _letters(rng: Rng, count: int) -> str:
    return "".join(rng.choice("ABCDEFGHJKLMNPRSTUVWXYZ") for _ in range(count))


def _passport(rng: Rng) -> str:
    return rng.choice("TM") + _letters(rng, 1) + _text(_digits(rng, 7))


def _phone(rng: Rng) -> str:
    tail = f"{rng.randrange(1000, 10000)}"
    return rng.choice(
        (
            f"0{rng.choice('789')}0-{rng.randrange(1000, 10000)}-{tail}",
            f"0{rng.choice('789')}0{rng.randrange(1000, 10000)}{tail}",
            f"03-{rng.randrange(3000, 7000)}-{tail}",
            f"06-{rng.randrange(6000, 7000)}-{tail}",
            f"045-{rng.randrange(200, 1000)}-{tail}",
            f"0422-{rng.randrange(20, 80)}-{tail}",
            f"(03){rng.randrange(3000, 7000)}-{tail}",
            f"+81-90-{rng.randrange(1000, 10000)}-{tail}",
        )
    )


def _not_phone(rng: Rng) -> str:
    return rng.choice(
        (
            f"{rng.randint(2000, 2030)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}",
            f"{rng.randint(100, 999)}-{rng.randint(10, 99)}-{rng.randint(100, 999)}",
            f"A{rng.randint(10, 99)}-{rng.randint(1000, 9999)}-{rng.randint(1000, 9999)}",
            f"1{rng.randint(10, 99)}-{rng.randint(1000, 9999)}-{rng.randint(1000, 9999)}",
            f"00-{rng.randint(1000, 9999)}-{rng.randint(1000, 9999)}",
        )
    )


def _postal(rng: Rng) -> str:
    return f"{rng.randint(1, 999):03d}-{rng.randrange(10000):04d}"


def _account(rng: Rng) -> str:
    return f"{rng.randrange(1000000, 10000000)}"


_TOWNS = ("千代田区丸の内", "新宿区西新宿", "横浜市中区本町", "名古屋市中村区名駅", "大阪市北区梅田", "札幌市中央区大通西", "福岡市博多区博多駅前", "つくば市吾妻", "金沢市広坂", "那覇市泉崎")  # fmt: skip


def _address(rng: Rng) -> str:
    house = rng.choice((f"{rng.randint(1, 9)}-{rng.randint(1, 30)}-{rng.randint(1, 20)}", f"{rng.randint(1, 9)}丁目{rng.randint(1, 30)}番{rng.randint(1, 20)}号", f"{rng.randint(1, 9)}丁目{rng.randint(1, 30)}-{rng.randint(1, 20)}", f"{rng.randint(100, 3000)}番地"))  # fmt: skip
    return rng.choice(words("prefectures")) + rng.choice(_TOWNS) + house


def _place_only(rng: Rng) -> str:
    return rng.choice(words("prefectures")) + rng.choice(_TOWNS)


def _name(rng: Rng) -> str:
    return rng.choice(words("surnames")) + rng.choice(("", " ")) + rng.choice(words("given_names"))


def _no_name(rng: Rng) -> str:
    return rng.choice(("森林組合", "林業", "石川県", "山口県", "千葉県", "中野駅", "上野公園", "原子力", "東京都", "関係者", "小松菜", "松本城", "堀川沿い", "平野部", "大橋の下", "新井白石の時代", "岡山の桃", "高山植物", "土屋根", "西山の夕日"))  # fmt: skip


_NEVER_WIDE = frozenset({"name", "address", "passport"})
_KINDS: dict[Kind, tuple[Callable[[Rng], str], tuple[str, ...]]] = {
    "my_number": (_my_number, ("マイナンバーは{}です。", "個人番号：{} を登録してください。", "私のマイナンバー {} を確認して", "My Number: {} please register", "個人番号 {}", "扶養家族の個人番号（{}）を提出します。")),
    "corporate_number": (_corporate_number, ("法人番号は{}です。", "法人番号：{}", "インボイスの登録番号 {} を確認してください。", "corporate number {} is on the invoice", "取引先の法人番号 {} を調べて")),
    "driver_license": (_driver_license, ("免許証番号は{}です。", "運転免許証の番号：{}", "免許証番号 {} を控えました", "driver's license number {}", "免許の番号（{}）を確認した")),
    "passport": (_passport, ("パスポート番号は{}です。", "旅券番号：{}", "passport number {} expires soon", "パスポート {} を紛失しました", "旅券の番号は {} です")),
    "health_insurance": (_health_insurance, ("保険者番号は{}です。", "健康保険証の保険者番号：{}", "保険証の番号 {} を確認", "health insurance insurer number {}", "保険者番号 {} 記号12 番号345")),
    "phone": (_phone, ("電話番号は{}です。", "携帯：{}", "{}までご連絡ください。", "TEL {}", "連絡先は {} です", "call me at {} tomorrow", "代表電話 {}（平日九時から）")),
    "postal_code": (_postal, ("〒{} に送ってください", "郵便番号は{}です。", "郵便番号：{}", "postal code {}", "〒{}")),
    "bank_account": (_account, ("口座番号は{}です。", "みずほ銀行 丸の内支店 普通 {}", "口座番号：{}", "振込先は普通預金{}です", "bank account number {}", "当座 {} に振り込んで")),
    "credit_card": (_card, ("カード番号は{}です。", "クレジットカード {} で払います", "card number {} please", "{} のカードを止めて", "カード：{}")),
    "address": (_address, ("住所は{}です。", "{}に住んでいます。", "送り先：{}", "本社は{}にあります。", "{} まで届けて")),
    "name": (_name, ("{}さんに連絡してください。", "担当は{}です。", "{}様", "氏名：{}", "昨日{}氏が来た。", "{}部長の予定を確認して", "営業の{}さんから電話がありました。")),
}  # fmt: skip
_NEAR_MISSES: dict[Kind, tuple[Callable[[Rng], str], tuple[str, ...]]] = {
    "my_number": (_wrong(_my_number), ("マイナンバーは{}です。", "個人番号：{} を登録してください。", "My Number: {}")),
    "corporate_number": (_wrong(_corporate_number), ("法人番号は{}です。", "法人番号：{}", "corporate number {}")),
    "driver_license": (_wrong(_driver_license), ("免許証番号は{}です。", "運転免許証の番号：{}", "driver's license number {}")),
    "passport": (lambda rng: _letters(rng, 2) + _text(_digits(rng, rng.choice((5, 6, 7)))), ("型番{}の在庫を確認して", "部品 {} を発注", "part number {}")),
    "health_insurance": (_wrong(_health_insurance), ("保険者番号は{}です。", "健康保険証の保険者番号：{}", "health insurance insurer number {}")),
    "phone": (_not_phone, ("日付は{}です。", "管理番号：{}", "ロット {} を確認", "serial {}", "図面番号 {}")),
    "postal_code": (_postal, ("型番は{}です。", "棚番 {} の部品", "lot {} shipped", "スコアは {} でした")),
    "bank_account": (_account, ("売上は{}円です。", "型番{}を発注", "serial {} failed", "人口は{}人")),
    "credit_card": (_wrong(_card), ("カード番号は{}です。", "クレジットカード {} で払います", "card number {} please")),
    "address": (_place_only, ("{}へ出張します。", "{}の天気を教えて。", "{}の歴史を調べる")),
    "name": (_no_name, ("{}について調べて。", "{}に行きました。", "{}の資料を作って")),
}  # fmt: skip
MEASURED_KINDS: tuple[Kind, ...] = tuple(_KINDS)
_BROKEN: dict[Kind, Callable[[Rng], str]] = {
    kind: _NEAR_MISSES[kind][0]
    for kind in ("my_number", "corporate_number", "driver_license", "health_insurance", "credit_card")
}
SPOKEN_KINDS: tuple[Kind, ...] = tuple(_SPOKEN)
