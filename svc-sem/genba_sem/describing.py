"""Views described anew by another encoder than the one that first looked at them, from the pictures that are kept.

What an encoder says of a view is added beside what others said, and nothing is taken away: the lane that serves goes on meanwhile, and a
rollback needs no picture again. What has been described is passed over, so a job that was killed goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from genba_sem import lanes, store
from genba_sem.encoders import Encoder
from genba_sem.lane import see
from genba_sem.looking import ReadView, pack, to_one_scale
from genba_sem.micrograph import Limits, Unreadable
from genba_sem.tables import DescriptionRow, ViewRow
from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_shared.problems import NotFound

_PAGE: Final = 200


@dataclass(frozen=True)
class Describer:
    """An encoder beside the store whose pictures it describes."""

    encoder: Encoder
    database: Database
    artifacts: Artifacts
    limits: Limits
    read: ReadView

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
        """At the scale that the particle was seen at, whoever said it: the sizes on record hold."""
        if not views or not all(view.described_by for view in views):
            return False
        try:
            pictures = [
                replace(
                    self.read(self.artifacts.local_path(view.image_key).read_bytes(), limits=self.limits),
                    pixel_size_nm=view.document["pixel_size_nm"],
                )
                for view in views
            ]
        except (Unreadable, NotFound):
            return False
        scaled, _ = to_one_scale(pictures)
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
