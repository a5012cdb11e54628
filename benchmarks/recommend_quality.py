"""How good the recommender's lists are, against its peers, on film ratings under a global time split. Three seeds.

Protocol. The newest 20 % of all ratings are the test. Users with events on both sides are asked for the films that they turn to
later for the first time, among all films with at least one event in training; everything that a user had in training is left
out of the list. Full ranking, no sampled negatives. Nothing is chosen on the test: half-lives, weights, penalties and the
moment to stop are picked on the newest tenth of the training period, for the peers as for ours. ``+ prior`` rows add the same
tuned decayed popularity to a peer, so that what the towers bring can be told from what the prior brings.
Ours is what svc-recommend serves: towers plus prior. Significance: paired bootstrap over users, 10,000 resamples, one-sided,
of NDCG@10 averaged over seeds. CPU seconds: one thread, training and tuning, without scoring the test.

Cold start. New users: those without any event in training, asked for what they choose in the test, with no history at all.
Never-seen films: those without any event in training; users with history are asked which of them they turn to, from features
alone; HR@10 is the share of users with at least one of theirs among the first ten.

Run: make bench-recommend, or python -m benchmarks.recommend_quality [folder ...] [--seeds 3] [--figure curve.png]
(data: $GENBA_DATA or ../shared/data, folder recommend/movietweetings-100k; any MovieLens folder with movies and ratings)
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from benchmarks import recommend_baselines as peers
from benchmarks.recommend_films import load, shared_tweets
from threadpoolctl import threadpool_limits

from genba_recommend.cold_start import new_items, new_users, release_prior
from genba_recommend.dataset import Dataset, Floats, Split, split_by_time
from genba_recommend.metrics import (
    Quality,
    Questions,
    ScoreUsers,
    hits,
    paired_bootstrap,
    quality,
    questions,
    rank,
)
from genba_recommend.prior import Prior, everybody
from genba_recommend.scoring import Float32s, latest_vectors, popularity_now, tower_scores, with_discovery, with_prior
from genba_recommend.training_config import TrainingConfig, hinge_config
from genba_recommend.training_loop import Trained, train
from genba_recommend.two_tower import user_vectors

OURS = "ours: towers + prior"
DECAYED = "decayed popularity"
DIALS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)  # prior weight
DISCOVERIES = (0, 1, 2, 3, 4, 5)  # of ten places


@dataclass
class Row:
    """One model over all seeds."""

    name: str
    measures: list[Quality]
    cpu_seconds: list[float]

    @property
    def ndcg(self) -> Floats:
        """(U,) averaged over seeds."""
        return np.asarray(np.mean([found.ndcg_at_10 for found in self.measures], axis=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="*", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="comma-separated beginnings of rows, to look at some")
    parser.add_argument("--figure", type=Path, help="write the accuracy-coverage curve here (PNG or SVG)")
    parser.add_argument("--json", type=Path, help="write every figure here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    threadpool_limits(1)  # CPU seconds are compared, and implicit asks for it
    warnings.filterwarnings("ignore", module="implicit")
    for folder in options.folder or [shared_tweets()]:
        if not folder.is_dir():
            print(f"no ratings at {folder}; set GENBA_DATA or name a folder")
            continue
        run(load(folder), folder.name, options)


def run(dataset: Dataset, name: str, options: argparse.Namespace) -> None:
    split = split_by_time(dataset, newest=0.2)
    asked = questions(split)
    events = dataset.interactions
    print(f"\n{name}: {len(events)} ratings, {len(dataset.users)} users, {len(dataset.catalogue)} films")
    print(f"asked: {len(asked)} users, {asked.n_relevant.sum()} relevant films, {asked.candidates.sum()} candidates\n")
    wanted = [part for part in options.only.split(",") if part]
    rows: dict[str, Row] = {}
    models: list[Trained] = []
    for label, fit, seeded in entries():
        if wanted and not label.startswith(tuple(wanted)):
            continue
        try:
            row = Row(label, [], [])
            for seed in range(options.seeds if seeded else 1):
                with cpu_clock(row.cpu_seconds):
                    score = fit(split.train, seed, models)
                row.measures.append(quality(rank(score, asked), asked))
        except ImportError as err:
            print(f"{label:<34} not installed: {err}")
            continue
        rows[label] = row
        print_row(row)
    compared = compare(rows)
    curve = accuracy_coverage(models, split, asked) if models else []
    cold = cold_start(models, split) if models else {}
    if options.figure and curve:
        plot(curve, rows, options.figure)
    if options.json:
        figures = {
            label: mean_summary(row) | {"cpu_seconds": float(np.mean(row.cpu_seconds))} for label, row in rows.items()
        }
        found = {"rows": figures, "against": compared, "curve": curve, "cold_start": cold}
        options.json.write_text(json.dumps(found, indent=1), "utf-8")


def entries() -> Iterator[tuple[str, Callable[[Dataset, int, list[Trained]], ScoreUsers], bool]]:
    """Name, how to train it, and whether a seed changes anything."""
    plain: tuple[tuple[str, peers.Fit, bool], ...] = (
        ("popularity", peers.popularity, False),
        (DECAYED, peers.decayed_popularity, False),
        ("ItemKNN", peers.item_knn, False),
        ("EASE", peers.ease, False),
        ("ALS (implicit)", peers.als, True),
        ("BPR (implicit)", peers.bpr, True),
        ("LightFM (WARP, genres)", peers.lightfm, True),
        ("ItemKNN + prior", lambda data, _: peers.with_tuned_prior(partial(peers.item_knn, _seed=0), data), False),
        ("EASE + prior", lambda data, _: peers.with_tuned_prior(partial(peers.fit_ease, penalty=400.0), data), False),
    )
    for label, fit, seeded in plain:
        yield label, partial(_peer, fit), seeded
    yield "two-tower, hinge 60/30/10, mean", _hinge, True
    yield OURS, partial(towers, config=TrainingConfig(), ranking="served"), True


def _peer(fit: peers.Fit, data: Dataset, seed: int, _models: list[Trained]) -> ScoreUsers:
    return fit(data, seed)


def _hinge(data: Dataset, seed: int, _models: list[Trained]) -> ScoreUsers:
    return towers(data, seed, [], config=hinge_config(TrainingConfig()), ranking="towers")


def towers(data: Dataset, seed: int, models: list[Trained], *, config: TrainingConfig, ranking: str) -> ScoreUsers:
    """Train; keep the model for the parts of the report that need one."""
    trained = train(data, replace(config, seed=seed))
    models.append(trained)
    alone = scores_of(trained, data)
    return alone if ranking == "towers" else with_prior(alone, popular(trained, data), trained.prior.weight)


def scores_of(trained: Trained, data: Dataset) -> ScoreUsers:
    everyone = np.arange(len(data.users))
    users = latest_vectors(
        lambda features, vectors: user_vectors(trained.model, features, vectors),
        trained.encoders,
        trained.items,
        trained.vectors,
        data,
        everyone,
    )
    return tower_scores(users, trained.vectors, temperature=trained.config.towers.temperature)


def popular(trained: Trained, data: Dataset) -> Float32s:
    return popularity_now(trained.prior, data.interactions, n_items=len(data.catalogue))


def accuracy_coverage(models: list[Trained], split: Split, asked: Questions) -> list[dict[str, float]]:
    """How the dials move accuracy and coverage: the prior's weight, and places given to the towers alone. First seed."""
    trained = models[0]
    alone, prior = scores_of(trained, split.train), popular(trained, split.train)
    print(
        f"\naccuracy against coverage (seed 0, prior tuned to weight {trained.prior.weight}, half-life {trained.prior.half_life_days} d)"
    )
    points = []
    own = rank(alone, asked)
    for weight in DIALS:
        found = quality(rank(with_prior(alone, prior, weight), asked), asked).summary()
        points.append({"dial": 0.0, "weight": weight, "discovery": 0.0} | found)
    served = rank(with_prior(alone, prior, trained.prior.weight), asked)
    for n_places in DISCOVERIES:
        found = quality(with_discovery(served, own, n_places=n_places, k=10), asked).summary()
        points.append({"dial": 1.0, "weight": trained.prior.weight, "discovery": float(n_places)} | found)
    for point in points:
        print(
            f"  weight {point['weight']:4.2f}, {point['discovery']:.0f} of 10 places from the towers alone: "
            f"NDCG@10 {point['ndcg_at_10']:.4f}  R@50 {point['recall_at_50']:.4f}  "
            f"coverage {point['coverage_at_10']:.3f}  entropy {point['entropy_at_10']:.2f}"
        )
    return points


