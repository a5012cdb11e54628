"""Pictures laid over each other, and what they say of a step, on invented places."""

from __future__ import annotations

import importlib
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from genba_sop import evidence
from genba_sop.gold_scene import GoldScene, fit_scene, in_order, rows_by_step
from genba_sop.medians import medians, ranked
from genba_sop.scene import HEIGHT, WIDTH, Album, Filmstrip, lay_over, place_of
from genba_sop.sight import Sight, StepMaps

STEPS, ROWS = 7, 24  # rows a step
HANDS = [(10 + 6 * step, 12 + 8 * step) for step in range(STEPS)]  # where each step's work is
Bytes = npt.NDArray[np.uint8]


def texture(seed: int) -> Bytes:
    """A bench with things on it, (120, 160, 3)."""
    rng = np.random.default_rng(seed)
    ground = cv2.GaussianBlur(rng.uniform(60, 200, (120, 160, 3)).astype(np.float32), (0, 0), 2)
    for _ in range(14):
        x, y = int(rng.integers(0, 140)), int(rng.integers(0, 100))
        colour = rng.uniform(0, 255, 3).tolist()
        cv2.rectangle(ground, (x, y), (x + int(rng.integers(8, 26)), y + int(rng.integers(8, 26))), colour, -1)
    return np.asarray(np.clip(ground, 0, 255), np.uint8)


