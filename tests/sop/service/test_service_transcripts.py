"""Transcripts beside videos: set, shown, searched, and gone with their video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, func, select

from genba_shared.principal import Clearance
from genba_sop.spoken import enter_missing
from genba_sop.tables import CueRow, CueTermRow, TranscriptRow

Service = Any  # of conftest, which tests cannot import
Films = Any

CUES = [
    (0.5, 2.5, "First the seal is broken."),
    (4.5, 6.0, "漏斗でオイルを注ぎます"),
    (6.0, 7.5, "Pour until the gauge reads forty."),
    (12.5, 14.0, "Dry every drop with the cloth."),
]


def vtt(cues: list[tuple[float, float, str]]) -> str:
    return "WEBVTT\n\n" + "\n\n".join(f"00:{s:06.3f} --> 00:{e:06.3f}\n{words}" for s, e, words in cues)


def put(service: Service, video: str, body: str | bytes, kind: str = "text/vtt", **fields: Any) -> Any:
    headers = service.headers(**fields) | {"content-type": kind}
    return service.client.put(f"/v1/sop/videos/{video}/transcript", content=body, headers=headers)


def spoken(service: Service, video: str, cues: list[tuple[float, float, str]] = CUES) -> str:
    """The video with a transcript."""
    answer = put(service, video, vtt(cues))
    assert answer.status_code == 200, answer.text
    return video


def test_a_transcript_is_set_replaced_shown_and_removed(service: Service, films: Films) -> None:
    video = service.video(films.good)
    path = f"/v1/sop/videos/{video}/transcript"
    assert service.get(path).status_code == 404
    srt = "1\n00:00:01,000 --> 00:00:02,000\n蓋を開ける\n".encode("cp932")
    assert put(service, video, srt, "application/x-subrip").json()["cues"] == [
        {"start_s": 1.0, "end_s": 2.0, "words": "蓋を開ける"}
    ]
    second = put(service, video, vtt(CUES), "text/plain").json()
    assert [cue["words"] for cue in second["cues"]] == [words for _, _, words in CUES]
    assert service.get(path).json() == second
    assert service.delete(path).status_code == 204
    assert service.get(path).status_code == 404
    assert service.delete(path).status_code == 404


def test_a_refused_transcript_leaves_the_one_before(sqlite_service: Service, films: Films) -> None:
    video = spoken(sqlite_service, sqlite_service.video(films.good))
    refused = put(sqlite_service, video, vtt([(1, 2, "a"), (30, 31, "after the end")]))
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["message"].startswith("line 6: the cue ends at 31 s")
    assert put(sqlite_service, video, "x", "application/json").status_code == 415
    assert put(sqlite_service, video, b"x" * (2 * 1024**2 + 1)).status_code == 413
    assert len(sqlite_service.get(f"/v1/sop/videos/{video}/transcript").json()["cues"]) == len(CUES)


def test_a_transcript_goes_with_its_video(service: Service, films: Films) -> None:
    video = spoken(service, service.video(films.good))
    assert service.delete(f"/v1/sop/videos/{video}").status_code == 200
    with service.sop.database.read() as session:
        for table in (CueRow, TranscriptRow, CueTermRow):
            assert session.scalar(select(func.count()).select_from(table)) == 0


def send(service: Service, path: Path, transcript: str | None, **fields: Any) -> Any:
    """An upload with its transcript, as a form."""
    files: dict[str, Any] = {"file": (path.name, path.read_bytes(), "video/mp4")}
    if transcript is not None:
        files["transcript"] = ("talk.vtt", transcript, "text/vtt")
    return service.client.post("/v1/sop/videos", files=files, data=fields, headers=service.headers())


def test_an_upload_brings_its_transcript(service: Service, films: Films) -> None:
    sent = send(service, films.good, vtt(CUES))
    assert sent.status_code == 201, sent.text
    video = sent.json()["id"]
    assert len(service.get(f"/v1/sop/videos/{video}/transcript").json()["cues"]) == len(CUES)
    assert service.post("/v1/sop/search", {"text": "broken seal"}).json()["hits"][0]["video_id"] == video
    assert send(service, films.good, None).json()["id"] == video  # known bytes without one keep what there is
    assert len(service.get(f"/v1/sop/videos/{video}/transcript").json()["cues"]) == len(CUES)
    again = send(service, films.good, vtt([(1, 2, "Only the lid.")]))
    assert (again.status_code, again.json()["id"]) == (200, video)
    assert [cue["words"] for cue in service.get(f"/v1/sop/videos/{video}/transcript").json()["cues"]] == [
        "Only the lid."
    ]
    assert service.post("/v1/sop/search", {"text": "broken seal"}).json()["hits"] == []


@pytest.mark.parametrize(
    ("transcript", "said"), [("no cue at all", "line 1"), (vtt([(1, 2, "a"), (30, 31, "after the end")]), "line 6")]
)
def test_a_video_whose_transcript_is_refused_is_not_kept(
    sqlite_service: Service, films: Films, transcript: str, said: str
) -> None:
    refused = send(sqlite_service, films.good, transcript)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["message"].startswith(said)
    assert sqlite_service.get("/v1/sop/videos").json()["items"] == []


def test_a_form_has_one_transcript_of_two_mebibytes(sqlite_service: Service, films: Films) -> None:
    film = ("file", (films.good.name, films.good.read_bytes(), "video/mp4"))
    one = ("transcript", ("talk.vtt", vtt(CUES), "text/vtt"))
    large = ("transcript", ("talk.vtt", b"x" * (2 * 1024**2 + 1), "text/vtt"))
    for parts, status in (([one, one, film], 422), ([large, film], 413)):
        answer = sqlite_service.client.post("/v1/sop/videos", files=parts, headers=sqlite_service.headers())
        assert answer.status_code == status, answer.text


def test_transcripts_from_before_there_was_an_index_are_entered(service: Service, films: Films) -> None:
    video = spoken(service, service.video(films.good))
    with service.sop.database.transaction() as session:
        session.execute(delete(TranscriptRow))
    assert service.post("/v1/sop/search", {"text": "gauge"}).json()["hits"] == []
    service.sop.sweep()
    assert service.post("/v1/sop/search", {"text": "gauge"}).json()["hits"][0]["video_id"] == video
    assert enter_missing(service.sop.database) == 0


def test_who_may_not_see_a_video_may_not_hear_it(sqlite_service: Service, films: Films) -> None:
    service = sqlite_service
    headers = service.headers(clearance=Clearance.SECRET) | {"content-type": "video/mp4"}
    made = service.client.post(
        "/v1/sop/videos", content=films.good.read_bytes(), params={"clearance": "secret"}, headers=headers
    )
    video = made.json()["id"]
    assert put(service, video, vtt(CUES), clearance=Clearance.SECRET).status_code == 200
    seal = {"text": "seal"}
    assert len(service.post("/v1/sop/search", seal, clearance=Clearance.SECRET).json()["hits"]) == 1
    for other in ({"clearance": Clearance.INTERNAL}, {"clearance": Clearance.SECRET, "tenant": "plant-2"}):
        assert put(service, video, vtt(CUES), **other).status_code == 404
        assert service.get(f"/v1/sop/videos/{video}/transcript", **other).status_code == 404
        assert service.delete(f"/v1/sop/videos/{video}/transcript", **other).status_code == 404
        assert service.post("/v1/sop/search", seal, **other).json()["hits"] == []


@pytest.mark.parametrize(("text", "cue"), [("broken seal", 0), ("オイルを注ぐ", 1), ("gauge", 2)])
def test_words_find_what_is_said_in_a_video_without_steps(service: Service, films: Films, text: str, cue: int) -> None:
    video = spoken(service, service.video(films.good))
    found = service.post("/v1/sop/search", {"text": text}).json()
    hit, (start_s, end_s, words) = found["hits"][0], CUES[cue]
    assert hit["transcript"] == {"start_s": start_s, "end_s": end_s, "words": words}
    assert (hit["video_id"], hit["start_s"], hit["end_s"], hit["source"]) == (video, start_s, end_s, "video")
    assert (hit["score"], hit["text_score"], hit["step_id"]) == (pytest.approx(1.0), 0.0, None)
    assert hit["transcript_score"] > 0
    assert found["transcript_alpha"] == 0.5


def test_a_cue_in_a_step_finds_the_step(service: Service, films: Films) -> None:
    service.procedure(films)
    gold = spoken(service, service.video(films.golds[1]))
    hit = service.post("/v1/sop/search", {"text": "gauge"}).json()["hits"][0]
    assert (hit["video_id"], hit["step_id"], hit["source"], hit["start_s"]) == (gold, "fill", "gold", 4.0)
    assert hit["transcript"]["start_s"] == 6.0


def test_step_texts_and_transcripts_are_mixed_by_transcript_alpha(service: Service, films: Films) -> None:
    service.procedure(films)
    spoken(service, service.video(films.golds[0]), [(0.5, 2.0, "Mind the funnel later on.")])
    for alpha, best in ((0.0, "fill"), (1.0, "open")):
        hits = service.post("/v1/sop/search", {"text": "funnel", "transcript_alpha": alpha}).json()["hits"]
        assert hits[0]["step_id"] == best
    both = service.post("/v1/sop/search", {"text": "funnel"}).json()["hits"]
    assert {hit["step_id"] for hit in both} == {"fill", "open"}


def test_without_transcripts_answers_are_those_of_step_texts(sqlite_service: Service, films: Films) -> None:
    sqlite_service.procedure(films)
    body = {"text": "fill the tank", "k": 50}
    before = sqlite_service.post("/v1/sop/search", body).json()
    assert before == sqlite_service.post("/v1/sop/search", body | {"transcript_alpha": 1.0}).json()
    assert before["transcript_alpha"] is None
    assert {(hit["transcript"], hit["transcript_score"]) for hit in before["hits"]} == {(None, None)}
    spoken(sqlite_service, sqlite_service.video(films.good), [(0.5, 2.0, "あいうえお")])
    assert sqlite_service.post("/v1/sop/search", body).json() == before


def test_a_transcript_in_another_script_is_no_fault_of_the_search(sqlite_service: Service, films: Films) -> None:
    spoken(sqlite_service, sqlite_service.video(films.good), [(0.5, 2.0, "Откройте крышку.")])
    assert sqlite_service.post("/v1/sop/search", {"text": "lid"}).json()["hits"] == []
    assert not sqlite_service.post("/v1/sop/ask", {"question": "Where is the lid?"}).json()["found"]


def test_a_procedures_search_hears_its_own_videos_only(sqlite_service: Service, films: Films) -> None:
    procedure = sqlite_service.procedure(films)
    spoken(sqlite_service, sqlite_service.video(films.good))
    body = {"text": "gauge", "procedure_id": procedure}
    assert sqlite_service.post("/v1/sop/search", body).json()["hits"] == []
    gold = spoken(sqlite_service, sqlite_service.video(films.golds[2]))
    hits = sqlite_service.post("/v1/sop/search", body).json()["hits"]
    assert (hits[0]["video_id"], hits[0]["transcript"]["words"]) == (gold, CUES[2][2])
    assert {(hit["step_id"], hit["source"]) for hit in hits} == {("fill", "gold")}


def test_what_is_said_in_one_performance_of_a_step_finds_the_others_behind_it(service: Service, films: Films) -> None:
    service.procedure(films)
    service.video(films.good)  # no step of it is known, and nothing is said in it
    gold = spoken(service, service.video(films.golds[1]), [(4.5, 6.0, "Pour until the gauge reads forty.")])
    hits = service.post("/v1/sop/search", {"text": "gauge"}).json()["hits"]
    assert hits[0]["video_id"] == gold
    assert [(hit["step_id"], hit["score"], hit["transcript"]) for hit in hits[1:]] == [
        ("fill", pytest.approx(0.5), None),
        ("fill", pytest.approx(0.5), None),
    ]


def test_a_clip_with_words_prefers_clips_in_which_they_are_said(service: Service, films: Films) -> None:
    asked = service.video(films.good)
    spoken(service, service.video(films.golds[0]))
    body = {"text": "gauge forty", "clip": {"video_id": asked, "start_s": 4.5, "end_s": 7.5}, "alpha": 0.3}
    hit = service.post("/v1/sop/search", body).json()["hits"][0]
    assert hit["transcript"]["words"] == CUES[2][2]
    assert hit["clip_score"] > 0.5
