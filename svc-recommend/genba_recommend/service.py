"""What svc-recommend's routes stand on, made once per process: the database, the registry, a shop per tenant. Knows no route."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request
from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import text
from threadpoolctl import threadpool_limits

from genba_recommend.pauses import Pauses
from genba_recommend.picturing import Picturing
from genba_recommend.settings import Settings
from genba_recommend.shop import Shop
from genba_recommend.sop_door import open_door
from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_shared.principal import Principal
from genba_shared.problems import TooManyRequests
from genba_shared.readiness import Degraded
from genba_shared.registry import Registry
from genba_shared.repeated import Repeated
from genba_shared.telemetry import Metrics, get_logger
from genba_shared.vectors import Vectors, open_vectors

log = get_logger(__name__)
MAIN_TENANT = "default"
BLIND_AFTER_S = 30.0


@dataclass
class Counters:
    """What is counted where it happens."""

    lists: Counter
    events: Counter
    exposures_dropped: Counter
    pictures: Counter
    follow_seconds: Histogram

    @classmethod
    def of(cls, metrics: Metrics) -> Counters:
        return cls(
            metrics.counter("lists", "Lists answered, by the source of their first item.", ["source"]),
            metrics.counter("events", "Rows of bulk requests of events, by what became of them.", ["outcome"]),
            metrics.counter("exposures_dropped", "Shown lists that could not be noted because too many waited."),
            metrics.counter("pictures", "Pictures of items that were sent, by what became of them then.", ["state"]),
            metrics.histogram("follow_seconds", "Time to take up what was written since the last look."),
        )


@dataclass
class Recommender:
    """The resources of one process."""

    settings: Settings
    database: Database
    registry: Registry
    counters: Counters
    picturing: Picturing
    shops: dict[str, Shop] = field(default_factory=dict)
    _opening: threading.Lock = field(default_factory=threading.Lock)
    _opening_vectors: threading.Lock = field(default_factory=threading.Lock)
    _followed_s: float = field(default_factory=time.monotonic)

    _vectors: Vectors | None = None

    def __post_init__(self) -> None:
        self._ingesting = threading.BoundedSemaphore(self.settings.ingest_at_once)

    def vectors(self) -> Vectors:
        """The vector store, opened when a catalogue is so large that it is needed."""
        with self._opening_vectors:
            if self._vectors is None:
                self._vectors = open_vectors(self.settings.platform)
            return self._vectors

    def close(self) -> None:
        """Close every shop, then the vectors that they search."""
        for shop in self.shops.values():
            shop.close()
        if self._vectors is not None:
            self._vectors.close()

    def shop_of(self, principal: Principal) -> Shop:
        """The shop of the caller's tenant, opened at its first use."""
        shop = self.shops.get(principal.tenant)
        return shop if shop is not None else self.open_shop(principal.tenant)

    def open_shop(self, tenant: str) -> Shop:
        """A tenant's shop."""
        with self._opening:
            if tenant not in self.shops:
                shop = Shop(tenant, self.database, self.registry, self.settings, self.vectors)
                shop.exposures.on_drop = self.counters.exposures_dropped.inc
                shop.open()
                self.shops[tenant] = shop
            return self.shops[tenant]

    @contextlib.contextmanager
    def ingesting(self, shop: Shop) -> Iterator[None]:
        """One of the few bulk requests that are written at the same time. Raises: TooManyRequests, so that senders slow down."""
        if shop.exposures.is_full or not self._ingesting.acquire(blocking=False):
            raise TooManyRequests(
                "Too much is being written at the moment; send it again in a second.", retry_after_s=1
            )
        try:
            yield
        finally:
            self._ingesting.release()

    def follow(self) -> None:
        """Let every shop take up what others wrote."""
        for shop in list(self.shops.values()):
            try:
                with self.counters.follow_seconds.time():
                    shop.follow()
                self._followed_s = time.monotonic()
            except Exception as error:
                log.warning("follow_failed", tenant=shop.tenant, error=type(error).__name__, exc_info=True)

    @property
    def held(self) -> int:
        """Users and items in memory."""
        return sum(len(shop.people) + len(shop.view.shelf) for shop in list(self.shops.values()))

    def database_answers(self) -> str | None:
        """Readiness: None when well."""
        with self.database.read() as session:
            session.execute(text("SELECT 1"))
        return None

    def model_unwell(self) -> str | None:
        """Readiness: the champion of any tenant that does not load. Lists go on without."""
        said = [reason for shop in list(self.shops.values()) if (reason := shop.live.unwell())]
        return Degraded("; ".join(said)) if said else None

    def follow_unwell(self) -> str | None:
        """Readiness: silence of the thread that looks for news."""
        silent_s = time.monotonic() - self._followed_s
        return Degraded(f"has not looked for news for {silent_s:.0f} s") if silent_s > BLIND_AFTER_S else None


