"""How good the recommender's lists are, against its peers, on film ratings under a global time split. Three seeds.

Protocol. The newest 20 % of all ratings are the test. Users with events on both sides are asked for the films that they turn to
later for the first time, among all films with at least one event in training; everything that a user had in training is left
out of the list. Full ranking, no sampled negatives. Nothing is chosen on the test: half-lives, weights, penalties and the
moment to stop are picked on the newest tenth of the training period, for the peers as for ours. ``+ prior`` rows add the same
tuned decayed popularity to a peer, so that what the towers bring can be told from what the prior brings.
Ours is what svc-recommend scores by: towers, neighbours and prior, weighed on that newest tenth, their shortlist put in order by the
second stage; ``first stage`` is without it. As lists are served, the last place
of some goes to what is seldom shown, user after user in the order of their rows. Significance: paired bootstrap over
users, 10,000 resamples, one-sided, of NDCG@10 averaged over seeds. CPU seconds: one thread, training and tuning, without scoring the test.

Cold start. New users: those without any event in training, asked for what they choose in the test, with no history at all.
Never-seen films: those without any event in training; users with history are asked which of them they turn to, from features
alone; HR@10 is the share of users with at least one of theirs among the first ten.

Generated worlds. ``--generated`` plays the protocol on the project's own generator (2,000 items, 1,000 users, 60 days) with strong
and weak taste, moving and standing still: a model that is good on one kind of data alone shows here.

Development. ``--development`` plays the same protocol inside the oldest 80 %: what a recipe gains is looked up there, and the
test above is left for the end.

Run: make bench-recommend, or python -m benchmarks.recommend_quality [folder ...] [--seeds 3] [--figure curve.png]
[--development] [--generated]
(data: $GENBA_DATA or ../shared/data, folder recommend/movietweetings-100k; any MovieLens folder with movies and ratings)
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from benchmarks import recommend_baselines as peers
from benchmarks.recommend_films import load, shared_tweets
from threadpoolctl import threadpool_limits

from genba_recommend.blending import Blend
from genba_recommend.cold_start import new_items, new_users
from genba_recommend.data import first_of_each
from genba_recommend.dataset import Dataset, Floats, Kind, Split, split_by_time
from genba_recommend.evidence import weight_of
from genba_recommend.generator import Habits, Size, generate
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
from genba_recommend.reranker import Reranker
from genba_recommend.scoring import (
    Float32s,
    blended,
    lasting_now,
    latest_vectors,
    popularity_now,
    reranked,
    served,
    tower_scores,
    with_discovery,
    with_prior,
)
from genba_recommend.settings import Settings
from genba_recommend.training_config import TrainingConfig, hinge_config
from genba_recommend.training_loop import Trained, train
from genba_recommend.two_tower import user_vectors

Asks = Literal["test", "development"]

OURS = "ours"
FIRST = "ours, first stage alone"  # towers + neighbours + prior, weighed as with the second
WIDE = "ours, as lists are served"  # with the discovery place
DECAYED = "decayed popularity"
GENERATED = Path("generated")  # no folder: what stands before a world's name
WORLDS = {
    "strong-moving": Habits(),
    "strong-still": Habits(drift="still"),
    "weak-moving": Habits(taste=0.5),
    "weak-still": Habits(taste=0.5, drift="still"),
}
DIALS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)  # prior weight
SHARES = (0.25, 0.5, 0.7, 0.85, 1.0)  # of the lists whose last place goes to what is seldom shown
SERVED_SHARE = Settings.model_fields["discover"].default


@dataclass(frozen=True)
class Extras:
    """What is looked at in ours alone: the tuned prior, the curve, cold start."""

    prior: Prior
    blend: Blend
    best_epoch: float
    curve: list[dict[str, float]]
    cold: dict[str, float]


@dataclass(frozen=True)
class Measured:
    """One model with one seed."""

    quality: Quality
    cpu_seconds: float
    extras: Extras | None
    wide: Quality | None = None  # with the discovery place
    first: Quality | None = None  # without the second stage


@dataclass(frozen=True)
class Row:
    """One model over all seeds."""

    name: str
    by_seed: dict[int, Measured]

    @property
    def ndcg(self) -> Floats:
        """(U,) averaged over seeds."""
        return np.asarray(np.mean([found.quality.ndcg_at_10 for found in self.by_seed.values()], axis=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="*", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="models trained at a time, a thread each")
    parser.add_argument("--only", default="", help="comma-separated beginnings of rows, to look at some")
    parser.add_argument("--development", action="store_const", const="development", default="test", dest="asks")
    parser.add_argument("--generated", action="store_true", help="on generated worlds instead of folders")
    parser.add_argument("--figure", type=Path, help="write the accuracy-coverage curve here (PNG or SVG)")
    parser.add_argument("--json", type=Path, help="write every figure here")
    options = parser.parse_args()
    folders = [GENERATED / name for name in WORLDS] if options.generated else options.folder or [shared_tweets()]
    for folder in folders:
        if folder.parent != GENERATED and not folder.is_dir():
            print(f"no ratings at {folder}; set GENBA_DATA or name a folder")
            continue
        run(folder, options)


def run(folder: Path, options: argparse.Namespace) -> None:
    dataset = read(folder, options.asks)
    asked = questions(split_by_time(dataset, newest=0.2))
    print(
        f"\n{folder.name}, {options.asks}: {len(dataset.interactions)} ratings, {len(dataset.users)} users, {len(dataset.catalogue)} films"
    )
    print(
        f"asked: {len(asked)} users, {asked.n_relevant.sum()} relevant films, {asked.candidates.sum()} candidates\n",
        flush=True,
    )
    hindsight = everybody(np.bincount(asked.relevant, minlength=len(dataset.catalogue)).astype(np.float32))
    print(f"popularity in the test itself, which nobody can know: NDCG@10 {ndcg(hindsight, asked):.4f}\n", flush=True)
    wanted = [part for part in options.only.split(",") if part]
    labels = [label for label in ENTRIES if not wanted or label.startswith(tuple(wanted))]
    tasks = [(label, seed) for label in labels for seed in range(options.seeds if ENTRIES[label].seeded else 1)]
    rows: dict[str, Row] = {}
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        coming = {pool.submit(measure, folder, options.asks, *task): task for task in tasks}
        for done in as_completed(coming):
            label, seed = coming[done]
            try:
                rows.setdefault(label, Row(label, {})).by_seed[seed] = done.result()
            except ImportError as err:
                print(f"{label:<34} not installed: {err}")
                continue
            print_row(label, f"seed {seed}", [rows[label].by_seed[seed]])
    rows = {label: rows[label] for label in labels if label in rows}
    if OURS in rows:
        wide = {n: Measured(it.wide, it.cpu_seconds, None) for n, it in rows[OURS].by_seed.items() if it.wide}
        first = {n: Measured(it.first, it.cpu_seconds, None) for n, it in rows[OURS].by_seed.items() if it.first}
        rows = {OURS: rows[OURS], WIDE: Row(WIDE, wide), FIRST: Row(FIRST, first)} | rows
    print()
    for row in rows.values():
        print_row(row.name, f"{len(row.by_seed)} seeds", list(row.by_seed.values()))
    compared = compare(rows)
    extras = [found.extras for found in rows[OURS].by_seed.values() if found.extras] if OURS in rows else []
    if extras:
        print_extras(extras)
        if options.figure:
            plot(extras, rows, options.figure)
    if options.json:
        figures = {label: mean_summary(list(row.by_seed.values())) for label, row in rows.items()}
        found = {"rows": figures, "against": compared, "ours": [asdict(each) for each in extras]}
        options.json.write_text(json.dumps(found, indent=1), "utf-8")


def read(folder: Path, asks: Asks) -> Dataset:
    """Everything, or for development what lies before the test."""
    dataset = generated(WORLDS[folder.name]) if folder.parent == GENERATED else load(folder)
    return dataset if asks == "test" else split_by_time(dataset, newest=0.2).train


def generated(habits: Habits) -> Dataset:
    """A world as training reads it from a database: impressions left out, one event a user and item."""
    found = generate(Size(), habits=habits).dataset()
    events = found.interactions
    durations_s = [item.duration_s for item in found.catalogue.items]
    columns = (events.kind.tolist(), events.watched_s.tolist(), events.item.tolist())
    weight = [weight_of(Kind(k), watched_s=s, duration_s=durations_s[i]) for k, s, i in zip(*columns, strict=True)]
    weighed = replace(events, weight=np.array(weight, np.float32))
    return found.with_interactions(first_of_each(weighed))


def measure(folder: Path, asks: Asks, label: str, seed: int) -> Measured:
    """One model with one seed, in a process of its own."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="implicit")
    with threadpool_limits(1):  # CPU seconds are compared, and implicit asks for it
        split = split_by_time(read(folder, asks), newest=0.2)
        asked = questions(split)
        entry = ENTRIES[label]
        started_s = time.process_time()
        if isinstance(entry, Peer):
            score = entry.fit(split.train, seed)
            cpu_seconds = time.process_time() - started_s
            return Measured(quality(rank(score, asked), asked), cpu_seconds, None)
        trained = train(split.train, replace(entry.config, seed=seed))
        cpu_seconds = time.process_time() - started_s
        alone = scores_of(trained, split.train)
        foreseen = foreseen_of(trained, split.train)
        whole = served(alone, trained, trained.neighbours, trained.reranker, split.train, foreseen)
        found = quality(rank(whole if entry.served else alone, asked), asked)
        if not entry.served:
            return Measured(found, cpu_seconds, None)
        extras, wide = look_closer(trained, split, asked)
        nothing = Reranker.none(len(trained.items))
        without = served(alone, trained, trained.neighbours, nothing, split.train, foreseen)
        return Measured(found, cpu_seconds, extras, wide, quality(rank(without, asked), asked))


