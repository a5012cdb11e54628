"""What people decide comes back: as calibration of the gate that decides, through a job, a version and its gates."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from tests.llm.run_world import local_run
from tests.llm.service.conftest import Headers, Service, running

from genba_llm.compositions import Amounts, compose
from genba_llm.fusion import Fusion
from genba_llm.settings import Settings
from genba_llm.training import RECIPES
from genba_llm.training_review import GateReviewParams, gate_review
from genba_llm.verdict import Decision
from genba_shared.artifacts import Artifacts
from genba_shared.principal import Clearance, Principal
from genba_shared.problems import Conflict
from genba_shared.recipe import Result, Run
from genba_shared.registry import Registry
from genba_shared.settings import Platform

BOSS: dict[str, Any] = {"subject": "key_boss"}
ROWS = compose(77, Amounts().scaled(0.01))


def ask_and_decide(service: Service, *, most: int) -> int:
    """Real requests in both languages; a person decides whatever is queued as the generator labelled it. How many were."""
    decided = 0
    for row in ROWS[:most]:
        found = service.post("triage", {"text": row.text}).json()
        for item in service.get("escalations?status=open").json()["items"]:
            outcome = "ALLOW" if row.decision is Decision.ALLOW else "REFUSE"
            body = {"outcome": outcome, "reason": "looked at it"}
            answer = service.post(f"escalations/{item['id']}/decision", body, "reviewer", **BOSS)
            assert answer.status_code == 200, answer.text
            assert item["decision_id"] == found["id"]
            decided += 1
    return decided


def run_of(service: Service, folder: Path) -> Run:
    engineer = Principal("key_engineer", ("engineer",), frozenset({"*"}), Clearance.SECRET, frozenset(), "default")
    return dataclasses.replace(local_run(folder), database=service.llm.database, principal=engineer)


@pytest.fixture
def checked(upgraded: Platform, signed: Headers) -> Any:
    """Every allowed request is shown to a person as well."""
    with running(Settings(platform=upgraded, spot_check_one_in=1), signed) as service:
        yield service


def test_decided_requests_refit_the_gate_within_its_bound(checked: Service, tmp_path: Path) -> None:
    before = checked.get("quality").json()["review"]
    assert (before["rows"], before["temperature"], before["bound"]) == (0, 1.0, 0.05)
    decided = ask_and_decide(checked, most=120)
    seen = checked.get("quality").json()["review"]
    assert seen["rows"] == decided >= seen["needed"]
    assert seen["spot_checks"] >= 30
    assert 0.0 <= seen["false_allow_share"] <= 1.0
    result = gate_review(GateReviewParams(), run_of(checked, tmp_path))
    made = result.register
    assert made is not None
    assert made.champion_metrics is None
    assert result.metrics["review_rows"] == decided
    assert {gate.metric for gate in made.gates} == {"false_allow_rate", "review_loss"}
    for gate in made.gates:
        assert gate.at_most is not None
        assert result.metrics[gate.metric] <= gate.at_most
    checked.llm.count_reviews()
    page = checked.client.get("/metrics").text
    assert f"genba_llm_review_rows {float(decided)}" in page
    assert 'genba_llm_spot_checks_total{outcome="allow"}' in page
    _serve(checked, result)
    after = checked.get("quality").json()["review"]
    assert after["model_version"] != seen["model_version"]
    assert after["model_version"].startswith("gate@1+")
    assert after["rows"] == 0  # nobody has looked at what this one decided
    assert after["temperature"] == pytest.approx(result.metrics["review_temperature"])
    assert after["allow_from"] == pytest.approx(result.metrics["allow_from"])
    found = checked.post("triage", {"text": "What is photosynthesis?"}).json()
    assert ".review-" in found["model_version"]


def _serve(service: Service, result: Result) -> None:
    """Register what the recipe handed over, as the runner does; gates that pass promote it, and the gate follows."""
    assert result.register is not None
    registry = Registry(service.llm.database, Artifacts(service.llm.settings.platform.artifacts_url))
    stored = registry.store(result.register)
    with service.llm.database.transaction() as session:
        registry.register(session, result.register, job_id="job_test", by="key_engineer", stored=stored)
    service.llm.champion.follow()


def test_what_a_rule_sent_to_a_person_teaches_nothing_about_the_content(
    sqlite_service: Service, tmp_path: Path
) -> None:
    for number in range(31):
        body = {"text": f"What is photosynthesis? {number}", "action": "disclose", "classification": "internal"}
        waiting = sqlite_service.post("triage", body).json()["escalation_id"]
        verdict = {"outcome": "DENY", "reason": "not outside"}
        assert sqlite_service.post(f"escalations/{waiting}/decision", verdict, "reviewer", **BOSS).status_code == 200
    quality = sqlite_service.get("quality").json()
    assert quality["calibration"]["rows"] == 31
    assert quality["review"]["rows"] == 0
    with pytest.raises(Conflict, match="30 decisions"):
        gate_review(GateReviewParams(), run_of(sqlite_service, tmp_path))


def test_a_spot_check_keeps_nobody_waiting_and_shows_in_the_report(checked: Service) -> None:
    found = checked.post("triage", {"text": "What is photosynthesis?"}).json()
    assert (found["decision"], found["escalation_id"]) == ("ALLOW", None)
    [item] = checked.get("escalations?status=open").json()["items"]
    detail = checked.get(f"escalations/{item['id']}", "reviewer", **BOSS).json()
    assert detail["text"] == "What is photosynthesis?"
    assert detail["decision"]["reasons"][0] == "spot_check_1_in_1"
    verdict = {"outcome": "DENY", "reason": "should not have been"}
    assert checked.post(f"escalations/{item['id']}/decision", verdict, "reviewer", **BOSS).status_code == 200
    period = "start=2020-01-01T00:00:00Z&end=2100-01-01T00:00:00Z"
    page = checked.get(f"report?{period}&lang=ja", "admin").text
    assert "許可すべきでなかった件数</td><td>1</td>" in page
    assert "エスカレーション</td><td>0</td>" in page


def test_older_bundles_without_a_review_are_read() -> None:
    old = Fusion(allow_from=0.8).to_json() | {"reasoner_weight": 0.5}
    del old["review_temperature"], old["joined"]
    assert Fusion.from_json(old).allow_from == 0.8
    assert RECIPES["llm.gate_review"].scope == "llm:train"