def cold_start(models: list[Trained], split: Split) -> dict[str, dict[str, float]]:
    """Users and films of which training knows nothing, against popularity and chance."""
    found: dict[str, dict[str, float]] = {}
    data = split.train
    week = everybody(popularity_now(Prior(half_life_days=7.0), data.interactions, n_items=len(data.catalogue)))
    users = new_users(split)
    if len(users):
        found["new users"] = {"users": float(len(users)), "popularity, half-life 7 d": ndcg(week, users)}
        found["new users"][DECAYED] = ndcg(peers.decayed_popularity(data, 0), users)
        ours = [
            ndcg(with_prior(scores_of(each, data), popular(each, data), each.prior.weight), users) for each in models
        ]
        found["new users"] |= {"our towers + prior": float(np.mean(ours))}
    items = new_items(split)
    if len(items):
        n = int(items.candidates.sum())
        chance = 1 - np.exp(items.n_relevant * np.log1p(-min(10 / n, 0.999)))
        found["never-seen films"] = {"users": float(len(items)), "candidates": float(n), "chance": float(chance.mean())}
        release = release_prior(data)
        found["never-seen films"]["release prior"] = hit_rate(everybody(release), items)
        found["never-seen films"]["newest first"] = hit_rate(everybody(published(data)), items)
        found["never-seen films"]["our towers"] = float(
            np.mean([hit_rate(scores_of(each, data), items) for each in models])
        )
        found["never-seen films"]["our towers + release prior"] = float(
            np.mean([hit_rate(with_prior(scores_of(each, data), release, 1.0), items) for each in models])
        )
    for part, figures in found.items():
        print(f"\ncold start, {part}")
        for label, value in figures.items():
            print(f"  {label:<28} {value:.4g}")
    return found


