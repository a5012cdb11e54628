"""Label Studio's own documents, as its releases send them, get the answers that they expect; annotations become reviews."""

from __future__ import annotations

from typing import Any

import pytest

from genba_sem import label_studio
from genba_sem.label_studio import BadConfig, control_of

Service = Any  # of conftest, which tests cannot import

CONFIG = """<View>
  <Image name="image" value="$image"/>
  <Choices name="choice" toName="image">
    <Choice value="needle" /><Choice value="円盤"/><Choice value="Other" alias="unknown"/>
  </Choices>
</View>"""


def prepared(service: Service) -> tuple[str, str, str]:
    """Two labels and a particle that is held for the first; their ids."""
    needle, disc = service.label("Needle", "針状"), service.label("Disc", "円盤")
    [particle] = service.classified(
        [[1, 0]], needle, in_queue=True, status="needs_review", reasons=["low_confidence"], confidence=0.625
    )
    return needle, disc, particle


def predict_request(particle: str, *, task_id: int = 19) -> dict[str, Any]:
    """As label_studio.ml.api_connector sends it."""
    return {
        "tasks": [
            {
                "id": task_id,
                "data": {"image": f"https://genba.example/v1/sem/particles/{particle}/views/0/picture"},
                "meta": {}, "created_at": "2026-11-20T10:00:00.000000Z", "updated_at": "2026-11-20T10:00:00.000000Z",
                "is_labeled": False, "overlap": 1, "inner_id": 1, "total_annotations": 0, "cancelled_annotations": 0,
                "total_predictions": 0, "project": 2, "annotations": [], "predictions": [],
            },
            {"id": 20, "data": {"text": "not ours"}},
        ],
        "model_version": None,
        "project": "2.1669290681",
        "label_config": CONFIG,
        "params": {"login": None, "password": None, "context": None},
    }  # fmt: skip


def webhook_request(choices: list[str], *, action: str = "ANNOTATION_CREATED", **fields: Any) -> dict[str, Any]:
    """As the reference of webhook events shows it: the annotation names its task and nothing of the data."""
    result = [{"value": {"choices": choices}, "id": "WArqkkifYE", "from_name": "choice", "to_name": "image",
               "type": "choices", "origin": "manual"}]  # fmt: skip
    annotation = {
        "id": 17, "result": result if choices else [], "was_cancelled": False, "ground_truth": False,
        "created_at": "2021-08-17T13:52:48.536303Z", "updated_at": "2021-08-17T13:52:48.536370Z", "lead_time": 37.13,
        "prediction": {}, "result_count": 0, "task": 19, "completed_by": 1, **fields,
    }  # fmt: skip
    project = {"id": 2, "title": "New Project #2", "description": "", "label_config": CONFIG, "created_by": 1}
    return {"action": action, "annotation": annotation, "project": project}


def test_health_and_setup_answer_as_label_studio_asks(service: Service) -> None:
    health = service.get("/v1/sem/label-studio/health", "viewer")
    assert (health.status_code, health.json()["status"]) == (200, "UP")
    body = {"project": "2.1669290681", "schema": CONFIG, "hostname": "http://ls:8080", "access_token": "x"}
    setup = service.post("/v1/sem/label-studio/setup", {**body, "extra_params": None}, "viewer")
    assert (setup.status_code, setup.json()) == (200, {"model_version": "masters"})


def test_predictions_have_the_form_and_order_of_the_tasks(service: Service) -> None:
    _, _, particle = prepared(service)
    answer = service.post("/v1/sem/label-studio/predict", predict_request(particle), "viewer")
    assert answer.status_code == 200, answer.text
    ours, other = answer.json()["results"]
    assert ours == {
        "model_version": "masters",
        "score": 0.625,
        "result": [
            {
                "from_name": "choice",
                "to_name": "image",
                "type": "choices",
                "value": {"choices": ["needle"]},
                "score": 0.625,
            }
        ],
    }
    assert other == {"model_version": "masters", "score": 0.0, "result": []}


def test_an_annotation_comes_back_as_a_review_by_whoever_made_it(service: Service) -> None:
    _, disc, particle = prepared(service)
    service.post("/v1/sem/label-studio/predict", predict_request(particle))
    answer = service.post("/v1/sem/label-studio/webhook", webhook_request(["円盤"]))
    assert (answer.status_code, answer.json()["status"]) == (201, "ok")
    assert answer.json()["result"]["settled"] is True
    found = service.get(f"/v1/sem/particles/{particle}").json()
    assert (found["label"]["id"], found["status"]) == (disc, "reviewed")
    [review] = service.get("/v1/sem/reviews/history").json()["items"]
    assert (review["source"], review["seconds"]) == ("label_studio", 37.13)
    assert review["reviewer"] == "key_test/label-studio:1"


