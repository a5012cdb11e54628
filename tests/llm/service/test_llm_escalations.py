"""Questions that wait for a person: assigned, decided with a reason, and then their text is gone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from genba_llm import escalations
from genba_llm.tables import EscalationRow, SealedText
from genba_shared.db import utc_now
from genba_shared.principal import Clearance

Service = Any
TEXT = "What is the torque of an M8 bolt?"
TO_A_PERSON = {"text": TEXT, "action": "disclose", "classification": "internal"}
BOSS: dict[str, Any] = {"subject": "key_boss"}


@pytest.fixture
def waiting(service: Service) -> str:
    found = service.post("triage", TO_A_PERSON).json()
    assert found["escalation_id"], found
    return str(found["escalation_id"])


def test_a_person_sees_the_question_and_decides_with_a_reason(service: Service, waiting: str) -> None:
    seen = service.get(f"escalations/{waiting}", "reviewer", **BOSS).json()
    assert (seen["text"], seen["status"], seen["overdue"]) == (TEXT, "open", False)
    assert seen["decision"]["decision"] == "ESCALATE"
    taken = service.post(f"escalations/{waiting}/assign", {}, "reviewer", **BOSS).json()
    assert (taken["status"], taken["assignee"]) == ("assigned", "key_boss")
    given = service.post(f"escalations/{waiting}/assign", {"assignee": "key_other"}, "reviewer", **BOSS).json()
    assert given["assignee"] == "key_other"
    body = {"outcome": "ALLOW", "reason": "The person asked for it."}
    decided = service.post(f"escalations/{waiting}/decision", body, "reviewer", **BOSS)
    assert decided.status_code == 200, decided.text
    assert (decided.json()["outcome"], decided.json()["decided_by"]) == ("ALLOW", "key_boss")
    after = service.get(f"escalations/{waiting}", "reviewer", **BOSS).json()
    assert (after["text"], after["status"]) == (None, "decided")
    events = [each.event for each in service.llm.audit.entries()]
    assert events.count("llm.escalation_decided") == 1
    assert "The person asked" not in repr(service.llm.audit.entries())
    again = service.post(f"escalations/{waiting}/decision", body, "reviewer", **BOSS)
    assert again.status_code == 409
    assert service.post(f"escalations/{waiting}/assign", {}, "reviewer", **BOSS).status_code == 409


def test_nobody_decides_on_their_own_question(service: Service, waiting: str) -> None:
    body = {"outcome": "ALLOW", "reason": "It is mine."}
    answer = service.post(f"escalations/{waiting}/decision", body, "reviewer", subject="key_test")
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "body", [{"outcome": "ESCALATE", "reason": "why not"}, {"outcome": "ALLOW"}, {"outcome": "ALLOW", "reason": " "}]
)
def test_a_decision_without_a_reason_or_that_is_none_gets_422(sqlite_service: Service, body: dict[str, Any]) -> None:
    waiting = sqlite_service.post("triage", TO_A_PERSON).json()["escalation_id"]
    assert sqlite_service.post(f"escalations/{waiting}/decision", body, "reviewer", **BOSS).status_code == 422


def test_only_reviewers_see_the_text_and_other_tenants_nothing(service: Service, waiting: str) -> None:
    assert service.get(f"escalations/{waiting}").status_code == 403
    assert service.get(f"escalations/{waiting}", "reviewer", tenant="other").status_code == 404
    assert service.get(f"escalations/{waiting}", "reviewer", clearance=Clearance.PUBLIC).status_code == 404
    assert service.get("escalations?status=decided").json()["items"] == []
    assert len(service.get("escalations?status=open").json()["items"]) == 1


def test_overdue_questions_are_counted(service: Service, waiting: str) -> None:
    with service.llm.database.transaction() as session:
        session.execute(update(EscalationRow).values(due_at=utc_now() - timedelta(seconds=1)))
    service.llm.sweep()
    assert service.get("escalations").json()["items"][0]["overdue"] is True
    metrics = service.client.get("/metrics").text
    assert "genba_llm_escalations_waiting 1.0" in metrics
    assert "genba_llm_escalations_overdue 1.0" in metrics


def test_texts_and_salts_go_when_their_time_is_over(service: Service, waiting: str) -> None:
    with service.llm.database.transaction() as session:
        session.execute(update(SealedText).values(expires_at=utc_now() - timedelta(seconds=1)))
        assert escalations.erase_due(session, now=utc_now()) == 1
    assert service.get(f"escalations/{waiting}", "reviewer", **BOSS).json()["text"] is None
    assert service.llm.audit.verify().intact


def test_what_people_decide_calibrates(service: Service) -> None:
    for n in range(32):
        found = service.post("triage", {**TO_A_PERSON, "text": f"{TEXT} Case {n}."}).json()
        outcome = "ALLOW" if n % 4 else "DENY"
        body = {"outcome": outcome, "reason": "looked at it"}
        assert (
            service.post(f"escalations/{found['escalation_id']}/decision", body, "reviewer", **BOSS).status_code == 200
        )
    found = service.get("quality").json()["calibration"]
    assert (found["rows"], found["enough"], found["allowed_share"]) == (32, True, 0.75)
    assert 0.5 <= found["temperature"] <= 3.0
    assert 0 <= found["ece_after"] <= 1


def test_a_question_about_a_compartment_is_for_reviewers_who_are_in_it(service: Service) -> None:
    boxed = frozenset({"line-3"})
    text = "Register my number 1234 5678 9018 of the welder on line three."
    made = service.document(text, params={"compartments": ["line-3"]}, compartments=boxed).json()
    found = service.post("office/summarize", {"document_id": made["id"]}, compartments=boxed).json()["decision"]
    assert found["decision"] == "ESCALATE", found
    waiting = found["escalation_id"]
    assert service.get(f"escalations/{waiting}", "reviewer", compartments=boxed, **BOSS).json()["text"] == text
    body = {"outcome": "ALLOW", "reason": "It is needed."}
    assert service.get(f"escalations/{waiting}", "reviewer", **BOSS).status_code == 404
    assert service.post(f"escalations/{waiting}/assign", {}, "reviewer", **BOSS).status_code == 404
    assert service.post(f"escalations/{waiting}/decision", body, "reviewer", **BOSS).status_code == 404
    assert service.get("escalations", "reviewer", **BOSS).json() == {"items": [], "next_cursor": None}
    assert len(service.get("escalations", "reviewer", compartments=boxed, **BOSS).json()["items"]) == 1
