"""The gateway's application: resources are made in the lifespan, the pipeline answers, services stand behind it.

``create_app(settings)`` proxies to the services in ``settings.upstreams``; ``create_app(settings, mounts={"sop": app})`` has
them in this process and runs their lifespans. The two mix freely: a mounted service goes before a proxied one of that name.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, BinaryIO

from prometheus_client import CollectorRegistry

from genba_gateway.access_log import AccessLog
from genba_gateway.admission import Admission
from genba_gateway.auth import Authenticator
from genba_gateway.backup import last_made_s
from genba_gateway.control import create_control
from genba_gateway.jwks import TokenVerifier
from genba_gateway.keys import Keys
from genba_gateway.limits import Limiter, MemoryLimiter
from genba_gateway.metrics import RequestMetrics
from genba_gateway.mounted import Mounted
from genba_gateway.openapi import OpenApi, get
from genba_gateway.pipeline import Pipeline, refuse_websocket
from genba_gateway.proxy import READY_S, ReverseProxy
from genba_gateway.routes import CONTROL, RouteTable
from genba_gateway.settings import Settings
from genba_shared.audit import AuditLog
from genba_shared.db import Database
from genba_shared.readiness import Degraded, Readiness
from genba_shared.service import __version__
from genba_shared.telemetry import configure_logging, get_logger
from genba_shared.tracing import spans_for

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

log = get_logger(__name__)

_POLL_S = 2.0
_UPKEEP_S = 30.0


def create_app(
    settings: Settings,
    *,
    mounts: Mapping[str, ASGIApp] | None = None,
    table: RouteTable | None = None,
    access_log_stream: BinaryIO | None = None,
) -> Gateway:
    """The gateway, as an ASGI application. ``mounts``: applications of services that live in this process, by name."""
    configure_logging(level=settings.platform.log_level, log_format=settings.platform.log_format)
    return Gateway(settings, mounts=mounts or {}, table=table or RouteTable(), access_log_stream=access_log_stream)


class Gateway:
    """Everything that the gateway is made of, and its lifespan."""

    def __init__(
        self,
        settings: Settings,
        *,
        mounts: Mapping[str, ASGIApp],
        table: RouteTable,
        access_log_stream: BinaryIO | None,
    ) -> None:
        platform, resilience = settings.platform, settings.resilience
        self.settings = settings
        self.database = Database(platform.database_url)
        self.keys = Keys(self.database, platform.env)
        self.authenticator = Authenticator(
            self.keys, settings, tokens=TokenVerifier(settings.jwt) if settings.jwt is not None else None
        )
        self.limiter: Limiter = _limiter(platform.redis_url)
        self.admission = Admission(
            max_concurrency=resilience.max_concurrency, max_waiting=resilience.max_waiting, queue_s=resilience.queue_s
        )
        self.proxies = [
            ReverseProxy(name, urls, timeouts=settings.timeouts, resilience=resilience)
            for name, urls in settings.upstreams.items()
            if name not in mounts
        ]
        self._unready: dict[str, str | None] = {}
        self.metrics = RequestMetrics(
            self.admission,
            lambda: self.proxies,
            unready=self._unready,
            last_backup_s=lambda: last_made_s(platform.home),
        )
        self.control = create_control(
            platform,
            keys=self.keys,
            audit=AuditLog(self.database),
            on_keys_changed=self.authenticator.forget,
        )
        self.mounted = [Mounted(name, app) for name, app in mounts.items()] + [Mounted(CONTROL, self.control)]
        self.services: dict[str, ASGIApp] = {proxy.service: proxy for proxy in self.proxies}
        self.services |= {service.service: service for service in self.mounted}
        self.control.state.openapi = OpenApi(self.services, table, version=__version__)
        self.readiness: Readiness = self.control.state.readiness
        self.access_log = AccessLog(platform.log_format, access_log_stream)
        self.pipeline = Pipeline(
            settings=settings,
            table=table,
            services=self.services,
            authenticator=self.authenticator,
            limiter=self.limiter,
            admission=self.admission,
            metrics=self.metrics,
            access_log=self.access_log,
            secret=platform.load_principal_secret(),
            spans=spans_for("gateway", platform),
        )
        _gather_metrics(self.control.state.metrics.registry, self.metrics, mounts)
        for name in self.services:
            if name != CONTROL:
                self._unready[name] = "was not asked yet"
                self.readiness.add(name, lambda name=name: self._unready[name])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self.pipeline(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await refuse_websocket(scope, receive, send)

    def drain(self) -> None:
        """Say no at /ready and ask clients to take their connections elsewhere; what comes all the same is answered."""
        if not self.pipeline.is_draining:
            log.info("draining", in_work=self.admission.in_work)
        self.pipeline.is_draining = True
        self.readiness.drain()
        for service in self.mounted:
            service.drain()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start-up and shutdown, for servers and for tests."""
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self.access_log.flush)
            stack.callback(self.database.close)
            stack.push_async_callback(self.limiter.close)
            for proxy in self.proxies:
                stack.callback(proxy.close)
            for service in self.mounted:
                await service.start()
                stack.push_async_callback(service.stop)
            self.admission.watch_lag(asyncio.get_running_loop())
            stack.callback(self.admission.close)
            await self.poll_services()
            for upkeep in (self._poll(), self._forget_idle_callers()):
                stack.push_async_callback(_stop, asyncio.get_running_loop().create_task(upkeep))
            yield
            self.drain()

    async def poll_services(self) -> None:
        """Ask every service whether it is ready; instances that are not get no new work while others are."""
        asked = {service.service: _reason(service) for service in self.mounted if service.service != CONTROL}
        asked |= {proxy.service: proxy.check_ready() for proxy in self.proxies}
        self._unready.update(zip(asked, await asyncio.gather(*asked.values()), strict=True))

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(_POLL_S)
            await self.poll_services()

    async def _forget_idle_callers(self) -> None:
        while True:
            await asyncio.sleep(_UPKEEP_S)
            if isinstance(self.limiter, MemoryLimiter):
                self.limiter.forget_idle()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        running = self.running()
        try:
            await running.__aenter__()
        except Exception as error:
            log.exception("start_failed")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await running.__aexit__(None, None, None)
        await send({"type": "lifespan.shutdown.complete"})


