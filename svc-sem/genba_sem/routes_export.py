"""``/v1/sem/export``, ``/v1/sem/statistics`` and a batch's report: particles for other tools and for people."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Generator, Iterator
from typing import IO, Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Query, Response
from pydantic import Field
from sqlalchemy import ColumnElement, select

from genba_sem import exporting, labels, report, report_pdf, store
from genba_sem.dependencies import Reader
from genba_sem.exporting import Pair
from genba_sem.schemas_particles import Batch, ParticleStatus
from genba_sem.service import Here, Sem
from genba_sem.tables import ParticleRow
from genba_sem.wire import Language, TextOut
from genba_shared import records
from genba_shared.db import utc_now
from genba_shared.principal import Principal
from genba_shared.problems import NotFound
from genba_shared.service import problem_responses
from genba_shared.streamed import Streamed
from genba_shared.wire_records import RecordId, Wire

router = APIRouter(prefix="/v1/sem", tags=["sem export"])

_PAGE: Final = 500
_MOST_ROWS: Final = 200_000
_CHUNK_BYTES: Final = 1 << 20
_EXPORTS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {kind: {} for kind in ("text/csv", "application/json", "application/zip")}},
    **problem_responses(404),
}
_REPORT: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"text/html": {}, "application/pdf": {}}},
    **problem_responses(404, 503),
}


class SizesOut(Wire):
    """Equivalent diameters in µm by number, of particles whose whole outline is seen and whose scale is known."""

    d10: float
    d50: float
    d90: float
    counted: int
    left_out: int = Field(description="Outline cut off or hidden, or no scale: counting them would shift the median.")


class StatisticsRow(Wire):
    """One label; its id is null for particles without one."""

    label_id: str | None
    name: TextOut
    particles: int
    confirmed: int
    reviewed: int
    waiting: int
    sizes_um: SizesOut | None


@router.get("/statistics", responses=problem_responses(404))
def get_statistics(
    here: Here,
    principal: Reader,
    batch: Annotated[Batch | None, Query()] = None,
    lot: Annotated[str | None, Query(max_length=120)] = None,
) -> list[StatisticsRow]:
    """Counts and sizes by label, as labels are now; most particles first."""
    where = _where(batch, None, None, lot)
    with here.database.read() as session:
        book = labels.book(session, principal.tenant)
        rows = [row for row, _ in _pairs(here, principal, where, with_views=False)]
    found = []
    for line in report.summary(rows, book):
        sizes = None if line.sizes is None else SizesOut(**line.sizes.__dict__)
        label = book.by_id.get(line.label_id or "")
        found.append(
            StatisticsRow(
                label_id=line.label_id,
                name=TextOut(**label.name) if label else TextOut(),
                particles=line.count,
                confirmed=line.confirmed,
                reviewed=line.reviewed,
                waiting=line.waiting,
                sizes_um=sizes,
            )
        )
    return found


@router.get("/export", response_class=Response, responses=_EXPORTS)
def export(
    here: Here,
    principal: Reader,
    form: Annotated[Literal["csv", "coco", "fiftyone"], Query(alias="format", description="fiftyone: a zip")] = "csv",
    batch: Annotated[Batch | None, Query()] = None,
    label_id: Annotated[RecordId | None, Query(description="as labels are now")] = None,
    particle_status: Annotated[ParticleStatus | None, Query(alias="status")] = None,
) -> Response:
    """Particles as a table (UTF-8, for a spreadsheet), as COCO annotations with outlines, or as a FiftyOne dataset with pictures."""
    with here.database.read() as session:
        book = labels.book(session, principal.tenant)
    ids = None if label_id is None else book.meaning(label_id)
    where = _where(batch, particle_status, ids, None)
    if form == "csv":
        rows = (row for row, _ in _pairs(here, principal, where, with_views=False))
        lines = (line.encode() for line in exporting.table(rows, book))
        return Streamed(lines, media_type="text/csv; charset=utf-8", headers=_file("particles.csv"))
    pairs = _pairs(here, principal, where, with_views=True)
    if form == "coco":
        import orjson

        return Response(
            orjson.dumps(exporting.coco(pairs, book)), media_type="application/json", headers=_file("coco.json")
        )
    spooled = tempfile.TemporaryFile(dir=here.spool)  # noqa: SIM115 - closed by the stream
    exporting.fiftyone(spooled, pairs, book, lambda key: _picture(here, key) or b"")
    spooled.seek(0)
    return Streamed(_chunks(spooled), media_type="application/zip", headers=_file("fiftyone.zip"))


@router.get("/batches/{batch}/report", response_class=Response, responses=_REPORT)
def get_report(
    batch: Batch,
    here: Here,
    principal: Reader,
    lang: Annotated[Language | None, Query(description="the caller's when absent")] = None,
    accept_language: Annotated[str | None, Header()] = None,
) -> Response:
    """A batch as one HTML page with its pictures in it, in English or Japanese; it prints well."""
    return get_report_as(batch, "html", here, principal, lang, accept_language)


@router.get("/batches/{batch}/report.{form}", response_class=Response, responses=_REPORT)
def get_report_as(
    batch: Batch,
    form: Literal["html", "pdf"],
    here: Here,
    principal: Reader,
    lang: Annotated[Language | None, Query(description="the caller's when absent")] = None,
    accept_language: Annotated[str | None, Header()] = None,
) -> Response:
    """A batch with its pictures as HTML or PDF, in English or Japanese."""
    with here.database.read() as session:
        book = labels.book(session, principal.tenant)
    pairs = list(_pairs(here, principal, _where(batch, None, None, None), with_views=True))
    if not pairs:
        raise NotFound(f"There is no batch {batch}.")
    page = report.assemble(
        batch,
        [row for row, _ in pairs],
        {row.id: views for row, views in pairs[: report.MOST_PICTURED]},
        book,
        picture=lambda key: _picture(here, key),
        language=lang or ("ja" if (accept_language or "").lower().startswith("ja") else "en"),
        made_at=utc_now(),
    )
    if form == "pdf":
        return Response(report_pdf.to_pdf(page), media_type="application/pdf", headers=_file(f"{batch}.pdf"))
    headers = {"content-security-policy": report.CONTENT_SECURITY_POLICY, "cache-control": "private, no-store"}
    return Response(report.to_html(page), media_type="text/html", headers=headers)


def _where(
    batch: str | None, status: str | None, label_ids: list[str] | None, lot: str | None
) -> list[ColumnElement[bool]]:
    where: list[ColumnElement[bool]] = [ParticleRow.role == "sample"]
    where += [] if batch is None else [ParticleRow.batch == batch]
    where += [] if status is None else [ParticleRow.status == status]
    where += [] if label_ids is None else [ParticleRow.label_id.in_(label_ids)]
    where += [] if lot is None else [ParticleRow.lot == lot]
    return where


def _pairs(here: Sem, principal: Principal, where: list[ColumnElement[bool]], *, with_views: bool) -> Iterator[Pair]:
    """Particles in the order of their ids, a page at a time, so that an export of any size stays small in memory."""
    after = ""
    for _ in itertools.repeat(None, _MOST_ROWS // _PAGE):
        with here.database.read() as session:
            query = select(ParticleRow).where(records.visible(ParticleRow, principal), ParticleRow.id > after, *where)
            rows = session.scalars(query.order_by(ParticleRow.id).limit(_PAGE)).all()
            views = store.views_of(session, [row.id for row in rows]) if with_views and rows else {}
        for row in rows:
            yield row, views.get(row.id, [])
        if len(rows) < _PAGE:
            return
        after = rows[-1].id


def _picture(here: Sem, key: str) -> bytes | None:
    try:
        with here.artifacts.open(key) as file:
            return file.read()
    except NotFound:
        return None


def _chunks(file: IO[bytes]) -> Generator[bytes, None, None]:
    with file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _file(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}"', "cache-control": "private, no-store"}