@dataclass(frozen=True)
class Peer:
    """How to train one that we are compared with, and whether a seed changes anything."""

    fit: peers.Fit
    seeded: bool = False


@dataclass(frozen=True)
class Towers:
    """How to train towers, and whether they rank with their prior."""

    config: TrainingConfig
    served: bool
    seeded: bool = True


def _knn_and_prior(data: Dataset, _seed: int) -> ScoreUsers:
    return peers.with_tuned_prior(partial(peers.item_knn, _seed=0), data)


def _ease_and_prior(data: Dataset, _seed: int) -> ScoreUsers:
    return peers.with_tuned_prior(partial(peers.fit_ease, penalty=500.0), data)


ENTRIES: dict[str, Peer | Towers] = {
    OURS: Towers(TrainingConfig(), served=True),
    "popularity": Peer(peers.popularity),
    DECAYED: Peer(peers.decayed_popularity),
    "ItemKNN": Peer(peers.item_knn),
    "EASE": Peer(peers.ease),
    "ItemKNN + prior": Peer(_knn_and_prior),
    "EASE + prior": Peer(_ease_and_prior),
    "ALS (implicit)": Peer(peers.als, seeded=True),
    "BPR (implicit)": Peer(peers.bpr, seeded=True),
    "two-tower, hinge 60/30/10, mean": Towers(hinge_config(TrainingConfig()), served=False),
    "LightFM (WARP, genres)": Peer(peers.lightfm, seeded=True),
}


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


