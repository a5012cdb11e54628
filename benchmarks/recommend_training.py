"""What it costs to train on a million interactions: CPU seconds of the default recipe, whole, on one thread. ALS stands beside it.

Whole means what a job does between reading the rows and writing the bundle: fit, tune, refit, heads. The world is generated:
20,000 items, and as many users as it takes until their likes, views and clicks are so many.

How many epochs are best depends on the seed, and with it the cost.

Run: python -m benchmarks.recommend_training [--interactions 1000000] [--seed 0]   (aim at a million: 90 CPU seconds)
"""

from __future__ import annotations

import argparse
import time

import torch
from benchmarks import recommend_baselines as peers
from threadpoolctl import threadpool_limits

from genba_recommend.data import first_of_each
from genba_recommend.dataset import Dataset
from genba_recommend.generator import Size, generate
from genba_recommend.training_config import TrainingConfig
from genba_recommend.training_loop import train

ITEMS, DAYS, SEED = 20_000, 60, 0
A_USER = 60  # likes, views and clicks, about
AIM_CPU_S = 90.0


def world(interactions: int) -> tuple[Dataset, int]:
    """A dataset as training reads it, one event a user and item, and how many likes, views and clicks it came from."""
    users = max(100, interactions // A_USER)
    while True:
        found = generate(Size(ITEMS, users, DAYS), seed=SEED).dataset()
        said = len(found.interactions.positive)
        if said >= interactions:
            return found.with_interactions(first_of_each(found.interactions)), said
        users = 1 + int(users * 1.02 * interactions / said)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--interactions", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=SEED, help="of the training; the world is the same")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        data, said = world(options.interactions)
        pairs = len(data.interactions)
        print(f"{said} likes, views and clicks: {pairs} pairs of {len(data.users)} users and {ITEMS} items", flush=True)
        started_s = time.process_time()
        peers.als(data, options.seed)
        print(f"ALS (implicit): {time.process_time() - started_s:.0f} CPU s", flush=True)
        started_s = time.process_time()
        trained = train(data, TrainingConfig(seed=options.seed))
        cpu_s = time.process_time() - started_s
    word = "met" if cpu_s <= AIM_CPU_S else "missed"
    print(
        f"ours: {cpu_s:.0f} CPU s, {trained.metrics['best_epoch']:.0f} epochs; aim {AIM_CPU_S:g} at a million: {word}"
    )


if __name__ == "__main__":
    main()
