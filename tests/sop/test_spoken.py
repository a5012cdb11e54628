"""The index of what is said, against BM25 over the same cues in memory, on both databases."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sqlalchemy import select

from genba_shared.db import Database, utc_now
from genba_shared.lexical import Bm25
from genba_shared.principal import Clearance, Principal
from genba_sop import spoken, store
from genba_sop.tables import CueTermRow, Video
from genba_sop.transcripts import Cue

EN = ["open", "the", "drain", "plug", "with", "a", "ratchet", "pour", "new", "oil", "through", "funnel", "and", "wipe"]
JA = ["蓋を開けます", "オイルを注ぐ", "ドレンプラグを締める", "蓋の奥の栓", "拭いて終わり"]
QUERIES = ["drain plug", "funnels", "蓋", "オイルを注いで", "ratchet 栓", "z" * 300, "机"]


def video(database: Database, number: int, cues: list[Cue], *, tenant: str = "default", clearance: int = 1) -> str:
    row = Video(
        id=f"vid_{number:03d}", created_at=utc_now(), created_by="a", tenant=tenant, clearance=clearance, title="",
        sha256=str(number), size_bytes=0, info={}, encoder="e", duration_s=600.0, sampled_frames=0, video_key="v",
        features_key="f", thumbnails_key="t", timings_ms={}, expires_at=None, clip_count=0, indexed_in=None,
    )  # fmt: skip
    with database.transaction() as session:
        session.add(row)
        session.flush()
        store.set_transcript(session, row, cues)
    return row.id


def talk(rng: np.random.Generator, count: int) -> list[Cue]:
    said = [
        " ".join(rng.choice(EN, rng.integers(1, 9))) if rng.random() < 0.6 else str(rng.choice(JA))
        for _ in range(count)
    ]
    return [Cue(float(n), n + 1.0, words) for n, words in enumerate([*said, "z" * 300])]


@pytest.fixture
def who(principal: Callable[..., Principal]) -> Principal:
    return principal("viewer", clearance=Clearance.INTERNAL)


@pytest.mark.parametrize("text", QUERIES)
def test_scores_are_those_of_bm25_over_all_cues(database: Database, who: Principal, text: str) -> None:
    rng = np.random.default_rng(3)
    talks = {number: talk(rng, int(rng.integers(1, 30))) for number in range(6)}
    for number, cues in talks.items():
        video(database, number, cues)
    there = [(f"vid_{number:03d}", cue) for number, cues in sorted(talks.items(), reverse=True) for cue in cues]
    scores = Bm25([cue.words for _, cue in there]).scores(text)
    with database.read() as session:
        heard = spoken.find(session, who, text)
    found = {(said.video_id, said.cue): said.score for said in heard.said}
    assert found == {pair: pytest.approx(score) for pair, score in zip(there, scores, strict=True) if score > 0}
    assert [said.score for said in heard.said] == sorted(found.values(), reverse=True)
    assert (found == {}) == (text == QUERIES[-1])


def test_cues_that_the_caller_may_not_see_change_no_score(database: Database, who: Principal) -> None:
    rng = np.random.default_rng(4)
    mine = video(database, 0, talk(rng, 20))
    with database.read() as session:
        alone = spoken.find(session, who, "drain plug 蓋")
    video(database, 1, talk(rng, 20), tenant="plant-2")
    video(database, 2, talk(rng, 20), clearance=3)
    with database.read() as session:
        assert spoken.find(session, who, "drain plug 蓋") == alone
        assert alone.said
        assert spoken.find(session, who, "drain plug", videos=["vid_001", "vid_002"]).said == []
    other = video(database, 3, talk(rng, 20))
    with database.read() as session:
        assert {said.video_id for said in spoken.find(session, who, "drain").said} == {mine, other}
        assert {said.video_id for said in spoken.find(session, who, "drain", videos=[other]).said} == {other}


def test_a_new_transcript_leaves_nothing_of_the_one_before(database: Database, who: Principal) -> None:
    video(database, 0, [Cue(0.0, 1.0, "drain plug")])
    with database.transaction() as session:
        row = session.get(Video, "vid_000")
        assert row is not None
        store.set_transcript(session, row, [Cue(0.0, 1.0, "蓋を")])
    with database.read() as session:
        assert spoken.find(session, who, "drain").said == []
        assert [said.cue.words for said in spoken.find(session, who, "蓋を").said] == ["蓋を"]
        assert set(session.scalars(select(CueTermRow.term))) == {"j:蓋を"}


def test_whole_transcripts_are_read_of_the_best_until_they_are_too_many(
    database: Database, who: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = video(database, 0, [Cue(0.0, 1.0, "a"), Cue(1.0, 2.0, "drain plug"), Cue(2.0, 3.0, "b")])
    video(database, 1, [Cue(float(n), n + 1.0, "the drain of a long sentence and more") for n in range(5)])
    with database.read() as session:
        heard = spoken.find(session, who, "drain plug")
        assert [cue.words for _, cue in spoken.around(session, heard)[-3:]] == ["a", "drain plug", "b"]
        assert len(spoken.around(session, heard)) == 8
        monkeypatch.setattr(spoken, "MOST_AROUND", 4)
        assert {video_id for video_id, _ in spoken.around(session, heard)} == {best}
