"""The parts under the routes, one by one: pool, bundles, text search, agreement, control charts."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba_shared.lexical import Bm25, terms
from genba_shared.pool import QueueFull, WorkPool
from genba_shared.telemetry import Metrics
from genba_sop import analytics
from genba_sop.bundles import clips, mean_vector, pack_features, pack_thumbnails, unpack_features, unpack_thumbnails
from genba_sop.features import Features
from genba_sop.report import clock, p_text
from genba_sop.report_figures import alignment_figure, ticks, timeline
from genba_sop.report_words import KINDS, STATUSES, UI, measured, reason
from genba_sop.review import krippendorff_alpha


def features(seconds: float, *, fps: float = 4.0) -> Features:
    count = int(seconds * fps)
    rows = np.random.default_rng(0).normal(size=(count, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return Features(
        encoder="test",
        times_s=np.arange(count) / fps,
        values=rows,
        local=np.zeros((count, 48, 3), np.float32),
        motion=np.zeros(count, np.float32),
        duration_s=seconds,
    )


# --- pool -----------------------------------------------------------------------------------------------------------


def test_a_pool_runs_so_many_lets_so_many_wait_and_refuses_the_next() -> None:
    async def story() -> list[int]:
        pool = WorkPool("test", workers=1, queue=2, metrics=Metrics("test"))
        go = threading.Event()
        waiting = [asyncio.create_task(pool(go.wait)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull) as refused:
            await pool(lambda: True)
        assert int(refused.value.headers["Retry-After"]) >= 1
        go.set()
        done = [int(each) for each in await asyncio.gather(*waiting)]
        assert await pool(lambda: 7) == 7
        assert pool.taken == 0
        pool.close()
        return done

    assert asyncio.run(story()) == [1, 1, 1]


def test_a_place_is_given_back_when_the_work_fails() -> None:
    async def story() -> int:
        pool = WorkPool("test", workers=1, queue=0, metrics=Metrics("test"))

        def broken() -> None:
            raise OSError("no disk")

        for _ in range(3):
            with pytest.raises(OSError, match="no disk"):
                await pool(broken)
        taken = pool.taken
        pool.close()
        return taken

    assert asyncio.run(story()) == 0


# --- bundles --------------------------------------------------------------------------------------------------------


def test_features_come_back_as_they_were() -> None:
    before = features(5)
    after = unpack_features(io.BytesIO(pack_features(before)))
    assert (after.encoder, after.duration_s) == ("test", 5)
    for name in ("times_s", "values", "local", "motion"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


def test_a_pickle_in_a_bundle_is_refused() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, encoder=np.array([{"a": 1}], dtype=object))
    buffer.seek(0)
    with pytest.raises(ValueError, match="allow_pickle"):
        unpack_features(buffer)


def test_the_nearest_picture_is_found() -> None:
    kept = unpack_thumbnails(io.BytesIO(pack_thumbnails([(2.0, b"two"), (0.0, b"zero"), (1.0, b"one")])))
    assert [kept.nearest(t) for t in (-5, 0.4, 0.6, 99)] == [b"zero", b"zero", b"one", b"two"]
    assert unpack_thumbnails(io.BytesIO(pack_thumbnails([]))).nearest(1.0) is None


@given(st.floats(0.5, 30))
def test_clips_cover_a_video_and_lie_inside_it(seconds: float) -> None:
    found = list(clips(features(seconds)))
    assert found[0].start_s == 0.0
    assert all(0 <= clip.start_s < clip.end_s <= seconds + 1e-9 for clip in found)
    assert found[-1].end_s >= seconds - 1.0 - 1e-9
    assert all(abs(float(np.linalg.norm(clip.vector)) - 1) < 1e-5 for clip in found)


def test_a_stretch_without_frames_has_no_vector() -> None:
    assert mean_vector(features(5), 7.0, 8.0) is None


# --- text search ----------------------------------------------------------------------------------------------------

TEXTS = [
    "Tighten the drain plug ドレンプラグを締める torque wrench",
    "Put on gloves 手袋を着ける",
    "Drain the old oil 古いオイルを抜く",
]


@pytest.mark.parametrize(
    ("query", "best"),
    [("torque", 0), ("tightening", 0), ("glove", 1), ("手袋", 1), ("オイル", 2), ("DRAIN OIL", 2), ("プラグ", 0)],
)
def test_words_inflected_words_and_japanese_find_their_text(query: str, best: int) -> None:
    assert int(np.argmax(Bm25(TEXTS).scores(query))) == best


def test_a_word_of_one_character_finds_the_texts_that_hold_it() -> None:
    scores = Bm25(["蓋を開ける", "台を拭く", "下の蓋", "蓋"]).scores("蓋")
    assert [score > 0 for score in scores] == [True, False, True, True]


def test_what_matches_nothing_scores_nothing() -> None:
    assert Bm25(TEXTS).scores("xylophone 鮫") == [0.0, 0.0, 0.0]
    assert Bm25([]).scores("oil") == []
    assert Bm25(["…", "Масло"]).scores("oil") == [0.0, 0.0]
    assert Bm25(["…"]).ideal("oil") == 0
    assert terms("!!! …") == {}


# --- agreement ------------------------------------------------------------------------------------------------------


def test_krippendorffs_alpha_agrees_with_the_published_example() -> None:
    """Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), example C: nominal, four observers, alpha =
    .743.
    """
    table = ["1", "2", "3", "3", "2", "1", "4", "1", "2", None, None, None], \
            ["1", "2", "3", "3", "2", "2", "4", "1", "2", "5", None, "3"], \
            [None, "3", "3", "3", "2", "3", "4", "2", "2", "5", "1", None], \
            ["1", "2", "3", "3", "2", "4", "4", "1", "2", "5", "1", None]  # fmt: skip
    units = [[value for value in unit if value] for unit in zip(*table, strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=0.0005)


def test_alpha_is_unknown_without_two_ratings_or_two_values() -> None:
    assert krippendorff_alpha([["a"], ["b"]]) is None
    assert krippendorff_alpha([["a", "a"], ["a", "a"]]) is None


# --- analytics ------------------------------------------------------------------------------------------------------


def test_control_limits_are_those_of_an_individuals_chart() -> None:
    """Montgomery's example for viscosity: x̄ = 33.52, MR̄ = 0.48, limits 34.80 and 32.24."""
    viscosity = [
        33.75,
        33.05,
        34.00,
        33.81,
        33.46,
        34.02,
        33.68,
        33.27,
        33.49,
        33.20,
        33.62,
        33.00,
        33.54,
        33.12,
        33.84,
    ]
    centre, limits = analytics.control_limits(viscosity)
    assert centre == pytest.approx(33.52, abs=0.01)
    assert limits == pytest.approx((32.24, 34.80), abs=0.02)


