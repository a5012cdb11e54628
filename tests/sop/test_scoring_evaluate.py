"""What a run against golds shows, on invented feature sequences: every kind of deviation, and what must not be one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tests.sop.scoring_world import FPS, Do, Filmed, World

from genba_sop.conformal import Calibration
from genba_sop.deviations import adjoins, part_of
from genba_sop.evaluation import Deviation, DeviationKind, Evaluation
from genba_sop.evaluations import path_in_seconds
from genba_sop.metrics import temporal_iou
from genba_sop.performances import Performance
from genba_sop.procedure import Span
from genba_sop.reference import Gold, Reference, fit
from genba_sop.rows import MAX_FRAMES
from genba_sop.scoring import Policy, evaluate

ONE_AND_FIVE = pytest.mark.parametrize("golds", [1, 5])


@pytest.fixture(scope="module")
def world() -> World:
    return World(critical=("d",))


@pytest.fixture(scope="module")
def references(world: World) -> dict[int, Reference]:
    return {count: fit(world.procedure(), world.golds(count)) for count in (1, 3, 5)}


def kinds(evaluation: Evaluation) -> list[tuple[str, str | None]]:
    return [(deviation.kind, deviation.step_id) for deviation in evaluation.deviations]


def covers(evaluation: Evaluation, filmed: Filmed, step: str) -> float:
    """IoU of the only deviation with the last place where the run shows the step."""
    span = [span for span in filmed.spans if span.step_id == step][-1]
    (deviation,) = evaluation.deviations
    return temporal_iou((deviation.start_s, deviation.end_s), (span.start_s, span.end_s))


@ONE_AND_FIVE
@pytest.mark.parametrize("pace", [0.7, 1.0, 1.4])
def test_a_clean_run_at_any_pace_passes_with_full_marks(
    world: World, references: dict[int, Reference], golds: int, pace: float
) -> None:
    evaluation = evaluate(references[golds], world.film(seed=3, pace=pace).features)
    assert kinds(evaluation) == []
    assert evaluation.verdict == "pass"
    assert evaluation.reasons == ()
    assert evaluation.score > 95


@ONE_AND_FIVE
def test_a_step_left_out_is_missing_where_it_should_have_been(
    world: World, references: dict[int, Reference], golds: int
) -> None:
    filmed = world.film("a", "b", "c", "d", "f", "g", "h", seed=4)
    evaluation = evaluate(references[golds], filmed.features)
    assert kinds(evaluation) == [("missing", "e")]
    assert evaluation.deviations[0].start_s == evaluation.deviations[0].end_s
    assert evaluation.deviations[0].start_s == pytest.approx(filmed.spans[3].end_s, abs=1.0)
    assert evaluation.verdict == "needs_review"
    assert evaluation.reasons == ("missing:e",)
    assert evaluation.score == pytest.approx(100 * 7 / 8, abs=3)


@ONE_AND_FIVE
def test_a_skipped_critical_step_fails_without_dragging_the_rest_to_zero(
    world: World, references: dict[int, Reference], golds: int
) -> None:
    evaluation = evaluate(references[golds], world.film("a", "b", "c", "e", "f", "g", "h", seed=5).features)
    assert evaluation.verdict == "fail"
    assert evaluation.reasons == ("critical_missing:d",)
    assert 70 < evaluation.score < Policy().pass_score
    assert all(step.quality > 0.9 for step in evaluation.steps if step.step_id != "d")


@ONE_AND_FIVE
def test_a_step_done_too_early_is_moved_and_fails_the_run(
    world: World, references: dict[int, Reference], golds: int
) -> None:
    filmed = world.film("a", "f", "b", "c", "d", "e", "g", "h", seed=6)
    evaluation = evaluate(references[golds], filmed.features)
    assert kinds(evaluation) == [("moved", "f")]
    assert (
        temporal_iou(
            (evaluation.deviations[0].start_s, evaluation.deviations[0].end_s),
            (filmed.spans[1].start_s, filmed.spans[1].end_s),
        )
        > 0.8
    )
    assert evaluation.verdict == "fail"
    assert evaluation.reasons == ("order:f",)


@ONE_AND_FIVE
def test_two_neighbours_that_change_places_fail_the_run(
    world: World, references: dict[int, Reference], golds: int
) -> None:
    evaluation = evaluate(references[golds], world.film("a", "b", "d", "c", "e", "f", "g", "h", seed=7).features)
    assert [kind for kind, _ in kinds(evaluation)] == ["moved"]
    assert evaluation.verdict == "fail"


@ONE_AND_FIVE
def test_the_whole_procedure_backwards_is_followed_step_by_step(
    world: World, references: dict[int, Reference], golds: int
) -> None:
    evaluation = evaluate(references[golds], world.film(*"hgfedcba", seed=8).features)
    assert {kind for kind, _ in kinds(evaluation)} == {"moved"}
    assert len(evaluation.deviations) == 7
    assert evaluation.verdict == "fail"


@ONE_AND_FIVE
def test_steps_whose_order_does_not_bind_may_change_places(golds: int) -> None:
    free = World(after=dict.fromkeys("cde", ("b",)) | {"f": ("c", "d", "e")})
    reference = fit(free.procedure(), free.golds(golds))
    evaluation = evaluate(reference, free.film(*"abedcfgh", seed=9).features)
    assert kinds(evaluation) == []
    assert evaluation.verdict == "pass"


@ONE_AND_FIVE
def test_an_action_that_no_gold_shows_is_extra(world: World, references: dict[int, Reference], golds: int) -> None:
    filmed = world.film("a", "b", "c", Do(None, seconds=5.0), "d", "e", "f", "g", "h", seed=10)
    evaluation = evaluate(references[golds], filmed.features)
    assert kinds(evaluation) == [("extra", None)]
    truth = (filmed.spans[2].end_s, filmed.spans[3].start_s)
    assert temporal_iou((evaluation.deviations[0].start_s, evaluation.deviations[0].end_s), truth) > 0.8
    assert evaluation.verdict == "pass"
    assert evaluation.score < 98


@ONE_AND_FIVE
@pytest.mark.parametrize("doings", ["abcdefbgh", "abbcdefgh"], ids=["later", "at once"])
def test_a_step_done_once_more_is_repeated(
    world: World, references: dict[int, Reference], golds: int, doings: str
) -> None:
    filmed = world.film(*doings, seed=11)
    evaluation = evaluate(references[golds], filmed.features)
    assert kinds(evaluation) == [("repeated", "b")]
    assert covers(evaluation, filmed, "b") > 0.7


@ONE_AND_FIVE
def test_standing_still_is_idling_wherever_it_happens(
    world: World, references: dict[int, Reference], golds: int
) -> None:
    doings = [Do("a"), Do("b"), Do(None, seconds=6.0, idle=True), *(Do(step) for step in "cdefgh")]
    evaluation = evaluate(references[golds], world.film(*doings, seed=12).features)
    assert kinds(evaluation) == [("idle", None)]
    assert evaluation.deviations[0].measure == pytest.approx(6.0, abs=1.0)


@ONE_AND_FIVE
@pytest.mark.parametrize(("pace", "kind"), [(2.8, "too_fast"), (0.36, "too_slow")])
def test_a_step_out_of_all_proportion_is_too_fast_or_too_slow(
    world: World, references: dict[int, Reference], golds: int, pace: float, kind: str
) -> None:
    filmed = world.film("a", "b", Do("c", pace=pace), "d", "e", "f", "g", "h", seed=13)
    evaluation = evaluate(references[golds], filmed.features)
    assert kinds(evaluation) == [(kind, "c")]
    assert covers(evaluation, filmed, "c") > 0.7


@ONE_AND_FIVE
@pytest.mark.parametrize(("min_s", "max_s", "kind"), [(60.0, None, "too_fast"), (None, 1.5, "too_slow")])
def test_the_author_s_own_time_limits_hold_whatever_the_golds_do(
    world: World, golds: int, min_s: float | None, max_s: float | None, kind: str
) -> None:
    procedure = world.procedure()
    steps = tuple(
        dataclasses.replace(step, min_s=min_s, max_s=max_s) if step.id == "c" else step for step in procedure.steps
    )
    reference = fit(dataclasses.replace(procedure, steps=steps), world.golds(golds))
    evaluation = evaluate(reference, world.film(seed=26).features)
    assert kinds(evaluation) == [(kind, "c")]
    assert evaluation.deviations[0].p_value is None


def test_another_tool_in_the_same_action_is_the_wrong_tool(world: World, references: dict[int, Reference]) -> None:
    filmed = world.film("a", "b", Do("c", tool=1), "d", "e", "f", "g", "h", seed=14)
    evaluation = evaluate(references[5], filmed.features)
    assert kinds(evaluation) == [("wrong_tool", "c")]
    assert covers(evaluation, filmed, "c") > 0.8


def test_the_wrong_tool_in_a_critical_step_fails(world: World, references: dict[int, Reference]) -> None:
    evaluation = evaluate(references[5], world.film("a", "b", "c", Do("d", tool=1), *"efgh", seed=15).features)
    assert evaluation.verdict == "fail"
    assert evaluation.reasons == ("critical_wrong_tool:d",)


def test_a_step_done_otherwise_with_the_right_tool_is_a_fault_of_execution(
    world: World, references: dict[int, Reference]
) -> None:
    evaluation = evaluate(references[5], world.film("a", "b", "c", "d", Do("e", sloppy=True), *"fgh", seed=16).features)
    assert kinds(evaluation) == [("execution", "e")]


def test_an_optional_step_may_be_left_out() -> None:
    optional = World(optional=("e",))
    evaluation = evaluate(fit(optional.procedure(), optional.golds(3)), optional.film(*"abcdfgh", seed=17).features)
    assert kinds(evaluation) == []
    assert evaluation.score > 95


def test_p_values_need_several_golds(world: World, references: dict[int, Reference]) -> None:
    missing = world.film(*"abcdfgh", seed=18).features
    assert evaluate(references[1], missing).deviations[0].p_value is None
    p_value = evaluate(references[5], missing).deviations[0].p_value
    assert p_value is not None
    assert 0 < p_value < 0.01


def test_golds_hold_no_alarm_against_each_other(world: World) -> None:
    golds = world.golds(6)
    for left_out, gold in enumerate(golds):
        others = [other for n, other in enumerate(golds) if n != left_out]
        assert kinds(evaluate(fit(world.procedure(), others), gold.features)) == []


def test_the_interval_says_that_nothing_is_known_before_reviews(world: World, references: dict[int, Reference]) -> None:
    evaluation = evaluate(references[3], world.film(seed=19).features)
    assert evaluation.interval == (0.0, 100.0)
    assert not evaluation.calibrated


def test_calibration_moves_the_score_and_leaves_the_raw_one(world: World, references: dict[int, Reference]) -> None:
    run = world.film(seed=19).features
    plain = evaluate(references[3], run)
    moved = evaluate(references[3], run, policy=Policy(calibration=Calibration((0.0, 100.0), (0.0, 50.0))))
    assert moved.raw_score == plain.raw_score == plain.score
    assert moved.score == pytest.approx(plain.score / 2)


def test_the_trace_is_a_path_through_the_gold_with_the_most_weight(
    world: World, references: dict[int, Reference]
) -> None:
    evaluation = evaluate(references[3], world.film(seed=20).features)
    assert evaluation.trace.gold_index == int(np.argmax(evaluation.gold_votes))
    assert sum(evaluation.gold_votes) == pytest.approx(1.0)
    assert len(evaluation.trace.path) == len(evaluation.trace.cost)
    rows = [i for i, _ in evaluation.trace.path]
    assert rows == sorted(rows)


@pytest.mark.parametrize(("rest_s", "found"), [(4.5, {"too_slow"}), (7.0, {"too_slow", "idle"})])
def test_a_step_done_three_times_as_slowly_may_end_in_a_longer_hold(rest_s: float, found: set[str]) -> None:
    world = World(seed=3)
    doings: list[Do | str] = [*"abc", Do("d", pace=0.3), Do(None, seconds=rest_s, idle=True), *"efgh"]
    evaluation = evaluate(fit(world.procedure(), world.golds(3)), world.film(*doings, seed=7).features)
    assert {kind for kind, _ in kinds(evaluation)} == found


@pytest.mark.parametrize(
    ("start_s", "end_s", "kind", "part"),
    [
        (12.0, 15.0, "too_slow", True),
        (12.0, 17.0, "too_slow", False),  # long enough to be something of its own
        (18.0, 21.5, "too_slow", False),  # it goes on after the step
        (12.0, 15.0, "execution", False),
        (20.0, 21.5, "execution", True),  # getting back from what was done otherwise
    ],
)
def test_a_moment_in_a_slow_step_that_no_gold_shows_is_a_part_of_it(
    start_s: float, end_s: float, kind: DeviationKind, *, part: bool
) -> None:
    def deviation(kind: DeviationKind, step: str | None, start_s: float, end_s: float) -> Deviation:
        return Deviation(kind, step, start_s, end_s, None, None, "minor", None, 2.0, 1.0)

    assert part_of(deviation("extra", None, start_s, end_s), deviation(kind, "d", 10.0, 20.0)) == part


@pytest.mark.parametrize(("start_s", "beside"), [(20.4, True), (23.0, False), (4.0, True), (1.0, False)])
def test_what_is_done_again_right_before_or_after_a_step_lies_beside_it(start_s: float, *, beside: bool) -> None:
    again = Deviation("repeated", "b", start_s, start_s + 5.0, None, None, "minor", None, 5.0, 0.0)
    assert adjoins(again, Performance(3, 40, 79, 10.0, 20.0)) == beside


@ONE_AND_FIVE
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_video_of_something_else_is_not_passed_and_scores_low(
    world: World, references: dict[int, Reference], golds: int, seed: int
) -> None:
    evaluation = evaluate(references[golds], World(seed=99).film(seed=seed).features)
    assert evaluation.verdict in {"fail", "needs_review"}
    assert "unlike_the_golds" in evaluation.reasons
    assert evaluation.score < 50


def test_what_hardly_shows_the_only_gold_is_for_a_person_however_well_it_seems_to_be_followed(world: World) -> None:
    """Two steps can be found in anything; a low score for it fails nobody."""
    short = World(steps=("a", "b"))
    reference = fit(short.procedure(), short.golds(1))
    evaluation = evaluate(reference, World(seed=99, steps=("a", "b")).film(seed=1, noise=0.2).features)
    assert evaluation.reasons[-1] == "unlike_the_golds"
    assert "score_below_fail" not in evaluation.reasons


def test_features_of_another_encoder_are_refused(world: World, references: dict[int, Reference]) -> None:
    features = dataclasses.replace(world.film(seed=21).features, encoder="openclip:ViT-B-32")
    with pytest.raises(ValueError, match="openclip:ViT-B-32"):
        evaluate(references[1], features)


def test_features_with_nan_are_refused(world: World, references: dict[int, Reference]) -> None:
    features = world.film(seed=22).features
    values = features.values.copy()
    values[3, 0] = np.nan
    with pytest.raises(ValueError, match="nan"):
        evaluate(references[1], dataclasses.replace(features, values=values))


def test_an_evaluation_is_the_same_every_time(world: World, references: dict[int, Reference]) -> None:
    features = world.film(*"abdcefgh", seed=23).features
    assert evaluate(references[3], features) == evaluate(references[3], features)


def test_golds_without_spans_get_them_from_the_golds_that_have_some(world: World) -> None:
    marked, *rest = world.golds(3)
    reference = fit(world.procedure(), [marked, *(Gold(gold.features) for gold in rest)])
    assert reference.warnings[:2] == ("steps_transferred:1", "steps_transferred:2")
    for found, gold in zip([reference.spans(1), reference.spans(2)], rest, strict=True):
        assert [span.step_id for span in found] == list(world.steps)
        for mine, true in zip(found, gold.spans, strict=True):
            assert mine.start_s == pytest.approx(true.start_s, abs=1.0)


def test_steps_are_proposed_by_change_points_when_no_gold_has_any(world: World) -> None:
    quiet = dataclasses.replace(world, noise=0.4)
    golds = quiet.golds(2)
    reference = fit(quiet.procedure(), [Gold(gold.features) for gold in golds])
    assert "steps_proposed" in reference.warnings
    assert [span.step_id for span in reference.spans(0)] == list(world.steps)
    borders = [span.start_s for span in reference.spans(0)][1:]
    near = [any(abs(border - true.start_s) <= 1.0 for border in borders) for true in golds[0].spans[1:]]
    assert sum(near) >= 5


def test_a_gold_that_is_unlike_the_others_is_named(world: World) -> None:
    golds = world.golds(4)
    golds[2] = Gold(world.film(*(Do(None, seconds=6.0) for _ in world.steps), seed=24).features, golds[2].spans)
    assert "gold_outlier:2" in fit(world.procedure(), golds).warnings


@pytest.mark.parametrize(("golds", "without"), [(2, 1), (3, 1), (5, 2)])
def test_an_optional_step_that_some_golds_leave_out_hides_no_other_that_is_missing(golds: int, without: int) -> None:
    world = World(critical=("e",), optional=("c",))
    short = [step for step in world.steps if step != "c"]
    films = [world.film(*(short if n < without else world.steps), seed=100 + n).gold() for n in range(golds)]
    found = evaluate(fit(world.procedure(), films), world.film("a", "b", "c", "d", "f", "g", "h", seed=7).features)
    assert kinds(found) == [("missing", "e")]
    assert found.verdict == "fail"


@pytest.mark.parametrize("count", [3, 4, 5])
def test_a_gold_of_something_else_is_named_and_hides_no_step_that_is_missing(count: int) -> None:
    world = World(critical=("e",))
    films = [*world.golds(count - 1), World(seed=5).film(seed=3).gold()]
    reference = fit(world.procedure(), films)
    assert reference.warnings == (f"gold_outlier:{count - 1}",)
    found = evaluate(reference, world.film("a", "b", "c", "d", "f", "g", "h", seed=7).features)
    assert kinds(found) == [("missing", "e")]
    assert found.verdict == "fail"
    assert evaluate(reference, world.film(seed=8).features).verdict == "pass"


@pytest.mark.parametrize("count", [2, 5])
def test_a_gold_that_was_interrupted_once_hides_no_step_out_of_order(world: World, count: int) -> None:
    stopped = world.film("a", "b", Do(None, seconds=12.0), "c", "d", "e", "f", "g", "h", seed=30)
    reference = fit(world.procedure(), [*world.golds(count - 1), stopped.gold()])
    swapped = evaluate(reference, world.film("a", "c", "b", "d", "e", "f", "g", "h", seed=7).features)
    assert (swapped.verdict, [kind for kind, _ in kinds(swapped)]) == ("fail", ["moved"])
    again = evaluate(reference, world.film("a", "b", "c", "d", "b", "e", "f", "g", "h", seed=7).features)
    assert kinds(again) == [("repeated", "b")]


def test_a_run_without_a_step_that_golds_disagree_on_does_not_pass() -> None:
    """Its golds leave that much out of each other: not sure enough for a deviation, and a person must look."""
    world = World(critical=("e",))
    golds = world.golds(3)
    late = tuple(Span(s.step_id, s.start_s + 5.0, s.end_s + 5.0) for s in golds[2].spans)
    reference = fit(world.procedure(), [*golds[:2], Gold(golds[2].features, late)])
    found = evaluate(reference, world.film("a", "b", "c", "d", "f", "g", "h", seed=7).features)
    assert next(step.status for step in found.steps if step.step_id == "e") == "missing"
    assert found.verdict != "pass"
    assert any(reason.endswith("missing:e") for reason in found.reasons)


@pytest.mark.parametrize("count", [1, 3])
def test_a_reference_survives_the_way_through_bytes(world: World, references: dict[int, Reference], count: int) -> None:
    again = Reference.from_bytes(references[count].to_bytes())
    features = world.film(*"abdefgh", seed=25).features
    assert again.procedure == references[count].procedure
    assert evaluate(again, features) == evaluate(references[count], features)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 not an archive", b"\x80\x04\x95pickle"])
def test_bytes_that_are_no_reference_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a reference"):
        Reference.from_bytes(data)


def test_a_span_of_an_unknown_step_is_refused(world: World) -> None:
    gold = world.golds(1)[0]
    spans = (dataclasses.replace(gold.spans[0], step_id="zz"), *gold.spans[1:])
    with pytest.raises(ValueError, match="zz"):
        fit(world.procedure(), [Gold(gold.features, spans)])


def test_a_reference_needs_a_gold(world: World) -> None:
    with pytest.raises(ValueError, match="at least one gold"):
        fit(world.procedure(), [])


def test_the_path_of_a_long_video_reaches_its_end_in_seconds(world: World, references: dict[int, Reference]) -> None:
    filmed = world.film(seed=3).features
    often = 12  # more frames than rows are kept: each row stands for several
    long = dataclasses.replace(
        filmed,
        times_s=np.arange(len(filmed.times_s) * often) / (FPS * often),
        values=np.repeat(filmed.values, often, axis=0),
        local=np.repeat(filmed.local, often, axis=0),
        motion=np.repeat(filmed.motion, often),
    )
    assert len(long.times_s) > MAX_FRAMES
    evaluation = evaluate(references[1], long)
    path_s = path_in_seconds(evaluation, references[1], long)
    assert path_s[-1][1] == pytest.approx(long.duration_s, abs=1.0)
    assert path_s[-1][0] == pytest.approx(references[1].golds[0].rows.edges[-1], abs=1.0)
