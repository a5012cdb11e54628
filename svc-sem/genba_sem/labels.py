"""Labels: an id that never changes, and everything about it that may.

    active ──merge──► merged (one successor)      rename, define: the next version of the same label
      │  ├──split──► split (several successors)   restore: merged or retired → active again, masters and all
      │  └──retire─► retired

Particles name the label they were given and are not touched by a rename or a merge: whoever asks looks up what the
label is now (``LabelBook``), so answers and counts change with the transaction and a restore loses nothing. Two people
who change the same label meet at its version. Knows no HTTP and no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from genba_sem.tables import LabelRow, LabelVersion
from genba_shared import records
from genba_shared.db import share_turn, take_turns, utc_now
from genba_shared.ids import new_id
from genba_shared.principal import Clearance, Principal
from genba_shared.problems import AlreadyExists, Conflict, VersionConflict
from genba_shared.text_forms import nfkc

Status = Literal["active", "merged", "split", "retired"]
Document = dict[str, Any]  # name {en, ja}, definition {en, ja}, synonyms {en: [], ja: []}


class LabelNotActive(Conflict):
    """The label takes no more particles."""


@dataclass(frozen=True)
class Label:
    """A label as it is now."""

    id: str
    clearance: int
    version: int
    status: str
    successors: tuple[str, ...]
    name: Mapping[str, str]
    definition: Mapping[str, str]
    synonyms: Mapping[str, Sequence[str]]

    @property
    def words(self) -> str:
        """Its name for a message: English, else Japanese."""
        return self.name.get("en") or self.name.get("ja") or self.id


class LabelBook:
    """Every label of a tenant as it is at one moment: what an id means now."""

    def __init__(self, labels: Sequence[Label]) -> None:
        self.by_id = {label.id: label for label in labels}

    def now(self, label_id: str) -> Label | None:
        """The label that ``label_id`` means now: itself, or what it was merged into. None for an id that is not there."""
        label = self.by_id.get(label_id)
        while label is not None and label.status == "merged":
            label = self.by_id.get(label.successors[0])
        return label

    def meaning(self, label_id: str) -> list[str]:
        """Every id that means ``label_id`` now: its own, and those merged into it, at any distance."""
        return [each for each in self.by_id if (now := self.now(each)) is not None and now.id == label_id]

    def divided(self, label_ids: Iterable[str]) -> bool:
        """Whether one of these has been split: its particles have been handed out, so none may be given to it now."""
        return any((label := self.now(each)) is not None and label.status == "split" for each in label_ids)

    def active(self, clearance: int) -> list[Label]:
        """The labels that a particle of this clearance may be given."""
        return [each for each in self.by_id.values() if each.status == "active" and each.clearance <= clearance]


def book(session: Session, tenant: str) -> LabelBook:
    """Read all labels of a tenant, whoever may see them: who sees a particle may see what it is called."""
    rows = session.scalars(select(LabelRow).where(LabelRow.tenant == tenant).order_by(LabelRow.id))
    return LabelBook([label_of(row) for row in rows])


def held(session: Session, tenant: str) -> LabelBook:
    """All labels of a tenant as they stay until this transaction ends. To be called before a particle is locked: whoever changes
    labels locks particles after them.
    """
    share_turn(session, _turn(tenant))
    return book(session, tenant)


def take_turn(session: Session, tenant: str) -> None:
    """Labels of a tenant change one at a time, so that no two merges make a circle."""
    take_turns(session, _turn(tenant))


def _turn(tenant: str) -> str:
    return f"sem-labels-{tenant}"


def label_of(row: LabelRow) -> Label:
    """A row as a value."""
    document = row.document
    return Label(
        row.id, row.clearance, row.version, row.status, tuple(row.successors),
        document["name"], document["definition"], document["synonyms"],
    )  # fmt: skip


def create(
    session: Session, principal: Principal, document: Document, *, clearance: Clearance, reason: str = ""
) -> LabelRow:
    """A new label at version 1. Raises: AlreadyExists when an active label has the name."""
    take_turn(session, principal.tenant)
    _check_name(session, principal.tenant, document, own_id=None)
    moment = utc_now()
    row = LabelRow(
        id=new_id("lab"), tenant=principal.tenant, clearance=int(clearance), created_at=moment,
        created_by=principal.subject, version=1, status="active", successors=[], document=document, updated_at=moment,
    )  # fmt: skip
    session.add(row)
    session.flush()
    _note(session, principal, row, "created", reason=reason)
    return row


def revise(
    session: Session, principal: Principal, label_id: str, document: Document, *, expected: int | None, reason: str
) -> LabelRow:
    """Rename, define or extend a label. Raises: NotFound, VersionConflict, AlreadyExists, LabelNotActive."""
    row = changing(session, principal, label_id, expected=expected)
    _check_active(row)
    _check_name(session, principal.tenant, document, own_id=row.id)
    row.document = document
    _next(session, principal, row, "revised", reason=reason)
    return row


def merge(
    session: Session,
    principal: Principal,
    label_id: str,
    into_id: str,
    *,
    expected: int | None,
    reason: str,
    detail: Document | None = None,
) -> tuple[LabelRow, LabelRow]:
    """Let ``label_id`` mean ``into_id`` from now on; both, as they are then.

    Raises: NotFound, VersionConflict, LabelNotActive; Conflict for a label merged into itself or into a more secret one.
    """
    row = changing(session, principal, label_id, expected=expected)
    into = records.get(session, LabelRow, into_id, principal, lock=True)
    _check_active(row)
    _check_active(into)
    if row.id == into.id:
        raise Conflict("A label cannot be merged into itself.")
    if into.clearance > row.clearance:
        raise Conflict("Those who see particles of the one label may not see the other: its clearance is higher.")
    row.status, row.successors = "merged", [into.id]
    _next(session, principal, row, "merged", reason=reason, detail={"into": into.id, **(detail or {})})
    _next(session, principal, into, "absorbed", reason=reason, detail={"label": row.id})
    return row, into


def split(
    session: Session,
    principal: Principal,
    label_id: str,
    documents: Sequence[Document],
    *,
    expected: int | None,
    reason: str,
) -> tuple[LabelRow, list[LabelRow]]:
    """Replace a label by several new ones. Whose particles go where is for the caller to settle in this transaction.

    Raises: NotFound, VersionConflict, LabelNotActive, AlreadyExists.
    """
    row = changing(session, principal, label_id, expected=expected)
    _check_active(row)
    row.status = "split"  # before its parts are made: one of them may keep the name
    session.flush()
    parts = [
        create(session, principal, document, clearance=Clearance(row.clearance), reason=reason)
        for document in documents
    ]
    row.successors = [part.id for part in parts]
    _next(session, principal, row, "split", reason=reason, detail={"into": row.successors})
    return row, parts


def retire(session: Session, principal: Principal, label_id: str, *, expected: int | None, reason: str) -> LabelRow:
    """Give the label to no more particles; those that have it keep it. Raises: NotFound, VersionConflict, LabelNotActive."""
    row = changing(session, principal, label_id, expected=expected)
    _check_active(row)
    row.status = "retired"
    _next(session, principal, row, "retired", reason=reason)
    return row


def restore(session: Session, principal: Principal, label_id: str, *, expected: int | None, reason: str) -> LabelRow:
    """Undo a merge or a retirement. Raises: NotFound, VersionConflict, AlreadyExists; Conflict for an active or split one."""
    row = changing(session, principal, label_id, expected=expected)
    if row.status not in {"merged", "retired"}:
        raise Conflict(
            f"Only a merged or retired label can be restored; this one is {row.status}.", label_status=row.status
        )
    _check_name(session, principal.tenant, row.document, own_id=row.id)
    was = {"was": row.status, "successors": list(row.successors)}
    row.status, row.successors = "active", []
    _next(session, principal, row, "restored", reason=reason, detail=was)
    return row


def history(session: Session, label_id: str) -> Sequence[LabelVersion]:
    """Every version of a label, oldest first."""
    query = select(LabelVersion).where(LabelVersion.label_id == label_id)
    return session.scalars(query.order_by(LabelVersion.version)).all()


def changing(session: Session, principal: Principal, label_id: str, *, expected: int | None) -> LabelRow:
    """The label, held for a change."""
    take_turn(session, principal.tenant)
    row = records.get(session, LabelRow, label_id, principal, lock=True)
    if expected is not None and expected != row.version:
        raise VersionConflict(
            f"Label {label_id} is at version {row.version}, not {expected}: read it again, then change it.",
            current_version=row.version,
        )
    return row


def given(book_now: LabelBook, label_id: str, *, clearance: int) -> Label:
    """The label that somebody who names ``label_id`` means, if a particle of this clearance may have it.

    Raises: LabelNotActive that names what there is instead.
    """
    label = book_now.now(label_id)
    if label is None or label.clearance > clearance:
        raise LabelNotActive(f"There is no label {label_id} that a record of this clearance may have.")
    if label.status != "active":
        parts = [book_now.by_id[each].words for each in label.successors if each in book_now.by_id]
        instead = f"; use one of {', '.join(parts)}" if parts else ""
        raise LabelNotActive(
            f"Label {label.words} ({label.id}) is {label.status}{instead}.", successors=list(label.successors)
        )
    return label


def _check_active(row: LabelRow) -> None:
    if row.status != "active":
        said = f"Label {label_of(row).words} ({row.id}) is {row.status}."
        raise LabelNotActive(said, label_status=row.status, successors=list(row.successors))


def _check_name(session: Session, tenant: str, document: Document, *, own_id: str | None) -> None:
    """Two active labels of one name would be one label to everybody who reads."""
    wanted = {name for text in document["name"].values() if (name := plain(text))}
    query = select(LabelRow).where(LabelRow.tenant == tenant, LabelRow.status == "active")
    for other in session.scalars(query):
        names = {plain(text) for text in other.document["name"].values()}
        if other.id != own_id and (same := wanted & names):
            raise AlreadyExists(f"Another label is called {min(same)}.", label_id=other.id)


def plain(text: str) -> str:
    """A name without the differences that a reader does not see."""
    return " ".join(nfkc(text).casefold().split())


def _next(
    session: Session, principal: Principal, row: LabelRow, event: str, *, reason: str, detail: Document | None = None
) -> None:
    row.version, row.updated_at = row.version + 1, utc_now()
    session.flush()
    _note(session, principal, row, event, reason=reason, detail=detail)


def _note(
    session: Session, principal: Principal, row: LabelRow, event: str, *, reason: str, detail: Document | None = None
) -> None:
    session.add(
        LabelVersion(
            label_id=row.id, version=row.version, event=event, status=row.status, successors=list(row.successors),
            document=row.document, detail=detail or {}, reason=reason, created_at=row.updated_at,
            created_by=principal.subject,
        )
    )  # fmt: skip
    session.flush()