def foreseen_of(trained: Trained, data: Dataset) -> Float32s | None:
    """Events a day of films that nobody has touched, (N,)."""
    return trained.premieres.of(data.catalogue.items, now_s=float(data.interactions.time_s.max()))


def look_closer(trained: Trained, split: Split, asked: Questions) -> tuple[Extras, Quality]:
    data, tuned = split.train, trained.prior
    alone = scores_of(trained, data)
    taste = blended(alone, trained.neighbours, data.histories, trained.blend)
    foreseen = foreseen_of(trained, data)
    popular = popularity_now(tuned, data.interactions, n_items=len(data.catalogue), foreseen=foreseen)

    def listed(weight: float) -> ScoreUsers:
        lasting = lasting_now(replace(tuned, weight=weight), data)
        return reranked(with_prior(taste, popular, weight), trained.reranker, trained.blend.reranker, data, lasting)

    curve = []
    for weight in DIALS:
        found = quality(rank(listed(weight), asked), asked).summary()
        curve.append({"weight": weight, "discovery": 0.0} | found)
    whole = listed(tuned.weight)
    by_share = {share: quality(with_discovery(whole, taste, asked, share=share), asked) for share in SHARES}
    for share, wide in by_share.items():
        curve.append({"weight": tuned.weight, "discovery": share} | wide.summary())
    whole = served(alone, trained, trained.neighbours, trained.reranker, data, foreseen)
    cold = cold_start(split, trained, alone, whole)
    return Extras(tuned, trained.blend, float(trained.metrics["best_epoch"]), curve, cold), by_share[SERVED_SHARE]


def cold_start(split: Split, trained: Trained, alone: ScoreUsers, whole: ScoreUsers) -> dict[str, float]:
    """Users and films of which training knows nothing, against popularity and chance."""
    data = split.train
    week = everybody(popularity_now(Prior(half_life_days=7.0), data.interactions, n_items=len(data.catalogue)))
    found: dict[str, float] = {}
    users = new_users(split)
    if len(users):
        found["new users: how many"] = float(len(users))
        found["new users: NDCG@10, popularity of half-life 7 d"] = ndcg(week, users)
        found["new users: NDCG@10, decayed popularity"] = ndcg(peers.decayed_popularity(data, 0), users)
        found["new users: NDCG@10, ours"] = ndcg(whole, users)
    items = new_items(split)
    if len(items):
        n = int(items.candidates.sum())
        chance = 1 - np.exp(items.n_relevant * np.log1p(-min(10 / n, 0.999)))
        foreseen = foreseen_of(trained, data)
        prior = popularity_now(trained.prior, data.interactions, n_items=len(data.catalogue), foreseen=foreseen)
        found["never-seen films: candidates"] = float(n)
        found["never-seen films: users asked"] = float(len(items))
        found["never-seen films: HR@10, chance"] = float(chance.mean())
        found["never-seen films: HR@10, newest first"] = hit_rate(everybody(published(data)), items)
        found["never-seen films: HR@10, our towers alone"] = hit_rate(alone, items)
        found["never-seen films: HR@10, what is foreseen of them alone"] = hit_rate(everybody(prior), items)
        taste = blended(alone, trained.neighbours, data.histories, trained.blend)
        found["never-seen films: HR@10, ours"] = hit_rate(with_prior(taste, prior, trained.prior.weight), items)
    return found


