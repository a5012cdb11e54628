"""Who may do what, and that nobody can say so but the gateway."""

from __future__ import annotations

import asyncio
import base64
import hmac
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from genba_shared.dependencies import require
from genba_shared.principal import ROLES, Clearance, Principal, Verifier, scopes_of, sign, verify
from genba_shared.problems import Unauthorized

SECRET = b"k" * 32
SOMEBODY = Principal(
    subject="key_01",
    roles=("operator", "reviewer"),
    scopes=frozenset({"*:read", "sop:write"}),
    clearance=Clearance.CONFIDENTIAL,
    compartments=frozenset({"line-3", "試作"}),
    tenant="plant-2",
)


def test_what_was_signed_comes_back_whole() -> None:
    assert verify(sign(SOMEBODY, SECRET), SECRET) == SOMEBODY


def test_a_signature_lives_for_a_minute() -> None:
    header = sign(SOMEBODY, SECRET, now_s=1000.0)
    assert verify(header, SECRET, now_s=1059.9) == SOMEBODY
    with pytest.raises(Unauthorized, match="expired"):
        verify(header, SECRET, now_s=1060.0)


def test_a_signature_from_the_future_is_refused_beyond_clock_skew() -> None:
    header = sign(SOMEBODY, SECRET, now_s=1000.0)
    assert verify(header, SECRET, now_s=996.0) == SOMEBODY
    with pytest.raises(Unauthorized):
        verify(header, SECRET, now_s=990.0)


def test_another_secret_does_not_verify() -> None:
    with pytest.raises(Unauthorized):
        verify(sign(SOMEBODY, SECRET), b"j" * 32)


def test_what_is_remembered_expires_all_the_same_and_lets_nothing_else_in() -> None:
    verifier, header = Verifier(SECRET, most=2), sign(SOMEBODY, SECRET, now_s=1000.0)
    assert verifier.verify(header, now_s=1000.0) is verifier.verify(header, now_s=1059.9)
    assert verifier.verify(header, now_s=1059.9) == SOMEBODY
    for now_s in (1060.0, 990.0):
        with pytest.raises(Unauthorized, match="expired"):
            verifier.verify(header, now_s=now_s)
    for other in (header[:-2], header + "A", sign(SOMEBODY, b"j" * 32, now_s=1000.0)):
        with pytest.raises(Unauthorized, match="signature"):
            verifier.verify(other, now_s=1000.0)
    others = [replace(SOMEBODY, subject=f"key_{n}") for n in range(5)]
    assert [verifier.verify(sign(each, SECRET, now_s=1000.0), now_s=1000.0) for each in others] == others
    assert verifier.verify(header, now_s=1000.0) == SOMEBODY
    assert len(verifier._held) <= 2


def test_raised_claims_do_not_verify() -> None:
    version, claims, mac = sign(SOMEBODY, SECRET).split(".")
    raised = orjson.loads(base64.urlsafe_b64decode(claims + "==")) | {"clearance": 3, "scopes": ["*"]}
    forged = base64.urlsafe_b64encode(orjson.dumps(raised)).decode().rstrip("=")
    with pytest.raises(Unauthorized, match="signature"):
        verify(f"{version}.{forged}.{mac}", SECRET)


@given(position=st.integers(min_value=0), flipped=st.integers(min_value=1, max_value=127))
def test_no_single_changed_character_verifies(position: int, flipped: int) -> None:
    header = sign(SOMEBODY, SECRET, now_s=1000.0)
    position %= len(header)
    changed = header[:position] + chr(ord(header[position]) ^ flipped) + header[position + 1 :]
    with pytest.raises(Unauthorized):
        verify(changed, SECRET, now_s=1000.0)


@given(st.text())
def test_no_text_that_nobody_signed_verifies_or_crashes(header: str) -> None:
    with pytest.raises(Unauthorized):
        verify(header, SECRET)


@pytest.mark.parametrize("claims", [b"{}", b"[]", b"not json", b'{"sub":1}'])
def test_a_signed_header_with_wrong_claims_is_refused(claims: bytes) -> None:
    signed = b"v1." + base64.urlsafe_b64encode(claims).rstrip(b"=")
    mac = base64.urlsafe_b64encode(hmac.digest(SECRET, signed, "sha256")).rstrip(b"=")
    with pytest.raises(Unauthorized, match="malformed"):
        verify((signed + b"." + mac).decode(), SECRET)


@pytest.mark.parametrize(
    ("patterns", "scope", "allowed"),
    [
        ({"*"}, "keys:admin", True),
        ({"sop:read"}, "sop:read", True),
        ({"sop:read"}, "sop:write", False),
        ({"sop:*"}, "sop:review", True),
        ({"sop:*"}, "sem:review", False),
        ({"*:read"}, "sem:read", True),
        ({"*:read"}, "sem:write", False),
        ({"*:read"}, "audit:read", False),
        ({"*:read"}, "keys:read", False),
        (set(), "sop:read", False),
    ],
)
def test_scope_patterns_grant_what_they_say(patterns: set[str], scope: str, *, allowed: bool) -> None:
    assert replace(SOMEBODY, scopes=frozenset(patterns)).allows(scope) is allowed


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        ("viewer", "sop:read jobs:read models:read", "sop:write jobs:write audit:read sop:review keys:admin"),
        ("operator", "sop:read sop:write jobs:write", "models:write sop:review audit:read keys:admin"),
        ("reviewer", "sop:read sop:review", "sop:write models:write audit:read keys:admin"),
        ("engineer", "sop:write sop:review models:write jobs:write", "audit:read keys:admin"),
        ("auditor", "audit:read", "sop:read jobs:read keys:admin sop:write"),
        ("admin", "audit:read keys:admin sop:write models:write", ""),
        ("nobody-knows-this-role", "", "sop:read"),
    ],
)
def test_roles_grant_their_scopes_and_no_more(role: str, may: str, may_not: str) -> None:
    somebody = replace(SOMEBODY, scopes=scopes_of([role]))
    assert [scope for scope in may.split() if not somebody.allows(scope)] == []
    assert [scope for scope in may_not.split() if somebody.allows(scope)] == []


def test_roles_add_up() -> None:
    assert scopes_of(["viewer", "auditor"]) == ROLES["viewer"] | ROLES["auditor"]


@pytest.mark.parametrize("label", list(Clearance))
@pytest.mark.parametrize("clearance", list(Clearance))
def test_clearance_is_a_total_order(clearance: Clearance, label: Clearance) -> None:
    assert replace(SOMEBODY, clearance=clearance).may_see(label) is (int(clearance) >= int(label))


def test_a_compartment_hides_a_record_from_those_outside_it_whatever_their_clearance() -> None:
    cleared = replace(SOMEBODY, clearance=Clearance.SECRET, compartments=frozenset({"a"}))
    assert cleared.may_see(Clearance.SECRET, {"a"})
    assert not cleared.may_see(Clearance.PUBLIC, {"a", "b"})


def test_clearances_have_words() -> None:
    assert [Clearance.parse(clearance.label) for clearance in Clearance] == list(Clearance)
    with pytest.raises(ValueError, match="public, internal, confidential, secret"):
        Clearance.parse("cosmic")


def test_the_empty_scope_lets_everybody_in_who_is_known() -> None:
    request = Request({"type": "http", "state": {"principal": SOMEBODY}})
    assert asyncio.run(require("").dependency(request)) is SOMEBODY