class ShopCollector(Collector):
    """Sizes, read when somebody scrapes."""

    def __init__(self, prefix: str, recommender: Recommender) -> None:
        self._prefix, self._recommender = prefix, recommender

    def collect(self) -> Iterable[GaugeMetricFamily]:
        shops = list(self._recommender.shops.values())
        sizes = {
            "items": ("Items of the catalogue.", sum(len(shop.view.shelf) for shop in shops)),
            "items_without_vector": (
                "Items that the champion has no vector of yet.",
                sum(shop.status().items_without_vector for shop in shops),
            ),
            "items_shown": (
                "Items on personal lists of the last week; what discovery widens.",
                sum(shop.discovery.seldom.n_shown(now_s=time.time()) for shop in shops),
            ),
            "users_cached": ("Users whose history is in memory.", sum(len(shop.people) for shop in shops)),
            "exposures_waiting": ("Shown lists that wait to be written.", sum(len(shop.exposures) for shop in shops)),
            "experiments_running": ("Running experiments.", sum(len(shop.view.experiments) for shop in shops)),
        }
        for name, (said, value) in sizes.items():
            yield GaugeMetricFamily(f"{self._prefix}_{name}", said, value=float(value))
        family = GaugeMetricFamily(
            f"{self._prefix}_model_version", "The version that serves; 0 for none.", labels=["model"]
        )
        for shop in shops:
            family.add_metric([shop.model], float(shop.view.champion or 0))
        yield family


@contextlib.asynccontextmanager
async def open_service(
    settings: Settings, metrics: Metrics, *, sop_app: Callable[..., Any] | None = None
) -> AsyncIterator[Recommender]:
    """Open everything, follow what others write, and close it in order. ``sop_app``: svc-sop, where it is in this process."""
    async with contextlib.AsyncExitStack() as stack:
        # A list's product is too small to share: a second thread waits for the first, and costs six times the CPU (measured).
        stack.enter_context(threadpool_limits(limits=1, user_api="blas"))
        database = Database(settings.platform.database_url)
        stack.callback(database.close)
        await asyncio.to_thread(database.upgrade)
        registry = Registry(database, Artifacts(settings.platform.artifacts_url))
        door = open_door(settings.sop_url, sop_app, settings.platform.load_principal_secret)
        if door is not None:
            stack.push_async_callback(door.close)
        picturing = Picturing(database, registry.artifacts, door, poll_s=min(settings.poll_s, 2.0))
        recommender = Recommender(settings, database, registry, Counters.of(metrics), picturing)
        stack.callback(recommender.close)
        await asyncio.to_thread(recommender.open_shop, MAIN_TENANT)
        pauses = Pauses()

        def follow() -> None:
            recommender.follow()
            pauses.look(recommender.held)

        stack.callback(Repeated("recommend-follower", settings.poll_s, follow).stop)
        collector = ShopCollector(metrics.prefix, recommender)
        metrics.registry.register(collector)
        stack.callback(metrics.registry.unregister, collector)
        embedding = asyncio.create_task(picturing.keep_on())
        stack.push_async_callback(_ended, embedding)
        yield recommender


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _of(request: Request) -> Recommender:  # async: a plain function would cost a thread's turn
    recommender: Recommender = request.app.state.recommend
    return recommender


Here = Annotated[Recommender, Depends(_of)]