def published(data: Dataset) -> Float32s:
    """(N,) a year is one unit; unknown is old."""
    seconds = [item.published_at_s or 0.0 for item in data.catalogue.items]
    return (np.array(seconds) / (365 * 86_400.0)).astype(np.float32)


def ndcg(score: ScoreUsers, asked: Questions) -> float:
    return float(quality(rank(score, asked), asked).ndcg_at_10.mean())


def hit_rate(score: ScoreUsers, asked: Questions) -> float:
    return float(hits(rank(score, asked, k=10), asked).any(1).mean())


def compare(rows: dict[str, Row]) -> dict[str, dict[str, float]]:
    if OURS not in rows:
        return {}
    print(f"\n{OURS} against (NDCG@10, paired bootstrap over users)")
    found = {}
    for label, row in rows.items():
        if label == OURS:
            continue
        it = paired_bootstrap(rows[OURS].ndcg, row.ndcg, seed=0)
        found[label] = {"difference": it.difference, "low": it.low, "high": it.high, "p": it.p}
        print(f"  {label:<34} {it.difference:+.4f}  [{it.low:+.4f}, {it.high:+.4f}]  p = {it.p:.4f}")
    return found


def mean_summary(row: Row) -> dict[str, float]:
    found = [each.summary() for each in row.measures]
    return {name: float(np.mean([each[name] for each in found])) for name in found[0]}


def print_row(row: Row) -> None:
    it = mean_summary(row)
    spread = float(np.std([found.ndcg_at_10.mean() for found in row.measures]))
    print(
        f"{row.name:<34} NDCG@10 {it['ndcg_at_10']:.4f} ± {spread:.4f}  P@10 {it['precision_at_10']:.4f}  "
        f"R@50 {it['recall_at_50']:.4f}  coverage {it['coverage_at_10']:.3f}  entropy {it['entropy_at_10']:.2f}  "
        f"[{np.mean(row.cpu_seconds):.1f} CPU s]",
        flush=True,
    )


def plot(curve: list[dict[str, float]], rows: dict[str, Row], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for dial, label in ((0.0, "ours, weight of the prior"), (1.0, "ours, places for the towers alone")):
        points = [point for point in curve if point["dial"] == dial]
        x, y = [point["coverage_at_10"] for point in points], [point["ndcg_at_10"] for point in points]
        axes.plot(x, y, marker="o", label=label)
    for label, row in rows.items():
        if label != OURS:
            it = mean_summary(row)
            axes.plot(it["coverage_at_10"], it["ndcg_at_10"], "k.", markersize=5)
            axes.annotate(
                label, (it["coverage_at_10"], it["ndcg_at_10"]), fontsize=7, xytext=(3, 3), textcoords="offset points"
            )
    axes.set(xlabel="coverage@10", ylabel="NDCG@10")
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


@contextmanager
def cpu_clock(seconds: list[float]) -> Iterator[None]:
    started_s = time.process_time()
    yield
    seconds.append(time.process_time() - started_s)


if __name__ == "__main__":
    main()
