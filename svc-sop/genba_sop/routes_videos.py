"""``/v1/sop/videos``: ingest, look, erase."""

from __future__ import annotations

import hashlib
import math
import re
from datetime import timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request, Response, status
from fastapi.responses import FileResponse
from pydantic import FiniteFloat, TypeAdapter, ValidationError

from genba_shared import records
from genba_shared.audit import append_in
from genba_shared.db import utc_now
from genba_shared.dependencies import require
from genba_shared.ids import new_id
from genba_shared.jobs import Job
from genba_shared.principal import Clearance, Principal
from genba_shared.problems import Conflict, Invalid, NotFound, PayloadTooLarge, RangeNotSatisfiable, fault
from genba_shared.service import problem_responses
from genba_shared.wire_records import ClearanceLabel, JobOut, Page, RecordId, clearance_label, job_out
from genba_sop import store, transcripts
from genba_sop.bundles import unpack_thumbnails
from genba_sop.containers import SNIFFED_BYTES
from genba_sop.ingest import MEDIA_TYPES, Owner, artifact_key, suffix_of
from genba_sop.schemas import Erased, VideoInfoOut, VideoOut
from genba_sop.service import Here, Sop
from genba_sop.tables import Video
from genba_sop.upload import Upload, check, receive
from genba_sop.video import VideoTooLong

router = APIRouter(prefix="/v1/sop/videos", tags=["sop videos"])

Reader = Annotated[Principal, require("sop:read")]
Writer = Annotated[Principal, require("sop:write")]
Limit = Annotated[int, Query(ge=1, le=200)]
Cursor = Annotated[RecordId | None, Query(description="next_cursor of the page before")]

_TRANSCRIPT_SUFFIX: Final = ".txt"
_JOB_RESERVATION_S: Final = 7 * 24 * 3600.0
_RANGE: Final = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))", re.ASCII)
_LABEL: Final = TypeAdapter[ClearanceLabel](ClearanceLabel)
_DAYS: Final = TypeAdapter[int](Annotated[int, Query(ge=1, le=36500)])
_FORM: Final = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "transcript": {"type": "string", "format": "binary", "description": "WebVTT or SubRip, at most 2 MiB"},
        "title": {"type": "string", "maxLength": 200},
        "clearance": {"type": "string", "enum": [label.label for label in Clearance]},
        "retention_days": {"type": "integer", "minimum": 1},
    },
}
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "video/mp4": {"schema": {"type": "string", "format": "binary"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {"schema": _FORM},
        },
    }
}


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    openapi_extra=_BODY,
    responses={
        200: {"model": VideoOut, "description": "The same bytes were ingested before: their record."},
        202: {"model": JobOut, "description": "Large or long: a job ingests it; the record will be at result_id."},
        **problem_responses(408, 409, 411, 413, 415, 429),
    },
)
async def upload_video(
    request: Request,
    response: Response,
    here: Here,
    principal: Writer,
    title: Annotated[str | None, Query(max_length=200)] = None,
    clearance: Annotated[ClearanceLabel | None, Query()] = None,
    retention_days: Annotated[int | None, Query(ge=1, le=36500)] = None,
) -> VideoOut | JobOut:
    """Ingest a video: a raw body, or a form with the field ``file`` and, where there is one, its ``transcript``. Query parameters
    are for raw bodies.
    """
    del title, clearance, retention_days  # validated here, read with the body: a form brings its own
    check(request, cap_bytes=here.settings.body_cap_bytes)
    with here.extracting.place():
        async with receive(request, here.spool, cap_bytes=here.settings.body_cap_bytes) as upload:
            owner = _owner(here, principal, upload)
            answer = await here.extracting.run(lambda: _take(here, principal, upload, owner))
    if isinstance(answer, Job):
        response.status_code = status.HTTP_202_ACCEPTED
        response.headers["Location"] = f"/v1/jobs/{answer.id}"
        return job_out(answer, result_id=answer.params["video_id"])
    video, known = answer
    response.status_code = status.HTTP_200_OK if known else status.HTTP_201_CREATED
    response.headers["Location"] = f"/v1/sop/videos/{video.id}"
    return video_out(video, deduplicated=known)


def _owner(here: Sop, principal: Principal, upload: Upload) -> Owner:
    try:
        label = _LABEL.validate_python(asked) if (asked := upload.fields.get("clearance")) else None
        days = _DAYS.validate_python(given) if (given := upload.fields.get("retention_days")) else None
    except ValidationError as err:
        name = "retention_days" if upload.fields.get("clearance") in {None, *_labels()} else "clearance"
        raise Invalid(f"{name}: {err.errors()[0]['msg']}", errors=[fault(name, err.errors()[0]["msg"])]) from err
    clearance = records.label_for(principal, label)
    return Owner(principal.tenant, int(clearance), principal.subject, days or here.settings.retention_days)


