"""From a file on this disk to a stored video: extract, put the artifacts, write the row. Used by the service and by
the job.

Order makes it safe to die anywhere: the keys are promised for erasure first, the artifacts are written next, and the
row, which takes
the promises back, comes last in one transaction. Knows nothing of HTTP or of queues.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from genba_shared.artifacts import Artifacts
from genba_shared.db import Database, utc_now
from genba_shared.ids import new_id
from genba_sop import store
from genba_sop.bundles import clips, pack_features, pack_thumbnails
from genba_sop.containers import ACCEPTED, SNIFFED_BYTES, demuxer_of, name_of
from genba_sop.encoders import FrameEncoder
from genba_sop.settings import Settings
from genba_sop.tables import Video
from genba_sop.transcripts import Cue
from genba_sop.video import Limits, NotAVideo, extract

_SUFFIXES: Final = {"mov": ".mp4", "matroska": ".mkv", "avi": ".avi", "mpegts": ".ts"}
MEDIA_TYPES: Final = {
    ".mp4": "video/mp4",
    ".mkv": "video/x-matroska",
    ".avi": "video/x-msvideo",
    ".ts": "video/mp2t",
    ".bin": "application/octet-stream",
}


@dataclass(frozen=True)
class Received:
    """An upload that lies on this disk, under a name of ours."""

    path: Path
    sha256: str
    size_bytes: int
    title: str


@dataclass(frozen=True)
class Owner:
    """Under whose name a video is kept."""

    tenant: str
    clearance: int
    subject: str
    retention_days: int | None = None


@dataclass(frozen=True)
class Prepared:
    """A video all of whose artifacts are stored; only its row is missing."""

    received: Received
    info: dict[str, Any]
    encoder: str
    duration_s: float
    sampled_frames: int
    clip_count: int
    keys: Mapping[str, str]  # video, features, thumbnails → artifact key
    bundles: Mapping[str, bytes | Path]  # what lies under them, in case an eraser was quicker
    timings_ms: dict[str, float]


def artifact_key(digest: str, suffix: str) -> str:
    """The address that ``Artifacts.put`` gives to content with this sha256."""
    return f"{digest[:2]}/{digest}{suffix}"


def suffix_of(head: bytes) -> str:
    """The file name ending of a video that begins with ``head``. Raises NotAVideo (415)."""
    demuxer = demuxer_of(head)
    if demuxer is None:
        raise NotAVideo(f"The file is {name_of(head)}; send {ACCEPTED}.")
    return _SUFFIXES.get(demuxer, ".bin")


def limits_of(settings: Settings, *, in_request: bool) -> Limits:
    """What one video may cost, in a request or in a job."""
    longest_s = min(settings.max_video_s, settings.job_above_s) if in_request else settings.max_video_s
    return Limits(max_bytes=settings.body_cap_bytes, max_duration_s=longest_s)


def prepare(
    received: Received,
    *,
    database: Database,
    artifacts: Artifacts,
    encoder: FrameEncoder,
    limits: Limits,
    sample_fps: float,
    progress: Callable[[float], None] | None = None,
) -> Prepared:
    """Decode, embed and store everything but the row.

    Raises:  NotAVideo (415), VideoTooLarge or VideoTooLong (413), VideoUnreadable and its like (422).
    """
    with received.path.open("rb") as file:
        suffix = suffix_of(file.read(SNIFFED_BYTES))
    extraction = extract(received.path, encoder=encoder, limits=limits, progress=progress, sample_fps=sample_fps)
    started_s = time.perf_counter()
    features = pack_features(extraction.features)
    thumbnails = pack_thumbnails([(t.time_s, t.jpeg) for t in extraction.thumbnails])
    bundles: dict[str, tuple[bytes | Path, str]] = {
        "video": (received.path, artifact_key(received.sha256, suffix)),
        "features": (features, artifact_key(hashlib.sha256(features).hexdigest(), ".npz")),
        "thumbnails": (thumbnails, artifact_key(hashlib.sha256(thumbnails).hexdigest(), ".npz")),
    }
    keys = {name: key for name, (_, key) in bundles.items()}
    with database.transaction() as session:
        for key in sorted(set(keys.values())):  # in one order everywhere, so that two uploads never lock each other out
            store.promise_erasure(session, "artifact", key, after_s=store.RESERVATION_S)
    for name, (source, _) in bundles.items():
        _put(artifacts, source, keys[name])
    timings_ms = {**extraction.timings_ms, "store_ms": 1000 * (time.perf_counter() - started_s)}
    return Prepared(
        received=received,
        info=asdict(extraction.info),
        encoder=extraction.features.encoder,
        duration_s=extraction.features.duration_s,
        sampled_frames=len(extraction.features.times_s),
        clip_count=sum(1 for _ in clips(extraction.features)),
        keys=keys,
        bundles={name: source for name, (source, _) in bundles.items()},
        timings_ms={name: round(value, 2) for name, value in timings_ms.items()},
    )


def _put(artifacts: Artifacts, source: bytes | Path, key: str) -> None:
    suffix = key[key.index(".") :]
    if artifacts.put(source, suffix=suffix) != key:
        raise RuntimeError(f"Artifact {key} changed while it was stored.")


def record(
    session: Session,
    artifacts: Artifacts,
    prepared: Prepared,
    owner: Owner,
    *,
    video_id: str | None = None,
    cues: Sequence[Cue] | None = None,
) -> tuple[Video, bool]:
    """Write the row, and what is said in the video, inside the caller's transaction; also whether the same video was there before.

    An eraser that was quicker has deleted an artifact that we need: it is put again, while the promise on it is ours.
    """
    store.keep_artifacts(session, list(prepared.keys.values()))
    for name, key in prepared.keys.items():
        if not artifacts.exists(key):
            _put(artifacts, prepared.bundles[name], key)
    if (known := _same(session, prepared, owner)) is not None:
        return _said_in(session, known, cues), True
    moment = utc_now()
    keep = timedelta(days=owner.retention_days) if owner.retention_days else None
    row = Video(
        id=video_id or new_id("vid"),
        created_at=moment,
        created_by=owner.subject,
        title=prepared.received.title,
        sha256=prepared.received.sha256,
        size_bytes=prepared.received.size_bytes,
        info=prepared.info,
        duration_s=prepared.duration_s,
        sampled_frames=prepared.sampled_frames,
        video_key=prepared.keys["video"],
        features_key=prepared.keys["features"],
        thumbnails_key=prepared.keys["thumbnails"],
        timings_ms=prepared.timings_ms,
        expires_at=moment + keep if keep else None,
        clip_count=prepared.clip_count,
        indexed_in=None,
        tenant=owner.tenant,
        clearance=owner.clearance,
        encoder=prepared.encoder,
    )
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:  # the same bytes were recorded by somebody else a moment ago
        if (known := _same(session, prepared, owner)) is None:
            raise
        return _said_in(session, known, cues), True
    return _said_in(session, row, cues), False


def _said_in(session: Session, video: Video, cues: Sequence[Cue] | None) -> Video:
    """The video with these cues, where there are any."""
    if cues is not None and session.get(Video, video.id, with_for_update=True) is not None:
        store.set_transcript(session, video, cues)
    return video


def _same(session: Session, prepared: Prepared, owner: Owner) -> Video | None:
    return store.same_video(
        session,
        tenant=owner.tenant,
        clearance=owner.clearance,
        sha256=prepared.received.sha256,
        encoder=prepared.encoder,
    )