def _limiter(redis_url: str | None) -> Limiter:
    """Redis where gateways share their callers, this process's memory otherwise."""
    if not redis_url:
        return MemoryLimiter()
    from genba_gateway.limits_redis import RedisLimiter

    return RedisLimiter(redis_url)


async def _reason(service: Mounted) -> str | None:
    """Why a service is not ready; None if it is, or if it does not say; ``Degraded`` where it works on with less."""
    try:
        async with asyncio.timeout(READY_S):  # one that hangs keeps nobody from knowing of the others
            status, body = await get(service, "/ready")
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one service, the others go on
        return f"does not answer: {type(error).__name__}"
    if status == 200:
        return _degraded(body)
    if status == 404:
        return None
    return f"says it is not ready: {body[:500].decode(errors='replace')}"


def _degraded(body: bytes) -> Degraded | None:
    """What a service that is ready says of itself all the same."""
    try:
        less = json.loads(body)["degraded"]
        said = "; ".join(f"{check} {reason}" for check, reason in less.items())
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return Degraded(said[:500]) if said else None


def _gather_metrics(registry: CollectorRegistry, metrics: RequestMetrics, mounts: Mapping[str, ASGIApp]) -> None:
    """One /metrics for the process. Names cannot clash: each begins with its service."""
    registry.register(metrics)
    for app in mounts.values():
        theirs = getattr(getattr(getattr(app, "state", None), "metrics", None), "registry", None)
        if isinstance(theirs, CollectorRegistry):
            registry.register(theirs)


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