def _labels() -> set[str]:
    return {label.label for label in Clearance}


def _take(here: Sop, principal: Principal, upload: Upload, owner: Owner) -> tuple[Video, bool] | Job:
    """Known bytes are answered at once; small videos are ingested here; large and long ones by a job."""
    received, transcript = upload.received, upload.transcript
    if transcript is not None:  # what no reader could read is refused before a video is decoded
        transcripts.read(transcript, duration_s=math.inf)
    with here.database.read() as session:
        known = store.same_video(
            session,
            tenant=owner.tenant,
            clearance=owner.clearance,
            sha256=received.sha256,
            encoder=here.encoder.id,
        )
    if known is not None:
        return _kept_as_asked(here, known, upload, owner), True
    if received.size_bytes > here.settings.job_above_bytes:
        return _submit(here, principal, upload, owner)
    try:
        return here.ingest(received, owner, transcript=transcript)
    except VideoTooLong:
        if here.settings.job_above_s >= here.settings.max_video_s:
            raise
        return _submit(here, principal, upload, owner)


def _kept_as_asked(here: Sop, known: Video, upload: Upload, owner: Owner) -> Video:
    """Known bytes that are sent again with a retention are kept for so long from now on: whoever asks for an erasure gets it. A
    transcript that comes with them takes the place of the one before.
    """
    days = owner.retention_days if upload.fields.get("retention_days") else None
    cues = None
    if upload.transcript is not None:
        cues = transcripts.read(upload.transcript, duration_s=known.duration_s)
    if days is None and cues is None:
        return known
    with here.database.transaction() as session:
        video = session.get(Video, known.id, with_for_update=True)
        if video is None:  # erased a moment ago
            return known
        if days is not None:
            video.expires_at = utc_now() + timedelta(days=days)
        if cues is not None:
            store.set_transcript(session, video, cues)
        return video


def _submit(here: Sop, principal: Principal, upload: Upload, owner: Owner) -> Job:
    """Store the bytes, promised for erasure in case that no job ever makes a record of them, and submit the job."""
    received = upload.received
    # Equal content has one artifact, and this one goes with its job: its first line tells whose it is.
    whose = f"{owner.tenant} {owner.clearance} {received.sha256}\n".encode()
    spoken = None if upload.transcript is None else whose + upload.transcript
    spoken_key = None
    if spoken is not None:
        spoken_key = artifact_key(hashlib.sha256(spoken).hexdigest(), _TRANSCRIPT_SUFFIX)
    if (underway := _underway(here, principal, upload, owner)) is not None:
        if spoken_key not in {None, underway.params.get("transcript_key")}:
            raise Conflict(
                f"Job {underway.id} takes this video in, without this transcript: set it when the job has succeeded.",
                job_id=underway.id,
            )
        return underway
    with received.path.open("rb") as file:
        suffix = suffix_of(file.read(SNIFFED_BYTES))
    key = artifact_key(received.sha256, suffix)
    with here.database.transaction() as session:
        for each in sorted({key, spoken_key or key}):
            store.promise_erasure(session, "artifact", each, after_s=_JOB_RESERVATION_S)
    if spoken is not None:
        here.artifacts.put(spoken, suffix=_TRANSCRIPT_SUFFIX)
    if here.artifacts.put(received.path, suffix=suffix) != key:
        raise PayloadTooLarge("The upload changed while it was stored; send it again.")
    params = {
        "video_id": new_id("vid"),
        "key": key,
        "sha256": received.sha256,
        "size_bytes": received.size_bytes,
        "title": received.title,
        "clearance": Clearance(owner.clearance).label,
        "retention_days": owner.retention_days,
        "transcript_key": spoken_key,
    }
    return here.jobs.submit(
        "sop.ingest", params, principal=principal, idempotency_key=None, clearance=Clearance(owner.clearance)
    )


def _underway(here: Sop, principal: Principal, upload: Upload, owner: Owner) -> Job | None:
    """The job that takes the same bytes in already: a second one would name a record that never comes."""
    wanted = {"sha256": upload.received.sha256, "clearance": Clearance(owner.clearance).label}
    running = here.jobs.list(principal=principal, status="running", recipe="sop.ingest")
    queued = here.jobs.list(principal=principal, status="queued", recipe="sop.ingest")
    same = (job for job in (*running, *queued) if wanted.items() <= job.params.items() and not job.cancel_requested)
    return next(same, None)


