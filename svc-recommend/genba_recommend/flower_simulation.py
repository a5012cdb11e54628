"""Flower's simulation of the sites: its ServerApp, its FedAvg, its ClientApp and its runtime. Runs in .venv/flower (flower.py).

    FedAvg ── user tower ──► ClientApp ──► Learner.learn ──► tower + clipped change, moments ──► FedAvg's mean, noise ──► next round

Flower's runtime gives messages to a backend that runs clients. It brings one, on Ray, a cluster scheduler of some 200 MB whose servers
outlive a killed driver; ``Here`` is another, of threads in this process. Who is asked in a round, and the noise, are drawn as
federated.py draws them, so that a seed means the same under both engines.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.server.superlink.fleet.vce.backend import Backend
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from safetensors.torch import load, save

from genba_recommend.federated import (
    LOSS,
    PLACES,
    FarSite,
    FederatedConfig,
    NearSite,
    Round,
    Site,
    SiteGone,
    Weights,
    blurred,
    drawn,
)
from genba_recommend.flower import Simulation

ARRAYS, METRICS, PARTITION, ALIKE = "arrays", "metrics", "partition-id", "alike"
RAY_BACKEND = "flwr.server.superlink.fleet.vce.backend.raybackend"
Tell = Callable[[str, object], None]


class Averaging(FedAvg):
    """FedAvg over the sites that are drawn. A site that goes away is left out from then on."""

    def __init__(self, config: FederatedConfig, tell: Tell) -> None:
        super().__init__(fraction_evaluate=0.0, weighted_by_key=ALIKE if config.noise else PLACES)
        self._config, self._tell = config, tell
        self._nodes: list[int] = []  # in the order of the sites, those that are left
        self._sent_bytes = 0

    def meet(self, grid: Grid, n_sites: int) -> None:
        """Learn which node has which site: Flower numbers nodes by chance."""
        nodes: list[int] = []
        while len(nodes) < n_sites:
            nodes = list(grid.get_node_ids())
        asked = [Message(content=RecordDict(), message_type="query", dst_node_id=node) for node in nodes]
        replies = list(grid.send_and_receive(asked, timeout=None))
        self._nodes = [reply.metadata.src_node_id for reply in sorted(replies, key=_partition)]

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        del grid  # who is there is known since ``meet``
        config["server-round"] = server_round
        nodes = [self._nodes[at] for at in drawn(len(self._nodes), server_round - 1, self._config)]
        self._sent_bytes = _size(arrays) * len(nodes)
        record = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: config})
        messages: Iterable[Message] = self._construct_messages(record, nodes, "train")
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        answered, gone = [], []
        for reply in replies:
            if not reply.has_error():
                answered.append(reply)
            elif SiteGone.__name__ in reply.error.reason:
                gone.append(reply.metadata.src_node_id)
            else:
                raise RuntimeError(reply.error.reason)
        self._nodes = [node for node in self._nodes if node not in gone]
        if not answered:
            raise SiteGone(f"No site answered in round {server_round}.")
        answered.sort(key=_partition)  # sums of floats depend on the order
        arrays, metrics = super().aggregate_train(server_round, answered)
        mean = {name: torch.from_numpy(np.array(array.numpy())) for name, array in arrays.items()}
        said = [reply.content[METRICS] for reply in answered]
        places = [int(each[PLACES]) for each in said]
        loss = float(np.average([each[LOSS] for each in said], weights=places))
        received = sum(_size(reply.content[ARRAYS]) for reply in answered)
        self._tell("round", Round(server_round, len(said), sum(places), loss, self._sent_bytes, received, len(gone)))
        return _record(blurred(mean, len(said), self._config, seed=server_round - 1)), metrics


def _partition(reply: Message) -> int:
    return int(reply.content[METRICS][PARTITION])


def _record(weights: Weights) -> ArrayRecord:
    return ArrayRecord({name: Array(x.numpy()) for name, x in weights.items()})


def _size(arrays: ArrayRecord) -> int:
    return sum(len(array.data) for array in arrays.values())


def client(sites: list[Site]) -> ClientApp:
    """What runs at each node: the site of its partition learns."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        number = MetricRecord({PARTITION: int(context.node_config[PARTITION])})
        return Message(content=RecordDict({METRICS: number}), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        partition = int(context.node_config[PARTITION])
        tower = {name: torch.from_numpy(np.array(array.numpy())) for name, array in message.content[ARRAYS].items()}
        site = sites[partition]
        site.ask(message.content["config"]["server-round"] - 1, save(tower))
        change = load(site.answer())
        numbers = {PLACES: int(change.pop(PLACES)), LOSS: float(change.pop(LOSS)), ALIKE: 1, PARTITION: partition}
        arrays = _record({name: x + change[name] for name, x in tower.items()})
        return Message(content=RecordDict({ARRAYS: arrays, METRICS: MetricRecord(numbers)}), reply_to=message)

    return app


def server(simulation: Simulation, tell: Tell) -> ServerApp:
    """What averages."""
    app, config = ServerApp(), simulation.outset.federated

    @app.main()
    def main(grid: Grid, _context: Context) -> None:
        averaging = Averaging(config, tell)
        averaging.meet(grid, len(simulation.parts))
        found = averaging.start(
            grid=grid,
            initial_arrays=_record(load(simulation.tower)),
            num_rounds=config.rounds,
            timeout=math.inf,
        )
        tower = {name: torch.from_numpy(np.array(array.numpy())) for name, array in found.arrays.items()}
        tell("done", save(tower))

    return app


def backend(workers: int) -> type[Backend]:
    """Clients run on so many threads of this process."""

    class Here(Backend):
        def __init__(self, backend_config: object) -> None:
            super().__init__(backend_config)
            self._app: ClientApp = None

        def build(self, app_fn: Callable[[], ClientApp]) -> None:
            self._app = app_fn()

        @property
        def num_workers(self) -> int:
            return workers

        def is_worker_idle(self) -> bool:
            return True

        def process_message(self, message: Message, context: Context) -> tuple[Message, Context]:
            return self._app(message, context), context

        def terminate(self) -> None:
            """Threads end by themselves."""

    return Here


def simulate(simulation: Simulation, tell: Tell) -> None:
    """All rounds; ``tell`` hears of each, and of the tower at the end."""
    make = FarSite if simulation.processes else NearSite
    sites: list[Site] = [make(part, simulation.outset) for part in simulation.parts]
    workers = len(sites) if simulation.processes else 1
    # Flower 1.42 takes its one backend from this module, and from nowhere else.
    module = types.ModuleType(RAY_BACKEND)
    module.RayBackend = backend(workers)  # type: ignore[attr-defined]
    sys.modules[RAY_BACKEND] = module
    from flwr.simulation import run_simulation

    logging.getLogger("flwr").setLevel(logging.ERROR)
    try:
        run_simulation(server(simulation, tell), client(sites), len(sites), backend_name="threads")
    finally:
        for site in sites:
            site.close()


def serve(descriptor: int) -> None:
    """Simulate what comes over the pipe, and end with it."""
    sys.addaudithook(_stay_here)
    pipe = Connection(descriptor)
    simulation: Simulation = pipe.recv()
    threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()

    def tell(kind: str, what: object) -> None:
        pipe.send((kind, what))

    try:
        simulate(simulation, tell)
    except SiteGone as err:
        tell("gone", str(err))
    except Exception as err:  # noqa: BLE001 (whatever it is, the worker has to hear of it)
        tell("failed", f"{type(err).__name__}: {err}")


def _end_with(pipe: Connection) -> None:
    """Nothing more comes over the pipe, so it is readable when the worker has let go of it, or is no more."""
    pipe.poll(None)
    os.killpg(0, signal.SIGKILL)


def _stay_here(event: str, _arguments: tuple[object, ...]) -> None:
    if event in {"socket.connect", "socket.getaddrinfo", "socket.bind"}:
        raise PermissionError("The simulation needs no network.")
