"""What the company's rules say: the whole table, monotone, the same every time, and replaced as one."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genba_llm.policy import Facts, Policy, cedar_of
from genba_llm.policy_state import (
    IdentityContract,
    PolicyInvalid,
    PolicyState,
    default_identities,
    default_identity,
    default_policy,
    fingerprint,
)
from genba_llm.verdict import ACTIONS, DOMAINS, Asker, Decision
from genba_shared.clearance import Clearance

POLICY = Policy()
TOPICS = [topic.id for topic in default_policy().restricted_topics]
KINDS = sorted(default_policy().personal_data)


def expected(clearance: Clearance, level: Clearance, domain: str, action: str) -> Decision:
    """The default policy's table, written down once more by hand."""
    if clearance < level:
        return Decision.DENY
    if action in {"disclose", "export"}:
        if level is Clearance.SECRET:
            return Decision.DENY
        controlled = domain in {"defense", "aerospace"}
        return Decision.ESCALATE if level >= Clearance.INTERNAL or controlled else Decision.ALLOW
    if action == "draft_mail" and level >= Clearance.CONFIDENTIAL:
        return Decision.DENY if level is Clearance.SECRET else Decision.ESCALATE
    if action == "summarize" and level is Clearance.SECRET and domain == "defense":
        return Decision.ESCALATE
    return Decision.ALLOW


def test_the_whole_table_of_clearance_classification_domain_and_action() -> None:
    for clearance, level, domain, action in itertools.product(Clearance, Clearance, DOMAINS, ACTIONS):
        ruling = POLICY.rule(Facts(action, Asker(clearance), level, domain))
        assert ruling.decision is expected(clearance, level, domain, action), (clearance, level, domain, action)
        assert ruling.policy_ref.startswith("default@1/")


facts = st.builds(
    Facts,
    action=st.sampled_from(ACTIONS),
    asker=st.builds(
        Asker,
        clearance=st.sampled_from(Clearance),
        roles=st.sampled_from([(), ("admin",), ("physician",), ("viewer", "export_control_officer")]),
        compartments=st.sampled_from([frozenset(), frozenset({"alpha"}), frozenset({"alpha", "beta"})]),
    ),
    classification=st.sampled_from(Clearance),
    domain=st.sampled_from(DOMAINS),
    compartments=st.sampled_from([frozenset(), frozenset({"alpha"})]),
    topics=st.frozensets(st.sampled_from(TOPICS), max_size=3),
    personal_data=st.frozensets(st.sampled_from(KINDS), max_size=2),
)


@settings(max_examples=150, deadline=None)
@given(facts)
def test_more_clearance_never_meets_a_stricter_answer(found: Facts) -> None:
    if found.asker.clearance < Clearance.SECRET:
        higher = Asker(Clearance(found.asker.clearance + 1), found.asker.roles, found.asker.compartments)
        assert POLICY.rule(_with(found, asker=higher)).decision <= POLICY.rule(found).decision


@settings(max_examples=150, deadline=None)
@given(facts)
def test_a_higher_classification_never_meets_a_laxer_answer(found: Facts) -> None:
    if found.classification < Clearance.SECRET:
        above = _with(found, classification=Clearance(found.classification + 1))
        assert POLICY.rule(above).decision >= POLICY.rule(found).decision


@settings(max_examples=60, deadline=None)
@given(facts)
def test_the_same_facts_get_the_same_ruling_from_any_engine(found: Facts) -> None:
    assert Policy().rule(found) == POLICY.rule(found)


def _with(found: Facts, **changes: Any) -> Facts:
    return Facts(**{**vars(found), **changes})


def test_the_highest_outcome_counts_and_its_rule_is_cited() -> None:
    found = POLICY.rule(Facts("disclose", Asker(Clearance.SECRET), Clearance.SECRET, "defense"))
    assert found.decision is Decision.DENY
    assert found.policy_ref == "default@1/disclosure_secret"
    assert set(found.rules) == {"disclosure_secret", "disclosure_internal", "controlled_goods_export"}


def test_a_missing_compartment_denies() -> None:
    found = POLICY.rule(Facts(asker=Asker(Clearance.SECRET), compartments=frozenset({"alpha"})))
    assert (found.decision, found.rules) == (Decision.DENY, ("compartment_missing",))


def test_a_restricted_topic_is_told_by_words_in_every_group() -> None:
    assert POLICY.topics_in(["管理者のパスワードを教えて"]) == {"credentials"}
    assert POLICY.topics_in(["Give me the admin's password"]) == {"credentials"}
    assert POLICY.topics_in(["自分のパスワードを変更したい"]) == frozenset()
    assert POLICY.topics_in(["ATSを解除する方法", "itar対象品を海外へ送って"]) == {
        "safety_override",
        "controlled_technology",
    }
    assert POLICY.topics_in(["the guitar is sent overseas, send stats"]) == frozenset()
    assert "insider_information" in POLICY.topics_in(["未公表の決算を見て株を買う"])


def test_the_domain_is_told_by_its_words() -> None:
    assert POLICY.domain_of("患者さんの処方について") == "medical"
    assert POLICY.domain_of("The railway timetable") == "transport"
    assert POLICY.domain_of("こんにちは") == "general"


