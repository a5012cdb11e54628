"""``/v1/sop/videos/{video_id}/transcript``: what is said in a video, from a WebVTT or SubRip file beside it."""

from __future__ import annotations

from dataclasses import asdict
from io import BytesIO
from typing import Any, Final

from fastapi import APIRouter, Request, status
from fastapi.concurrency import run_in_threadpool

from genba_shared import records
from genba_shared.audit import append_in
from genba_shared.forms import Landing, check_length, content_type, read_raw
from genba_shared.principal import Principal
from genba_shared.problems import NotFound, UnsupportedMedia
from genba_shared.service import problem_responses
from genba_shared.wire_records import RecordId
from genba_sop import store, transcripts
from genba_sop.routes_videos import Reader, Writer
from genba_sop.schemas import CueOut, TranscriptOut
from genba_sop.service import Here, Sop
from genba_sop.tables import Video

router = APIRouter(prefix="/v1/sop/videos/{video_id}/transcript", tags=["sop videos"])

_WHAT: Final = "A transcript"
_TAKEN: Final = ("text/vtt", "application/x-subrip", "text/plain")
_BODY: Final[dict[str, Any]] = {
    "requestBody": {"required": True, "content": {kind: {"schema": {"type": "string"}} for kind in _TAKEN}}
}


@router.put("", openapi_extra=_BODY, responses=problem_responses(404, 408, 413, 415))
async def put_transcript(video_id: RecordId, request: Request, here: Here, principal: Writer) -> TranscriptOut:
    """Set a video's transcript in place of the one it may have: WebVTT or SubRip, told apart by content, in UTF-8 or
    Shift_JIS, at most 2 MiB. Cues are in order and inside the video, give or take a second; 422 names the line that is not.
    """
    kind = content_type(request).get_content_type()
    if kind not in _TAKEN:
        raise UnsupportedMedia(f"{kind} is not taken: send {', '.join(_TAKEN)}.", sent=kind, taken=[*_TAKEN])
    check_length(request, _WHAT, cap_bytes=transcripts.MOST_BYTES)
    body = BytesIO()
    await read_raw(request, Landing(body, _WHAT, transcripts.MOST_BYTES))
    return await run_in_threadpool(_set, here, principal, video_id, body.getvalue())


def _set(here: Sop, principal: Principal, video_id: str, body: bytes) -> TranscriptOut:
    with here.database.read() as session:
        duration_s = records.get(session, Video, video_id, principal).duration_s
    cues = transcripts.read(body, duration_s=duration_s)
    with here.database.transaction() as session:
        store.set_transcript(session, records.get(session, Video, video_id, principal, lock=True), cues)
    return _out(video_id, cues)


@router.get("", responses=problem_responses(404))
def get_transcript(video_id: RecordId, here: Here, principal: Reader) -> TranscriptOut:
    """A video's transcript. 404 when it has none."""
    with here.database.read() as session:
        records.get(session, Video, video_id, principal)
        cues = store.transcript_of(session, video_id)
    if not cues:
        raise _none(video_id)
    return _out(video_id, cues)


@router.delete("", status_code=status.HTTP_204_NO_CONTENT, responses=problem_responses(404))
def delete_transcript(video_id: RecordId, here: Here, principal: Writer) -> None:
    """Erase a video's transcript; the video stays."""
    with here.database.transaction() as session:
        records.get(session, Video, video_id, principal, lock=True)
        if not store.drop_transcript(session, video_id):
            raise _none(video_id)
        append_in(session, "sop.transcript_erased", actor=principal.subject, subject=video_id)


def _none(video_id: str) -> NotFound:
    return NotFound(f"Video {video_id} has no transcript.")


def _out(video_id: str, cues: list[transcripts.Cue]) -> TranscriptOut:
    return TranscriptOut(video_id=video_id, cues=[CueOut(**asdict(cue)) for cue in cues])
