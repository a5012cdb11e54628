"""The Python client, for web applications and batch programs: one import, typed answers, retries that cannot double anything.

    with Client() as genba:                                   # GENBA_URL and GENBA_API_KEY
        job = genba.jobs.submit("sop.evaluate_batch", {...})
        done = genba.jobs.wait(job.id)

A submission carries an Idempotency-Key of its own, so it may be sent again until an answer arrives. A request without
one is repeated only if it reads, or never left this machine. What the server refuses is raised as ``Refused``, with the
problem's own words. Safe to share between threads. Knows the routes of jobs and models, and no others.
"""

from __future__ import annotations

import os
import random
import ssl
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import httpx
import orjson

from genba_gateway.client_models import RemoteModels
from genba_gateway.client_records import Job, JobEvent, Overlap, Recipe, Schedule, Status, read
from genba_shared.server_sent import events
from genba_shared.trust import trust_of

__all__ = ["Client", "GenbaError", "Job", "JobEvent", "Recipe", "Refused", "Schedule", "Unreachable", "fresh_key"]

LOCAL: Final = "http://127.0.0.1:8080"
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})  # PUT and DELETE: twice is once
_NEVER_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_PASSING: Final = frozenset({502, 503, 504})
_SILENCE_S: Final = 60.0  # the server says something at least every 15 s
_RECONNECT_S: Final = 1.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 10.0
_CHUNK_BYTES: Final = 1 << 18


def fresh_key() -> str:
    """An Idempotency-Key that nobody has used."""
    return str(uuid.uuid4())


class GenbaError(Exception):
    """What a call to Genba raises."""


class Unreachable(GenbaError):
    """No answer came, also when it was tried again as often as that is safe."""


@dataclass(eq=False)
class Refused(GenbaError):
    """The server said no: a problem document (RFC 9457). ``code`` is the kind, such as ``not-found``."""

    status: int
    code: str
    title: str
    detail: str
    errors: list[dict[str, Any]] = field(default_factory=list)
    request_id: str | None = None
    retry_after_s: float | None = None
    members: dict[str, Any] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        faults = "".join(f"; {each.get('field')}: {each.get('message')}" for each in self.errors)
        request = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.status} {self.detail or self.title}{faults}{request}"

    @classmethod
    def of(cls, answer: httpx.Response) -> Self:
        """What an answer with an error status says; whatever stands between may have answered in HTML."""
        try:
            document = answer.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            document = {"title": answer.reason_phrase, "detail": answer.text[:500]}
        after = answer.headers.get("retry-after", "")
        return cls(
            answer.status_code,
            str(document.get("type", "")).rpartition(":")[2],
            str(document.get("title", answer.reason_phrase)),
            str(document.get("detail", "")),
            list(document.get("errors") or []),
            document.get("request_id"),
            float(after) if after.isdigit() else None,
            document,
        )


