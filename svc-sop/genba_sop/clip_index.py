"""The vectors of every clip, in a collection of one encoder. A copy: the records say which clips exist and who may
see them.

Only the process that serves searches owns the collection; jobs in other processes write records, and this one indexes
them later.
Knows nothing of text or of ranking.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from zipfile import BadZipFile

from sqlalchemy import or_, select, update

from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_shared.principal import Principal
from genba_shared.problems import NotFound
from genba_shared.telemetry import get_logger
from genba_shared.vectors import Point, Vectors
from genba_sop.bundles import clips, unpack_features
from genba_sop.features import Array
from genba_sop.tables import Video

log = get_logger(__name__)

COLLECTION: Final = "sop-clips"
LAYOUT: Final = 1  # of clips and payload; a new one means a new collection version
_BATCH_VIDEOS: Final = 20


@dataclass(frozen=True)
class ClipHit:
    """A clip that was found. ``similarity`` is a cosine."""

    video_id: str
    start_s: float
    end_s: float
    similarity: float


class ClipIndex:
    """The clips of the videos that one encoder embedded."""

    def __init__(self, vectors: Vectors, database: Database, artifacts: Artifacts, *, encoder: str, dim: int) -> None:
        self._vectors, self._database, self._artifacts = vectors, database, artifacts
        self.encoder, self._dim = encoder, dim
        self._writing = threading.Lock()
        self._unreadable: set[str] = set()
        slug = re.sub(r"[^a-z0-9]+", "-", encoder.lower()).strip("-")
        self.version = f"{slug}-{LAYOUT}"

    def open(self) -> None:
        """Make sure that the collection is there and of this encoder. After a change of encoder the new version is
        built first.
        """
        current = self._vectors.current(COLLECTION)
        if current is not None and current.version == self.version:
            return
        self._vectors.drop(COLLECTION, self.version)
        self._vectors.create(
            COLLECTION,
            self.version,
            dim=self._dim,
            encoder=self.encoder,
            filters={"tenant": "keyword", "clearance": "integer", "video": "keyword"},
        )
        with self._database.transaction() as session:
            session.execute(update(Video).where(Video.indexed_in == self.version).values(indexed_in=None))
        while self.index_pending():
            pass
        self._vectors.publish(COLLECTION, self.version)

    def index_pending(self) -> int:
        """Index videos that are not yet; how many. Safe to repeat: a clip's id follows from its video and place.

        One whose features are lost or damaged keeps no other waiting; it is tried again by the next process.
        """
        with self._writing:
            with self._database.read() as session:
                new = or_(Video.indexed_in.is_(None), Video.indexed_in != self.version)
                mine = (Video.encoder == self.encoder, new, Video.id.not_in(self._unreadable))
                videos = session.scalars(select(Video).where(*mine).order_by(Video.id).limit(_BATCH_VIDEOS)).all()
            for video in videos:
                try:
                    self._index(video)
                except (NotFound, ValueError, KeyError, EOFError, BadZipFile) as error:
                    log.warning("video_not_indexed", video=video.id, error=type(error).__name__)
                    self._unreadable.add(video.id)
            return len(videos)

    def _index(self, video: Video) -> None:
        with self._artifacts.open(video.features_key) as file:
            features = unpack_features(file)
        points = [
            Point(
                id=clip_id(video.id, index),
                vector=clip.vector,
                payload={
                    "tenant": video.tenant,
                    "clearance": video.clearance,
                    "video": video.id,
                    "start_s": clip.start_s,
                    "end_s": clip.end_s,
                },
            )
            for index, clip in enumerate(clips(features))
        ]
        self._vectors.upsert(COLLECTION, self.version, points)
        mark = update(Video).where(Video.id == video.id).values(indexed_in=self.version).returning(Video.id)
        with self._database.transaction() as session:
            still_there = session.execute(mark).first() is not None
        if not still_there:  # deleted while it was indexed, and its erasure may have been done already
            self.erase(video.id, len(points))

    def erase(self, video_id: str, clip_count: int) -> None:
        """Take a video's clips out of the collection."""
        if clip_count and self._vectors.current(COLLECTION) is not None:
            self._vectors.delete(COLLECTION, [clip_id(video_id, index) for index in range(clip_count)])

    def search(
        self, vector: Array, *, encoder: str, principal: Principal, k: int, videos: Sequence[str] | None = None
    ) -> list[ClipHit]:
        """The clips nearest to ``vector`` that the caller may see.

        Raises:  EncoderMismatch.
        """
        where: dict[str, str | list[int] | list[str]] = {
            "tenant": principal.tenant,
            "clearance": list(range(int(principal.clearance) + 1)),
        }
        if videos is not None:
            where["video"] = list(videos)
        hits = self._vectors.search(COLLECTION, vector, k=k, encoder=encoder, where=where)
        return [ClipHit(hit.payload["video"], hit.payload["start_s"], hit.payload["end_s"], hit.score) for hit in hits]


def clip_id(video_id: str, index: int) -> str:
    """The id of a video's clip, by its place."""
    return f"{video_id}:{index}"
