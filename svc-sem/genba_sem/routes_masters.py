"""``/v1/sem/masters`` and ``/v1/sem/master-sets``: what stands for what, now and at any number before."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, status
from pydantic import JsonValue
from sqlalchemy import ColumnElement, select

from genba_sem import labels, master_sets
from genba_sem.dependencies import Cursor, Limit, Reader, Writer
from genba_sem.schemas_labels import MasterIn, MasterOut, MasterSetOut, MasterSetWhole, master_out, set_out
from genba_sem.service import Here
from genba_sem.tables import MasterRow, MasterSetRow, ParticleRow
from genba_shared import records
from genba_shared.audit import append_in
from genba_shared.service import problem_responses
from genba_shared.wire_records import Page, RecordId

router = APIRouter(prefix="/v1/sem", tags=["sem masters"])

Number = Annotated[int, Path(ge=1, le=2**31 - 1)]


@router.post("/masters", status_code=status.HTTP_201_CREATED, responses=problem_responses(404, 409))
def add_master(body: MasterIn, here: Here, principal: Writer) -> MasterOut:
    """Let a particle stand for a label, from the next set on. New images: send them with ``master_of`` to /particles."""
    with here.database.transaction() as session:
        labels.held(session, principal.tenant)
        particle = records.get(session, ParticleRow, body.particle_id, principal)
        row = master_sets.add(session, principal, body.label_id, particle, reason=body.reason)
        detail: dict[str, JsonValue] = {"label": row.label_id, "set": row.since}
        append_in(session, "sem.master_added", actor=principal.subject, subject=row.id, detail=detail)
        return master_out(row)


@router.get("/masters", responses=problem_responses(404))
def list_masters(
    here: Here,
    principal: Reader,
    label_id: Annotated[RecordId | None, Query()] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[MasterOut]:
    """The masters of the newest set that you may see, newest first."""
    where: list[ColumnElement[bool]] = [MasterRow.until.is_(None)]
    if label_id is not None:
        where.append(MasterRow.label_id == label_id)
    with here.database.read() as session:
        rows, following = records.page(session, MasterRow, principal, *where, limit=limit, cursor=cursor)
    return Page[MasterOut](items=[master_out(row) for row in rows], next_cursor=following)


@router.delete("/masters/{master_id}", responses=problem_responses(404, 409))
def remove_master(master_id: RecordId, here: Here, principal: Writer) -> MasterOut:
    """Take a master out, from the next set on. The particle stays, and so does every set that it was in."""
    with here.database.transaction() as session:
        row = master_sets.remove(session, principal, master_id, reason="taken out")
        detail: dict[str, JsonValue] = {"label": row.label_id, "set": row.until}
        append_in(session, "sem.master_removed", actor=principal.subject, subject=row.id, detail=detail)
        return master_out(row)


@router.get("/master-sets", responses=problem_responses(404))
def list_master_sets(
    here: Here,
    principal: Reader,
    limit: Limit = 50,
    before: Annotated[
        int | None, Query(ge=1, le=2**31 - 1, description="number of the last set on the page before")
    ] = None,
) -> list[MasterSetOut]:
    """The sets of masters, newest first."""
    query = select(MasterSetRow).where(MasterSetRow.tenant == principal.tenant)
    if before is not None:
        query = query.where(MasterSetRow.number < before)
    with here.database.read() as session:
        rows = session.scalars(query.order_by(MasterSetRow.number.desc()).limit(limit)).all()
    return [set_out(row) for row in rows]


@router.get("/master-sets/{number}", responses=problem_responses(404))
def get_master_set(number: Number, here: Here, principal: Reader) -> MasterSetWhole:
    """One set with the members that you may see: what stood for what when a decision named it."""
    with here.database.read() as session:
        row = master_sets.set_at(session, principal.tenant, number)
        members = [
            each for each in master_sets.at(session, principal.tenant, number) if each.clearance <= principal.clearance
        ]
    return MasterSetWhole(**set_out(row).model_dump(), masters=[master_out(each) for each in members])