class Client:
    """A running Genba. ``jobs``, ``schedules``, ``models`` and ``recipes`` are typed; ``request`` reaches everything else."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float = 60.0,
        retry_within_s: float = 60.0,
        verify: ssl.SSLContext | bool | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """``url`` and ``key`` default to GENBA_URL and GENBA_API_KEY; ``retry_within_s`` bounds all tries of a call.

        ``verify``: whom to believe; by default the machine's own authorities, or those in the file that SSL_CERT_FILE names.
        """
        key = os.environ.get("GENBA_API_KEY", "") if key is None else key
        self.url = (url or os.environ.get("GENBA_URL") or LOCAL).rstrip("/")
        self._retry_within_s = retry_within_s
        self._http = httpx.Client(
            base_url=self.url,
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=timeout_s,
            verify=trust_of(self.url) if verify is None else verify,
            transport=transport,
            trust_env=False,  # an internal address is not reached through a proxy
        )
        self.jobs = RemoteJobs(self)
        self.schedules = RemoteSchedules(self)
        self.models = RemoteModels(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        patience: Patience | None = None,
    ) -> Any:
        """Any route of any service: the answer's JSON, or None for an empty one.

        Give ``idempotency_key=fresh_key()`` to what documents that header, and it is repeated safely.
        ``patience`` stands in for the client's own bound on all tries. Raises: Refused; Unreachable.
        """
        headers = {} if idempotency_key is None else {"idempotency-key": idempotency_key}
        repeatable = method in _READS or idempotency_key is not None
        answer = self._send(
            method, path, json=json, params=_given(params), headers=headers, repeatable=repeatable, patience=patience
        )
        return orjson.loads(answer.content) if answer.content else None

    def upload(
        self,
        path: str,
        file: Path,
        *,
        content_type: str = "application/octet-stream",
        params: Mapping[str, Any] | None = None,
        progress: Callable[[int, int], object] = lambda _sent, _total: None,
    ) -> Any:
        """Send a file as the body, in chunks, so that its size does not matter; the answer's JSON.

        ``progress(sent_bytes, total_bytes)`` is called as it goes. Raises: Refused; Unreachable; OSError.
        """
        total = file.stat().st_size

        def chunks() -> Iterator[bytes]:
            sent = 0
            with file.open("rb") as source:
                while chunk := source.read(_CHUNK_BYTES):
                    yield chunk
                    sent += len(chunk)
                    progress(sent, total)

        headers = {"content-type": content_type, "content-length": str(total)}
        answer = self._send("POST", path, params=_given(params), headers=headers, body=chunks, repeatable=False)
        return orjson.loads(answer.content) if answer.content else None

    def form(
        self, path: str, *, files: Iterable[tuple[str, Path]], idempotency_key: str | None = None, **fields: object
    ) -> Any:
        """Send a form of several small files, such as a particle's views; the answer's JSON.

        ``files``: pairs of field and file, read into memory whole. Raises: Refused; Unreachable; OSError.
        """
        parts = [(field, (file.name, file.read_bytes())) for field, file in files]
        data = {name: str(value) for name, value in fields.items() if value is not None}
        headers = {} if idempotency_key is None else {"idempotency-key": idempotency_key}
        repeatable = idempotency_key is not None
        return self._send("POST", path, files=parts, data=data, headers=headers, repeatable=repeatable).json()

    def download(self, path: str, into: Path, *, params: Mapping[str, Any] | None = None) -> Path:
        """Write an answer's body to ``into``, which appears whole or not at all. Raises: Refused; Unreachable; OSError."""
        aside = into.with_name(f".{into.name}.{uuid.uuid4().hex}")
        try:
            with self._stream("GET", path, params=_given(params)) as answer, aside.open("wb") as target:
                for chunk in answer.iter_bytes(_CHUNK_BYTES):
                    target.write(chunk)
            return aside.rename(into)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        finally:
            aside.unlink(missing_ok=True)

    def recipes(self) -> list[Recipe]:
        """What can be submitted here."""
        return [read(Recipe, each) for each in self.request("GET", "/v1/recipes")["recipes"]]

    # ---- sending ----

    def _send(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        repeatable: bool,
        body: Callable[[], Iterable[bytes]] | None = None,
        patience: Patience | None = None,
        **options: Any,
    ) -> httpx.Response:
        """Until an answer comes, or there is no use, or repeating might double something."""
        patience = patience or Patience(self._retry_within_s)
        while True:
            try:
                content = None if body is None else body()
                answer = self._http.request(method, path, headers=headers, content=content, **options)
            except httpx.TransportError as error:
                unreachable = self._unreachable(error)
                if not (repeatable or isinstance(error, _NEVER_SENT)):
                    raise unreachable from error
                patience.pause(unreachable)
                continue
            if not answer.is_error:
                return answer
            refused = Refused.of(answer)
            if not _may_change(refused, repeatable=repeatable):
                raise refused
            patience.pause(refused, at_least_s=refused.retry_after_s or 0.0)

    @contextmanager
    def _stream(self, method: str, path: str, **options: Any) -> Iterator[httpx.Response]:
        """One answer whose body is read as it comes. Raises: Refused."""
        with self._http.stream(method, path, **options) as answer:
            if answer.is_error:
                answer.read()
                raise Refused.of(answer)
            yield answer

    def _unreachable(self, error: httpx.TransportError) -> Unreachable:
        return Unreachable(f"{self.url} does not answer: {str(error) or type(error).__name__}")

    def _pages(self, path: str, name: str, params: Mapping[str, Any], *, limit: int | None) -> Iterator[dict[str, Any]]:
        """The records of a list, newest first, over as many pages as are asked for."""
        left, before = limit, None
        while left is None or left > 0:
            size = 200 if left is None else min(left, 200)
            page = self.request("GET", path, params={**params, "before": before, "limit": size})
            yield from page[name]
            left = None if left is None else left - len(page[name])
            if (before := page["next_before"]) is None:
                return


