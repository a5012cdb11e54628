"""Who may do what, and who may see what: every route by role, every record by tenant and clearance."""

from __future__ import annotations

from typing import Any

import pytest

from genba_shared.principal import Clearance

Service = Any  # of conftest, which tests cannot import
Films = Any

NOWHERE = "vid_00000000000000000000000000"
READS = [
    "/v1/sop/videos",
    f"/v1/sop/videos/{NOWHERE}",
    f"/v1/sop/videos/{NOWHERE}/thumbnail",
    f"/v1/sop/videos/{NOWHERE}/content",
    f"/v1/sop/videos/{NOWHERE}/transcript",
    "/v1/sop/procedures",
    "/v1/sop/procedures/proc_0",
    "/v1/sop/procedures/proc_0/golds",
    "/v1/sop/evaluations",
    "/v1/sop/evaluations/eval_0",
    "/v1/sop/evaluations/eval_0/report",
    "/v1/sop/evaluations/eval_0/report.pdf",
    "/v1/sop/evaluations/eval_0/reviews",
    "/v1/sop/reviews/agreement",
    "/v1/sop/analytics",
]
STEPS = {"title": "t", "steps": [{"id": "a"}]}
WRITES: list[tuple[str, str, Any]] = [
    ("POST", "/v1/sop/procedures", STEPS),
    ("PUT", "/v1/sop/procedures/proc_0", STEPS),
    ("DELETE", "/v1/sop/procedures/proc_0", None),
    ("POST", "/v1/sop/procedures/proc_0/golds", {"video_id": NOWHERE}),
    ("PUT", "/v1/sop/procedures/proc_0/golds/gold_0", {"steps": [{"id": "a", "start_s": 0, "end_s": 1}]}),
    ("DELETE", "/v1/sop/procedures/proc_0/golds/gold_0", None),
    ("DELETE", f"/v1/sop/videos/{NOWHERE}", None),
    ("PUT", f"/v1/sop/videos/{NOWHERE}/transcript", None),
    ("DELETE", f"/v1/sop/videos/{NOWHERE}/transcript", None),
    ("POST", "/v1/sop/evaluations", {"procedure_id": "proc_0", "video_id": NOWHERE}),
    ("POST", "/v1/sop/evaluations/batch", {"procedure_id": "proc_0", "videos": [{"video_id": NOWHERE}]}),
]
REVIEW = ("POST", "/v1/sop/evaluations/eval_0/review", {"verdict": "pass", "reason": "looked at it"})