def print_extras(extras: list[Extras]) -> None:
    first = extras[0]
    for at, each in enumerate(extras):
        print(f"tuned, seed {at}: {each.prior}, {each.blend}, epoch {each.best_epoch:.0f}")
    print("\naccuracy against coverage (seed 0)")
    for point in first.curve:
        print(
            f"  weight {point['weight']:4.2f}, last place of {point['discovery']:.2f} of the lists given: "
            f"NDCG@10 {point['ndcg_at_10']:.4f}  R@50 {point['recall_at_50']:.4f}  "
            f"coverage {point['coverage_at_10']:.3f}  entropy {point['entropy_at_10']:.2f}"
        )
    print(f"\ncold start (mean of {len(extras)} seeds)")
    for label in first.cold:
        print(f"  {label:<56} {np.mean([each.cold[label] for each in extras]):.4g}")


def published(data: Dataset) -> Float32s:
    """(N,) a year is one unit; unknown is old."""
    seconds = [item.published_at_s or 0.0 for item in data.catalogue.items]
    return (np.array(seconds) / (365 * 86_400.0)).astype(np.float32)


def ndcg(score: ScoreUsers, asked: Questions) -> float:
    return float(quality(rank(score, asked), asked).ndcg_at_10.mean())


def hit_rate(score: ScoreUsers, asked: Questions) -> float:
    return float(hits(rank(score, asked, k=10), asked).any(1).mean())


def compare(rows: dict[str, Row]) -> dict[str, dict[str, float]]:
    found = {}
    for ours in (OURS, WIDE):
        if ours not in rows:
            continue
        print(f"\n{ours} against (NDCG@10, paired bootstrap over users)")
        for label, row in rows.items():
            if label in {OURS, WIDE}:
                continue
            it = paired_bootstrap(rows[ours].ndcg, row.ndcg, seed=0)
            found[f"{ours} / {label}"] = {"difference": it.difference, "low": it.low, "high": it.high, "p": it.p}
            print(f"  {label:<34} {it.difference:+.4f}  [{it.low:+.4f}, {it.high:+.4f}]  p = {it.p:.4f}")
    return found


def mean_summary(found: list[Measured]) -> dict[str, float]:
    rows = [each.quality.summary() | {"cpu_seconds": each.cpu_seconds} for each in found]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def print_row(label: str, what: str, found: list[Measured]) -> None:
    it = mean_summary(found)
    spread = float(np.std([each.quality.ndcg_at_10.mean() for each in found]))
    print(
        f"{label:<34} {what:<8} NDCG@10 {it['ndcg_at_10']:.4f} ± {spread:.4f}  P@10 {it['precision_at_10']:.4f}  "
        f"R@50 {it['recall_at_50']:.4f}  coverage {it['coverage_at_10']:.3f}  entropy {it['entropy_at_10']:.2f}  "
        f"[{it['cpu_seconds']:.1f} CPU s]",
        flush=True,
    )


def plot(extras: list[Extras], rows: dict[str, Row], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    curve = extras[0].curve
    parts = {
        "ours, weight of the prior": curve[: len(DIALS)],
        "ours, last place for the seldom shown": curve[len(DIALS) :],
    }
    for label, points in parts.items():
        x, y = [point["coverage_at_10"] for point in points], [point["ndcg_at_10"] for point in points]
        axes.plot(x, y, marker="o", label=label)
    for label, row in rows.items():
        if label not in {OURS, WIDE}:
            it = mean_summary(list(row.by_seed.values()))
            at = (it["coverage_at_10"], it["ndcg_at_10"])
            axes.plot(*at, "k.", markersize=5)
            axes.annotate(label, at, fontsize=7, xytext=(3, 3), textcoords="offset points")
    axes.set(xlabel="coverage@10", ylabel="NDCG@10")
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
