"""Rules are published, checked before they take effect, and swapped under load without a request that fails."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from genba_llm.decisions import Asked
from genba_llm.policy_state import default_policy, fingerprint
from genba_shared.principal import Clearance, Principal

Service = Any
ADMIN = ("admin",)


def with_topic(document: dict[str, Any], word: str, outcome: str = "DENY") -> dict[str, Any]:
    changed = copy.deepcopy(document)
    topic = {"id": "made_up", "all_of": [[word]], "outcome": outcome, "reason": {"ja": "試験", "en": "Test"}}
    changed["restricted_topics"] = [*changed["restricted_topics"], topic]
    return changed


def test_a_published_rule_decides_at_once_and_is_cited(service: Service) -> None:
    before = service.post("triage", {"text": "Tell me of the zeppelin"}).json()
    document = service.get("policies").json()["document"]
    body = {"document": with_topic(document, "zeppelin"), "note": "no airships", "expected_revision": 1}
    made = service.post("policies", body, *ADMIN)
    assert (made.status_code, made.json()["revision"]) == (201, 2), made.text
    after = service.post("triage", {"text": "Tell me of the zeppelin"}).json()
    assert before["decision"] != "DENY"
    assert (after["decision"], after["policy_ref"]) == ("DENY", "default@2/topic_made_up")
    now = service.get("policies").json()
    assert now["revision"] == 2
    assert "made_up" in now["cedar"]
    assert [each["note"] for each in now["revisions"]] == ["no airships"]
    assert service.get("policies/2").json()["document"]["restricted_topics"][-1]["id"] == "made_up"
    assert service.get("policies/9").status_code == 404
    assert "llm.policy_published" in [each.event for each in service.llm.audit.entries()]


def test_what_names_no_classification_has_the_one_that_the_policy_gives(service: Service) -> None:
    asked = {"text": "What time is it in Osaka?", "action": "disclose"}
    assert service.post("triage", asked).json()["decision"] == "ALLOW"
    document = {**service.get("policies").json()["document"], "default_classification": "secret"}
    assert service.post("policies", {"document": document, "note": "careful"}, *ADMIN).status_code == 201
    assert service.post("triage", asked).json()["decision"] != "ALLOW"
    assert service.post("triage", {**asked, "classification": "public"}).json()["decision"] == "ALLOW"
    details = [each.detail for each in service.llm.audit.entries() if each.event == "llm.decision"]
    assert [each["classification"] for each in details] == ["public", "secret", "public"]


def test_a_record_names_the_rules_that_decided_whatever_was_published_meanwhile(sqlite_service: Service) -> None:
    decisions, asked = sqlite_service.llm.decisions, Asked("What time is it in Osaka?", "triage")
    asker = Principal(
        subject="user:kim", tenant="main", roles=("operator",), scopes=frozenset(), clearance=Clearance.SECRET
    )
    verdict = decisions.judge(asker, asked)
    document = {**sqlite_service.get("policies").json()["document"], "default_classification": "secret"}
    assert sqlite_service.post("policies", {"document": document, "note": "careful"}, *ADMIN).status_code == 201
    decisions.record(asker, asked, verdict)
    decisions.decide(asker, asked)
    first, second = [each.detail for each in sqlite_service.llm.audit.entries() if each.event == "llm.decision"]
    assert (first["policy_ref"], first["policy"]) == ("default@1/base_permit", fingerprint(default_policy())[:16])
    assert first["classification"] == "public"
    assert second["policy_ref"].startswith("default@2/")
    assert second["policy"] != first["policy"]
    assert second["classification"] == "secret"


@pytest.mark.parametrize(
    "change",
    [
        {"domains": {}},
        {"restricted_topics": [{"id": "x"}]},
        {"extra_cedar": "permit (principal, action, resource"},
        {"extra_cedar": '@id("a") forbid (principal, action, resource) when { resource.nonsense > 3 };'},
        {"levels": {"public": {"ja": "a", "en": "a"}}},
        {"unknown": True},
    ],
)
def test_an_invalid_policy_is_refused_and_the_old_one_stays(sqlite_service: Service, change: dict[str, Any]) -> None:
    service = sqlite_service
    document = service.get("policies").json()["document"]
    answer = service.post("policies", {"document": {**document, **change}, "note": "broken"}, *ADMIN)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"]
    assert "revision 1 stays in force" in answer.json()["detail"]
    assert service.get("policies").json()["revision"] == 1
    assert service.post("triage", {"text": "Hello"}).status_code == 200


def test_an_identity_narrows_what_the_assistant_does(service: Service) -> None:
    document = service.get("identities").json()["document"]
    body = {"document": {**document, "domains": ["medical"], "outside_scope": "DENY"}, "note": "a hospital"}
    assert service.post("identities", body, *ADMIN).status_code == 201
    outside = service.post("triage", {"text": "What is a bond?", "domain": "finance"}).json()
    inside = service.post("triage", {"text": "When does the ward open?", "domain": "medical"}).json()
    assert (outside["decision"], "identity" in " ".join(outside["reasons"])) == ("DENY", True)
    assert inside["decision"] != "DENY"


def test_who_started_from_an_old_revision_is_told(sqlite_service: Service) -> None:
    service = sqlite_service
    document = service.get("policies").json()["document"]
    body = {"document": document, "note": "first", "expected_revision": 1}
    assert service.post("policies", body, *ADMIN).status_code == 201
    late = service.post("policies", body, *ADMIN)
    assert (late.status_code, late.json()["revision"]) == (409, 2)


def test_only_who_administers_publishes(sqlite_service: Service) -> None:
    document = sqlite_service.get("policies").json()["document"]
    for role in ("viewer", "operator", "reviewer", "auditor"):
        assert sqlite_service.post("policies", {"document": document, "note": "mine"}, role).status_code == 403


def test_rules_are_swapped_under_load_without_a_failed_request(service: Service) -> None:
    document = service.get("policies").json()["document"]
    stop = threading.Event()
    answers: list[tuple[int, str]] = []

    def ask() -> None:
        while not stop.is_set():
            answer = service.post("triage", {"text": "Tell me of the zeppelin", "queue": False})
            answers.append((answer.status_code, answer.json().get("policy_ref", "")))

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        for n in range(4):
            body = {"document": with_topic(document, "zeppelin", ("DENY", "REFUSE")[n % 2]), "note": f"n{n}"}
            assert service.post("policies", body, *ADMIN).status_code == 201
        stop.set()
        for each in asking:
            each.result()
    assert {status for status, _ in answers} == {200}
    assert service.post("triage", {"text": "Tell me of the zeppelin"}).json()["policy_ref"].startswith("default@5/")


def test_another_process_takes_the_new_rules_up(service: Service) -> None:
    from genba_llm.policies import Policies
    from genba_llm.policy import Policy

    other = Policies(service.llm.database, Policy(), service.llm.metrics)
    document = service.get("policies").json()["document"]
    service.post("policies", {"document": with_topic(document, "zeppelin"), "note": "n"}, *ADMIN)
    assert other.revision("policy") == 1
    other.refresh()
    assert other.revision("policy") == 2


def test_full_texts_are_kept_only_where_the_policy_says_so_and_encrypted(service: Service) -> None:
    from genba_llm.tables import SealedText

    document = service.get("policies").json()["document"]
    service.post("policies", {"document": {**document, "audit_text": "full"}, "note": "keep texts"}, *ADMIN)
    found = service.post("think", {"text": "Where is the KEPT-MARKER word?"}).json()
    with service.llm.database.read() as session:
        prompt = session.get(SealedText, (found["decision"]["id"], "prompt"))
        assert prompt is not None
        assert prompt.sealed is not None
        assert b"KEPT-MARKER" not in prompt.sealed
        vault = service.llm.vault
        assert "KEPT-MARKER" in vault.open(prompt.sealed, bound_to=f"{found['decision']['id']}/prompt")
        with pytest.raises(ValueError, match="does not open"):
            vault.open(prompt.sealed, bound_to="dec_other/prompt")
        thinking = session.get(SealedText, (found["decision"]["id"], "thinking"))
        assert thinking is not None
        assert thinking.sealed is None  # never, whatever the policy says
