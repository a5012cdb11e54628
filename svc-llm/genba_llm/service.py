"""What svc-llm's routes stand on, made once per process: gate, log, backend, documents, watch. Knows no route."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request
from pydantic import JsonValue
from sqlalchemy import text
from threadpoolctl import threadpool_limits

from genba_llm import escalations, host_watch, store
from genba_llm.assistant import Assistant
from genba_llm.backend_aside import Aside, AsideReasoner
from genba_llm.backend_process import ProcessModel
from genba_llm.decisions import Decisions
from genba_llm.document_encoder import DocumentEncoder
from genba_llm.egress import EgressGuard
from genba_llm.gate import Gate, Reasoner
from genba_llm.generation import Backend
from genba_llm.host_watch import Allowed, Inventory, Violation
from genba_llm.library import Library
from genba_llm.live_gate import LiveGate
from genba_llm.live_model import Always, LiveModel
from genba_llm.log_check import LogCheck
from genba_llm.metrics import LlmMetrics
from genba_llm.policies import Policies
from genba_llm.policy import Policy
from genba_llm.sealed import TextVault
from genba_llm.settings import Settings
from genba_llm.shipped_model import register_shipped
from genba_shared.artifacts import Artifacts
from genba_shared.audit import AuditLog
from genba_shared.audit_writer import AuditWriter, audit_signer, open_writer
from genba_shared.db import Database, utc_now
from genba_shared.readiness import Degraded
from genba_shared.registry import Registry
from genba_shared.repeated import Repeated
from genba_shared.telemetry import Metrics, get_logger

if TYPE_CHECKING:
    from genba_llm.backend_transformers import TransformersModel

_ENCODE_EVERY_S = 5.0
_COUNT_EVERY_S = 60.0

log = get_logger(__name__)


@dataclass
class Watch:
    """What the last look at the host found."""

    allowed: Allowed | None
    seen: Inventory | None = None
    found: tuple[Violation, ...] = ()
    looked_at: datetime | None = None


@dataclass(frozen=True)
class Llm:
    """The resources of one process."""

    settings: Settings
    database: Database
    writer: AuditWriter
    audit: AuditLog
    log_check: LogCheck
    vault: TextVault
    gate: Gate
    policies: Policies
    decisions: Decisions
    assistant: Assistant
    library: Library
    metrics: LlmMetrics
    watch: Watch
    champion: LiveGate
    started_at: datetime = field(default_factory=utc_now)

    def database_answers(self) -> str | None:
        """Readiness: None when well."""
        with self.database.read() as session:
            session.execute(text("SELECT 1"))
        return None

    def backend_answers(self) -> str | None:
        """Degraded, not down: the gate decides on without a model."""
        reason, encoder = self.assistant.speakers.unwell(), self.library.encoder
        if reason is None and encoder is not None and encoder.reason is not None:
            return Degraded(
                f"the encoder of documents does not answer ({encoder.reason}); they are found by words alone"
            )
        if reason is None or isinstance(reason, Degraded):
            return reason
        return Degraded(f"the language model {reason}")

    def sweep(self) -> None:
        """What is due: retention, the queue's numbers, a seal over what other services have appended."""
        with self.database.transaction() as session:
            escalations.erase_due(session, now=utc_now())
        with self.database.read() as session:
            waiting, overdue = store.queue_counts(session)
        self.metrics.escalations_waiting.set(waiting)
        self.metrics.escalations_overdue.set(overdue)
        self.metrics.review_temperature.set(self.gate.fusion.review_temperature)
        self.metrics.allow_from.set(self.gate.fusion.allow_from)
        self.writer.seal()

    def count_reviews(self) -> None:
        """What people decided of what this model escalated; seldom, for it reads all of it."""
        classifier, fusion = self.gate.model
        with self.database.read() as session:
            reviewed = escalations.reviewed_of(session, f"{classifier.version}+{fusion.version}")
        self.metrics.review_rows.set(len(reviewed.allow))

    def look_at_host(self) -> None:
        """Compare the host with its list; what is new goes on record."""
        if self.watch.allowed is None:
            return
        seen = host_watch.look()
        found = tuple(host_watch.violations(seen, self.watch.allowed))
        for violation in sorted(set(found) - set(self.watch.found)):
            detail: dict[str, JsonValue] = {
                "event_id": 1004,
                "decision": "ERROR",
                "kind": violation.kind,
                "what": violation.what,
            }
            self.writer.append("llm.host_violation", actor="host_watch", subject=socket.gethostname(), detail=detail)
        for kind in ("process", "port", "connection"):
            self.metrics.host_violations.labels(kind).set(sum(each.kind == kind for each in found))
        self.watch.seen, self.watch.found, self.watch.looked_at = seen, found, utc_now()


