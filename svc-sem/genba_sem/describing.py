"""Views described anew by another encoder than the one that first looked at them, from the pictures that are kept.

What an encoder says of a view is added beside what others said, and nothing is taken away: the lane that serves goes on meanwhile, and a
rollback needs no picture again. What has been described is passed over, so a job that was killed goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from genba_sem import lanes, store
from genba_sem.encoders import Encoder
from genba_sem.lane import see
from genba_sem.looking import ReadView, pack, to_one_scale
from genba_sem.micrograph import Limits, Unreadable, View
from genba_sem.tables import DescriptionRow, ViewRow
from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_shared.problems import NotFound

_PAGE: Final = 200


@dataclass(frozen=True)
class Shelf:
    """The pictures that are kept, and what reads them."""

    artifacts: Artifacts
    limits: Limits
    read: ReadView

    def views(self, rows: Sequence[ViewRow]) -> list[View]:
        """A particle's views at the scale that it was seen at, whoever said it: the sizes on record hold. None where one is gone."""
        if not all(row.described_by for row in rows):
            return []
        try:
            pictures = [
                self.read(self.artifacts.local_path(row.image_key).read_bytes(), limits=self.limits).sized(
                    row.document["pixel_size_nm"]
                )
                for row in rows
            ]
        except (Unreadable, NotFound):
            return []
        return to_one_scale(pictures)[0]


@dataclass(frozen=True)
class Describer:
    """An encoder beside the pictures that it describes."""

    encoder: Encoder
    database: Database
    shelf: Shelf

    def describe(self, particle_ids: Sequence[str], progress: Callable[[float], None] = lambda _: None) -> int:
        """Describe what the encoder has not described yet; how many particles could not be, because a picture is gone."""
        failed = 0
        for start in range(0, len(particle_ids), _PAGE):
            page = particle_ids[start : start + _PAGE]
            with self.database.read() as session:
                lacking = sorted(set(page) - lanes.seen_of(session, page, self.encoder.kind).keys())
                views = store.views_of(session, lacking)
            for done, particle_id in enumerate(lacking):
                progress((start + done) / len(particle_ids))
                failed += not self._one(views[particle_id])
        return failed

    def _one(self, views: Sequence[ViewRow]) -> bool:
        scaled = self.shelf.views(views)
        if not scaled:
            return False
        rows = [
            {
                "particle_id": row.particle_id,
                "position": row.position,
                "described_by": self.encoder.kind,
                "raw": pack(see(view, self.encoder).raw),
            }
            for row, view in zip(views, scaled, strict=True)
        ]
        try:
            with self.database.transaction() as session:
                session.execute(insert(DescriptionRow), rows)
        except IntegrityError:  # somebody else was quicker, or the particle was erased
            return self._is_described(views)
        return True

    def _is_described(self, views: Sequence[ViewRow]) -> bool:
        mine = (
            DescriptionRow.particle_id == views[0].particle_id,
            DescriptionRow.described_by == self.encoder.kind,
        )
        with self.database.read() as session:
            return session.scalar(select(DescriptionRow.position).where(*mine).limit(1)) is not None
