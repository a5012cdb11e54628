"""Classify a batch as a job: particle by particle, each in a transaction of its own page, so that the table is the checkpoint.

What waits is what is left to do: a job that was killed goes on with it, none is lost, and none is decided twice because a decision
is only written on a particle that still waits. Memory is that of one page. Knows no queue and no HTTP.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from genba_sem import particles, store
from genba_sem.describing import Describer, Shelf
from genba_sem.encoders import Encoder
from genba_sem.lanes import Lanes, Ready
from genba_sem.looking import File, Hints, NoReadableView, is_sidecar, look, texts_of
from genba_sem.micrograph import Limits
from genba_sem.particles import Image, Owner, Stored
from genba_sem.picture_reader import PictureReader
from genba_sem.settings import Settings
from genba_sem.tables import DecisionRow, ParticleRow, ViewRow
from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_shared.principal import Principal
from genba_shared.problems import AlreadyExists, Invalid, NotFound, Problem
from genba_shared.recipe import Run

PAGE: Final = 64
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
        mine = (ParticleRow.tenant == work.principal.tenant, ParticleRow.batch == batch)
        known = set(session.scalars(select(ParticleRow.name).where(*mine)))
    owner = Owner(work.principal.tenant, clearance, work.principal.subject)
    listed = (each for each in _listed(root, batch) if each[0].name not in known)
    new = 0
    with ThreadPoolExecutor(_WRITERS, thread_name_prefix="sem-bring-in") as pool:
        while page := list(itertools.islice(listed, PAGE)):
            for facts, stored in pool.map(lambda each: _put(work, *each), page):
                with contextlib.suppress(AlreadyExists), work.database.transaction() as session:
                    particles.record(session, work.artifacts, stored, facts, owner)
                    new += 1  # or another attempt has it, or somebody who sends the same batch
            work.run.progress(0.0, f"{new} particles brought in")
    return new


def _put(work: Work, facts: particles.Facts, said: Hints, paths: Sequence[Path]) -> tuple[particles.Facts, Stored]:
    images = [_image(path) for path in paths if not is_sidecar(path.name)][: work.settings.max_views]
    hints = replace(said, texts=texts_of([File(path, path.name) for path in paths]))
    return facts, particles.put(work.database, work.artifacts, images, None, hints=hints)


def _allowed(settings: Settings, folder: str) -> Path:
    said = None
    root = settings.import_dir
    if root is None:
        said = "this installation reads no folders; an operator may set GENBA_SEM_IMPORT_DIR"
    else:
        path = (root / folder).resolve()
        if not path.is_relative_to(root.resolve()):
            said = "lies outside the folder that jobs may read"
        elif not path.is_dir():
            said = "is no folder there"
        else:
            return path
    raise Invalid(f"The folder {said}.", errors=[{"field": "folder", "message": said}])


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
    text = manifest.read_text(encoding="utf-8-sig")
    for number, row in enumerate(csv.DictReader(io.StringIO(text)), start=2):
        views = [each.strip() for each in (row.pop("views", None) or "").split(";") if each.strip()]
        given = {name: value for name, value in row.items() if name and value}
        try:
            form = ParticleForm.model_validate({**given, "batch": batch})
            paths = [_inside(root, each) for each in views]
            if form.name is None or not paths:
                raise ValueError("name and views are needed")  # noqa: TRY301 - told apart by line below
        except (ValidationError, ValueError) as err:
            said = err.errors()[0]["msg"] if isinstance(err, ValidationError) else str(err)
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
    total, after = left + sum(_done(work).values()), ""
    with ThreadPoolExecutor(work.settings.classify_workers, thread_name_prefix="sem-classify") as pool:
        if work.lanes.model_now(work.principal.tenant) is None:
            _look_first(work, pool, open_ones, statuses=statuses)
        while page := _page(work, after, open_ones):
            after = page[-1].id
            ready: dict[int, Ready] = {}  # by clearance; masters that change show from the next page on
            for prepared in pool.map(lambda row: _prepare(work, row), page):
                _write(work, *prepared, statuses=statuses, ready=ready)
            done = sum(_done(work).values())
            work.run.progress(min(1.0, done / max(1, total)), f"{done} of {total}")
    return _done(work)


def _look_first(
    work: Work, pool: ThreadPoolExecutor, where: Sequence[ColumnElement[bool]], *, statuses: Sequence[str]
) -> None:
    """While nothing has been promoted, the encoder is fitted to what has been looked at: so all are looked at before any is decided,
    and kinds that no master stands for have been met by then.
    """
    after, looked = "", 0
    while page := _page(work, after, where):
        after = page[-1].id
        for particle_id, stored, problem in pool.map(lambda row: _prepare(work, row), page):
            looked += 1
            if stored is None or problem is not None:
                continue
            with work.database.transaction() as session:
                if (row := _held(session, work, particle_id, statuses)) is not None:
                    particles.complete(session, work.artifacts, row, stored)
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


def _page(work: Work, after: str, where: Sequence[ColumnElement[bool]]) -> Sequence[ParticleRow]:
    with work.database.read() as session:
        query = select(ParticleRow).where(*where, ParticleRow.id > after).order_by(ParticleRow.id).limit(PAGE)
        return session.scalars(query).all()


def _prepare(work: Work, row: ParticleRow) -> tuple[str, Stored | None, Problem | None]:
    """Look at a particle's pictures, if nobody has; several threads do this."""
    work.run.raise_if_cancelled()
    encoder = work.lanes.describer(row.tenant)
    with work.database.read() as session:
        described = session.scalars(select(ViewRow.described_by).where(ViewRow.particle_id == row.id)).all()
        if described and all(described):
            if any(each != encoder.kind for each in described):
                work.describer(encoder).describe([row.id])
            return row.id, None, None
        views = store.views_of(session, [row.id])[row.id]
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
        return row.id, None, problem
    return row.id, particles.put(work.database, work.artifacts, images, looks, hints=hints), None


def _stored_image(work: Work, view: ViewRow) -> Image:
    path = work.artifacts.local_path(view.image_key)
    return Image(path, view.file_name, view.sha256, view.size_bytes)


def _write(
    work: Work,
    particle_id: str,
    stored: Stored | None,
    problem: Problem | None,
    *,
    statuses: Sequence[str],
    ready: dict[int, Ready],
) -> None:
    """Decide and record one particle, unless somebody else has in the meantime."""
    with work.database.transaction() as session:
        row = _held(session, work, particle_id, statuses)
        if row is None:
            return
        if problem is not None:
            particles.unreadable(session, row, problem.members, job_id=work.run.job_id)
            return
        if stored is not None:
            particles.complete(session, work.artifacts, row, stored)
        lane = ready.get(row.clearance) or ready.setdefault(row.clearance, work.lanes.ready(row.tenant, row.clearance))
        if not particles.again(session, row, lane, actor=_actor(work), job_id=work.run.job_id):
            gone: dict[str, Any] = {
                "errors": [{"field": "views", "message": "the lane's encoder cannot describe them"}]
            }
            particles.unreadable(session, row, gone, job_id=work.run.job_id)


def _held(session: Session, work: Work, particle_id: str, statuses: Sequence[str]) -> ParticleRow | None:
    mine = (ParticleRow.id == particle_id, ParticleRow.status.in_(statuses), _not_by(work.run.job_id))
    return session.scalars(select(ParticleRow).where(*mine).with_for_update()).one_or_none()