def seen_by(rgb: Bytes, *, pan: tuple[float, float] = (0, 0), zoom: float = 1.0, light: float = 1.0) -> Bytes:
    """The same from another stand and in another light."""
    matrix = np.array([[zoom, 0.0, pan[0]], [0.0, zoom, pan[1]]], np.float32)
    moved = cv2.warpAffine(rgb, matrix, (160, 120), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(np.clip(moved.astype(np.float32) * light, 0, 255), np.uint8)


def picture(*frames: Bytes) -> Bytes:
    """These frames as an album keeps them, (P, 60, 80, 4)."""
    album = Album(frames=1)
    for frame in frames:
        album.add(frame)
    return album.stacked()


def film(seed: int, *, odd: int | None = None, lasting: bool = False, **stand: float) -> Filmstrip:
    """A run: a hand works in another place in each step. In step ``odd`` a tool lies where none should, perhaps for good."""
    rng, bench = np.random.default_rng((9, seed)), texture(0)
    frames = []
    for row in range(STEPS * ROWS):
        step, frame = row // ROWS, bench.copy()
        y, x = (2 * c + int(rng.integers(-3, 4)) for c in HANDS[step])
        cv2.circle(frame, (x, y), 9, (40, 60 + 20 * seed, 200), -1)
        if odd is not None and (step == odd or (lasting and step > odd)):
            cv2.rectangle(frame, (120, 10), (150, 22), (250, 40, 40), -1)
        noisy = frame.astype(np.float32) + rng.normal(0, 3, frame.shape)
        frames.append(seen_by(np.asarray(np.clip(noisy, 0, 255), np.uint8), **stand))  # type: ignore[arg-type]
    return Filmstrip(picture(*frames), np.arange(len(frames), dtype=np.int64))


def rows() -> list[npt.NDArray[np.int64]]:
    return rows_by_step(np.repeat(np.arange(STEPS), ROWS), STEPS)


def maps(strip: Filmstrip, onto: Filmstrip) -> StepMaps:
    own = place_of(strip.pictures)
    return Sight(strip, own, lay_over(own, place_of(onto.pictures)), recent=60).maps(rows())


@pytest.fixture(scope="module")
def golds() -> list[Filmstrip]:
    return [film(1), film(2, zoom=1.03), film(3, light=0.9)]


def test_a_place_is_found_again_from_another_stand_and_in_another_light() -> None:
    bench = texture(0)
    there = place_of(picture(bench))
    here = place_of(picture(seen_by(bench, pan=(7, -5), zoom=1.05, light=0.8)))
    view = lay_over(here, there)
    assert view.fits
    laid = view.laid_over(here.lab) * view.gain + view.offset
    off = np.linalg.norm(laid - there.lab, axis=-1)[view.seen()]
    as_it_was = np.linalg.norm(here.lab - there.lab, axis=-1)
    assert np.median(off) < 3
    assert np.median(off) < 0.3 * np.median(as_it_was)


def test_a_place_is_found_again_although_something_large_and_bright_was_put_there() -> None:
    bench = texture(0)
    there, changed = place_of(picture(bench)), seen_by(bench, pan=(9, -6), zoom=1.06)
    cv2.rectangle(changed, (60, 40), (100, 95), (230, 255, 60), -1)
    view = lay_over(place_of(picture(changed)), there)
    assert view.fits
    np.testing.assert_allclose(view.matrix, [[1.06, 0, 4.5], [0, 1.06, -3]], atol=0.7)


def test_a_place_is_found_again_by_a_camera_that_was_turned_far() -> None:
    bench = texture(0)
    view = lay_over(place_of(picture(seen_by(bench, pan=(24, -18)))), place_of(picture(bench)))
    assert view.fits
    np.testing.assert_allclose(view.matrix, [[1, 0, 12], [0, 1, -9]], atol=0.7)


def test_two_places_that_have_nothing_in_common_do_not_fit() -> None:
    assert not lay_over(place_of(picture(texture(1))), place_of(picture(texture(2)))).fits


def test_a_video_without_any_contrast_fits_nowhere() -> None:
    grey = np.full((120, 160, 3), 128, np.uint8)
    assert not lay_over(place_of(picture(grey)), place_of(picture(texture(2)))).fits


def test_the_maps_show_where_a_step_is_done(golds: list[Filmstrip]) -> None:
    found = maps(golds[1], golds[0])
    assert found.done.all()
    for step, (y, x) in enumerate(HANDS):
        top = np.unravel_index(int(found.covered[step].argmax()), (HEIGHT, WIDTH))
        assert np.hypot(top[0] - y, top[1] - x) < 6


def test_what_was_put_there_for_good_covers_the_place_only_a_while(golds: list[Filmstrip]) -> None:
    found = maps(film(5, odd=4, lasting=True), golds[0])
    there = (slice(6, 11), slice(61, 74))  # of the tool
    assert found.covered[6][there].mean() > 0.9
    assert found.lately[6][there].mean() < 0.1
    y, x = HANDS[6]
    assert found.lately[6, y - 2 : y + 3, x - 2 : x + 3].mean() > 0.8  # the hand is seen all the same


def test_an_object_where_no_gold_has_one_counts_to_its_step(golds: list[Filmstrip]) -> None:
    theirs = evidence.usual_of([maps(gold, golds[0]) for gold in golds])
    usual = evidence.measure(maps(film(4), golds[0]), theirs, range(STEPS))
    odd = evidence.measure(maps(film(4, odd=3), golds[0]), theirs, range(STEPS))
    covers = evidence.NAMES.index("covers")
    assert odd[:, covers].argmax() == 3
    assert odd[3, covers] > 5 * max(1.0, float(usual[:, covers].max()))


def test_what_stays_different_belongs_to_the_step_it_began_with(golds: list[Filmstrip]) -> None:
    theirs = evidence.usual_of([maps(gold, golds[0]) for gold in golds])
    table = evidence.measure(maps(film(5, odd=3, lasting=True), golds[0]), theirs, range(STEPS))
    lasting = table[:, evidence.NAMES.index("lasting")]
    assert lasting.argmax() in {2, 3}
    assert np.sort(lasting)[-1] > 3 * np.sort(lasting)[-3]


@pytest.mark.parametrize("odd", [1, 2, 3, 4])
def test_what_is_put_on_wrongly_for_good_is_told_of_its_step_and_of_no_other(golds: list[Filmstrip], odd: int) -> None:
    scene = fit_scene(golds, [rows() for _ in golds], [np.zeros((STEPS, 2)) for _ in golds])
    assert scene is not None
    laid = scene.lay(film(5, odd=odd, lasting=True))
    assert laid is not None
    nothing, settled = np.zeros(STEPS), np.ones(STEPS, np.bool_)
    told = laid.ask(rows(), settled=settled, action=nothing, item=nothing)
    assert np.maximum(told.item, told.action).argmax() == told.item.argmax() == odd
    assert told.item[odd] > 3 + np.delete(np.maximum(told.item, told.action), odd).max()
    # between steps that golds do not show beside it, what lasts may be another's
    unsettled = laid.ask(rows(), settled=~settled, action=nothing, item=nothing)
    assert unsettled.item[odd] < told.item[odd] - 3


@pytest.mark.parametrize(("different", "lasts"), [(slice(4, None), True), (slice(3), False)])
def test_only_what_goes_on_otherwise_than_in_the_golds_lasts(
    golds: list[Filmstrip], different: slice, *, lasts: bool
) -> None:
    """A shirt that no gold wears, under the right vest from step 3 on, is nobody's fault; the wrong vest over it is."""
    found = maps(golds[1], golds[0])
    median, mean = found.median.copy(), found.mean.copy()
    for picture_of_steps in (median, mean):
        picture_of_steps[different, 20:30, 30:40, 0] += 40
    theirs = evidence.usual_of([maps(gold, golds[0]) for gold in golds])
    table = evidence.measure(replace(found, median=median, mean=mean), theirs, range(STEPS))
    lasting = table[:, evidence.NAMES.index("lasting")]
    assert lasting[3] > 4 if lasts else lasting.max() < 2


def test_a_step_that_was_not_seen_says_nothing(golds: list[Filmstrip]) -> None:
    found = maps(golds[1], golds[0])
    done = found.done.copy()
    done[2] = False
    table = evidence.measure(
        replace(found, done=done), evidence.usual_of([maps(gold, golds[0]) for gold in golds]), range(STEPS)
    )
    assert not table[2].any()
    told = evidence.told(np.ones((STEPS, len(evidence.NAMES) + 1)), done, golds=len(golds))
    assert told.item[2] == told.action[2] == -np.inf


def test_the_golds_pictures_come_back_from_their_arrays(golds: list[Filmstrip]) -> None:
    manners = [np.zeros((STEPS, 2)) for _ in golds]
    scene = fit_scene(golds, [rows() for _ in golds], manners)
    assert scene is not None
    again = GoldScene.from_arrays(scene.to_arrays())
    assert again is not None
    settled, nothing = np.ones(STEPS, np.bool_), np.zeros(STEPS)
    laid = [s.lay(film(6, odd=4)) for s in (scene, again)]
    first, second = (
        each.ask(rows(), settled=settled, action=nothing, item=nothing) for each in laid if each is not None
    )
    np.testing.assert_allclose(first.item, second.item, atol=0.2)
    assert GoldScene.from_arrays({}) is None


def test_golds_of_different_places_are_not_compared(golds: list[Filmstrip]) -> None:
    elsewhere = Filmstrip(picture(*[texture(8)] * (STEPS * ROWS)), golds[0].picture_of)
    manners = [np.zeros((STEPS, 2)) for _ in range(3)]
    assert fit_scene([golds[0], golds[1], elsewhere], [rows()] * 3, manners) is None
    scene = fit_scene([*golds], [rows()] * 3, manners)
    assert scene is not None
    assert scene.lay(elsewhere) is None


def test_the_steps_are_told_in_the_order_in_which_they_were_done() -> None:
    assert in_order(rows_by_step(np.array([2, 2, 0, 0, 1]), 4)) == [2, 0, 1]


def test_an_album_averages_and_says_what_moves() -> None:
    dark, light = np.zeros((120, 160, 3), np.uint8), np.full((120, 160, 3), 255, np.uint8)
    album = Album(frames=2)
    for frame in (dark, dark, light):
        album.add(frame)
    album.repeat()
    still, changed = album.stacked()
    assert (still[..., 0].max(), still[..., 3].max()) == (0, 0)
    assert changed[..., 0].min() == 255
    assert set(np.unique(changed[..., 3])) <= {127, 128}


def test_a_long_video_fills_no_more_pictures_than_an_album_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genba_sop.scene.MAX_PICTURES", 10)
    album = Album(frames=1)
    for row in range(37):
        album.add(np.full((120, 160, 3), 6 * row, np.uint8))
    kept = album.stacked()
    assert len(kept) <= 10
    assert (np.diff(kept[:, 0, 0, 0].astype(int)) > 0).all()


def test_every_stretch_is_most_like_its_own_step_and_a_strange_one_like_none(golds: list[Filmstrip]) -> None:
    usual = evidence.usual_of([maps(gold, golds[0]) for gold in golds])
    off = evidence.unlike(maps(film(7, light=1.1), golds[0]), usual)
    assert (off.argmin(axis=1) == np.arange(STEPS)).all()
    strange = film(7)
    middle = Filmstrip(strange.pictures[:, :, ::-1], strange.picture_of)  # hands where no step has them
    laid = maps(middle, middle)
    assert evidence.unlike(laid, usual).min() > off.diagonal().max()


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_the_quick_median_is_the_median(count: int) -> None:
    rows = np.random.default_rng(count).normal(size=(count, 6, 7, 3)).astype(np.float32)
    assert np.array_equal(medians(rows, axis=0), np.median(rows, axis=0))


@pytest.mark.parametrize("count", [1, 2, 3, 9, 24, 32, 33])
def test_what_is_at_any_rank_is_what_sorting_puts_there(count: int) -> None:
    rows = np.random.default_rng(count).integers(0, 9, (count, 40)).astype(np.uint8)
    whole = np.sort(rows, axis=0)
    for rank in range(count):
        np.testing.assert_array_equal(ranked(rows, rank)[0], whole[rank])
    np.testing.assert_array_equal(ranked(rows, *range(count)), whole)


def test_what_is_at_a_rank_is_the_same_compiled_and_plain() -> None:
    rows = np.random.default_rng(4).integers(0, 256, (5, 2500), dtype=np.uint8)
    pairs = np.array([(a, b) for _ in range(5) for a in range(4) for b in (a + 1,)])  # bubbles
    for form in ("numba", "numpy"):
        found = importlib.import_module(f"genba_sop._medians_{form}").exchanged(rows, pairs, np.array([0, 2]))
        np.testing.assert_array_equal(found, np.sort(rows, axis=0)[[0, 2]])


def test_compiled_and_plain_covers_are_the_same() -> None:
    rng = np.random.default_rng(5)
    pictures, recent = rng.integers(0, 256, (2, 3, 6, 8, 4), dtype=np.uint8)
    weight = rng.uniform(0.1, 1.5, 3).astype(np.float32)
    pictures[:, :3] = recent[:, :3] + rng.integers(0, 9, (3, 3, 8, 4), dtype=np.uint8)  # and some that are near
    which, found = np.array([2, 0]), list[npt.NDArray[np.float32]]()
    for name in ("_sight_numba", "_sight_numpy"):
        share = np.full((2, 3, 6, 8), -1, np.float32)
        asked = (share, pictures, which, recent[0], recent, which, weight, 5.0, 8.0)
        importlib.import_module(f"genba_sop.{name}").covered(*asked)
        assert (share[:, 1] == -1).all()
        found.append(share[:, which])
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    assert 0 < found[0].mean() < 1


def test_the_mean_of_some_pictures_is_the_same_compiled_and_plain() -> None:
    share, which = np.random.default_rng(6).uniform(size=(2, 5, 6, 8)).astype(np.float32), np.array([3, 0, 4])
    found = [importlib.import_module(f"genba_sop._sight_{form}").averaged(share, which) for form in ("numba", "numpy")]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
    np.testing.assert_allclose(found[0], (share[:, 3] + share[:, 0] + share[:, 4]) / 3, rtol=1e-6)


def test_how_unlike_stretches_are_is_the_same_compiled_and_plain() -> None:
    rng = np.random.default_rng(7)
    lately, moving, usual = (
        rng.uniform(size=shape).astype(np.float32) for shape in ((3, 2, 40), (3, 2, 40), (4, 5, 40))
    )
    seen = (rng.uniform(size=40) > 0.2).astype(np.float32)
    asked = lately, moving, usual, seen, 0.04
    found = [importlib.import_module(f"genba_sop._evidence_{form}").unlike(*asked) for form in ("numba", "numpy")]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)
    most_covered, least_covered, most_moving, least_moving = usual[:, 2]
    over = [
        lately[1, 0] - most_covered,
        least_covered - lately[1, 1],
        moving[1, 0] - most_moving,
        least_moving - moving[1, 1],
    ]
    np.testing.assert_allclose(found[0][1, 2], sum((off - 0.04).clip(0) @ seen for off in over), rtol=1e-5)