def open_backend(settings: Settings, guard: EgressGuard) -> Backend | None:
    """The backend that the settings name; None for embedded. Raises: ValueError for settings that contradict each other."""
    if settings.backend == "openai":
        from genba_llm.backend_openai import OpenAiServer

        if not settings.backend_url or not settings.backend_model:
            raise ValueError("The backend openai needs GENBA_LLM_BACKEND_URL and GENBA_LLM_BACKEND_MODEL.")
        key = settings.backend_api_key
        return OpenAiServer(
            settings.backend_url,
            settings.backend_model,
            guard=guard,
            api_key=key.get_secret_value() if key else None,
            timeout_s=settings.backend_timeout_s,
            starts_hidden=settings.backend_starts_hidden,
        )
    if settings.backend == "transformers":
        return _in_folder(settings)
    return None


def _in_folder(settings: Settings) -> Aside[TransformersModel] | Aside[ProcessModel]:
    """The model of a folder, loaded aside: in a process of its own, unless the gate reads its logits.

    Raises: ValueError without a folder, or for one that cannot hold a model.
    """
    folder = settings.backend_folder
    if folder is None:
        raise ValueError("The backend transformers needs GENBA_LLM_BACKEND_FOLDER.")
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no model: there is no config.json.")
    hidden = settings.backend_starts_hidden

    def with_reasoner() -> TransformersModel:
        from genba_llm.backend_transformers import TransformersModel

        model = TransformersModel(folder, starts_hidden=hidden)
        model.as_reasoner()
        return model

    if settings.reasoner == "one_forward":
        return Aside(with_reasoner, model=folder.name, starts_hidden=hidden)
    return Aside(
        lambda: ProcessModel(folder, name=folder.name, starts_hidden=hidden), model=folder.name, starts_hidden=hidden
    )


def _encoder(settings: Settings, guard: EgressGuard) -> DocumentEncoder | None:
    """Who reads documents for their meaning. Raises: ValueError for settings that say half of it."""
    if settings.encoder_url is None and settings.encoder_model is None:
        return None
    if not settings.encoder_url or not settings.encoder_model:
        raise ValueError("An encoder needs GENBA_LLM_ENCODER_URL and GENBA_LLM_ENCODER_MODEL.")
    key = settings.backend_api_key if settings.encoder_url == settings.backend_url else None
    return DocumentEncoder(
        settings.encoder_url,
        settings.encoder_model,
        guard=guard,
        cache=settings.platform.home / "document-vectors",
        api_key=key.get_secret_value() if key else None,
    )


def _reasoner(settings: Settings, backend: Backend | None) -> Reasoner | None:
    """Who else is asked by the gate. Raises: ValueError for a backend that cannot judge."""
    if settings.reasoner == "off":
        return None
    if not isinstance(backend, Aside):
        message = "The reasoner one_forward needs GENBA_LLM_BACKEND=transformers: it reads the model's logits."
        raise ValueError(message)  # noqa: TRY004 - it is a setting that is wrong
    return AsideReasoner(backend)


def _live_model(settings: Settings, registry: Registry, policy: Policy) -> LiveModel:
    return LiveModel(
        registry,
        policy,
        cache=settings.platform.home / "models",
        refresh_s=settings.model_refresh_s,
        documents_by=settings.documents_by,
        own_model=settings.own_model,
    )


