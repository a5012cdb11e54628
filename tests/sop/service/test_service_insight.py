"""Reviews, calibration, search and analytics through the service."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update

from genba_shared.principal import Clearance
from genba_sop.tables import EvaluationRow, Video

Service = Any  # of conftest, which tests cannot import
Films = Any


def review(service: Service, evaluation: str, verdict: str, *, subject: str, score: float | None = None) -> Any:
    body = {"verdict": verdict, "reason": "looked at it twice", "score": score}
    return service.post(f"/v1/sop/evaluations/{evaluation}/review", body, subject=subject)


def test_a_review_overrides_the_verdict_and_keeps_the_machines(service: Service, films: Films) -> None:
    made = service.evaluation(service.procedure(films), service.video(films.skipped))["id"]
    path = f"/v1/sop/evaluations/{made}"
    body = {"verdict": "pass", "reason": "The lid was closed off camera.", "score": 91.5,
            "deviations": [{"index": 0, "confirmed": False}]}  # fmt: skip
    first = service.post(f"{path}/review", body, subject="anna")
    assert first.status_code == 201
    assert service.get(path).json()["verdict"] == "fail"
    assert service.get(path).json()["reviewed_verdict"] == "pass"
    review(service, made, "fail", subject="ben")
    assert service.get(path).json()["reviewed_verdict"] == "fail"
    history = service.get(f"{path}/reviews").json()
    assert [(each["reviewer"], each["verdict"]) for each in history] == [("anna", "pass"), ("ben", "fail")]
    assert history[0] == first.json()
    page = service.get(f"{path}/report").text
    assert "The lid was closed off camera." in page
    assert "✗" in page


def test_a_review_needs_a_reason_and_deviations_that_exist(service: Service, films: Films) -> None:
    made = service.evaluation(service.procedure(films), service.video(films.good))["id"]
    path = f"/v1/sop/evaluations/{made}/review"
    assert service.post(path, {"verdict": "pass"}).json()["errors"][0]["field"] == "reason"
    body = {"verdict": "pass", "reason": "fine", "deviations": [{"index": 40, "confirmed": True}]}
    assert service.post(path, body).json()["errors"][0]["field"] == "deviations[0].index"
    assert service.get(f"/v1/sop/evaluations/{made}").json()["reviewed_verdict"] is None


def test_nobody_reviews_themselves(service: Service, films: Films) -> None:
    made = service.evaluation(service.procedure(films), service.video(films.good), operator="anna")["id"]
    assert review(service, made, "pass", subject="anna").status_code == 409


def test_agreement_counts_each_reviewers_latest_word(service: Service, films: Films) -> None:
    procedure, good, skipped = service.procedure(films), service.video(films.good), service.video(films.skipped)
    for video, verdicts in ((good, ("pass", "pass")), (skipped, ("fail", "pass")), (skipped, ("fail", "fail"))):
        made = service.evaluation(procedure, video)["id"]
        review(service, made, verdicts[0], subject="anna")
        review(service, made, "fail", subject="ben")
        review(service, made, verdicts[1], subject="ben")
    found = service.get(f"/v1/sop/reviews/agreement?procedure_id={procedure}").json()
    assert found["evaluations_reviewed_twice"] == 3
    assert found["percent_agreement"] == pytest.approx(2 / 3)
    assert found["krippendorff_alpha"] == pytest.approx(1 - 5 * 2 / 18)
    assert found["machine_agreement"] == pytest.approx(2 / 3)


def taught(service: Service, procedure: str, video: str) -> tuple[Any, Any]:
    """The same video scored before and after ten reviews that give it four points less."""
    before = service.evaluation(procedure, video)
    for n in range(10):
        made = service.evaluation(procedure, video)["id"]
        review(service, made, "fail", subject=f"r{n}", score=before["score"] - 4)
    return before, service.evaluation(procedure, video)


def test_reviewers_scores_calibrate_the_next_evaluation(service: Service, films: Films) -> None:
    procedure, video = service.procedure(films), service.video(films.skipped)
    first, found = taught(service, procedure, video)
    assert found["interval"]["low"] == pytest.approx(first["score"] - 4, abs=0.01)
    assert found["interval"]["high"] == pytest.approx(first["score"] + 4, abs=0.01)
    assert not found["interval"]["calibrated"]  # an interval needs 9 reviews, a curve 30


def test_scores_learn_nothing_from_reviews_of_evaluations_above_their_own_label(service: Service, films: Films) -> None:
    procedure, video = service.procedure(films), service.video(films.skipped)
    before, learnt = taught(service, procedure, video)
    with service.sop.database.transaction() as session:
        session.execute(update(EvaluationRow).values(clearance=int(Clearance.SECRET)))
    after = service.evaluation(procedure, video)
    assert after["interval"] == before["interval"] != learnt["interval"]


@pytest.mark.parametrize("text", ["lid", "funnel", "fill tank", "蓋を閉める", "タンク", "tanks"])
def test_text_finds_steps_in_both_languages_with_their_places(sqlite_service: Service, films: Films, text: str) -> None:
    sqlite_service.procedure(films)
    found = sqlite_service.post("/v1/sop/search", {"text": text, "k": 3}).json()
    assert (found["encoder"], found["fusion"]) == (None, "none")
    expected = {"lid": {"open", "close"}, "蓋を閉める": {"close"}}.get(text, {"fill"})
    assert found["hits"][0]["step_id"] in expected
    assert found["hits"][0]["source"] == "gold"
    assert found["hits"][0]["end_s"] - found["hits"][0]["start_s"] == pytest.approx(4.0)


def test_a_clip_finds_the_same_step_elsewhere_and_names_the_encoder(service: Service, films: Films) -> None:
    procedure = service.procedure(films)
    video = service.video(films.good)
    found = service.post("/v1/sop/search", {"clip": {"video_id": video, "start_s": 12.5, "end_s": 15.5}, "k": 4}).json()
    assert found["encoder"] == "motion-hog-v1"
    assert found["collection_version"] == "motion-hog-v1-1"
    others = [hit for hit in found["hits"] if hit["video_id"] != video]
    assert others[0]["step_id"] == "wipe"
    assert others[0]["procedure_id"] == procedure
    assert 0.5 < others[0]["clip_score"] <= 1.0


def test_text_and_clip_are_mixed_by_alpha(service: Service, films: Films) -> None:
    service.procedure(films)
    clip = {"video_id": service.video(films.good), "start_s": 12.5, "end_s": 15.5}
    by_text = service.post("/v1/sop/search", {"text": "fill the tank", "clip": clip, "alpha": 0.0}).json()
    by_clip = service.post("/v1/sop/search", {"text": "fill the tank", "clip": clip, "alpha": 1.0}).json()
    assert by_text["fusion"] == by_clip["fusion"] == "convex"
    assert by_text["hits"][0]["step_id"] == "fill"
    assert by_clip["hits"][0]["step_id"] in {"wipe", None}


def test_a_clip_of_another_encoder_is_a_409(service: Service, films: Films) -> None:
    video = service.video(films.good)
    with service.sop.database.transaction() as session:
        session.execute(update(Video).values(encoder="openclip:ViT-B-32"))
    answer = service.post("/v1/sop/search", {"clip": {"video_id": video}})
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:genba:problem:encoder-mismatch")


def test_a_search_that_asks_nothing_or_a_clip_outside_its_video_is_a_422(sqlite_service: Service, films: Films) -> None:
    assert sqlite_service.post("/v1/sop/search", {}).status_code == 422
    clip = {"video_id": sqlite_service.video(films.good), "start_s": 500, "end_s": 501}
    answer = sqlite_service.post("/v1/sop/search", {"clip": clip})
    assert answer.json()["errors"][0]["field"] == "clip.start_s"


def test_evaluated_videos_are_found_as_well_and_erased_ones_no_more(service: Service, films: Films) -> None:
    procedure, video = service.procedure(films), service.video(films.good)
    service.evaluation(procedure, video)
    hits = service.post("/v1/sop/search", {"text": "wipe", "k": 50}).json()["hits"]
    assert (video, "evaluation") in {(hit["video_id"], hit["source"]) for hit in hits}
    service.delete(f"/v1/sop/videos/{video}")
    hits = service.post("/v1/sop/search", {"text": "wipe", "k": 50}).json()["hits"]
    assert video not in {hit["video_id"] for hit in hits}


def test_an_evaluated_video_that_was_a_gold_of_an_older_version_is_found(service: Service, films: Films) -> None:
    procedure, trainee = service.procedure(films), service.video(films.good)
    path = f"/v1/sop/procedures/{procedure}"
    service.post(f"{path}/golds", {"video_id": trainee}).raise_for_status()
    document = {key: service.get(path).json()[key] for key in ("title", "steps")}
    document["steps"].append({"id": "sign"})  # no gold shows it yet
    golds = [{"video": gold["video_id"], "steps": [*gold["steps"][:3], {**gold["steps"][3], "end_s": 15}]}
             for gold in service.get(path).json()["golds"][:3]]  # fmt: skip
    for gold in golds:
        gold["steps"].append({"id": "sign", "start_s": 15, "end_s": 16})
    answer = service.client.put(path, json={**document, "golds": golds}, headers=service.headers() | {"if-match": "*"})
    assert trainee not in {gold["video_id"] for gold in answer.json()["golds"]}, answer.text
    service.evaluation(procedure, trainee)
    hits = service.post("/v1/sop/search", {"text": "fill the tank", "procedure_id": procedure}).json()["hits"]
    assert ("evaluation", trainee) in {(hit["source"], hit["video_id"]) for hit in hits}


def test_analytics_count_times_and_chart_operators(service: Service, films: Films) -> None:
    procedure, good, skipped = service.procedure(films), service.video(films.good), service.video(films.skipped)
    for n in range(8):
        service.evaluation(procedure, good if n else skipped, operator="op-1")
    found = service.get(f"/v1/sop/analytics?procedure_id={procedure}").json()
    assert found["evaluations"] == 8
    assert found["verdicts"] == {"pass": 7, "fail": 1}
    close = next(step for step in found["steps"] if step["step_id"] == "close")
    assert (close["performed"], close["missing"]) == (7, 1)
    assert close["median_s"] == pytest.approx(4.0, abs=0.6)
    assert close["gold_median_s"] == pytest.approx(4.0, abs=0.3)
    trend = found["operators"][0]
    assert (trend["operator"], len(trend["points"])) == ("op-1", 8)
    assert trend["lower_limit"] < trend["centre"] < trend["upper_limit"]
    assert [point["beyond_limits"] for point in trend["points"]] == [True] + [False] * 7


def test_time_saved_is_told_only_from_the_customers_own_figures(sqlite_service: Service, films: Films) -> None:
    sqlite_service.evaluation(sqlite_service.procedure(films), sqlite_service.video(films.good))
    assert sqlite_service.get("/v1/sop/analytics").json()["time_saved"] is None
    saved = sqlite_service.get("/v1/sop/analytics?manual_minutes=30&hourly_cost=60").json()["time_saved"]
    assert (saved["manual_hours"], saved["saved_cost"]) == (0.5, 30.0)
    assert sqlite_service.get("/v1/sop/analytics?since=2020-01-01").status_code == 422
    assert sqlite_service.get("/v1/sop/analytics?until=2020-01-01T00:00:00Z").json()["evaluations"] == 0


def test_analytics_follow_the_reviewers_verdict(service: Service, films: Films) -> None:
    made = service.evaluation(service.procedure(films), service.video(films.skipped))["id"]
    review(service, made, "pass", subject="anna")
    assert service.get("/v1/sop/analytics").json()["verdicts"] == {"pass": 1}
    with service.sop.database.read() as session:
        assert session.get(EvaluationRow, made).verdict == "fail"