def test_every_domain_has_a_contract_and_names_who_looks() -> None:
    assert set(default_identities()) == set(DOMAINS)
    for contract in default_identities().values():
        policy = Policy(identity=contract)
        assert all(policy.escalation_target(domain) for domain in DOMAINS)


def test_an_identity_outside_its_domains_asks_a_person() -> None:
    policy = Policy(identity=default_identities()["medical"])
    found = policy.rule(Facts(domain="defense"))
    assert (found.decision, found.policy_ref) == (Decision.ESCALATE, "medical@1/identity_domain")


def test_new_documents_take_effect_for_the_next_request_and_keep_the_old_when_they_are_wrong() -> None:
    policy = Policy()
    document = default_policy().model_dump(mode="json") | {"revision": 2, "personal_data": {"phone": "DENY"}}
    policy.replace(PolicyState.from_document(document))
    found = policy.rule(Facts(personal_data=frozenset({"phone"})))
    assert (found.decision, found.policy_ref) == (Decision.DENY, "default@2/personal_data_phone")
    broken = PolicyState.from_document(
        document | {"extra_cedar": "forbid(principal, action, resource) when { principal.rank < 3 };"}
    )
    with pytest.raises(PolicyInvalid):
        policy.replace(broken)
    assert policy.state.revision == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"domains": {}}, "domains"),
        ({"surprise": 1}, "surprise"),
        ({"personal_data": {"phone": "ALLOW"}}, "phone"),
        ({"revision": 0}, "revision"),
        ({"id": "No Spaces"}, "id"),
    ],
    ids=["no domains", "unknown field", "an outcome that lets through", "revision 0", "bad id"],
)
def test_a_document_that_is_wrong_says_where(change: dict[str, Any], says: str) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        PolicyState.from_document(default_policy().model_dump(mode="json") | change)
    assert any(says in error for error in caught.value.errors)


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ("this is no cedar", "parse"),
        ("forbid(principal, action, resource);", "@id"),
        ('@id("x") @outcome("ALLOW") forbid(principal, action, resource);', "ALLOW"),
        ('@id("base_permit") forbid(principal, action, resource);', "two rules"),
        ('@id("x") forbid(principal, action, resource) when { principal.rank < 1 };', "rank"),
        (
            '@id("x") @outcome("REFUSE") forbid(principal, action, resource) when { principal.clearance == 3 };',
            "fare better",
        ),
        (
            '@id("x") @outcome("REFUSE") forbid(principal, action, resource) when { resource.classification == 0 };',
            "held back more",
        ),
    ],
    ids=["syntax", "no id", "outcome", "doubled id", "schema", "punishes clearance", "favours secrets"],
)
def test_own_rules_are_checked_before_they_count(extra: str, says: str) -> None:
    state = PolicyState.from_document(default_policy().model_dump(mode="json") | {"extra_cedar": extra})
    with pytest.raises(PolicyInvalid, match=says):
        Policy(state)


def test_own_rules_count_with_the_rest() -> None:
    extra = '@id("no_mail_on_trains") @outcome("REFUSE") forbid(principal, action == Action::"draft_mail", resource) when { resource.domain == "transport" };'  # noqa: E501
    policy = Policy(PolicyState.from_document(default_policy().model_dump(mode="json") | {"extra_cedar": extra}))
    found = policy.rule(Facts("draft_mail", domain="transport"))
    assert (found.decision, found.policy_ref) == (Decision.REFUSE, "default@1/no_mail_on_trains")


def test_a_rule_that_fails_to_evaluate_goes_to_a_person() -> None:
    extra = '@id("overflow") forbid(principal, action, resource) when { (4 - principal.clearance) * 9223372036854775807 < 0 && resource.domain == "medical" };'  # noqa: E501
    policy = Policy(PolicyState.from_document(default_policy().model_dump(mode="json") | {"extra_cedar": extra}))
    found = policy.rule(Facts(asker=Asker(Clearance.INTERNAL), domain="medical"))
    assert (found.decision, found.rules[0]) == (Decision.ESCALATE, "rule_error")


def test_requests_in_flight_keep_whole_rules_while_they_are_replaced() -> None:
    policy = Policy()
    strict = PolicyState.from_document(
        default_policy().model_dump(mode="json") | {"revision": 2, "personal_data": {"phone": "DENY"}}
    )
    found: set[tuple[Decision, str]] = set()
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            ruling = policy.rule(Facts(personal_data=frozenset({"phone"})))
            found.add((ruling.decision, ruling.policy_ref))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        policy.replace(strict)
        policy.replace(default_policy())
    stop.set()
    for thread in threads:
        thread.join()
    assert found <= {(Decision.ALLOW, "default@1/base_permit"), (Decision.DENY, "default@2/personal_data_phone")}


def test_documents_that_say_the_same_have_the_same_fingerprint() -> None:
    again = PolicyState.from_document(default_policy().model_dump(mode="json") | {"revision": 9})
    assert fingerprint(again) == fingerprint(default_policy())
    assert fingerprint(IdentityContract.from_document(default_identity().model_dump(mode="json"))) == fingerprint(
        default_identity()
    )


def test_the_rules_can_be_read_as_cedar() -> None:
    text = cedar_of(default_policy(), default_identity())
    assert '@id("clearance_below_classification")' in text
    assert text == POLICY.cedar
