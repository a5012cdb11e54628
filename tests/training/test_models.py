"""``/v1/models`` over HTTP, on SQLite and on Postgres: who may look, who may move an alias, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from genba_shared.artifacts import Artifacts
from genba_shared.audit import AuditLog
from genba_shared.db import Database
from genba_shared.principal import Clearance, Principal
from genba_shared.recipe import Gate, Registration
from genba_shared.registry import Registry, Version
from genba_training.app import create_app
from genba_training.settings import Settings

MODEL = "test.toy"
Signed = Callable[..., dict[str, str]]
Post = Callable[..., Any]


@pytest.fixture
def settings(settings: Settings, database_url: str) -> Settings:
    platform = settings.platform.model_copy(update={"database_url": database_url})
    return settings.model_copy(update={"platform": platform})


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings)) as client:
        yield client


@pytest.fixture
def register(settings: Settings, database: Database, tmp_path: Path) -> Callable[..., Version]:
    """``register(ndcg=0.4)``: what a job that finishes does."""
    registry = Registry(database, Artifacts(settings.platform.artifacts_url))

    def register(*, ndcg: float = 0.4, principal: Principal | None = None, **fields: Any) -> Version:
        (tmp_path / "bundle").mkdir(exist_ok=True)
        (tmp_path / "bundle" / "bundle.json").write_text(f'{{"ndcg": "{ndcg}", "code_commit": "abc"}}')
        registration = Registration(MODEL, tmp_path / "bundle", {"ndcg": ndcg}, data_hash="d1", **fields)
        with database.transaction() as session:
            return registry.register(session, registration, job_id="job_1", by="key_1", principal=principal)

    return register


@pytest.fixture
def get(client: TestClient, signed: Signed) -> Callable[..., Any]:
    """``get("/versions")``: of the toy model, as JSON."""

    def get(path: str = "", *, role: str = "viewer", **fields: Any) -> Any:
        answer = client.get(f"/v1/models/{MODEL}{path}", headers=signed(role, **fields))
        assert answer.status_code == 200, answer.text
        return answer.json()

    return get


@pytest.fixture
def post(client: TestClient, signed: Signed) -> Post:
    """``post("promote", number=1)``: the answer."""

    def post(move: str, *, role: str = "engineer", model: str = MODEL, reason: str = "because", **body: Any) -> Any:
        return client.post(f"/v1/models/{model}/{move}", json={"reason": reason, **body}, headers=signed(role))

    return post


def test_a_model_is_listed_with_its_champion_and_the_way_back(
    register: Callable[..., Version], client: TestClient, signed: Signed, get: Callable[..., Any]
) -> None:
    assert client.get("/v1/models", headers=signed("viewer")).json() == {"models": []}
    register(ndcg=0.3)
    register(ndcg=0.4)
    models = client.get("/v1/models", headers=signed("viewer")).json()["models"]
    assert models == [get()]
    assert (models[0]["name"], models[0]["newest"], models[0]["previous"]) == (MODEL, 2, 1)
    assert (models[0]["champion"]["number"], models[0]["champion"]["generation"]) == (2, 2)
    assert (models[0]["challenger"]["number"], models[0]["challenger"]["generation"]) == (None, 0)


def test_a_version_is_shown_with_its_metrics_gates_and_lineage(
    register: Callable[..., Version], get: Callable[..., Any]
) -> None:
    register(ndcg=0.4)
    register(ndcg=float("nan"), gates=(Gate("ndcg", at_least=0.5),))
    version = get("/versions/2")
    assert (version["status"], version["outcome"], version["aliases"]) == ("gate_failed", "gate_failed", [])
    assert version["metrics"] == {"ndcg": None}
    assert version["gates"] == [
        {
            "metric": "ndcg", "rule": "at_least", "bound": 0.5, "value": None, "passed": False,
            "reason": "ndcg is not a number.",
        }
    ]  # fmt: skip
    assert version["lineage"] == {"job_id": "job_1", "data_hash": "d1", "code_commit": "abc", "parent": 1}
    assert list(version["files"]) == ["bundle.json"]
    assert get("/versions/1")["aliases"] == ["champion"]
    page = get("/versions?limit=1")
    assert ([each["number"] for each in page["versions"]], page["next_before"]) == ([2], 2)
    rest = get("/versions?limit=1&before=2")
    assert ([each["number"] for each in rest["versions"]], rest["next_before"]) == ([1], None)


def test_promotion_rollback_and_clearing_are_in_the_history_and_in_the_audit_log(
    register: Callable[..., Version], get: Callable[..., Any], post: Post, database: Database
) -> None:
    register(ndcg=0.3)
    register(ndcg=0.4, promote="never")
    assert post("promote", number=2).json()["champion"]["number"] == 2
    assert post("promote", number=1, alias="challenger").json()["challenger"]["number"] == 1
    assert post("clear").json()["challenger"]["number"] is None
    back = post("rollback", generation=2, reason="bad lists").json()
    assert (back["champion"]["number"], back["champion"]["generation"], back["previous"]) == (1, 3, None)
    moves = get("/history")["moves"]
    assert [(move["kind"], move["alias"], move["to_number"]) for move in moves] == [
        ("rollback", "champion", 1), ("clear", "challenger", None), ("promote", "challenger", 1),
        ("promote", "champion", 2), ("promote", "champion", 1),
    ]  # fmt: skip
    assert (moves[0]["by"], moves[0]["reason"]) == ("key_test", "bad lists")
    assert [move["kind"] for move in get("/history?alias=champion&limit=1")["moves"]] == ["rollback"]
    log = AuditLog(database)
    assert log.verify().intact
    assert [entry.actor for entry in log.entries()] == ["key_1", *["key_test"] * 4]


def test_a_rollback_that_is_sent_twice_is_done_once(
    register: Callable[..., Version], get: Callable[..., Any], post: Post
) -> None:
    for _ in range(3):
        register()
    assert [post("rollback", generation=3).status_code for _ in range(2)] == [200, 409]
    assert get()["champion"]["number"] == 2


REFUSALS: list[tuple[str, dict[str, Any], int, str]] = [
    ("promote", {"number": 1, "generation": 1}, 409, "version-conflict"),
    ("promote", {"number": 3}, 409, "gate-not-met"),
    ("promote", {"number": 9}, 404, "not-found"),
    ("promote", {"number": 0}, 422, "invalid"),
    ("promote", {"number": True}, 422, "invalid"),
    ("promote", {"number": 2**31}, 422, "invalid"),
    ("promote", {"number": 1, "alias": "favourite"}, 422, "invalid"),
    ("promote", {"number": 1, "force": True}, 422, "invalid"),
    ("promote", {"number": 1, "reason": "  "}, 422, "invalid"),
    ("promote", {"number": 1, "reason": "a\x00b"}, 422, "invalid"),
    ("promote", {"number": 1, "model": "test.nobody"}, 404, "not-found"),
    ("promote", {"number": 1, "model": "NOBODY"}, 422, "invalid"),
    ("rollback", {}, 422, "invalid"),
    ("rollback", {"generation": 1}, 409, "version-conflict"),
    ("clear", {"alias": "champion"}, 422, "invalid"),
    ("rollback", {"generation": 2, "role": "operator"}, 403, "scope-missing"),
    ("promote", {"number": 1, "role": "reviewer"}, 403, "scope-missing"),
    ("clear", {"role": "viewer"}, 403, "scope-missing"),
]


def test_what_cannot_be_is_refused_and_moves_nothing(
    register: Callable[..., Version], post: Post, get: Callable[..., Any]
) -> None:
    """One start of the service for all of them: nothing moves, so none can depend on another."""
    register(ndcg=0.3)
    register(ndcg=0.4)
    register(ndcg=0.1, gates=(Gate("ndcg", at_least=0.2),))
    answered = []
    for move, body, _, _ in REFUSALS:
        answer = post(move, **body)
        answered.append((move, body, answer.status_code, answer.json()["type"].removeprefix("urn:genba:problem:")))
        assert get()["champion"]["generation"] == 2, (move, body)
    assert answered == REFUSALS


def test_a_missed_gate_can_be_overridden_by_who_says_so(register: Callable[..., Version], post: Post) -> None:
    register(ndcg=0.1, gates=(Gate("ndcg", at_least=0.2),))
    assert post("promote", number=1, gates="overridden").json()["champion"]["number"] == 1


def test_there_is_no_way_back_from_the_first_champion(register: Callable[..., Version], post: Post) -> None:
    register()
    answer = post("rollback", generation=1)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:genba:problem:conflict")


def test_what_a_secret_job_made_is_not_there_for_others(
    register: Callable[..., Version], get: Callable[..., Any], post: Post, principal: Callable[..., Principal],
    client: TestClient, signed: Signed,
) -> None:  # fmt: skip
    secret = {"clearance": Clearance.SECRET, "compartments": frozenset({"line_4"})}
    register(principal=principal("engineer", **secret))
    assert client.get(f"/v1/models/{MODEL}", headers=signed("admin")).status_code == 404
    assert client.get("/v1/models", headers=signed("admin")).json() == {"models": []}
    register(promote="never")
    assert get()["champion"]["number"] is None
    assert get()["newest"] == 2
    assert get(**secret)["champion"]["number"] == 1
    assert client.get(f"/v1/models/{MODEL}/versions/1", headers=signed("admin")).status_code == 404
    assert get("/history")["moves"] == []
    assert post("promote", number=1).status_code == 404


def test_the_metrics_tell_what_serves_and_how_often_it_moved(
    register: Callable[..., Version], post: Post, client: TestClient
) -> None:
    register()
    register()
    post("rollback", generation=2)
    text = client.get("/metrics").text
    assert f'genba_training_model_versions{{model="{MODEL}",status="registered"}} 2.0' in text
    assert f'genba_training_model_alias_version{{alias="champion",model="{MODEL}"}} 1.0' in text
    assert f'genba_training_model_moves_total{{alias="champion",kind="rollback",model="{MODEL}"}} 1.0' in text


def test_the_sweeper_retires_old_versions_once_an_hour(
    settings: Settings, register: Callable[..., Version], signed: Signed
) -> None:
    for ndcg in range(4):
        register(ndcg=float(ndcg))
    with TestClient(create_app(settings.model_copy(update={"keep_model_versions": 1}))) as client:
        path = f"/v1/models/{MODEL}/versions/1"
        while client.get(path, headers=signed("viewer")).json()["status"] != "retired":
            pass
        answer = client.post(
            f"/v1/models/{MODEL}/promote", json={"number": 1, "reason": "back"}, headers=signed("engineer")
        )
        assert (answer.status_code, answer.json()["type"]) == (410, "urn:genba:problem:gone")
