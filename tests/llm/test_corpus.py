"""Reading corpora in their own formats, scoring them, and finding what repeats."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genba_llm.corpus_quality import KEPT_FROM, domain_of, quality
from genba_llm.corpus_readers import Unreadable, format_of, plain_wikitext, read_documents
from genba_llm.duplicates import Seen, jaccard, shingles
from genba_llm.synthesise import synthesise

_DUMP = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/">
<siteinfo><sitename>Wikipedia</sitename></siteinfo>
<page><title>回転機械</title><ns>0</ns><revision><text>'''回転機械'''は[[軸|回転軸]]を持つ機械である。{{Infobox|{{nested}}}}&lt;ref&gt;出典&lt;/ref&gt;
== 歴史 ==
* 最初の[[蒸気機関]]。
{| class="wikitable"
| 表
|}
[[Category:機械]]</text></revision></page>
<page><title>転送</title><ns>0</ns><redirect title="回転機械"/><revision><text>#REDIRECT [[回転機械]]</text></revision></page>
<page><title>ノート:回転機械</title><ns>1</ns><revision><text>議論</text></revision></page>
<page><title>二番目</title><ns>0</ns><revision><text>本文。</text></revision></page>
</mediawiki>"""


def test_a_wikipedia_dump_gives_its_articles_as_prose(tmp_path: Path) -> None:
    path = tmp_path / "jawiki-pages-articles.xml.bz2"
    path.write_bytes(bz2.compress(_DUMP.encode()))
    documents = list(read_documents(path))
    assert [document.source for document in documents] == ["wikipedia:回転機械", "wikipedia:二番目"]
    assert documents[0].text == "回転機械は回転軸を持つ機械である。\n歴史\n最初の蒸気機関。"
    assert documents[0].licence == "CC-BY-SA-4.0"


def test_cc100_gives_documents_between_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "ja.txt.xz"
    path.write_bytes(lzma.compress("一行目。\n二行目。\n\n別の文書。\n".encode()))
    documents = list(read_documents(path))
    assert [document.text for document in documents] == ["一行目。\n二行目。", "別の文書。"]
    assert documents[1].source == "cc100:ja.txt.xz:4"


def test_mc4_gives_its_lines_with_their_address(tmp_path: Path) -> None:
    path = tmp_path / "c4-ja.tfrecord-00000-of-01024.json.gz"
    path.write_bytes(
        gzip.compress(json.dumps({"text": "本文", "url": "https://example.jp/a", "timestamp": "2019"}).encode())
    )
    (document,) = read_documents(path)
    assert (document.text, document.source, document.licence) == ("本文", "mc4:https://example.jp/a", "ODC-BY")
    assert "robots.txt" in document.robots


