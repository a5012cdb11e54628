"""The folder that demonstrations start from."""

from __future__ import annotations

import json
from pathlib import Path

from scipy.stats import binom

from genba_sem import demo
from genba_sem.deciding import reviews_for
from genba_sem.demo_pictures import KINDS, STRANGE, draw_set
from genba_sem.micrograph import read_view
from genba_sem.particles import SAMPLE_SHARE


def test_a_demonstrations_folder_says_what_was_drawn_and_its_files_say_their_scale(tmp_path: Path) -> None:
    made, batch = draw_set(tmp_path, seed=3, masters=1, samples=6, views=2, strange=1)
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert [truth[each.name] for each in made] == list(KINDS)
    assert sorted(truth[each.name] for each in batch).count(STRANGE) == 1
    assert (tmp_path / "batch" / "manifest.csv").read_text().count("\n") == 7
    view = read_view(batch[0].views[0].read_bytes())
    assert view.pixel_size_nm is not None
    assert view.pixel_size_nm > 0


def test_the_same_seed_draws_the_same_files(tmp_path: Path) -> None:
    sets = [draw_set(tmp_path / name, seed=3, masters=1, samples=2, views=1, strange=0)[1] for name in ("a", "b")]
    one, other = ([path.read_bytes() for each in batch for path in each.views] for batch in sets)
    assert one == other


def test_the_storys_batch_draws_the_reviews_that_its_promise_needs_whatever_ids_the_particles_get() -> None:
    """Ids are new in every demonstration, so how many are drawn is a matter of luck: of 64, one time in ten too few were."""
    doubtful = demo.SAMPLES // 10  # called unknown: drawn too, and of no help to the promise
    assert binom.cdf(reviews_for(demo.PRECISION) - 1, demo.SAMPLES - doubtful, SAMPLE_SHARE) < 1e-3
