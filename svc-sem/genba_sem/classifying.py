"""Classify a batch as a job: page by page, each in transactions of its own, so that the table is the checkpoint.

What waits is what is left to do: a job that was killed goes on with it, none is lost, and none is decided twice because a decision
is only written on a particle that still waits. Memory is that of two pages. Knows no queue and no HTTP.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import Session
from threadpoolctl import threadpool_limits

from genba_sem import labels, lanes, particles, store
from genba_sem.describing import Describer, Shelf
from genba_sem.encoders import Encoder
from genba_sem.lane import Decision
from genba_sem.lanes import Lanes, Ready
from genba_sem.looking import File, Hints, NoReadableView, is_sidecar, look, texts_of
from genba_sem.micrograph import Limits
from genba_sem.particles import Image, Owner, Stored
from genba_sem.picture_reader import PictureReader
from genba_sem.settings import Settings
from genba_sem.tables import DecisionRow, ParticleRow, ViewRow
from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_shared.patterns import message
from genba_shared.principal import Principal
from genba_shared.problems import AlreadyExists, Invalid, NotFound, Problem
from genba_shared.recipe import Run

PAGE: Final = 32  # particles in one transaction
_PAGES_AHEAD: Final = 1  # that the pool works on while another is written down
_WRITERS: Final = 8  # files on their way to the disk at the same time: each waits for it several times
MANIFEST: Final = "manifest.csv"
_MOST_MANIFEST_BYTES: Final = 256 * 2**20
_READ_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class Work:
    """What one job needs; made once."""

    run: Run
    settings: Settings
    database: Database
    artifacts: Artifacts  # this service's own store
    lanes: Lanes
    pictures: PictureReader

    @property
    def principal(self) -> Principal:
        return self.run.principal

    def describer(self, encoder: Encoder) -> Describer:
        """An encoder beside this job's pictures."""
        return Describer(encoder, self.database, self.shelf)

    @property
    def shelf(self) -> Shelf:
        """The pictures that are kept."""
        return Shelf(self.artifacts, self.limits, self.pictures.read_view)

    @property
    def limits(self) -> Limits:
        """What one image may be."""
        return Limits(max_bytes=self.settings.max_image_bytes)

    @classmethod
    @contextmanager
    def of(cls, run: Run) -> Iterator[Work]:
        """What a job needs, closed when it ends."""
        settings = Settings(platform=run.platform)
        lanes = Lanes(run.database, run.artifacts, settings)
        pictures = PictureReader(memory_bytes=settings.decoder_memory_bytes, timeout_s=settings.decode_timeout_s)
        own = run.artifacts.below(store.ARTIFACTS)
        try:
            with threadpool_limits(limits=1, user_api="blas"):  # the pool's threads are the parallelism
                yield cls(run, settings, run.database, own, lanes, pictures)
        finally:
            lanes.close()
            pictures.close()


# --- a folder of images ---------------------------------------------------------------------------------------------


def bring_in(work: Work, folder: str, batch: str, clearance: int) -> int:
    """Store the particles of a folder below ``import_dir``, undecided; how many are new. Names that are there are passed over.

    A subfolder is a particle, or a line of manifest.csv is (name, views, and optional columns; views are separated by ``;``).
    Raises: Invalid for a folder that may not be read, or a manifest that cannot be.
    """
    root = _allowed(work.settings, folder)
    with work.database.read() as session:
        here = (ParticleRow.tenant == work.principal.tenant, ParticleRow.batch == batch)
        mine = (*here, ParticleRow.clearance == clearance)
        known = set(session.scalars(select(ParticleRow.name).where(*mine)))
    owner = Owner(work.principal.tenant, clearance, work.principal.subject)
    listed = (each for each in _listed(root, batch) if each[0].name not in known)
    new = 0
    with ThreadPoolExecutor(_WRITERS, thread_name_prefix="sem-bring-in") as pool:
        while some := list(itertools.islice(listed, PAGE)):
            page = list(pool.map(lambda each: _found(work, *each), some))
            particles.put(work.database, work.artifacts, [stored for stored, _ in page], pool=pool)
            new += _record(work, page, owner)
            work.run.progress(0.0, f"{new} particles brought in")
    return new