def guard_of(settings: Settings, metrics: LlmMetrics) -> EgressGuard:
    """What this service may reach: its backend, what the settings list, and the platform's own servers."""
    platform = settings.platform
    urls = [
        settings.backend_url,
        settings.encoder_url,
        platform.database_url,
        platform.broker_url,
        platform.redis_url,
        platform.qdrant_url,
    ]
    urls.append(platform.otlp_url)
    own = [url for url in urls if url and "://" in url and not url.startswith(("sqlite", "filesystem"))]
    return EgressGuard([*settings.egress_allowed, *own], on_refused=lambda _host: metrics.egress_refused.inc())


@contextlib.asynccontextmanager
async def open_service(settings: Settings, metrics: Metrics, *, backend: Backend | None = None) -> AsyncIterator[Llm]:
    """Open everything, do what is due now and then, and close it in order."""
    async with contextlib.AsyncExitStack() as stack:
        # The small model multiplies vectors: threads of BLAS would spend eight times the processor waiting for each other.
        stack.enter_context(threadpool_limits(limits=1, user_api="blas"))
        ours = LlmMetrics(metrics)
        guard = guard_of(settings, ours)
        if settings.egress == "process":
            guard.enforce()
        database = Database(settings.platform.database_url)
        stack.callback(database.close)
        await asyncio.to_thread(database.upgrade)
        writer = open_writer(
            database,
            settings.platform,
            on_batch=ours.audit_batch_entries.observe,
            on_sink_failure=lambda sink: ours.audit_sink_failures.labels(sink).inc(),
        )
        stack.callback(writer.close)
        for sink in writer.sink_names:
            ours.audit_sink_failures.labels(sink)  # from 0 on, or the first failure would be no increase
        named = backend or open_backend(settings, guard)
        gate = Gate(policy=Policy(), reasoner=_reasoner(settings, named))
        policies = Policies(database, gate.policy, ours)
        await asyncio.to_thread(policies.refresh)
        registry = Registry(database, Artifacts(settings.platform.artifacts_url))
        champion = LiveGate(gate, registry, cache=settings.platform.home / "models", refresh_s=settings.model_refresh_s)
        await asyncio.to_thread(champion.follow)
        vault = TextVault(settings.load_text_secret())
        decisions = Decisions(gate, writer, vault, settings, ours)
        encoder = _encoder(settings, guard)
        library = Library(database, encoder)
        if named is None and settings.own_model == "answers":
            await asyncio.to_thread(register_shipped, registry)
        speakers = Always(named) if named is not None else _live_model(settings, registry, gate.policy)
        await asyncio.to_thread(speakers.follow)
        stack.callback(speakers.close)
        allowed = host_watch.load_allowed(settings.host_watch_file) if settings.host_watch_file else None
        audit = AuditLog(database, key=audit_signer(settings.platform).key)
        llm = Llm(
            settings=settings,
            database=database,
            writer=writer,
            audit=audit,
            log_check=LogCheck(audit.verify),
            vault=vault,
            gate=gate,
            policies=policies,
            decisions=decisions,
            assistant=Assistant(speakers, decisions, library, threading.BoundedSemaphore(settings.generations)),
            library=library,
            metrics=ours,
            watch=Watch(allowed),
            champion=champion,
        )
        for every_s, work in (
            (settings.policy_refresh_s, policies.refresh),
            (settings.model_refresh_s, champion.follow),
            (5.0, llm.sweep),
            (_COUNT_EVERY_S, llm.count_reviews),
            (settings.host_watch_every_s, llm.look_at_host),
            (settings.model_refresh_s, speakers.follow),
            (_ENCODE_EVERY_S, library.encode_new),
        ):
            stack.callback(Repeated(f"llm-{work.__name__}", every_s, work).stop)
        if encoder is not None:
            stack.callback(encoder.close)  # before the round that reads a long document is waited for
        yield llm


def _of(request: Request) -> Llm:
    llm: Llm = request.app.state.llm
    return llm


Here = Annotated[Llm, Depends(_of)]