@router.get("", responses=problem_responses(404))
def list_videos(here: Here, principal: Reader, limit: Limit = 50, cursor: Cursor = None) -> Page[VideoOut]:
    """The videos that you may see, newest first."""
    with here.database.read() as session:
        rows, following = records.page(session, Video, principal, limit=limit, cursor=cursor)
    return Page[VideoOut](items=[video_out(row) for row in rows], next_cursor=following)


@router.get("/{video_id}", responses=problem_responses(404))
def get_video(video_id: RecordId, here: Here, principal: Reader) -> VideoOut:
    """One video."""
    with here.database.read() as session:
        return video_out(records.get(session, Video, video_id, principal))


@router.get(
    "/{video_id}/thumbnail",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}, **problem_responses(404)},
)
def get_thumbnail(
    video_id: RecordId,
    here: Here,
    principal: Reader,
    at_s: Annotated[FiniteFloat, Query(ge=0, le=7200, description="seconds")] = 0.0,
) -> Response:
    """The kept picture nearest to a moment, as JPEG."""
    with here.database.read() as session:
        video = records.get(session, Video, video_id, principal)
    with here.artifacts.open(video.thumbnails_key) as file:
        jpeg = unpack_thumbnails(file).nearest(at_s)
    if jpeg is None:
        raise NotFound(f"Video {video_id} has no pictures.")
    return Response(jpeg, media_type="image/jpeg", headers={"cache-control": "private, max-age=86400"})


@router.get(
    "/{video_id}/content",
    response_class=FileResponse,
    responses={
        200: {"content": {media_type: {} for media_type in MEDIA_TYPES.values()}},
        206: {"description": "The part asked for.", "content": {media_type: {} for media_type in MEDIA_TYPES.values()}},
        **problem_responses(404, 416),
    },
)
def get_content(
    request: Request,
    video_id: RecordId,
    here: Here,
    principal: Reader,
    range_: Annotated[str | None, Header(alias="range", description="one range of bytes; others are ignored")] = None,
) -> FileResponse:
    """The video's bytes as they were uploaded, whole or in part, so that a player can jump."""
    with here.database.read() as session:
        video = records.get(session, Video, video_id, principal)
    if range_ is not None and not _names_a_part(range_, video.size_bytes):
        request.scope["headers"] = [each for each in request.scope["headers"] if each[0] != b"range"]
    return FileResponse(
        here.artifacts.local_path(video.video_key),
        media_type=MEDIA_TYPES[video.video_key[video.video_key.index(".") :]],
        headers={"cache-control": "private, no-store"},
    )


def _names_a_part(asked: str, size_bytes: int) -> bool:
    """Whether a Range field is one range; RFC 9110 lets a server ignore every other. Raises: RangeNotSatisfiable."""
    if (found := _RANGE.fullmatch(asked.strip())) is None:
        return False
    first, last, suffix = found.groups()
    if (first is not None and int(first) >= size_bytes) or suffix == "0":
        raise RangeNotSatisfiable(
            f"The video has {size_bytes} bytes.", headers={"Content-Range": f"bytes */{size_bytes}"}
        )
    return not last or int(first) <= int(last)


@router.delete("/{video_id}", responses=problem_responses(404, 409))
def delete_video(video_id: RecordId, here: Here, principal: Writer) -> Erased:
    """Erase a video: its record at once, then its bytes, features, pictures and vectors. 409 while it is a gold."""
    with here.database.transaction() as session:
        video = store.drop_video(session, principal, video_id)
        append_in(session, "sop.video_erased", actor=principal.subject, subject=video_id)
    here.background.submit(here.sweep)
    keys = {video.video_key, video.features_key, video.thumbnails_key}
    return Erased(id=video_id, artifacts=len(keys), vectors=video.clip_count)


def video_out(video: Video, *, deduplicated: bool = False) -> VideoOut:
    """A video as the wire shows it."""
    return VideoOut(
        id=video.id,
        clearance=clearance_label(video.clearance),
        created_at=video.created_at,
        created_by=video.created_by,
        title=video.title,
        sha256=video.sha256,
        size_bytes=video.size_bytes,
        info=VideoInfoOut.model_validate(video.info),
        encoder=video.encoder,
        sampled_frames=video.sampled_frames,
        timings_ms=video.timings_ms,
        expires_at=video.expires_at,
        indexed=video.indexed_in is not None,
        deduplicated=deduplicated,
    )