def _found(work: Work, facts: particles.Facts, said: Hints, paths: Sequence[Path]) -> tuple[Stored, particles.Facts]:
    images = [_image(path) for path in paths if not is_sidecar(path.name)][: work.settings.max_views]
    hints = replace(said, texts=texts_of([File(path, path.name) for path in paths]))
    return Stored(tuple(images), None, hints), facts


def _record(work: Work, page: Sequence[tuple[Stored, particles.Facts]], owner: Owner) -> int:
    """Write a page, or as much of it as is not there: another attempt has it, or somebody who sends the same batch; how many."""
    try:
        with work.database.transaction() as session:
            return len(particles.record(session, work.artifacts, page, owner))
    except AlreadyExists:
        return sum(_record(work, [each], owner) for each in page) if len(page) > 1 else 0


def _allowed(settings: Settings, folder: str) -> Path:
    root = settings.import_dir
    if root is None:
        said = "This installation reads no folders: an operator may set GENBA_SEM_IMPORT_DIR."
    else:
        path = (root / folder).resolve()
        if not path.is_relative_to(root.resolve()):
            said = "The folder lies outside the one that jobs may read."
        elif not path.is_dir():
            said = f"There is no folder {folder} below GENBA_SEM_IMPORT_DIR."
        else:
            return path
    raise Invalid(said, errors=[{"field": "folder", "message": said}])


def _listed(root: Path, batch: str) -> Iterator[tuple[particles.Facts, Hints, list[Path]]]:
    from genba_sem.schemas_particles import ParticleForm

    manifest = root / MANIFEST
    if not manifest.is_file():
        for folder in sorted(path for path in root.iterdir() if path.is_dir()):
            if files := sorted(path for path in folder.iterdir() if path.is_file()):
                yield particles.Facts(folder.name[:200], batch), Hints(), files
        return
    if manifest.stat().st_size > _MOST_MANIFEST_BYTES:
        raise Invalid(f"{MANIFEST} is too large.", errors=[{"field": "folder", "message": "manifest.csv is too large"}])
    try:
        text = manifest.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as err:
        said = "manifest.csv is not UTF-8; save it as CSV UTF-8"
        raise Invalid(f"{said}.", errors=[{"field": "folder", "message": said}]) from err
    for number, row in enumerate(csv.DictReader(io.StringIO(text)), start=2):
        views = [each.strip() for each in (row.pop("views", None) or "").split(";") if each.strip()]
        given = {name: value for name, value in row.items() if name and value}
        try:
            form = ParticleForm.model_validate({**given, "batch": batch})
            paths = [_inside(root, each) for each in views]
            if form.name is None or not paths:
                raise ValueError("name and views are needed")  # noqa: TRY301 - told apart by line below
        except (ValidationError, ValueError) as err:
            said = message(err.errors()[0]) if isinstance(err, ValidationError) else str(err)
            raise Invalid(
                f"{MANIFEST}, line {number}: {said}.", errors=[{"field": "folder", "message": f"line {number}: {said}"}]
            ) from err
        yield form.facts(form.name), Hints(form.pixel_size_nm, form.scale_bar_nm), paths


def _inside(root: Path, name: str) -> Path:
    path = (root / name).resolve()
    if not path.is_relative_to(root) or not path.is_file():
        raise ValueError(f"there is no file {name}")
    return path


def _image(path: Path) -> Image:
    digest = sha256()
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
    return Image(path, path.name[:200], digest.hexdigest(), path.stat().st_size)


# --- deciding -------------------------------------------------------------------------------------------------------


def classify(work: Work, *where: ColumnElement[bool], statuses: Sequence[str]) -> Counter[str]:
    """Decide every particle of the selection that has one of ``statuses``; what this job has decided, by status.

    Raises: TooFewMasters, before anything is decided.
    """
    scope = (
        ParticleRow.tenant == work.principal.tenant,
        ParticleRow.clearance <= int(work.principal.clearance),
        *where,
    )
    open_ones = (*scope, ParticleRow.status.in_(statuses), _not_by(work.run.job_id))
    with work.database.read() as session:
        left = session.scalar(select(func.count()).select_from(ParticleRow).where(*open_ones)) or 0
    done = sum(_done(work).values())
    total = done + left
    with (
        ThreadPoolExecutor(work.settings.classify_workers, thread_name_prefix="sem-classify") as pool,
        ThreadPoolExecutor(_WRITERS, thread_name_prefix="sem-pictures") as writers,
    ):
        if work.lanes.model_now(work.principal.tenant) is None:
            _look_first(work, pool, writers, open_ones, statuses=statuses)
        for page in _looked_at(work, pool, writers, open_ones, statuses=statuses):
            done += _decide(work, page, statuses=statuses)
            work.run.progress(min(1.0, done / max(1, total)), f"{done} of {total}")
    return _done(work)


