"""The floor under the quality of scoring: twelve rendered, encoded, decoded runs must stay as good as they have been."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from genba_sop.evaluation import Evaluation

if TYPE_CHECKING:
    from benchmarks import sop_deviations as benchmark
else:  # a script, not a package; its worker processes must be able to import it as well
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
    import sop_deviations as benchmark

pytestmark = [pytest.mark.xdist_group("sop_floor"), pytest.mark.long]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[benchmark.Result]:
    corpus = benchmark.Corpus(tmp_path_factory.mktemp("runs"), benchmark.SEEN)
    samples = benchmark.make(corpus, ["oil_change"], 12, golds=3)
    return benchmark.run(benchmark.prepare(corpus, "oil_change", 3), samples)


def test_most_planted_deviations_are_found_and_most_finds_are_planted(results: list[benchmark.Result]) -> None:
    tallies = benchmark.total(results).tallies.values()
    hits = sum(tally.true_positives for tally in tallies)
    assert hits >= 0.75 * sum(tally.true_positives + tally.false_negatives for tally in tallies)
    assert hits >= 0.75 * sum(tally.true_positives + tally.false_positives for tally in tallies)


def test_what_is_found_lies_where_it_was_planted(results: list[benchmark.Result]) -> None:
    assert benchmark.total(results).mean_iou >= 0.8


def test_no_run_out_of_order_and_none_without_a_critical_step_passes(results: list[benchmark.Result]) -> None:
    for result in results:
        if benchmark.must_fail(result.sample):
            assert result.evaluation.verdict != "pass", result.sample.truth


def test_every_run_out_of_order_and_every_one_without_a_critical_step_fails(results: list[benchmark.Result]) -> None:
    assert {r.evaluation.verdict for r in results if benchmark.must_fail(r.sample)} == {"fail"}


def test_clean_runs_keep_nearly_full_marks(results: list[benchmark.Result]) -> None:
    clean: list[Evaluation] = [result.evaluation for result in results if not result.sample.truth]
    assert clean
    assert all(evaluation.score >= 90 for evaluation in clean)
    assert all(evaluation.deviations == () for evaluation in clean)


def test_the_cache_makes_a_second_reading_the_same(tmp_path: Path) -> None:
    corpus = benchmark.Corpus(tmp_path, benchmark.SEEN)
    (wanted,) = corpus.wanted("ppe", golds=1, variants=0)
    first, second = corpus.sample(*wanted), corpus.sample(*wanted)
    assert first.spans == second.spans
    assert (first.features.values == second.features.values).all()