def test_a_companys_lines_bring_their_licence(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text('{"text": "手順", "licence": "own"}\n', "utf-8")
    (document,) = read_documents(path)
    assert (document.source, document.licence) == ("own.jsonl:1", "own")
    path.write_text('{"text": "手順"}\n', "utf-8")
    with pytest.raises(Unreadable, match=r"own\.jsonl:1: a line needs"):
        list(read_documents(path))


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c4.json.gz"
    path.write_bytes(gzip.compress(b'{"text": "x", "url": "y"}\n' * 500)[:-20])
    with pytest.raises(Unreadable, match=r"c4\.json\.gz is no readable mc4"):
        list(read_documents(path))


@pytest.mark.parametrize("name", ["c4.json.bz2", "c4.json.gz", "ja.txt.xz"])
def test_what_is_not_compressed_as_its_name_says_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not compressed at all, and long enough to look like a header")
    with pytest.raises(Unreadable, match="is no readable"):
        list(read_documents(tmp_path / name))


def test_a_file_that_the_disk_does_not_give_is_no_fault_of_its_format(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(read_documents(tmp_path / "gone.json.gz"))


def test_an_entity_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.xml"
    path.write_text(
        '<!DOCTYPE x [<!ENTITY a "b"><!ENTITY c "&a;&a;">]><mediawiki><page><text>&c;</text></page></mediawiki>',
        "utf-8",
    )
    with pytest.raises(Unreadable, match=r"bomb\.xml"):
        list(read_documents(path))


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(Unreadable, match="a Wikipedia dump"):
        format_of(Path("corpus.bin"))


@given(st.text(alphabet="{}[]|'=*あa\n<>/ref", max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_markup_is_survived(text: str) -> None:
    assert isinstance(plain_wikitext(text), str)


_GOOD = (
    "本日の点検では、主軸の振動値が基準を下回ることを確認しました。次回の整備は来月を予定しています。部品の交換記録は別紙に示します。"
    * 2
)


def test_good_japanese_prose_is_kept_and_everything_else_is_not() -> None:
    texts = [_GOOD, "", "短い。", "buy cheap watches now " * 20, "。" * 300, "あ" * 300, _GOOD * 40]
    scores = quality(texts)
    assert [bool(score >= KEPT_FROM) for score in scores] == [True, False, False, False, False, False, False]
    assert scores[1] == 0.0


@given(st.lists(st.text(max_size=50), max_size=8))
@settings(max_examples=100, deadline=None)
def test_a_score_does_not_depend_on_its_neighbours_and_lies_in_the_unit_interval(texts: list[str]) -> None:
    together = quality(texts)
    assert together.tolist() == [quality([text])[0] for text in texts]
    assert bool(np.all((together >= 0.0) & (together <= 1.0 + 1e-12)))


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("患者の検査結果と投薬の記録", "medical"),
        ("サーバーの障害でログを確認", "information_systems"),
        ("今日は良い天気です", "general"),
        ("病院", "general"),
        ("人工衛星を載せたロケットの打ち上げ", "aerospace"),
    ],
)
def test_a_text_belongs_to_the_domain_of_its_words(text: str, domain: str) -> None:
    assert domain_of(text) == domain


def test_a_copy_in_other_widths_and_spacing_is_a_duplicate() -> None:
    with Seen() as seen:
        assert seen.add("ABC 点検 手順　一", "first") is None
        assert seen.add("ａｂｃ点検手順一", "second") == ("first", 1.0)


def test_a_nearly_same_text_is_found_and_another_is_not() -> None:
    with Seen() as seen:
        seen.add(_GOOD, "first")
        found = seen.add(_GOOD.replace("来月", "再来月", 1), "second")
        assert found is not None
        assert found[0] == "first"
        assert 0.8 <= found[1] < 1.0
        assert seen.add("まったく別の内容の文章であり、共通する部分はほとんどありません。" * 3, "third") is None
        assert seen.most_alike(_GOOD) == ("first", 1.0)


def test_jaccard_counts_common_grams() -> None:
    assert jaccard(shingles("abcdef"), shingles("abcdef")) == 1.0
    assert jaccard(shingles("abcdef"), shingles("abcdeX")) == pytest.approx(1 / 3)
    assert jaccard(shingles(""), shingles("")) == 1.0


def test_synthesised_rows_are_balanced_different_and_the_same_again() -> None:
    rows = list(synthesise("medical", 600, seed=3))
    assert len({row.instruction for row in rows}) == 600
    counts = Counter(row.decision for row in rows)
    assert 0.27 < counts["ALLOW"] / 600 < 0.40
    assert 0.27 < counts["ESCALATE"] / 600 < 0.40
    assert counts["DENY"] + counts["REFUSE"] > 150
    assert rows[:200] == list(synthesise("medical", 200, seed=3))
    assert rows[:200] != list(synthesise("medical", 200, seed=4))
    for row in rows:
        assert row.output.startswith("<think-task>")
        assert row.output.count("<final>") == row.output.count("</final>") == 1
        assert bool(row.escalation_target) == (row.decision == "ESCALATE")
        assert row.policy_ref