class RemoteJobs:
    """``client.jobs``."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def submit(
        self,
        recipe: str,
        params: Mapping[str, Any] | None = None,
        *,
        clearance: str | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Put a job into the queue; sent again until it is known to be there, and there once.

        Give a key of your own (an order's number, say) to make the whole program safe to repeat, for 24 hours.
        """
        body = {"recipe": recipe, "params": dict(params or {}), "clearance": clearance}
        key = idempotency_key or fresh_key()
        return read(Job, self._client.request("POST", "/v1/jobs", json=body, idempotency_key=key))

    def get(self, job_id: str) -> Job:
        return read(Job, self._client.request("GET", _job(job_id)))

    def list(
        self,
        *,
        status: Status | None = None,
        recipe: str | None = None,
        queue: str | None = None,
        schedule: str | None = None,
        limit: int | None = 50,
    ) -> Iterator[Job]:
        """The newest jobs first; ``limit=None`` for all. ``status="dead"`` are the dead letters."""
        asked = {"status": status, "recipe": recipe, "queue": queue, "schedule": schedule}
        for document in self._client._pages("/v1/jobs", "jobs", asked, limit=limit):  # noqa: SLF001 - one client
            yield read(Job, document)

    def cancel(self, job_id: str) -> Job:
        """Stop a job; one that runs ends within seconds. Saying it twice is no error, so it is repeated if need be."""
        answer = self._client._send("POST", f"{_job(job_id)}/cancel", headers={}, repeatable=True)  # noqa: SLF001
        return read(Job, answer.json())

    def requeue(self, job_id: str) -> Job:
        """Give a dead, failed or cancelled job a fresh set of attempts."""
        return read(Job, self._client.request("POST", f"{_job(job_id)}/requeue"))

    def watch(
        self,
        job_id: str,
        *,
        after: int = 0,
        within_s: float | None = None,
        patience_s: float = 60.0,
        on_trouble: Callable[[GenbaError], object] = lambda _error: None,
    ) -> Iterator[JobEvent]:
        """Events as they happen, from the first or after event ``after``, until the job is over.

        A connection that breaks is opened anew where it was; ``on_trouble`` hears of each try that fails before the
        pause that follows. Raises: Refused; Unreachable when nothing answers for ``patience_s``; TimeoutError after
        ``within_s``.
        """
        ends_s = None if within_s is None else time.monotonic() + within_s
        patience = Patience(patience_s, on_trouble)
        while True:
            try:
                with self._events(job_id, after, ends_s) as answer:
                    patience.renew()
                    for event in _parse(answer):
                        if event is None:
                            return
                        after = event.seq
                        yield event
                time.sleep(_RECONNECT_S)
            except httpx.ReadTimeout:
                pass  # silence, or the caller's time is up
            except httpx.TransportError as error:
                patience.pause(self._client._unreachable(error))  # noqa: SLF001 - one client
            except Refused as refused:
                if not _may_change(refused, repeatable=True):
                    raise
                patience.pause(refused, at_least_s=refused.retry_after_s or 0.0)
            if ends_s is not None and time.monotonic() >= ends_s:
                raise TimeoutError(f"{job_id} was not over within {within_s:g} s.")

    def wait(
        self,
        job_id: str,
        *,
        within_s: float | None = None,
        patience_s: float = 60.0,
        on_event: Callable[[JobEvent], object] = lambda _event: None,
        on_trouble: Callable[[GenbaError], object] = lambda _error: None,
    ) -> Job:
        """The job when it is over, however it ended. Raises: as ``watch``."""
        for event in self.watch(job_id, within_s=within_s, patience_s=patience_s, on_trouble=on_trouble):
            on_event(event)
        patience = Patience(patience_s, on_trouble)  # a server that stops ends its streams just now
        return read(Job, self._client.request("GET", _job(job_id), patience=patience))

    def download(self, job_id: str, name: str, into: Path) -> Path:
        """A file that the job made, by its name in ``result["artifacts"]``."""
        return self._client.download(f"{_job(job_id)}/artifacts/{quote(name, safe='')}", into)

    @contextmanager
    def _events(self, job_id: str, after: int, ends_s: float | None) -> Iterator[httpx.Response]:
        silence_s = _SILENCE_S if ends_s is None else min(_SILENCE_S, max(ends_s - time.monotonic(), 0.001))
        headers = {"last-event-id": str(after)} if after else {}
        timeout = httpx.Timeout(10.0, read=silence_s)
        with self._client._stream(  # noqa: SLF001 - one client
            "GET", f"{_job(job_id)}/events", headers=headers, timeout=timeout
        ) as answer:
            yield answer