def _look_first(
    work: Work,
    pool: ThreadPoolExecutor,
    writers: ThreadPoolExecutor,
    where: Sequence[ColumnElement[bool]],
    *,
    statuses: Sequence[str],
) -> None:
    """While nothing has been promoted, the encoder is fitted to what has been looked at: so all are looked at before any is decided,
    and kinds that no master stands for have been met by then.
    """
    looked = 0
    blank = exists().where(ViewRow.particle_id == ParticleRow.id, ViewRow.described_by.is_(None))
    for page in _looked_at(work, pool, writers, (*where, blank), statuses=statuses):
        looked += len(page)
        work.run.progress(0.0, f"{looked} particles looked at")


def _not_by(job_id: str) -> ColumnElement[bool]:
    return func.coalesce(ParticleRow.decided_in, "") != job_id


def _done(work: Work) -> Counter[str]:
    """By the table and not by a counter of this attempt: it holds for all attempts together."""
    query = select(DecisionRow.status, func.count()).join(ParticleRow, ParticleRow.id == DecisionRow.particle_id)
    found: Counter[str] = Counter()
    with work.database.read() as session:
        mine = query.where(ParticleRow.decided_in == work.run.job_id, DecisionRow.actor == _actor(work))
        for status, count in session.execute(mine.group_by(DecisionRow.status)):
            found[status] = count
        unreadable = (ParticleRow.decided_in == work.run.job_id, ParticleRow.status == "unreadable")
        if failed := session.scalar(select(func.count()).select_from(ParticleRow).where(*unreadable)):
            found["unreadable"] = failed
    return found


def _actor(work: Work) -> str:
    """The job's id in the record tells whose decision it is, also after the submitter decided again by hand."""
    return f"{work.principal.subject} ({work.run.job_id})"


@dataclass(frozen=True)
class _Seen:
    """A particle, and what was seen of it just now: nothing where it had been looked at before, or why too little can be read."""

    row: ParticleRow
    stored: Stored | None = None
    problem: Problem | None = None


def _looked_at(
    work: Work,
    pool: ThreadPoolExecutor,
    writers: ThreadPoolExecutor,
    where: Sequence[ColumnElement[bool]],
    *,
    statuses: Sequence[str],
) -> Iterator[Sequence[_Seen]]:
    """The selection page by page, all looked at and on record as that. The pool looks at the next page meanwhile."""
    under_way: deque[list[Future[_Seen]]] = deque()
    after, more = "", True
    try:
        while more or under_way:
            if more and (page := _page(work, after, where)):
                after = page[-1].id
                under_way.append(_begin(work, pool, page))
            else:
                more = False
            if under_way and (len(under_way) > _PAGES_AHEAD or not more):
                seen = [each.result() for each in under_way.popleft()]
                _complete(work, writers, seen, statuses=statuses)
                yield seen
    finally:
        for each in itertools.chain(*under_way):
            each.cancel()


def _page(work: Work, after: str, where: Sequence[ColumnElement[bool]]) -> Sequence[ParticleRow]:
    with work.database.read() as session:
        query = select(ParticleRow).where(*where, ParticleRow.id > after).order_by(ParticleRow.id).limit(PAGE)
        return session.scalars(query).all()


def _begin(work: Work, pool: ThreadPoolExecutor, page: Sequence[ParticleRow]) -> list[Future[_Seen]]:
    """Set the pool to those of a page that nobody has looked at."""
    encoder = work.lanes.describer(work.principal.tenant)
    kinds: dict[str, set[str | None]] = {row.id: set() for row in page}
    with work.database.read() as session:
        described = select(ViewRow.particle_id, ViewRow.described_by).where(ViewRow.particle_id.in_(kinds))
        for particle_id, kind in session.execute(described):
            kinds[particle_id].add(kind)
        blank = [each for each, found in kinds.items() if None in found or not found]
        views = store.views_of(session, blank) if blank else {}
    return [
        pool.submit(_look, work, encoder, row, views[row.id])
        if row.id in views
        else pool.submit(_look_again, work, encoder, row, kinds[row.id])
        for row in page
    ]