def test_limits_wait_until_there_are_enough_points() -> None:
    assert analytics.control_limits([80.0] * 7) == (80.0, None)


def test_the_same_score_again_and_again_is_neither_beyond_the_limits_nor_a_run() -> None:
    """statistics.fmean([x] * 14) is not x for this one."""
    moment = datetime(2026, 11, 21, tzinfo=UTC)
    rows = [dataclasses.replace(scored(n), score=84.4421851525048, created_at=moment) for n in range(14)]
    (trend,) = analytics.trends(rows)
    assert (trend.lower_limit, trend.centre, trend.upper_limit) == (84.4421851525048,) * 3
    assert not any(point.beyond_limits or point.in_run for point in trend.points)


def test_nine_in_a_row_on_one_side_are_marked() -> None:
    values = [70.0] * 3 + [90.0] * 9 + [70.0] * 8
    assert analytics.in_runs(values, 80.0) == [False] * 3 + [True] * 9 + [False] * 8


def test_saved_time_is_what_the_hand_would_have_taken_less_reviews() -> None:
    saved = analytics.time_saved([scored(n, reviewed=n < 2) for n in range(10)], analytics.Figures(30, 6, 50))
    assert (saved.manual_hours, saved.review_hours, saved.saved_hours, saved.saved_cost) == (5.0, 0.2, 4.8, 240.0)


def scored(n: int, **fields: Any) -> analytics.Scored:
    defaults: dict[str, Any] = {"operator": "op", "score": 80.0, "verdict": "pass", "reviewed": False, "compute_s": 0.1}
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=n)
    return analytics.Scored(
        id=f"e{n:03d}", procedure_id="p", created_at=at, steps=(), deviations=(), **(defaults | fields)
    )


def test_a_trend_is_per_operator_in_the_order_of_time() -> None:
    rows = [scored(2, score=70.0), scored(0, score=90.0), scored(1, operator=None), scored(3, operator="other")]
    found = analytics.trends(rows)
    assert [(trend.operator, [point.score for point in trend.points]) for trend in found] == [
        ("op", [90.0, 70.0]),
        ("other", [80.0]),
    ]


# --- report ---------------------------------------------------------------------------------------------------------


def test_times_and_p_values_read_well() -> None:
    assert [clock(t) for t in (0, 9.96, 59.99, 75.34)] == ["0:00.0", "0:10.0", "1:00.0", "1:15.3"]
    assert [p_text(p) for p in (0.0234, 1e-9)] == ["= 0.023", "< 0.001"]


def test_every_word_is_there_in_both_languages() -> None:
    for table in (KINDS, STATUSES, UI):
        for said in table.values():
            assert said.en
            assert said.ja
    for kind in KINDS:
        assert all(measured(kind, 0.5))


def test_a_reason_names_its_step_and_an_unknown_one_shows_itself() -> None:
    from genba_sop.report_words import Words

    names = {"torque": Words("Torque", "締付け")}
    assert reason("critical_missing:torque", names) == Words("Critical step missing: Torque", "重要手順の抜け:締付け")
    assert reason("something_new:torque", names).en == "something_new:torque: Torque"


def test_marks_that_would_cover_each_other_lie_in_lanes() -> None:
    found = timeline(
        [("a", 0, 5), ("b", 5, 10)],
        [("a", 0, 4)],
        [("idle", "minor", 1, 2), ("extra", "minor", 1.1, 2), ("missing", "critical", 9, 9)],
        order=["a", "b"],
        gold_s=10,
        trainee_s=8,
    )
    assert [mark.lane for mark in found.marks] == [0, 1, 0]
    assert found.missing == {"b"}
    assert found.gold[1].x == pytest.approx(500)


@given(st.floats(0.1, 7200))
def test_an_axis_has_a_few_round_ticks(duration_s: float) -> None:
    found = ticks(duration_s, 1000.0)
    assert 1 <= len(found) <= 10
    assert all(0 <= tick.at <= 1000.0 + 1e-6 for tick in found)


def test_without_a_path_there_is_no_picture_of_one() -> None:
    assert alignment_figure([], [], [], gold_s=10, trainee_s=10) is None