def test_the_label_is_found_among_what_else_was_chosen(service: Service) -> None:
    _, disc, particle = prepared(service)
    service.post("/v1/sem/label-studio/predict", predict_request(particle))
    body = webhook_request(["円盤"])
    quality = body["annotation"]["result"][0] | {"from_name": "quality", "value": {"choices": ["blurred"]}}
    body["annotation"]["result"].insert(0, quality)
    assert service.post("/v1/sem/label-studio/webhook", body).status_code == 201
    assert service.get(f"/v1/sem/particles/{particle}").json()["label"]["id"] == disc


def test_newer_releases_bring_the_task_and_an_update_counts_as_the_latest_word(service: Service) -> None:
    needle, _, particle = prepared(service)
    body = webhook_request(["円盤"]) | {"task": {"id": 5, "data": {"particle_id": particle}}}
    assert service.post("/v1/sem/label-studio/webhook", body).status_code == 201
    body = webhook_request(["needle"], action="ANNOTATION_UPDATED") | {
        "task": {"id": 5, "data": {"particle_id": particle}}
    }
    assert service.post("/v1/sem/label-studio/webhook", body).status_code == 201
    assert service.get(f"/v1/sem/particles/{particle}").json()["label"]["id"] == needle


def test_what_is_no_review_is_passed_over_with_a_word(service: Service) -> None:
    _, _, particle = prepared(service)
    service.post("/v1/sem/label-studio/predict", predict_request(particle))
    for body, said in (
        ({"action": "PROJECT_UPDATED", "project": {"id": 2}}, None),
        ({"action": "SOMETHING_NEW"}, None),
        ({"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 17}], "project": {"id": 2}}, None),
        (webhook_request([]), "skipped"),
        (webhook_request(["needle"], was_cancelled=True), "skipped"),
        (webhook_request(["zebra"]), "no label 'zebra'"),
        (webhook_request(["needle"], task=999), "no particle"),
    ):
        answer = service.post("/v1/sem/label-studio/webhook", body)
        assert answer.status_code == 200, answer.text
        assert said is None or said in answer.json()["result"]["passed_over"]
    assert service.post("/v1/sem/label-studio/webhook", {}).status_code == 422
    assert service.get("/v1/sem/reviews/history").json()["items"] == []
    none = service.post("/v1/sem/label-studio/webhook", webhook_request(["unknown"]))
    assert none.status_code == 201
    assert service.get(f"/v1/sem/particles/{particle}").json()["label"] is None


def test_the_queue_can_be_imported_as_tasks_and_its_config_is_understood(service: Service) -> None:
    needle, disc, particle = prepared(service)
    made = service.get("/v1/sem/label-studio/tasks", params={"address": "https://genba.example"}).json()
    [task] = made["tasks"]
    assert task["data"]["particle_id"] == particle
    control = control_of(made["label_config"])
    assert set(control.choices) == {needle, disc, "unknown"}
    body = {"tasks": [{"id": 1, **task}], "project": 7, "label_config": made["label_config"]}
    [result] = service.post("/v1/sem/label-studio/predict", body).json()["results"]
    assert result["result"][0]["value"] == {"choices": [needle]}
    webhook = webhook_request([disc], task=1) | {"project": {"id": 7}}
    assert service.post("/v1/sem/label-studio/webhook", webhook).status_code == 201


@pytest.mark.parametrize(
    "config", ["<View>", "<View><Text name='t'/></View>", "<!DOCTYPE x [<!ENTITY a 'b'>]><View/>", "x" * 300_000]
)
def test_a_config_that_offers_no_choices_is_refused(config: str) -> None:
    with pytest.raises(BadConfig):
        control_of(config)


def test_reviews_by_webhook_need_the_reviewers_scope(sqlite_service: Service) -> None:
    answer = sqlite_service.post("/v1/sem/label-studio/webhook", webhook_request(["needle"]), "operator")
    assert answer.status_code == 403
    assert label_studio.project_of({"id": 3}) == label_studio.project_of("3.1669") == label_studio.project_of(3) == "3"