def _look(work: Work, encoder: Encoder, row: ParticleRow, views: Sequence[ViewRow]) -> _Seen:
    work.run.raise_if_cancelled()
    hints = Hints(**row.scaling.get("hints", {}))
    try:
        images = [_stored_image(work, view) for view in views]
        looks = look(
            [File(image.path, image.file_name) for image in images],
            encoder,
            hints=hints,
            limits=work.limits,
            least=work.settings.min_views,
            read=work.pictures.read_view,
        )
    except (NoReadableView, NotFound) as problem:
        return _Seen(row, problem=problem)
    return _Seen(row, Stored(tuple(images), looks, hints, images_kept=True))


def _look_again(work: Work, encoder: Encoder, row: ParticleRow, kinds: set[str | None]) -> _Seen:
    """For an encoder that has not described it."""
    if kinds != {encoder.kind}:
        work.run.raise_if_cancelled()
        work.describer(encoder).describe([row.id])
    return _Seen(row)


def _stored_image(work: Work, view: ViewRow) -> Image:
    path = work.artifacts.local_path(view.image_key)
    return Image(path, view.file_name, view.sha256, view.size_bytes)


def _complete(work: Work, writers: ThreadPoolExecutor, seen: Sequence[_Seen], *, statuses: Sequence[str]) -> None:
    """Write down what was seen of a page, but for particles that somebody else has decided in the meantime."""
    found = {each.row.id: each.stored for each in seen if each.stored is not None}
    if not found:
        return
    particles.put(work.database, work.artifacts, list(found.values()), pool=writers)
    with work.database.transaction() as session:
        held = _held(session, work, list(found), statuses)
        particles.complete(session, work.artifacts, [(row, found[row.id]) for row in held])


def _decide(work: Work, page: Sequence[_Seen], *, statuses: Sequence[str]) -> int:
    """Decide and record a page, but for what somebody else has decided in the meantime; how many.

    Masters that change show from the next page on; by a lane with a label that has been split since nothing is written.
    """
    problems = {each.row.id: each.problem for each in page if each.problem is not None}
    while True:
        decisions = _decided(work, page, problems)
        labels_by = {label for ready, _ in decisions.values() for label in ready.lane.labels}
        with work.database.transaction() as session:
            if not labels.held(session, work.principal.tenant).divided(labels_by):
                return _write_down(session, work, page, decisions, problems, statuses=statuses)


def _decided(work: Work, page: Sequence[_Seen], problems: Mapping[str, Problem]) -> dict[str, tuple[Ready, Decision]]:
    decisions: dict[str, tuple[Ready, Decision]] = {}
    for clearance in {each.row.clearance for each in page}:
        ready = work.lanes.ready(work.principal.tenant, clearance)
        ids = [each.row.id for each in page if each.row.clearance == clearance and each.row.id not in problems]
        with work.database.read() as session:
            seen = lanes.seen_of(session, ids, ready.lane.encoder.kind)
        decisions |= {each: (ready, ready.decide(views, each)) for each, views in seen.items()}
    return decisions


def _write_down(
    session: Session,
    work: Work,
    page: Sequence[_Seen],
    decisions: Mapping[str, tuple[Ready, Decision]],
    problems: Mapping[str, Problem],
    *,
    statuses: Sequence[str],
) -> int:
    held = _held(session, work, [each.row.id for each in page], statuses)
    for row in held:
        if row.id in decisions:
            particles.decide(session, row, *decisions[row.id], actor=_actor(work), job_id=work.run.job_id)
            continue
        gone = {"errors": [{"field": "views", "message": "the lane's encoder cannot describe them"}]}
        why = problems[row.id].members if row.id in problems else gone
        particles.unreadable(row, why, job_id=work.run.job_id)
    return len(held)


def _held(session: Session, work: Work, ids: Sequence[str], statuses: Sequence[str]) -> Sequence[ParticleRow]:
    """Those of the particles that are still to be decided, locked in one order."""
    mine = (ParticleRow.id.in_(ids), ParticleRow.status.in_(statuses), _not_by(work.run.job_id))
    return session.scalars(select(ParticleRow).where(*mine).order_by(ParticleRow.id).with_for_update()).all()
