"""The company's documents: taken in, labelled, searched by who may see them.

Chunks carry their document's label; a search filters by the caller's clearance, compartments and tenant before it ranks.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue
from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from genba_llm import store
from genba_llm.document_encoder import DocumentEncoder
from genba_llm.documents import Extracted, chunks
from genba_llm.retrieval import Chunk, Corpus, Passage
from genba_llm.tables import ChunkRow, DocumentRow
from genba_shared.audit import append_in
from genba_shared.db import Database, utc_now
from genba_shared.ids import new_id
from genba_shared.principal import Clearance, Principal
from genba_shared.problems import AlreadyExists, ClearanceTooLow

_MOST_READ = 500  # documents in a round, so that searches soon find the first of many

Stamp = tuple[int, datetime | None, str | None, int]


@dataclass
class Library:
    """Documents in one database, with the postings of each tenant in memory."""

    database: Database
    encoder: DocumentEncoder | None = None
    _corpora: dict[str, tuple[Stamp, Corpus]] = field(default_factory=dict)
    _read: set[str] = field(default_factory=set)  # documents whose vectors are there
    _rounds: int = 0  # in which some came: a corpus made before has fewer, and is made anew once for all of them
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

        meaning = self.encoder.of_query(query) if self.encoder is not None and corpus.has_vectors else None
        return corpus.search(query, visible=visible, limit=limit, meaning=meaning)

    def encode_new(self) -> None:
        """Have documents read by the encoder that it has not read yet; what is gone is forgotten."""
        if self.encoder is None:
            return
        with self.database.read() as session:
            rows = session.execute(select(DocumentRow.id, DocumentRow.chunk_count))
            counts: dict[str, int] = {row.id: row.chunk_count for row in rows}
        if not self._read or not self._read <= counts.keys():
            self._read &= counts.keys()
            self.encoder.forget_all_but(counts)
        before = len(self._read)
        for document_id in sorted(counts.keys() - self._read)[:_MOST_READ]:
            if self.encoder.kept(document_id, counts[document_id]) is None:
                with self.database.read() as session:
                    pieces = select(ChunkRow).where(ChunkRow.document_id == document_id).order_by(ChunkRow.number)
                    texts = [f"{each.title}\n{each.text}" for each in session.scalars(pieces)]
                if texts and not self.encoder.encode(document_id, texts):
                    break
            self._read.add(document_id)
        self._rounds += len(self._read) > before

    def _corpus(self, tenant: str) -> Corpus:
        with self.database.read() as session:
            stamp = (*_stamp(session, tenant), self._rounds)
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
                found = [
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
                corpus = Corpus(found, self._vectors(found))
                self._corpora[tenant] = (stamp, corpus)
        return corpus

    def _vectors(self, found: Sequence[Chunk]) -> npt.NDArray[np.float32] | None:
        """(N, D) as the encoder keeps them, 0 for what it has not read; None where it has read nothing."""
        if self.encoder is None:
            return None
        parts: list[tuple[int, npt.NDArray[np.float32] | None]] = []
        for document_id, group in itertools.groupby(found, key=lambda each: each.document_id):
            count = len(list(group))
            parts.append((count, self.encoder.kept(document_id, count)))
        width = next((part.shape[1] for _, part in parts if part is not None), 0)
        if not width:
            return None
        empty = [
            np.zeros((count, width), np.float32) if part is None or part.shape[1] != width else part
            for count, part in parts
        ]
        return np.concatenate(empty)


def _stamp(session: Session, tenant: str) -> tuple[int, datetime | None, str | None]:
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