def call(service: Service, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
    extra = {"idempotency-key": "k", "if-match": "*"}
    return service.client.request(method, path, json=body, headers=headers | extra)


def test_every_route_of_the_service_stands_in_this_matrix(sqlite_service: Service) -> None:
    """A route that is added without a row here fails."""
    paths = sqlite_service.client.app.openapi()["paths"]
    named = {(method, _template(path)) for method, path, _ in [*WRITES, REVIEW]}
    named |= {("GET", _template(path)) for path in READS}
    named |= {
        ("POST", "/v1/sop/videos"),
        ("POST", "/v1/sop/search"),
        ("POST", "/v1/sop/ask"),
        ("POST", "/v1/sop/embed"),
        ("GET", _template("/v1/sop/evaluations/eval_0/report.x")),
    }
    there = {(method.upper(), _template(path)) for path, found in paths.items() for method in found}
    assert there == named


def _template(path: str) -> str:
    return "/".join(
        "*" if "{" in part or "_0" in part or part.startswith("report.") else part for part in path.split("/")
    )


def test_nobody_gets_in_without_a_signed_principal(sqlite_service: Service) -> None:
    for path in READS:
        assert sqlite_service.client.get(path).status_code == 401
    for method, path, body in [*WRITES, REVIEW]:
        assert call(sqlite_service, method, path, body, {}).status_code == 401


@pytest.mark.parametrize(
    ("role", "reads", "writes", "reviews"),
    [
        ("viewer", True, False, False),
        ("operator", True, True, False),
        ("reviewer", True, False, True),
        ("engineer", True, True, True),
        ("auditor", False, False, False),
        ("admin", True, True, True),
    ],
)
def test_a_role_may_do_what_the_table_says(
    sqlite_service: Service, *, role: str, reads: bool, writes: bool, reviews: bool
) -> None:
    headers = sqlite_service.signed(role)
    for path in READS:
        assert (sqlite_service.client.get(path, headers=headers).status_code != 403) == reads, path
    search = sqlite_service.client.post("/v1/sop/search", json={"text": "lid"}, headers=headers)
    assert (search.status_code != 403) == reads
    asked = sqlite_service.client.post("/v1/sop/ask", json={"question": "lid"}, headers=headers)
    assert (asked.status_code != 403) == reads
    for method, path, body in WRITES:
        assert (call(sqlite_service, method, path, body, headers).status_code != 403) == writes, path
    upload = sqlite_service.client.post("/v1/sop/videos", content=b"x", headers=headers | {"content-type": "video/mp4"})
    assert (upload.status_code != 403) == writes
    assert (call(sqlite_service, *REVIEW, headers).status_code != 403) == reviews


def test_another_tenant_sees_nothing(service: Service, films: Films) -> None:
    procedure, video = service.procedure(films), service.video(films.good)
    made = service.evaluation(procedure, video, operator="op-1")["id"]
    other = {"tenant": "plant-2"}
    for path in (
        f"/v1/sop/videos/{video}",
        f"/v1/sop/videos/{video}/thumbnail",
        f"/v1/sop/procedures/{procedure}",
        f"/v1/sop/procedures/{procedure}/golds",
        f"/v1/sop/evaluations/{made}",
        f"/v1/sop/evaluations/{made}/report",
        f"/v1/sop/evaluations/{made}/reviews",
    ):
        assert service.get(path).status_code == 200, path
        assert service.get(path, **other).status_code == 404, path
    for path in ("videos", "procedures", "evaluations"):
        assert service.get(f"/v1/sop/{path}", **other).json()["items"] == []
    assert service.get("/v1/sop/analytics", **other).json()["evaluations"] == 0
    assert service.post("/v1/sop/search", {"text": "lid"}, **other).json()["hits"] == []
    clip = {"clip": {"video_id": service.video(films.good, **other)}}
    assert service.post("/v1/sop/search", clip, **other).json()["hits"] == []
    assert service.delete(f"/v1/sop/videos/{video}", **other).status_code == 404
    body = {"procedure_id": procedure, "video_id": video}
    assert service.post("/v1/sop/evaluations", body, key="other", **other).status_code == 404


def test_a_record_above_the_callers_clearance_does_not_exist_for_them(service: Service, films: Films) -> None:
    procedure = service.procedure(films)
    cleared = {"clearance": Clearance.SECRET}
    headers = service.headers(**cleared) | {"content-type": "video/mp4"}
    made = service.client.post(
        "/v1/sop/videos", content=films.good.read_bytes(), params={"clearance": "secret"}, headers=headers
    )
    video = made.json()["id"]
    body = {"procedure_id": procedure, "video_id": video}
    evaluation = service.post("/v1/sop/evaluations", body, key="k", **cleared).json()
    assert evaluation["clearance"] == "secret"  # the higher of procedure and video
    assert service.get(f"/v1/sop/videos/{video}").status_code == 404
    assert service.get(f"/v1/sop/evaluations/{evaluation['id']}").status_code == 404
    assert service.get("/v1/sop/evaluations").json()["items"] == []
    assert service.post("/v1/sop/evaluations", body, key="mine").status_code == 404
    found = service.post("/v1/sop/search", {"text": "lid"}).json()["hits"]
    assert video not in {hit["video_id"] for hit in found}


def test_who_may_not_see_a_procedure_is_not_told_its_id_by_a_gold_of_it(sqlite_service: Service, films: Films) -> None:
    service, video = sqlite_service, sqlite_service.video(films.good)
    gold = {"video": video, "steps": [{"id": "a", "start_s": 0.0, "end_s": 1.0}]}
    body = {**STEPS, "clearance": "secret", "golds": [gold]}
    procedure = service.post("/v1/sop/procedures", body, clearance=Clearance.SECRET).json()["id"]
    refused = service.delete(f"/v1/sop/videos/{video}")
    assert (refused.status_code, refused.json()["procedures"]) == (409, [])
    assert procedure not in refused.text
    refused = service.delete(f"/v1/sop/videos/{video}", clearance=Clearance.SECRET)
    assert (refused.status_code, refused.json()["procedures"]) == (409, [procedure])


def test_nobody_labels_above_their_own_clearance(service: Service, films: Films) -> None:
    assert service.upload(films.good, clearance="secret").status_code == 403
    answer = service.post("/v1/sop/procedures", {**STEPS, "clearance": "secret"})
    assert (answer.status_code, answer.json()["type"]) == (403, "urn:genba:problem:clearance-too-low")
    made = service.post("/v1/sop/procedures", STEPS, clearance=Clearance.PUBLIC)
    assert made.json()["clearance"] == "public"
