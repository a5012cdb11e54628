"""Federated averaging of the user tower: sites learn from their own people's events, and only weights travel (McMahan et al. 2017).

    server ── user tower, bytes ──► site: steps on its own events ── clipped change, bytes ──► server: average, noise ──► next round

The item tower stays as it is: what an item is, everybody may know. A site's change is clipped to a length before it leaves, so no
site moves the tower far; with ``noise`` the average is blurred as DP-FedAvg does (McMahan et al. 2018), every site counting alike.
No budget of privacy is computed, and sums are not masked from the server: that is for a deployment over real devices. Sites run
in this process or in processes of their own, over the same messages. Knows no queue, no database and no HTTP.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from genba_recommend.adam import Adam
from genba_recommend.batches import Batches
from genba_recommend.dataset import Dataset, User
from genba_recommend.features import Encoders
from genba_recommend.objective import loss_of
from genba_recommend.training_config import TrainingConfig
from genba_recommend.two_tower import TableSizes, TwoTower

Weights = dict[str, Tensor]
LEAST_EVENTS: Final = 16  # a site with fewer has no batch to learn from
PLACES, LOSS = "places", "loss"  # in a site's answer, beside the change


@dataclass(frozen=True)
class FederatedConfig:
    """share: of the sites, asked each round.   steps: that a site takes before it answers.

    clip_norm: the most a site's change may be long, over the whole tower.   noise: standard deviation of what blurs the
    average, in clip_norm over the number of sites asked; 0 for none, and then sites count by how many moments they have.
    """

    rounds: int = 10
    share: float = 0.5
    steps: int = 10
    learning_rate: float = 1e-3
    clip_norm: float = 1.0
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises: ValueError for what cannot be run."""
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}, must lie above 0 and be at most 1.")
        for name in ("rounds", "steps", "learning_rate", "clip_norm"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, must be above 0.")
        if self.noise < 0:
            raise ValueError(f"noise is {self.noise}, must be at least 0.")


@dataclass(frozen=True)
class Outset:
    """What every site gets once: the towers as they are, how to read features, how to learn. ``weights``: safetensors."""

    weights: bytes
    encoders: Encoders
    training: TrainingConfig
    federated: FederatedConfig
    half_life_days: float


class Site(Protocol):
    """Somebody with data of their own. Bytes in, bytes out; nothing else passes."""

    def ask(self, number: int, tower: bytes) -> None: ...
    def answer(self) -> bytes: ...
    def close(self) -> None: ...


class Learner:
    """What runs at a site."""

    def __init__(self, dataset: Dataset, outset: Outset) -> None:
        """Args: dataset: the whole catalogue, and this site's people and events alone."""
        towers = replace(
            outset.training.towers, item_id_dropout=0.0
        )  # the item tower is not taught to do without ids here
        self._config, self._federated = replace(outset.training, towers=towers), outset.federated
        encoders = outset.encoders
        self._model = TwoTower(towers, TableSizes.of(encoders))
        self._model.load_state_dict(load(outset.weights))
        self._model.item_tower.requires_grad_(requires_grad=False)
        items = encoders.items(dataset.catalogue)
        self._batches = Batches(dataset, encoders, items, self._config, half_life_days=outset.half_life_days)
        self._n_places = len(self._batches.places)

    def learn(self, number: int, tower: bytes) -> bytes:
        """A round: take the tower, take steps, give back the clipped change with the number of moments and the mean loss."""
        before = load(tower)
        self._model.user_tower.load_state_dict(before)
        self._model.train()
        adam = Adam(dict(self._model.user_tower.named_parameters()), learning_rate=self._federated.learning_rate)
        losses: list[float] = []
        epoch = number
        while len(losses) < self._federated.steps:
            for step in self._batches.epoch(epoch):
                adam.zero_grad()
                loss = loss_of(self._model, step, self._config, seed=0)
                loss.backward()
                adam.step()
                losses.append(float(loss.detach()))
                if len(losses) == self._federated.steps:
                    break
            epoch += 1_000_003  # far from other rounds' epochs
        after = self._model.user_tower.state_dict()
        change = clipped({name: after[name].detach() - x for name, x in before.items()}, self._federated.clip_norm)
        return save({**change, PLACES: torch.tensor(self._n_places), LOSS: torch.tensor(float(np.mean(losses)))})


class NearSite:
    """A site in this process."""

    def __init__(self, dataset: Dataset, outset: Outset) -> None:
        self._learner, self._said = Learner(dataset, outset), b""

    def ask(self, number: int, tower: bytes) -> None:
        self._said = self._learner.learn(number, tower)

    def answer(self) -> bytes:
        return self._said

    def close(self) -> None:
        """Nothing is open."""


class SiteGone(RuntimeError):
    """A site's process ended before it answered."""


class FarSite:
    """A site in a process of its own, which alone holds its data."""

    def __init__(self, dataset: Dataset, outset: Outset) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, dataset, outset), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def ask(self, number: int, tower: bytes) -> None:
        try:
            self._pipe.send((number, tower))
        except OSError as err:
            raise SiteGone(f"The site in process {self.pid} has ended.") from err

    def answer(self) -> bytes:
        try:
            said: bytes = self._pipe.recv()
        except (EOFError, OSError) as err:
            raise SiteGone(f"The site in process {self.pid} ended before it answered.") from err
        return said

    def close(self) -> None:
        self._pipe.close()
        self._process.join(timeout=5.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(pipe: multiprocessing.connection.Connection, dataset: Dataset, outset: Outset) -> None:
    torch.set_num_threads(1)
    learner = Learner(dataset, outset)
    while True:
        try:
            number, tower = pipe.recv()
        except EOFError:
            return
        pipe.send(learner.learn(number, tower))


@dataclass(frozen=True)
class Round:
    """One round as the server saw it. lost: sites that went away and are not asked again."""

    number: int
    sites: int
    places: int
    loss: float
    sent_bytes: int
    received_bytes: int
    lost: int


@dataclass(frozen=True)
class Federated:
    """The user tower after all rounds, by name without a prefix, and the rounds."""

    user_tower: Weights
    rounds: tuple[Round, ...]


def split_by_site(dataset: Dataset, n_sites: int) -> list[Dataset]:
    """Each user to one site by a hash of their id; sites with too few events to learn from are left out.

    A site has the whole catalogue, its own people's events, and of other people not even an id.
    """
    site = np.array([zlib.crc32(user.user_id.encode()) % n_sites for user in dataset.users], np.int64)
    events, found = dataset.interactions, []
    for number in range(n_sites):
        own = events.take(site[events.user] == number)
        people = tuple(user if site[row] == number else User("") for row, user in enumerate(dataset.users))
        if len(own.positive) >= LEAST_EVENTS:
            found.append(Dataset(dataset.catalogue, people, own))
    return found


def federate(
    tower: Mapping[str, Tensor],
    sites: Sequence[Site],
    config: FederatedConfig,
    *,
    on_round: Callable[[Round], None] = lambda _round: None,
) -> Federated:
    """Run all rounds. A site that goes away is left out from then on.

    Args: tower: the user tower to begin with.   on_round: told after each; may raise to stop.
    Raises: ValueError without sites; SiteGone when none is left.
    """
    if not sites:
        raise ValueError("There is no site with enough events to learn from.")
    now, here, rounds = {name: x.detach().clone() for name, x in tower.items()}, list(sites), []
    for number in range(config.rounds):
        asked = [here[at] for at in drawn(len(here), number, config)]
        message = save(now)
        answers, gone = _answers(asked, number, message)
        here = [site for site in here if site not in gone]
        if not here or not answers:
            raise SiteGone(f"No site answered in round {number + 1}.")
        said = [load(answer) for answer in answers]
        places, losses = [int(each.pop(PLACES)) for each in said], [float(each.pop(LOSS)) for each in said]
        for name, change in averaged(said, places, config, seed=number).items():
            now[name] += change
        loss = float(np.average(losses, weights=places))
        received = sum(map(len, answers))
        rounds.append(Round(number + 1, len(said), sum(places), loss, len(message) * len(asked), received, len(gone)))
        on_round(rounds[-1])
    return Federated(now, tuple(rounds))


def drawn(n_sites: int, number: int, config: FederatedConfig) -> list[int]:
    """Which of so many sites are asked in round ``number``."""
    rng = np.random.default_rng([config.seed, number])
    chosen: list[int] = rng.choice(n_sites, max(1, round(config.share * n_sites)), replace=False).tolist()
    return sorted(chosen)


def _answers(asked: Sequence[Site], number: int, message: bytes) -> tuple[list[bytes], list[Site]]:
    """All are asked before the first is waited for, so that sites work side by side."""
    waiting, gone, answers = [], [], []
    for site in asked:
        try:
            site.ask(number, message)
            waiting.append(site)
        except SiteGone:
            gone.append(site)
    for site in waiting:
        try:
            answers.append(site.answer())
        except SiteGone:
            gone.append(site)
    return answers, gone


def averaged(changes: Sequence[Weights], places: Sequence[int], config: FederatedConfig, *, seed: int) -> Weights:
    """The mean change: by moments, or with noise by sites and blurred."""
    n = len(changes)
    shares = [count / sum(places) for count in places] if config.noise == 0 else [1 / n] * n
    mean = {
        name: sum((w * c[name] for w, c in zip(shares, changes, strict=True)), torch.zeros(())) for name in changes[0]
    }
    return blurred(mean, n, config, seed=seed)


def blurred(mean: Weights, n_sites: int, config: FederatedConfig, *, seed: int) -> Weights:
    """The mean over so many sites with the noise of its round; as it is where none is asked for."""
    if config.noise == 0:
        return mean
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence([config.seed, seed]).generate_state(1)[0]))
    spread = config.noise * config.clip_norm / n_sites
    return {name: mean[name] + spread * torch.randn(mean[name].shape, generator=generator) for name in sorted(mean)}


def clipped(change: Weights, most: float) -> Weights:
    """The same direction, at most so long over all tensors together."""
    length = float(torch.sqrt(sum((x.square().sum() for x in change.values()), torch.zeros(()))))
    return change if length <= most else {name: x * (most / length) for name, x in change.items()}