@pytest.mark.parametrize("rows", [4, 5, 6, 13])
def test_compiled_and_plain_levels_are_the_same(rows: int) -> None:
    rng = np.random.default_rng(rows)
    colour = rng.normal(0, 5, (rows, 3, 70)).astype(np.float32)
    spread = rng.uniform(1, 2, (rows, 70)).astype(np.float32)
    compiled, plain = (
        importlib.import_module(f"genba_sop.{name}").split(colour, spread, 6.0)
        for name in ("_evidence_numba", "_evidence_numpy")
    )
    for one, other in zip(compiled, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    before, after, cost = compiled
    np.testing.assert_allclose(before[0], colour[0])
    np.testing.assert_allclose(after[-1], np.median(colour[-2:], axis=0), rtol=1e-6)
    off = np.linalg.norm((colour[2:] - np.median(colour[2:], axis=0)) / spread[2:, None], axis=1)
    np.testing.assert_allclose(cost[0], np.minimum(off, 6.0).sum(axis=0), rtol=1e-5)


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_what_is_a_rows_own_is_the_same_compiled_and_plain(rows: int) -> None:
    rng = np.random.default_rng(rows)
    colour, level = rng.normal(0, 5, (2, rows, 70, 3)).astype(np.float32)
    spread = rng.uniform(1, 2, (rows, 70)).astype(np.float32)
    compiled, plain = (
        importlib.import_module(f"genba_sop.{name}").own(colour, level, spread)
        for name in ("_evidence_numba", "_evidence_numpy")
    )
    np.testing.assert_allclose(compiled, plain, rtol=1e-6)
    left = (colour - level) / spread[..., None]
    first = np.linalg.norm(left[0], axis=1)
    if rows > 1:
        first = np.minimum(first, np.linalg.norm(left[1] - left[0], axis=1))
    np.testing.assert_allclose(compiled[0], first, rtol=1e-5)


def test_how_far_rows_are_off_is_the_same_compiled_and_plain() -> None:
    rng = np.random.default_rng(8)
    colour, level = rng.normal(0, 5, (4, 70, 3)).astype(np.float32), rng.normal(0, 5, (70, 3)).astype(np.float32)
    spread = rng.uniform(1, 2, (4, 70)).astype(np.float32)
    compiled, plain = (
        importlib.import_module(f"genba_sop._evidence_{form}").off(colour, level, spread, 6.0)
        for form in ("numba", "numpy")
    )
    np.testing.assert_allclose(compiled, plain, rtol=1e-5)
    far = np.minimum(np.linalg.norm((colour - level) / spread[..., None], axis=2), 6.0)
    np.testing.assert_allclose(compiled, far.sum(axis=0), rtol=1e-5)


def test_a_movement_that_lies_aside_is_told_from_one_that_is_elsewhere() -> None:
    def blobs(*places: tuple[int, int]) -> npt.NDArray[np.float32]:
        picture = np.zeros((HEIGHT, WIDTH), np.float32)
        for y, x in places:
            picture[y - 2 : y + 3, x - 2 : x + 3] = 1.0
        return picture

    shape, shifted, other = blobs((30, 40), (22, 28)), blobs((34, 34), (26, 22)), blobs((12, 66), (48, 12))
    same, moved, strange = (evidence.likeness(picture, shape, aside_px=5) for picture in (shape, shifted, other))
    assert same.here == pytest.approx(1.0, abs=1e-3)
    assert moved.here < 0.7
    assert moved.aside > 0.9
    assert strange.aside < 0.7


def test_one_gold_is_enough_to_see_an_object_where_it_has_none(golds: list[Filmstrip]) -> None:
    scene = fit_scene(golds[:1], [rows()], [np.zeros((STEPS, 2))])
    assert scene is not None
    assert (scene.golds, len(scene.pool)) == (1, 0)
    nothing = np.zeros(STEPS)
    laid = scene.lay(film(4, odd=3))
    assert laid is not None
    given, seen = laid.numbers(rows(), settled=np.ones(STEPS, np.bool_), action=nothing, item=nothing)
    assert seen.all()
    assert given[:, evidence.NAMES.index("covers_most")].argmax() == 3