class RemoteSchedules:
    """``client.schedules``."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(
        self,
        name: str,
        recipe: str,
        params: Mapping[str, Any] | None = None,
        *,
        cron: str,
        time_zone: str = "UTC",
        overlap: Overlap = "skip",
    ) -> Schedule:
        """Run a recipe by the clock: ``cron="30 2 * * MON-FRI", time_zone="Asia/Tokyo"``."""
        body = {"name": name, "recipe": recipe, "params": dict(params or {})}
        body |= {"cron": cron, "time_zone": time_zone, "overlap": overlap}
        key = fresh_key()
        return read(Schedule, self._client.request("POST", "/v1/schedules", json=body, idempotency_key=key))

    def get(self, schedule_id: str) -> Schedule:
        return read(Schedule, self._client.request("GET", _schedule(schedule_id)))

    def list(self, *, limit: int | None = None) -> Iterator[Schedule]:
        """The newest schedules first."""
        for document in self._client._pages("/v1/schedules", "schedules", {}, limit=limit):  # noqa: SLF001 - one client
            yield read(Schedule, document)

    def change(self, schedule_id: str, **changes: Any) -> Schedule:
        """``change(id, enabled=False)``: name, params, cron, time_zone, overlap, enabled."""
        return read(Schedule, self._client.request("PATCH", _schedule(schedule_id), json=changes))

    def delete(self, schedule_id: str) -> None:
        self._client.request("DELETE", _schedule(schedule_id))


class Patience:
    """How long to go on trying: pauses grow, with jitter, until the time is up."""

    def __init__(self, within_s: float, on_trouble: Callable[[GenbaError], object] = lambda _error: None) -> None:
        self._within_s, self._on_trouble = within_s, on_trouble
        self.renew()

    def renew(self) -> None:
        """It works again: start over."""
        self._failures, self._ends_s = 0, time.monotonic() + self._within_s

    def pause(self, error: GenbaError, *, at_least_s: float = 0.0) -> None:
        """Wait before the next try. Raises: ``error`` when there is no time for one."""
        longest_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(self._failures, 16))
        pause_s = max(longest_s * random.uniform(0.5, 1.0), at_least_s)  # noqa: S311 - spreads clients, guards nothing
        self._failures += 1
        if time.monotonic() + pause_s > self._ends_s:
            raise error
        self._on_trouble(error)
        time.sleep(pause_s)


def _parse(answer: httpx.Response) -> Iterator[JobEvent | None]:
    """Server-sent events; None when the job is over: after ``end``, or at once when every event had been seen (204)."""
    if answer.status_code == 204:
        yield None
        return
    for fields in events(answer.iter_lines()):
        if fields.get("event") == "end":
            yield None
            return
        if "id" in fields and "data" in fields:
            data = orjson.loads(fields["data"])
            at, attempt = datetime.fromisoformat(data.pop("at")), int(data.pop("attempt"))
            yield JobEvent(int(fields["id"]), fields.get("event", "message"), at.astimezone(UTC), attempt, data)


def _may_change(refused: Refused, *, repeatable: bool) -> bool:
    """Whether the same request may be taken later: a 429 had no effect, whatever it was."""
    in_flight = refused.code == "idempotency-in-flight"
    return refused.status == 429 or in_flight or (repeatable and refused.status in _PASSING)


def _job(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"


def _schedule(schedule_id: str) -> str:
    return f"/v1/schedules/{quote(schedule_id, safe='')}"


def _given(params: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (params or {}).items() if value is not None}
