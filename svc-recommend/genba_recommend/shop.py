"""One tenant's recommender in this process: what it serves from, and how it follows what is written, here or elsewhere.

    rows ──follow──► shelf, people, popularity, versions, experiments ──one assignment──► view ──► lists

``follow`` looks every half second for what others wrote; what this process writes itself it takes up at once. A version that
does not load, or a database that is away, leaves the view as it is. Knows no HTTP.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from sqlalchemy import select

from genba_recommend import picture_store, store
from genba_recommend.arrivals import Arrivals, overlap_s, settled_before
from genba_recommend.catalogue import Entry, Shelf
from genba_recommend.counting import Counting
from genba_recommend.dataset import User
from genba_recommend.discovering import Discovery
from genba_recommend.evidence import DAY_S
from genba_recommend.experiments import Experiment
from genba_recommend.exposures import ExposureLog
from genba_recommend.people import Did, People, Person
from genba_recommend.reading import read_person
from genba_recommend.serving_model import Aligned, ServingModel
from genba_recommend.settings import Settings
from genba_recommend.showing import KEPT, Showing
from genba_recommend.store import Event
from genba_recommend.tables import ExperimentRow, UserChange
from genba_recommend.versions import Versions
from genba_recommend.view import EMPTY, View
from genba_shared.audit import append_in
from genba_shared.db import Database
from genba_shared.live import Live
from genba_shared.registry import Registry, Version
from genba_shared.telemetry import get_logger
from genba_shared.vectors import Vectors

log = get_logger(__name__)
PRUNE_EVERY_S = 3600.0
LOOK_EVERY_S = 600.0  # where nothing is written, trends end and what was new grows old all the same
CHANGES_KEPT = timedelta(days=1)
LATE = timedelta(minutes=2)  # clocks of hosts differ


@dataclass(frozen=True)
class Status:
    """What a process serves to one tenant."""

    model: str
    model_version: int | None
    index: str | None
    items: int
    items_without_vector: int
    users_cached: int
    experiments: int


class Shop:
    """Open it before use. All methods may be called from several threads."""

    def __init__(
        self, tenant: str, database: Database, registry: Registry, settings: Settings, vectors: Callable[[], Vectors]
    ) -> None:
        self.tenant, self.model = tenant, model_of(tenant)
        self.database, self.registry, self.settings = database, registry, settings
        self.view: View = EMPTY
        self.people = People(self._read_person, most=settings.user_cache)
        self.exposures = ExposureLog(database, most=settings.exposure_buffer)
        self.discovery = Discovery(settings.discover, most=settings.user_cache)
        self._showing = Showing(tenant, database, self.discovery.seldom)
        self.live: Live[ServingModel] = Live(
            registry,
            self.model,
            load_bundle,
            cache=_cache(settings),
            refresh_s=settings.poll_s,
            warm_up=ServingModel.warm_up,
        )
        self._shelf = Shelf()
        self._counting = Counting(tenant, settings)
        self._changes = Arrivals()
        self._versions = Versions(tenant, self.model, database, settings, vectors)
        self._experiments: tuple[Experiment, ...] = ()
        self._changing = threading.RLock()
        self._champion: int | None = None
        self._pruned_s = 0.0

    def open(self) -> None:
        """Read everything, load the champion if there is one, and make the first view."""
        self.live.start()
        with self._changing:
            self._follow_catalogue()
            self._follow_experiments()
            with self.database.read() as session:
                self._counting.count_all(session, self._shelf)
                self._changes = Arrivals(store.last_user_change(session, before=settled_before(session)))
            self._follow_versions()
            self._showing.exchange(self._shelf)
            self._look()

    def close(self) -> None:
        """Stop following, and write the lists that wait and what was shown."""
        self.live.stop()
        try:
            self.exposures.flush()
            self._showing.exchange(self._shelf)
        except Exception as error:  # noqa: BLE001 - nothing more can be done for them
            log.warning("exposures_lost", lists=len(self.exposures), error=type(error).__name__)
        self._versions.close()

    # ---- what others ask ----

    def person(self, user_id: str) -> Person:
        """A user as of now."""
        return self.people.get(user_id)

    def session_of(self, item_ids: Sequence[str]) -> Person:
        """Somebody of whom only the items of this session are known, newest first."""
        now_s, shelf = time.time(), self.view.shelf
        rows = [row for item_id in dict.fromkeys(item_ids) if (row := shelf.row(item_id)) is not None]
        return Person(User(""), {row: Did(now_s - at, 1.0, None, seen=True) for at, row in enumerate(rows)})

    def status(self) -> Status:
        """What is served."""
        view = self.view
        champion = view.models.get(view.champion) if view.champion is not None else None
        return Status(
            model=self.model,
            model_version=view.champion,
            index=None if champion is None else champion.index.name,
            items=len(view.shelf),
            items_without_vector=self._versions.without_vector.get(view.champion or -1, 0),
            users_cached=len(self.people),
            experiments=len(view.experiments),
        )

    def has_pictures(self) -> bool:
        """Whether the catalogue's embeddings come from pictures."""
        with self.database.read() as session:
            return picture_store.encoder_of(session, self.tenant) is not None

    def has_sent_embeddings(self) -> bool:
        """Whether items were sent with embeddings of their own."""
        return any(each.item.embedding and each.item.embedding_by is None for each in self.view.shelf.entries)

    # ---- what this process writes ----

    def put_items(self, entries: Sequence[Entry]) -> None:
        """Add or replace items; the next list knows them."""
        with self.database.transaction() as session:
            store.put_items(session, self.tenant, entries)
        self.take_up_items()

    def take_up_items(self) -> None:
        """Let the next list know items that this process has just written."""
        with self._changing:
            self._follow_catalogue()
            self._follow_versions()
            self._look()

    def put_users(self, users: Sequence[User]) -> None:
        """Add or replace users."""
        with self.database.transaction() as session:
            store.put_users(session, self.tenant, users)
            store.tell_users_changed(session, self.tenant, [user.user_id for user in users], erased=False)
        for user in users:
            self.people.rename(user)

    def add_events(self, events: Sequence[Event]) -> list[Event]:
        """Add events; the next lists of their users know them. Returns: those that were new."""
        with self.database.transaction() as session:
            added = store.add_events(session, self.tenant, events)
        self._note(added)
        return added

    def erase_user(self, user_id: str, *, actor: str) -> tuple[int, int]:
        """Delete everything of a user, and put on record that it was. Returns: how many events and shown lists there were."""
        self.exposures.flush()  # a list that waits to be written would come back
        with self.database.transaction() as session:
            gone = store.erase_user(session, self.tenant, user_id)
            store.tell_users_changed(session, self.tenant, [user_id], erased=True)
            append_in(session, "recommend.user_erased", actor=actor, subject=self.tenant, detail={"events": gone[0]})
        self.people.forget(user_id)
        self.discovery.forget(user_id)
        return gone

    def reload_experiments(self) -> None:
        """Take up experiments that this process has just started or stopped, with the versions that they need."""
        with self._changing:
            self._follow_experiments()
            self._follow_versions()
            self._look()

    # ---- following ----

    def follow(self) -> None:
        """Take up what was written since; called every half second, by one thread."""
        self.exposures.flush()
        self._follow_users()
        with self._changing:
            changed = self._follow_catalogue()
            with self.database.read() as session:
                news = self._counting.take_news(session, self._shelf)
            self._note(news)
            changed |= self._follow_experiments()
            changed |= self._follow_versions()
            if changed or self._counting.is_dirty or time.time() - self.view.now_s > LOOK_EVERY_S:
                self._look()
        self._versions.mark(self._champion)
        if self._showing.is_due:
            self._showing.exchange(self._shelf)
        if time.monotonic() - self._pruned_s > PRUNE_EVERY_S:
            self._pruned_s = time.monotonic()
            with self.database.transaction() as session:
                store.prune_exposures(session, before=store.now() - timedelta(days=self.settings.exposure_days))
                store.prune_shown(session, before=store.now() - KEPT)
                store.prune_user_changes(session, before=store.now() - CHANGES_KEPT)
            self._versions.forget_retired()

    def _follow_catalogue(self) -> bool:
        with self.database.read() as session:
            if store.revision(session, self.tenant) == self._shelf.revision:
                return False
            changed, newest = store.entries(session, self.tenant, after=self._shelf.revision)
            before = len(self._shelf)
            self._shelf = self._shelf.with_entries(changed, revision=newest)
            if len(self._shelf) > before:
                self.people.came(self._shelf.ids[before : len(self._shelf)])
                if self._counting.knows_strays(self._shelf, before):  # events came before their items
                    self._note(self._counting.count_all(session, self._shelf))
        self._versions.shelf_changed()
        return True

    def _follow_users(self) -> None:
        """Take up other profiles of the users who are in memory, and hold nobody who was erased."""
        with self.database.read() as session:
            found = store.user_changes(session, self.tenant, self._changes.low)
            new = self._changes.new(change.seq for change in found)
            changes = [change for change in found if change.seq in new]
            changed = {user_id for change in changes if not change.erased for user_id in change.user_ids}
            profiles = store.users_of(session, self.tenant, self.people.those_here(changed))
            waits_s = overlap_s(session)
        for change in changes:
            if change.erased:
                self._erased(change)
        for user in profiles:
            self.people.rename(user)
        self._changes.take(new)
        self._changes.settle(waits_s)

    def _erased(self, change: UserChange) -> None:
        """Lists made in that moment may have been written after the rest was deleted."""
        for user_id in change.user_ids:
            self.people.forget(user_id)
            self.discovery.forget(user_id)
            self.exposures.flush()
            with self.database.transaction() as session:
                store.erase_exposures(session, self.tenant, user_id, since=change.at - LATE, until=change.at + LATE)

    def _follow_experiments(self) -> bool:
        query = select(ExperimentRow).where(ExperimentRow.tenant == self.tenant, ExperimentRow.status == "running")
        with self.database.read() as session:
            found = tuple(Experiment.of(row) for row in session.scalars(query.order_by(ExperimentRow.id)))
        changed = found != self._experiments
        self._experiments = found
        return changed

    def _note(self, events: Sequence[Event]) -> None:
        deeds: dict[str, list[tuple[int, Did]]] = defaultdict(list)
        strays: dict[str, set[str]] = defaultdict(set)
        for event in events:
            if (did := did_of(event)) is None:
                continue
            if (row := self._shelf.row(event.item_id)) is not None:
                deeds[event.user_id].append((row, did))
            else:
                strays[event.user_id].add(event.item_id)
        for user_id in {**deeds, **strays}:
            self.people.note(user_id, *deeds.get(user_id, ()), strays=strays.get(user_id, ()))

    def _follow_versions(self) -> bool:
        """Hold the champion and the versions of arms. A version of an arm that does not load leaves its experiment out."""
        loaded, held = self.live.current, self._versions.aligned
        wanted: dict[int, ServingModel] = {} if loaded is None else {loaded.version.number: loaded.value}
        for number in sorted(
            {arm.version for each in self._experiments for arm in each.arms if arm.version is not None}
        ):
            if number in wanted:
                continue
            try:
                wanted[number] = held[number].model if number in held else self.load_version(number)
            except Exception as error:  # noqa: BLE001 - whatever a bundle raises, everybody else is served
                log.warning("arm_not_loaded", model=self.model, version=number, error=type(error).__name__)
        champion = None if loaded is None else loaded.version.number
        changed = self._versions.follow(self._shelf, wanted) or champion != self._champion
        self._champion = champion
        with self.database.read() as session:
            for aligned in self._versions.aligned.values():
                prior = aligned.model.prior
                half_lives = {prior.half_life_days, prior.of_newcomers.half_life_days}
                if prior.lasting:
                    half_lives.add(prior.lasting_half_life_days)
                for half_life_days in sorted(half_lives):
                    self._counting.prior(session, self._shelf, half_life_days)
        return changed

    def load_version(self, number: int) -> ServingModel:
        """A version by its number. Raises: NotFound, Gone; whatever a bundle that does not load raises."""
        version = self.registry.get(self.model, number)
        return load_bundle(self.registry.fetch(version, _cache(self.settings)), version)

    def laid(self, view: View, number: int) -> Aligned:
        """A version over a view's shelf, whether lists are made by it or not. Raises: as ``load_version``."""
        held = view.models.get(number)
        return held if held is not None else self._versions.laid(self.load_version(number), view.shelf)

    def _look(self) -> None:
        """Make the next view. Called with the lock."""
        now_s = time.time()
        day = now_s / DAY_S
        counting, shelf = self._counting, self._shelf
        n = len(shelf)
        models = {
            number: replace(
                aligned,
                bias=counting.bias(aligned.model.prior, day, n, aligned.foreseen),
                lasting=counting.lasting(aligned.model.prior, day, n),
                newcomers=counting.newcomers(aligned.model.prior, day, n),
            )
            for number, aligned in self._versions.aligned.items()
        }
        self.view = View(
            shelf=shelf,
            trending=counting.trending(day, n),
            popular=counting.popular(day, shelf),
            segment=counting.segment_scores(n),
            models=models,
            champion=self._champion,
            experiments=tuple(
                e for e in self._experiments if all(a.version is None or a.version in models for a in e.arms)
            ),
            now_s=now_s,
        )
        counting.is_dirty = False

    def _read_person(self, user_id: str) -> Person:
        with self.database.read() as session:
            return read_person(session, self.tenant, user_id, self._shelf)


def did_of(event: Event) -> Did | None:
    """What an event adds to its user; None for one that adds nothing."""
    speaks, is_seen = event.weight > 0, event.kind in store.SEEN_KINDS
    if not speaks and not is_seen:
        return None
    return Did(event.at.timestamp() if speaks else None, event.weight, event.watched_s, seen=is_seen)


def model_of(tenant: str) -> str:
    """The name under which a tenant's towers are registered. Tenants share no model: one's catalogue is not another's business."""
    if tenant == "default":
        return "recommend.two_tower"
    return f"recommend.two_tower_{hashlib.sha256(tenant.encode()).hexdigest()[:12]}"


def load_bundle(folder: Path, version: Version) -> ServingModel:
    """A version's bundle, loaded."""
    return ServingModel.load(folder, version.number)


def _cache(settings: Settings) -> Path:
    return settings.platform.home / "cache" / "models"
