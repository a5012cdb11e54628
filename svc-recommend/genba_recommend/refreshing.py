"""``recommend.refresh``: embed what is missing or stale, batch by batch, each written at once.

What is written is the checkpoint: an attempt that was killed left whole batches, and the next one finds only what is missing.
A row that cannot be embedded fails alone and is reported. What a refresh does is logged for seven days; a failure is told to a
webhook.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar

import httpx
import numpy as np
from pydantic import Field
from sqlalchemy.orm import Session

from genba_recommend import store
from genba_recommend.catalogue import Entry, Shelf
from genba_recommend.people import Person
from genba_recommend.reading import read_people
from genba_recommend.serving_model import Aligned, Embedded, ServingModel, align, missing_or_stale
from genba_recommend.settings import Settings
from genba_recommend.shop import model_of
from genba_recommend.staleness import user_hash
from genba_recommend.store import Vector
from genba_recommend.tables import VectorKind
from genba_shared.problems import Conflict, NotFound
from genba_shared.recipe import Params, Result, Run
from genba_shared.registry import Registry

T = TypeVar("T")
TRIES = 3
FIRST_WAIT_S = 0.2
LOG_KEPT = timedelta(days=7)
MOST_NAMED = 100
NOTHING_FAILED: Mapping[int, str] = MappingProxyType({})
WEBHOOK_TIMEOUT_S = 5.0


class RefreshParams(Params):
    """What to embed."""

    version: Annotated[int, Field(ge=1)] | None = Field(default=None, description="The one that serves when absent.")
    what: Literal["all", "items", "users"] = "all"
    batch: Annotated[int, Field(ge=1, le=5000)] = 500
    dry_run: Annotated[bool, Field(description="Count what is missing or stale, and embed nothing.")] = False


@dataclass
class _Refresh:
    """One refresh under way."""

    run: Run
    tenant: str
    model: ServingModel
    batch: int
    failed: list[tuple[int, str]] = field(default_factory=list)  # the label of each, and what it is called
    done: dict[str, int] = field(default_factory=lambda: {"item": 0, "user": 0})

    def write(
        self, kind: VectorKind, vectors: Sequence[Vector], message: str, *, failed: Mapping[int, str] = NOTHING_FAILED
    ) -> None:
        """A batch and its lines in the log, together or not at all. ``failed``: what to say of rows of each label."""
        line = {"tenant": self.tenant, "job_id": self.run.job_id, "version": self.model.number, "kind": kind}
        lines = [{**line, "level": "info", "message": message, "clearance": 0}]
        for label, said in sorted(failed.items()):
            lines.append({**line, "level": "error", "message": said, "clearance": label})
        with self.run.database.transaction() as session:
            store.put_vectors(session, self.tenant, self.model.number, kind, vectors)
            store.log_refresh(session, lines)

    def failed_for(self, clearance: int) -> list[str]:
        """Those that may be named to whoever asked for the refresh."""
        return [name for label, name in self.failed if label <= clearance]

    def all_of(
        self,
        kind: VectorKind,
        rows: Sequence[T],
        name: Callable[[T], tuple[int, str]],
        embed: Callable[[Sequence[T]], list[Vector]],
    ) -> None:
        """Embed rows in batches; a batch that fails is tried again, then row by row."""
        for at in range(0, len(rows), self.batch):
            part = rows[at : at + self.batch]
            vectors = self._tried(part, embed)
            if vectors is not None:
                self.write(kind, vectors, f"{len(vectors)} embedded")
            else:
                vectors = self._one_by_one(kind, part, name, embed)
            self.done[kind] += len(vectors)
            self.run.progress(
                min(0.99, (at + len(part)) / max(1, len(rows))), f"{kind}s: {at + len(part)} of {len(rows)}"
            )

    def _tried(self, part: Sequence[T], embed: Callable[[Sequence[T]], list[Vector]]) -> list[Vector] | None:
        for attempt in range(TRIES):
            try:
                return _finite(embed(part))
            except Exception as error:  # noqa: BLE001 - whatever a row raises, the others are embedded
                self.run.note(
                    f"A batch of {len(part)} failed, try {attempt + 1} of {TRIES}: {type(error).__name__}.",
                    level="warning",
                )
                self.run.raise_if_cancelled()
                time.sleep(FIRST_WAIT_S * 2**attempt)
        return None

    def _one_by_one(
        self,
        kind: VectorKind,
        part: Sequence[T],
        name: Callable[[T], tuple[int, str]],
        embed: Callable[[Sequence[T]], list[Vector]],
    ) -> list[Vector]:
        good: list[Vector] = []
        bad: list[tuple[int, str]] = []
        for row in part:
            try:
                good += _finite(embed([row]))
            except Exception:  # noqa: BLE001 - this is the row that is poisoned
                bad.append(name(row))
            self.run.raise_if_cancelled()
        self.failed += [(label, f"{kind} {each}") for label, each in bad]
        named = {label: [each for its, each in bad if its == label] for label, _ in bad}
        failed = {label: f"{len(ids)} cannot be: {', '.join(ids[:MOST_NAMED])}" for label, ids in named.items()}
        self.write(kind, good, f"{len(good)} embedded", failed=failed)
        return good


def _finite(vectors: list[Vector]) -> list[Vector]:
    for each in vectors:
        if not np.isfinite(each.vector).all():
            raise ValueError(f"The vector of {each.id} is not finite.")
    return vectors


def refresh(params: RefreshParams, run: Run) -> Result:
    """Embed what is missing or stale; tell the webhook when that fails."""
    settings = Settings(platform=run.platform)
    try:
        result = _refresh(params, run)
    except Exception as error:
        _tell(settings, run, f"The refresh {run.job_id} failed: {error}")
        raise
    if failed := result.value.get("failed"):
        _tell(settings, run, f"The refresh {run.job_id} could not embed {len(failed)} rows: {', '.join(failed[:10])}.")
    return result


def _refresh(params: RefreshParams, run: Run) -> Result:
    tenant = run.principal.tenant
    model = _model(run, tenant, params.version)
    run.progress(0.0, "looking for what is missing or stale")
    with run.database.read() as session:
        entries, revision = store.entries(session, tenant)
        stored = {
            each.id: Embedded(each.vector, each.content_hash)
            for each in store.vectors(session, tenant, model.number, "item")
        }
    shelf = Shelf().with_entries(entries, revision=revision)
    items = [shelf.entries[row] for row in missing_or_stale(model, shelf, stored)] if params.what != "users" else []
    work = _Refresh(run, tenant, model, params.batch)
    if params.dry_run:
        people = list(_stale_people(run, tenant, shelf, model)) if params.what != "items" else []
        return Result(value={"version": model.number, "items": len(items), "users": len(people), "dry_run": True})
    run.note(f"{len(items)} items of {len(shelf)} are missing or stale under version {model.number}")
    work.all_of(
        "item", items, lambda entry: (entry.clearance, entry.item.item_id), lambda part: _item_vectors(model, part)
    )
    people = []
    if params.what != "items":
        with run.database.read() as session:
            found = store.vectors(session, tenant, model.number, "item")
            stored = {each.id: Embedded(each.vector, each.content_hash) for each in found}
        aligned = align(model, shelf, stored, generation=0)
        people = list(_stale_people(run, tenant, shelf, model))
        run.note(f"{len(people)} users are missing or stale")
        work.all_of("user", people, lambda one: (0, one[0].user.user_id), lambda part: _user_vectors(aligned, part))
    if work.failed and not sum(work.done.values()):
        first = next(iter(work.failed_for(int(run.principal.clearance))), "none that you may see")
        raise Conflict(f"None of {len(work.failed)} rows could be embedded: {first} is the first.")

    def publish(session: Session) -> None:
        store.note_refresh(session, model_of(tenant), model.number)
        store.prune_refresh_log(session, before=store.now() - LOG_KEPT)

    value: dict[str, Any] = {"version": model.number, "items": work.done["item"], "users": work.done["user"]}
    if work.failed:
        value["failed"] = work.failed_for(int(run.principal.clearance))[:MOST_NAMED]
    metrics = {"items": float(work.done["item"]), "users": float(work.done["user"]), "failed": float(len(work.failed))}
    return Result(value=value, metrics=metrics, publish=publish)


def _model(run: Run, tenant: str, number: int | None) -> ServingModel:
    """The version asked for, or the champion. Raises: NotFound when there is none."""
    name, registry = model_of(tenant), Registry(run.database, run.artifacts)
    version = registry.current(name) if number is None else registry.get(name, number)
    if version is None:
        raise NotFound("No version serves yet: train one with recommend.two_tower, or name one.")
    return ServingModel.load(registry.fetch(version, run.workdir / "model"), version.number)


def _item_vectors(model: ServingModel, entries: Sequence[Entry]) -> list[Vector]:
    vectors = model.embed_items([entry.item for entry in entries])
    return [Vector(e.item.item_id, e.content_hash, vector) for e, vector in zip(entries, vectors, strict=True)]


def _stale_people(run: Run, tenant: str, shelf: Shelf, model: ServingModel) -> Iterator[tuple[Person, str]]:
    """Users with a history whose vector was made from something else than they are now, or was not made."""
    with run.database.read() as session:
        known = store.vector_hashes(session, tenant, model.number, "user")
        for person in read_people(session, tenant, shelf):
            if not person.history:
                continue
            made_from = user_hash(person.user, [(shelf.ids[row], did.weight) for row, did in person.history])
            if known.get(person.user.user_id) != made_from:
                yield person, made_from


def _user_vectors(aligned: Aligned, people: Sequence[tuple[Person, str]]) -> list[Vector]:
    vectors = aligned.model.embed_people([person for person, _ in people], aligned)
    return [
        Vector(person.user.user_id, made_from, vector)
        for (person, made_from), vector in zip(people, vectors, strict=True)
    ]


def _tell(settings: Settings, run: Run, said: str) -> None:
    """Post to the webhook, if there is one; that it does not answer must not hide why it was called."""
    if settings.refresh_webhook_url is None:
        return
    try:
        httpx.post(
            settings.refresh_webhook_url.get_secret_value(), json={"text": f"Genba: {said}"}, timeout=WEBHOOK_TIMEOUT_S
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        run.note(f"The webhook did not answer: {type(error).__name__}.", level="warning")
