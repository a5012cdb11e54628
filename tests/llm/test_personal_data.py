"""Japanese personal data is found by its check digits, and what only looks like it is left alone."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genba_llm import check_digits
from genba_llm.personal_data import KINDS, Kind, find_personal_data, mask
from genba_llm.personal_data_samples import (
    MEASURED_KINDS,
    SPOKEN_KINDS,
    near_miss,
    sample,
    spoken_near_miss,
    spoken_sample,
)


@pytest.mark.parametrize("kind", MEASURED_KINDS)
def test_precision_and_recall_on_real_formats_and_near_misses(kind: Kind) -> None:
    rng = random.Random(f"measured {kind}")
    hits = misses = false = 0
    for _ in range(150):
        made = sample(kind, rng)
        spans = [(f.start, f.end) for f in find_personal_data(made.text) if f.kind == kind]
        end = made.start + len(made.value)
        hit = any(start <= made.start and stop >= end for start, stop in spans)
        hits, misses = hits + hit, misses + (not hit)
        false += sum(stop <= made.start or start >= end for start, stop in spans)
        false += sum(f.kind == kind for f in find_personal_data(near_miss(kind, rng).text))
    assert hits / (hits + misses) >= 0.98
    assert hits / (hits + false) >= 0.98


def test_published_examples_of_check_digits_hold() -> None:
    assert check_digits.is_my_number("123456789018")
    assert check_digits.is_corporate_number("7000012050002")  # the National Tax Agency's own
    assert check_digits.is_card("4111111111111111")
    assert check_digits.is_insurer_number("01130012")


@pytest.mark.parametrize(
    "check", ["is_my_number", "is_corporate_number", "is_card", "is_insurer_number", "is_driver_license"]
)
def test_one_wrong_digit_is_noticed(check: str) -> None:
    holds = getattr(check_digits, check)
    good = {"is_my_number": "123456789018", "is_corporate_number": "7000012050002", "is_card": "4111111111111111", "is_insurer_number": "01130012", "is_driver_license": _license()}[check]  # fmt: skip  # noqa: E501
    assert holds(good)
    place = (
        10 if check == "is_driver_license" else len(good) - 1
    )  # the check digit itself, or the last digit that it covers
    assert not holds(good[:place] + str((int(good[place]) + 1) % 10) + good[place + 1 :])


def _license() -> str:
    body = "3012345678"
    return body + str(check_digits.driver_license_digit([int(c) for c in body])) + "0"


def test_full_width_digits_and_long_dashes_are_read_in_place() -> None:
    text = "個人番号は１２３４－５６７８－９０１８です"
    found = find_personal_data(text)
    assert [(f.kind, text[f.start : f.end]) for f in found] == [("my_number", "１２３４－５６７８－９０１８")]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("電話は０９０ー１２３４ー５６７８です", "phone", "０９０ー１２３４ー５６７８"),
        ("〒100ー0001", "postal_code", "100ー0001"),
        ("カード4111ー1111ー1111ー1111", "credit_card", "4111ー1111ー1111ー1111"),
        ("東京都千代田区丸の内１ー２ー３", "address", "東京都千代田区丸の内１ー２ー３"),
        ("代表 03(1234)5678 まで", "phone", "03(1234)5678"),
        ("0120（123）456", "phone", "0120（123）456"),
        ("携帯は060-1234-5678", "phone", "060-1234-5678"),
    ],
)
def test_numbers_are_read_as_japanese_keyboards_and_cards_write_them(text: str, kind: Kind, value: str) -> None:
    assert [(f.kind, text[f.start : f.end]) for f in find_personal_data(text)] == [(kind, value)]


_KANJI = str.maketrans("0123456789", "〇一二三四五六七八九")
_IN_KANJI: tuple[Kind, ...] = (
    "my_number", "corporate_number", "driver_license", "health_insurance", "phone", "postal_code", "bank_account", "credit_card",
)  # fmt: skip


@pytest.mark.parametrize("kind", _IN_KANJI)
def test_numbers_in_kanji_digits_are_read_as_in_others(kind: Kind) -> None:
    rng = random.Random(f"kanji {kind}")
    compared = 0
    for _ in range(60):
        made = sample(kind, rng)
        if made.value.startswith(("+", "T")) or sum(c.isdigit() for c in made.value) < 7:
            continue
        compared += 1
        written = made.text.replace(made.value, made.value.translate(_KANJI))
        assert find_personal_data(written) == find_personal_data(made.text)
        missed = near_miss(kind, rng).text.translate(_KANJI)
        assert kind not in {f.kind for f in find_personal_data(missed)}
    assert compared > 20


def test_kanji_digits_stand_in_words_and_dates_as_before() -> None:
    for text in (
        "二〇二六年一一月二七日の会議",
        "一石二鳥、三寒四温、五里霧中、七転八起、九死一生",
        "一、二、三、四、五、六、七",
        "第一二三回",
    ):
        assert find_personal_data(text) == []
    text = "東京都千代田区丸の内一丁目二番三号、電話は〇三（一二三四）五六七八です"
    assert [(f.kind, text[f.start : f.end]) for f in find_personal_data(text)] == [
        ("address", "東京都千代田区丸の内一丁目二番三号"),
        ("phone", "〇三（一二三四）五六七八"),
    ]


def test_a_long_vowel_is_a_dash_between_digits_only() -> None:
    assert find_personal_data("データー3個、エラー404、1ー2は範囲") == []


def test_masking_keeps_the_rest() -> None:
    text = "田中さんの電話は090-1234-5678、カードは4111 1111 1111 1111です。"
    assert mask(text, find_personal_data(text)) == "<name>さんの電話は<phone>、カードは<credit_card>です。"


@pytest.mark.parametrize(
    "text",
    ["AKIA" + "ABCDEFGHIJ234567", "ghp_" + "a1B2" * 10, "-----BEGIN RSA PRIVATE KEY-----", "password: hunter2hunter2"],
    ids=["cloud key", "forge token", "private key", "password"],
)
def test_secrets_are_found(text: str) -> None:
    assert "secret_key" in {f.kind for f in find_personal_data(f"use {text} here")}


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-02に型番AB1234567を123456789012個発注した。",
        "森林と川と山の話。東の空。",
        "How do I kill a Python process on port 8080?",
        "パスワードを忘れました。",
        "3.14159265358979 と 1,234,567 円",
        "",
    ],
)
def test_ordinary_texts_hold_nothing(text: str) -> None:
    assert find_personal_data(text) == []


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_read_and_findings_lie_in_it_apart(text: str) -> None:
    found = find_personal_data(text)
    assert all(0 <= f.start < f.end <= len(text) and f.kind in KINDS for f in found)
    assert all(a.end <= b.start for a, b in itertools.pairwise(found))


@pytest.mark.parametrize("kind", SPOKEN_KINDS)
def test_precision_and_recall_on_numbers_read_aloud(kind: Kind) -> None:
    rng = random.Random(f"aloud {kind}")
    hits = false = 0
    for _ in range(150):
        made = spoken_sample(kind, rng)
        spans = [(f.start, f.end) for f in find_personal_data(made.text) if f.kind == kind]
        end = made.start + len(made.value)
        hits += any(start <= made.start and stop >= end for start, stop in spans)
        false += sum(stop <= made.start or start >= end for start, stop in spans)
        false += any(f.kind == kind for f in find_personal_data(spoken_near_miss(kind, rng).text))
    assert hits / 150 >= 0.98
    assert hits / (hits + false) >= 0.98


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("〇九〇の一二三四の五六七八です", "phone", "〇九〇の一二三四の五六七八"),
        ("田中に、ゼロきゅうゼロのいちにさんしのごろくななはちにかけて", "phone", "ゼロきゅうゼロのいちにさんしのごろくななはち"),
        ("番号は０９０・１２３４・５６７８", "phone", "０９０・１２３４・５６７８"),
        ("電話は090から始まって、次が1234、最後が5678です", "phone", "090から始まって、次が1234、最後が5678"),
        ("携帯 0\n9\n0\n1\n2\n3\n4\n5\n6\n7\n8", "phone", "0\n9\n0\n1\n2\n3\n4\n5\n6\n7\n8"),
        ("my phone: oh nine oh, one two three four, five six seven eight", "phone", "oh nine oh, one two three four, five six seven eight"),
        ("個人番号は一二三四の五六七八の九〇一八です", "my_number", "一二三四の五六七八の九〇一八"),
        ("二〇二六年、090・1234・5678、2026・11・28", "phone", "090・1234・5678"),
    ],
)  # fmt: skip
def test_a_number_read_aloud_is_found_where_it_stands(text: str, kind: Kind, value: str) -> None:
    assert [(f.kind, text[f.start : f.end]) for f in find_personal_data(text)] == [(kind, value)]


@pytest.mark.parametrize(
    "text",
    [
        "図面番号は〇三の一二三四の五六七八です",
        "ゼロ、いち、に、さん、し、ご、ろく、なな、はち、きゅう",
        "口座開設は2026・1・28です",
        "0、9、0、1、2、3、4、5、6、7、8と並べ替える",
        "個人番号は一二三四の五六七八の九〇一七です",
        "売上は4120、4350、4410、4530です",
    ],
)
def test_digits_that_are_said_are_not_all_somebodys(text: str) -> None:
    assert find_personal_data(text) == []


def test_hostile_texts_are_read_in_linear_time() -> None:
    for text in ("password:" * 100_000, "氏名:" * 100_000, "いち" * 100_000, "1が" * 100_000, "に。" * 100_000):
        find_personal_data(text)  # quadratic, one of these would take a quarter of an hour
    for text in ("0" * 20000, "東京都千代田区" * 2000, "1-" * 8000, "a@" * 8000, "佐藤 " * 5000):
        find_personal_data(text)  # a pattern that backtracks would not come back
