"""The generated videos: real files, exact truth, the same for the same seed, and no toy."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import get_args

import av
import numpy as np
import numpy.typing as npt
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from genba_sop import data
from genba_sop.data import Conditions, Plan, Planted, VariantTruth
from genba_sop.data_plan import Run
from genba_sop.evaluation import DeviationKind
from genba_sop.order import compare, preconditions

SIZE, FPS = (160, 120), 5.0
KINDS = tuple(data.KINDS)
STUDIO = Conditions(noise=0.5)
Frames = npt.NDArray[np.uint8]


def render(
    path: Path, *planted: Planted, kind: str = "oil_change", seed: int = 3, conditions: Conditions = STUDIO
) -> VariantTruth:
    return data.variant(kind, path, seed=seed, plan=planted, conditions=conditions, size=SIZE, fps=FPS)


def decode(path: Path) -> tuple[npt.NDArray[np.float64], Frames]:
    """Times (T,) and pictures (T, H, W, 3), as shown: the rotation flag applied."""
    with av.open(str(path)) as container:
        rows = [
            (frame.time, np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4))
            for frame in container.decode(video=0)
        ]
    return np.array([time_s for time_s, _ in rows]), np.stack([picture for _, picture in rows])


def lay_out(kind: str, plan: Plan) -> Run:
    return data.lay_out_run(kind, seed=plan.seed, plan=plan.planted, conditions=plan.conditions)


@cache
def many_plans(kind: str) -> tuple[Plan, ...]:
    return data.plans(kind, 220, 5)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[npt.NDArray[np.float64], Frames]:
    """A clean run in the studio, seed 3: what the planted ones are compared with."""
    return decode(render(tmp_path_factory.mktemp("plain") / "plain.mp4").path)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> data.DemoSet:
    return data.generate("oil_change", tmp_path_factory.mktemp("demo"), seed=1, golds=2, size=SIZE, fps=FPS)


def test_the_demo_set_is_gold_runs_of_ten_steps_and_a_trainee_of_eight(demo: data.DemoSet) -> None:
    for gold in demo.golds:
        assert [span.step_id for span in gold.spans] == [step.id for step in demo.procedure.steps]
        assert gold.truth == ()
        assert 70 < gold.duration_s < 92
    assert len(demo.procedure.steps) == 10
    assert len(demo.trainee.spans) == 8
    assert 54 < demo.trainee.duration_s < 72
    assert [(t.kind, t.step_id) for t in demo.trainee.truth] == [
        ("missing", "glasses"),
        ("wrong_tool", "tighten_plug"),
        ("missing", "check_level"),
    ]


def test_every_file_of_the_demo_set_decodes_to_the_frames_and_the_duration_of_its_truth(demo: data.DemoSet) -> None:
    for made in (*demo.golds, demo.trainee):
        times_s, pictures = decode(made.path)
        assert len(times_s) == made.frame_count
        assert pictures.shape[1:] == (SIZE[1], SIZE[0], 3)
        assert times_s[-1] == pytest.approx(made.duration_s, abs=1.5 / FPS)
        assert made.spans[-1].end_s == pytest.approx(made.duration_s)


def test_steps_yaml_names_the_golds_with_their_spans_and_every_text_in_two_languages(demo: data.DemoSet) -> None:
    document = yaml.safe_load(demo.steps_path.read_text(encoding="utf-8"))
    assert [gold["video"] for gold in document["golds"]] == ["gold_1.mp4", "gold_2.mp4"]
    assert document["golds"][0]["steps"][1]["start_s"] == pytest.approx(demo.golds[0].spans[1].start_s, abs=1e-3)
    for step in document["steps"]:
        for text in (step["name"], step["action"]):
            assert text["en"].isascii() or "·" in text["en"]
            assert not text["ja"].isascii()
        assert 0 < step["min_s"] < step["max_s"]


def test_truth_json_holds_what_generate_returns(demo: data.DemoSet) -> None:
    document = json.loads(demo.truth_path.read_text(encoding="utf-8"))
    assert document["trainee"]["path"] == "trainee.mp4"
    assert [row["kind"] for row in document["trainee"]["truth"]] == [t.kind for t in demo.trainee.truth]
    assert len(document["golds"]) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_procedure_of_every_kind_is_consistent_and_its_usual_order_breaks_nothing(kind: str) -> None:
    procedure = data.procedure(kind)
    preconditions(procedure)  # raises on a cycle or an unknown step
    assert compare(procedure, [step.id for step in procedure.steps]).moved == ()
    assert any(step.critical for step in procedure.steps)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_person(tmp_path: Path) -> None:
    one, two, other = (render(tmp_path / f"{n}.mp4", seed=seed) for n, seed in enumerate((4, 4, 9)))
    assert one.path.read_bytes() == two.path.read_bytes()
    assert one.path.read_bytes() != other.path.read_bytes()
    assert one.spans == two.spans
    assert one.duration_s != other.duration_s


@pytest.mark.parametrize(
    "planted",
    [
        Planted("wrong_tool", "tighten_plug"),
        Planted("wrong_tool", "change_filter"),
        Planted("execution", "loosen_plug", 1.0),
        Planted("execution", "pour_oil", -1.0),
        Planted("too_fast", "drain_oil", 0.35),
        Planted("too_slow", "close_wipe", 2.5),
        Planted("moved", "gloves", place=5),
        Planted("missing", "check_level"),
        Planted("repeated", "loosen_plug", place=1),
        Planted("extra", None, 5.0, 4, "phone"),
        Planted("idle", None, 6.0, 4),
    ],
    ids=lambda planted: f"{planted.kind}-{planted.step_id}",
)
def test_a_planted_deviation_changes_the_picture_from_its_start_and_not_before(
    planted: Planted, plain: tuple[npt.NDArray[np.float64], Frames], tmp_path: Path
) -> None:
    plain_times_s, usual = plain
    made = render(tmp_path / "planted.mp4", planted)
    times_s, pictures = decode(made.path)
    (truth,) = made.truth
    assert (truth.kind, truth.step_id) == (planted.kind, planted.step_id)
    start_s = 0.0 if planted.kind == "moved" else truth.start_s
    same = int(np.searchsorted(times_s, start_s - 0.5 / FPS))
    count = min(len(usual), len(pictures), same + int(12 * FPS))
    difference = np.abs(usual[:count].astype(np.int16) - pictures[:count]).mean((1, 2, 3))
    assert plain_times_s[:same] == pytest.approx(times_s[:same])
    assert difference[:same].max(initial=0.0) < 0.5
    assert difference[same:].max() > 1.0


def test_nothing_moves_while_the_operator_idles(tmp_path: Path) -> None:
    made = render(tmp_path / "idle.mp4", Planted("idle", None, 8.0, 5))
    times_s, pictures = decode(made.path)
    (truth,) = made.truth
    change = np.abs(np.diff(pictures.astype(np.int16), axis=0)).mean((1, 2, 3))
    resting = (times_s[1:] > truth.start_s + 1.2) & (times_s[1:] < truth.end_s)
    assert resting.sum() >= 20
    assert np.median(change[resting]) < 0.35 * np.median(change[~resting])


def test_a_variable_rate_file_has_irregular_times_and_a_constant_one_even_ones(
    plain: tuple[npt.NDArray[np.float64], Frames], tmp_path: Path
) -> None:
    for codec in ("h264", "mpeg4"):
        made = render(tmp_path / f"{codec}.mp4", conditions=Conditions(variable_rate=True, codec=codec))
        gaps_s = np.diff(decode(made.path)[0])
        assert gaps_s.min() > 0
        assert gaps_s.max() > 1.8 * np.median(gaps_s)
        assert np.std(gaps_s) > 0.1 * np.median(gaps_s)
    assert np.diff(plain[0]) == pytest.approx(1 / FPS, abs=2e-3)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_rotated_file_shows_the_same_picture_once_its_flag_is_applied(
    rotation: data.Rotation, plain: tuple[npt.NDArray[np.float64], Frames], tmp_path: Path
) -> None:
    _, upright = plain
    made = render(tmp_path / "rotated.mp4", conditions=Conditions(noise=0.5, rotation=rotation))
    with av.open(str(made.path)) as container:
        stored = next(container.decode(video=0))
        assert (stored.width > stored.height) == (rotation == 180)
    _, shown = decode(made.path)
    assert np.abs(upright[:20].astype(int) - shown[:20]).mean() < 8


def test_crop_light_noise_and_speed_are_seen_in_the_file(
    plain: tuple[npt.NDArray[np.float64], Frames], tmp_path: Path
) -> None:
    _, usual = plain
    dark = Conditions(speed=1.4, zoom=1.1, noise=8.0, light=data.Light(gain=0.7))
    made = render(tmp_path / "dark.mp4", conditions=dark)
    _, pictures = decode(made.path)
    assert len(pictures) == pytest.approx(len(usual) / 1.4, rel=0.02)
    assert pictures.mean() < 0.8 * usual.mean()


def test_plans_cover_every_deviation_type_and_clean_runs() -> None:
    for kind in KINDS:
        counts = Counter(planted.kind for plan in many_plans(kind) for planted in plan.planted)
        assert set(counts) == set(get_args(DeviationKind))
        assert min(counts.values()) >= 15
        assert sum(not plan.planted for plan in many_plans(kind)) >= 20
        assert len({plan.seed for plan in many_plans(kind)}) == 220
    conditions = [plan.conditions for plan in many_plans("oil_change")]
    assert min(c.speed for c in conditions) < 0.75
    assert max(c.speed for c in conditions) > 1.3
    for seen in (
        {c.codec for c in conditions},
        {c.variable_rate for c in conditions},
        {c.free_order for c in conditions},
    ):
        assert len(seen) == 2


@given(st.sampled_from(KINDS), st.integers(0, 219))
@settings(deadline=None, max_examples=150)
def test_the_truth_of_a_run_agrees_with_its_own_spans(kind: str, index: int) -> None:
    plan = many_plans(kind)[index]
    run, procedure = lay_out(kind, plan), data.procedure(kind)
    ends = [0.0, *(stretch.end_s for stretch in run.stretches)]
    assert [stretch.start_s for stretch in run.stretches] == ends[:-1]
    assert run.duration_s == ends[-1]
    assert Counter(t.kind for t in run.truth) == Counter(p.kind for p in plan.planted)
    found = compare(procedure, [span.step_id for span in run.spans])
    by_kind = {kind: [t for t in run.truth if t.kind == kind] for kind in get_args(DeviationKind)}
    assert set(found.missing) == {t.step_id for t in by_kind["missing"]}
    assert [v.step_id for v in found.moved] == [t.step_id for t in by_kind["moved"]]
    assert [run.spans[i].start_s for i in found.repeated] == [t.start_s for t in by_kind["repeated"]]
    base_s = {act.id: act.base_s for act in data.KINDS[kind].acts}
    for truth in run.truth:
        length_s = truth.end_s - truth.start_s
        if truth.kind == "missing":
            assert length_s == 0
            assert not any(span.start_s < truth.start_s < span.end_s for span in run.spans)
        elif truth.step_id is not None:
            assert (truth.start_s, truth.end_s) in {
                (s.start_s, s.end_s) for s in run.spans if s.step_id == truth.step_id
            }
        if truth.kind == "too_fast":
            assert length_s < 0.45 * base_s[str(truth.step_id)]
        if truth.kind == "too_slow":
            assert length_s > 2.2 * base_s[str(truth.step_id)]
        if truth.kind == "idle":
            assert length_s >= 3.0


@given(st.sampled_from(KINDS), st.integers(0, 10_000))
@settings(deadline=None, max_examples=60)
def test_free_steps_in_another_order_are_no_deviation(kind: str, seed: int) -> None:
    run = data.lay_out_run(kind, seed=seed, conditions=Conditions(free_order=True))
    found = compare(data.procedure(kind), [span.step_id for span in run.spans])
    assert (found.missing, found.moved, found.extra, found.repeated, run.truth) == ((), (), (), (), ())


def test_steps_cannot_be_told_apart_by_their_mean_colour(tmp_path: Path) -> None:
    """The steps share one scene: a nearest mean colour learnt on one operator is near chance on another."""
    colours, labels = [], []
    for seed in (11, 12):
        made = render(tmp_path / f"{seed}.mp4", seed=seed)
        times_s, pictures = decode(made.path)
        ends = [span.end_s for span in made.spans]
        labels.append(np.minimum(np.searchsorted(ends, times_s, side="right"), len(ends) - 1))
        colours.append(pictures.mean((1, 2)))  # (T, 3)
    means = np.stack([colours[0][labels[0] == step].mean(0) for step in range(10)])  # (10, 3)
    nearest = np.linalg.norm(colours[1][:, None] - means[None], axis=2).argmin(1)
    assert (nearest == labels[1]).mean() < 0.4


def test_progress_rises_to_one_and_names_the_file(tmp_path: Path) -> None:
    seen: list[tuple[float, str]] = []
    data.generate(
        "ppe", tmp_path, golds=1, size=(96, 72), fps=2.0, progress=lambda share, name: seen.append((share, name))
    )
    assert [share for share, _ in seen] == sorted(share for share, _ in seen)
    assert seen[-1][0] == 1.0
    assert {"gold_1.mp4", "trainee.mp4"} <= {name for _, name in seen}


def test_wrong_calls_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown kind 'tea'; one of oil_change"):
        data.generate("tea", tmp_path)
    with pytest.raises(ValueError, match="golds is 0"):
        data.generate("ppe", tmp_path, golds=0)
    with pytest.raises(ValueError, match="'sing' is not in this run"):
        render(tmp_path / "x.mp4", Planted("too_fast", "sing", 0.3))
