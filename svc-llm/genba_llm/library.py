"""The company's documents: taken in, labelled, searched by who may see them.

Chunks carry their document's label; a search filters by the caller's clearance, compartments and tenant before it ranks.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import JsonValue
from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from genba_llm import store
from genba_llm.documents import Extracted, chunks
from genba_llm.retrieval import Chunk, Corpus, Passage
from genba_llm.tables import ChunkRow, DocumentRow
from genba_shared.audit import append_in
from genba_shared.db import Database, utc_now
from genba_shared.ids import new_id
from genba_shared.principal import Clearance, Principal
from genba_shared.problems import AlreadyExists, ClearanceTooLow

Stamp = tuple[int, datetime | None, str | None]


@dataclass
class Library:
    """Documents in one database, with the postings of each tenant in memory."""

    database: Database
    _corpora: dict[str, tuple[Stamp, Corpus]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(
        self,
        principal: Principal,
        found: Extracted,
        *,
        title: str | None,
        clearance: Clearance,
        compartments: frozenset[str] = frozenset(),
    ) -> DocumentRow:
        """Keep a document and its chunks. Raises: AlreadyExists for the same text under the same label; ClearanceTooLow."""
        if not principal.compartments.issuperset(compartments):
            raise ClearanceTooLow("You may label with your own compartments only.")
        digest = hashlib.sha256(found.text.encode()).hexdigest()
        pieces = chunks(found.text)
        row = DocumentRow(
            id=new_id("doc"),
            tenant=principal.tenant,
            clearance=int(clearance),
            created_at=utc_now(),
            created_by=principal.subject,
            title=(title or found.title or found.text.split("\n", 1)[0])[:300],
            kind=found.kind,
            sha256=digest,
            compartments=sorted(compartments),
            chars=len(found.text),
            chunk_count=len(pieces),
        )
        with self.database.transaction() as session:
            same = select(DocumentRow).where(
                DocumentRow.tenant == principal.tenant,
                DocumentRow.sha256 == digest,
                DocumentRow.clearance == int(clearance),
            )
            for known in session.scalars(same):
                if known.compartments == row.compartments:
                    raise AlreadyExists(f"This text is here already: {known.id}.", id=known.id)
            session.add(row)
            session.flush()
            session.execute(insert(ChunkRow), [_chunk(row, number, text) for number, text in enumerate(pieces)])
            detail: dict[str, JsonValue] = {"sha256": digest, "clearance": clearance.label, "chunks": len(pieces)}
            append_in(session, "llm.document_added", actor=principal.subject, subject=row.id, detail=detail)
        return row

    def remove(self, principal: Principal, document_id: str) -> None:
        """Delete a document with its chunks. Raises: NotFound."""
        with self.database.transaction() as session:
            row = store.get(session, DocumentRow, document_id, principal)
            session.execute(delete(ChunkRow).where(ChunkRow.document_id == row.id))
            session.delete(row)
            append_in(session, "llm.document_removed", actor=principal.subject, subject=document_id)

    def search(self, principal: Principal, query: str, *, limit: int) -> list[Passage]:
        """The passages that fit best, of those that the caller may see."""
        corpus = self._corpus(principal.tenant)

        def visible(chunk: Chunk) -> bool:
            return chunk.clearance <= principal.clearance and principal.compartments.issuperset(chunk.compartments)

        return corpus.search(query, visible=visible, limit=limit)

    def _corpus(self, tenant: str) -> Corpus:
        with self.database.read() as session:
            stamp = _stamp(session, tenant)
            known = self._corpora.get(tenant)
            if known is not None and known[0] == stamp:
                return known[1]
            with self._lock:
                known = self._corpora.get(tenant)
                if known is not None and known[0] == stamp:
                    return known[1]
                query = (
                    select(ChunkRow).where(ChunkRow.tenant == tenant).order_by(ChunkRow.document_id, ChunkRow.number)
                )
                corpus = Corpus(
                    [
                        Chunk(
                            each.document_id,
                            each.number,
                            each.title,
                            each.text,
                            each.clearance,
                            frozenset(each.compartments),
                        )
                        for each in session.scalars(query)
                    ]
                )
                self._corpora[tenant] = (stamp, corpus)
        return corpus


def _stamp(session: Session, tenant: str) -> Stamp:
    """Changes whenever the tenant's documents do."""
    mine = DocumentRow.tenant == tenant
    row = session.execute(
        select(func.count(), func.max(DocumentRow.created_at), func.max(DocumentRow.id)).where(mine)
    ).one()
    return row[0], row[1], row[2]


def _chunk(row: DocumentRow, number: int, text: str) -> dict[str, object]:
    return {
        "document_id": row.id,
        "number": number,
        "tenant": row.tenant,
        "clearance": row.clearance,
        "compartments": row.compartments,
        "title": row.title,
        "text": text,
    }
