"""API keys from their making to their end, on both databases and through the gateway."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.world import Service, door, running, settings

from genba_gateway.auth import Authenticator
from genba_gateway.keys import ApiKey, ApiKeyRow, Keys, covers
from genba_gateway.settings import Settings
from genba_shared import db
from genba_shared.audit import AuditLog
from genba_shared.db import Database, utc_now
from genba_shared.principal import ROLES, Clearance, Principal
from genba_shared.problems import ClearanceTooLow, Conflict, Invalid, NotFound, ScopeMissing, Unauthorized
from genba_shared.settings import Platform


@pytest.fixture
def keys(database: Database) -> Keys:
    return Keys(database, env="dev")


def test_a_new_key_is_shown_once_and_kept_as_a_hash(keys: Keys, database: Database) -> None:
    record, plaintext = keys.create("line 3", role="operator", clearance="confidential", compartments=["b", "a"])
    assert plaintext.startswith(f"gnb_dev_{record.id}_")
    with database.read() as session:
        row = session.get_one(ApiKeyRow, record.id)
        assert plaintext not in str(vars(row))
        assert len(row.digest) == 64
    found = keys.verify(plaintext)
    assert (found.role, found.clearance, found.compartments, found.state) == (
        "operator",
        "confidential",
        ("a", "b"),
        "active",
    )
    assert found.principal.allows("sop:write")


def test_every_change_of_a_key_is_in_the_audit_log(keys: Keys, database: Database) -> None:
    record, _ = keys.create("line 3")
    successor, _ = keys.rotate(record.id)
    keys.revoke(successor.id)
    keys.revoke(successor.id)
    log = AuditLog(database)
    assert [(entry.event, entry.subject) for entry in log.entries()] == [
        ("key_created", record.id),
        ("key_rotated", successor.id),
        ("key_revoked", successor.id),
    ]
    assert log.verify().intact


def test_a_rotated_key_works_on_for_its_overlap_and_its_successor_is_the_same_subject(keys: Keys) -> None:
    record, old = keys.create("line 3", role="operator", scopes=["sop:read"])
    successor, new = keys.rotate(record.id, overlap_s=3600)
    assert keys.verify(old).state == "rotated"
    assert keys.verify(new).subject == record.subject
    assert keys.verify(new).scopes == ("sop:read",)
    before = keys.get(record.id).expires_at
    assert before is not None
    assert timedelta(minutes=59) < before - utc_now() <= timedelta(hours=1)
    with pytest.raises(Conflict):
        keys.rotate(record.id)
    assert keys.get(record.id).successor == successor.id


def test_a_good_key_is_taken_while_the_database_takes_no_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "BUSY_TIMEOUT_S", 0.05)
    database = Database(f"sqlite:///{tmp_path}/genba.db")
    database.upgrade()
    record, key = Keys(database, env="dev").create("a")
    with closing(sqlite3.connect(tmp_path / "genba.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert Keys(database, env="dev").verify(key).id == record.id
    assert Keys(database, env="dev").get(record.id).last_used_at is None
    database.close()


def test_a_rotation_without_overlap_ends_the_old_key_at_once(keys: Keys) -> None:
    record, old = keys.create("line 3")
    keys.rotate(record.id, overlap_s=0)
    with pytest.raises(Unauthorized):
        keys.verify(old)


def test_a_rotation_never_prolongs_a_key(keys: Keys) -> None:
    ends_at = utc_now() + timedelta(minutes=5)
    record, _ = keys.create("line 3", expires_at=ends_at)
    successor, _ = keys.rotate(record.id, overlap_s=86400)
    assert keys.get(record.id).expires_at == successor.expires_at == ends_at


def test_revoked_and_expired_keys_are_refused_in_the_same_words_as_unknown_ones(keys: Keys, database: Database) -> None:
    revoked, revoked_key = keys.create("a")
    keys.revoke(revoked.id)
    expired, expired_key = keys.create("b", expires_at=utc_now() + timedelta(hours=1))
    unknown, unknown_key = keys.create("c")
    with database.transaction() as session:
        session.get_one(ApiKeyRow, expired.id).expires_at = utc_now() - timedelta(seconds=1)
        session.delete(session.get_one(ApiKeyRow, unknown.id))
    said = set()
    for key in (revoked_key, expired_key, unknown_key):
        with pytest.raises(Unauthorized) as refusal:
            keys.verify(key)
        said.add(refusal.value.detail)
    assert len(said) == 1
    assert [keys.get(revoked.id).state, keys.get(expired.id).state] == ["revoked", "expired"]


def test_a_key_of_another_environment_is_refused_by_name(keys: Keys, database: Database) -> None:
    _, plaintext = Keys(database, env="test").create("a")
    with pytest.raises(Unauthorized, match="belongs to the environment 'test'"):
        keys.verify(plaintext)


def test_a_mistyped_key_costs_no_query(database: Database) -> None:
    keys = Keys(database, env="dev")
    _, plaintext = keys.create("a")
    database.close()
    wrong = plaintext[:-10] + ("x" if plaintext[-10] != "x" else "y") + plaintext[-9:]
    for token in (wrong, plaintext[:-1], plaintext + "0", plaintext.upper(), "gnb_", "gnb_dev__", ""):
        with pytest.raises(Unauthorized, match="malformed"):
            keys.parse(token)


def test_what_cannot_be_a_key_is_refused_naming_the_field(keys: Keys) -> None:
    cases: dict[str, Callable[[], object]] = {
        "name": lambda: keys.create(" "),
        "role": lambda: keys.create("a", role="emperor"),
        "scopes[0]": lambda: keys.create("a", role="viewer", scopes=["sop:write"]),
        "scopes[1]": lambda: keys.create("a", role="viewer", scopes=["sop:read", "a b"]),
        "clearance": lambda: keys.create("a", clearance="cosmic"),
        "expires_at": lambda: keys.create("a", expires_at=utc_now() - timedelta(days=1)),
        "rate_per_minute": lambda: keys.create("a", rate_per_minute=0),
    }
    for field, create in cases.items():
        with pytest.raises(Invalid) as refusal:
            create()
        errors = refusal.value.members["errors"]
        assert isinstance(errors, list)
        assert field in str(errors)
    assert keys.list() == []


def test_nobody_passes_on_more_than_they_hold(keys: Keys) -> None:
    boss = Principal(
        "key:boss", ("admin",), frozenset({"keys:admin", "sop:*"}), Clearance.CONFIDENTIAL, tenant="plant-2"
    )
    with pytest.raises(ScopeMissing):
        keys.create("a", role="admin", grantor=boss)
    with pytest.raises(ScopeMissing):
        keys.create("a", role="viewer", grantor=boss)
    with pytest.raises(ClearanceTooLow):
        keys.create("a", role="engineer", scopes=["sop:read"], clearance="secret", grantor=boss)
    with pytest.raises(ClearanceTooLow):
        keys.create("a", role="engineer", scopes=["sop:read"], compartments=["x"], grantor=boss)
    record, _ = keys.create("a", role="engineer", scopes=["sop:read"], grantor=boss)
    assert (record.tenant, record.created_by) == ("plant-2", "key:boss")
    stranger, _ = keys.create("b", tenant="plant-1")
    for forbidden in (keys.revoke, keys.rotate):
        with pytest.raises(NotFound):
            forbidden(stranger.id, grantor=boss)
    strong, _ = keys.create("c", role="admin", tenant="plant-2")
    with pytest.raises(ScopeMissing):
        keys.rotate(strong.id, grantor=boss)


_SCOPES = st.sampled_from(
    ["*", "*:read", "*:write", "sop:*", "sop:read", "sop:write", "sem:read", "keys:admin", "keys:*", "audit:read"]
)
_CONCRETE = ["sop:read", "sop:write", "sem:read", "sem:write", "keys:admin", "keys:read", "audit:read", "jobs:write"]


@given(held=st.frozensets(_SCOPES, max_size=4), wanted=_SCOPES)
def test_a_covered_pattern_never_grants_what_its_holder_lacks(held: frozenset[str], wanted: str) -> None:
    def granted(patterns: frozenset[str], scope: str) -> bool:
        return Principal("a", (), patterns, Clearance.PUBLIC).allows(scope)

    if covers(held, wanted):
        assert all(granted(held, scope) for scope in _CONCRETE if granted(frozenset({wanted}), scope))


def test_keys_live_through_the_gateway(platform: Platform) -> None:
    async def story() -> None:
        service = Service()
        async with running(service), door(settings(platform, service)) as gateway:
            made = await gateway.ask("POST", "/v1/keys", json={"name": "line 3", "role": "operator"})
            assert (made.status, made.headers["cache-control"]) == (201, "no-store")
            key, key_id = made.json()["key"], made.json()["id"]
            assert (await gateway.ask("GET", "/v1/sop/x", key=key)).status == 200
            listed = await gateway.ask("GET", "/v1/keys")
            assert key not in listed.body.decode()
            assert key_id in [each["id"] for each in listed.json()["keys"]]
            whoami = (await gateway.ask("GET", "/v1/whoami", key=key)).json()
            assert (whoami["subject"], whoami["roles"], whoami["clearance"]) == (
                f"key:{key_id}",
                ["operator"],
                "internal",
            )
            rotated = await gateway.ask("POST", f"/v1/keys/{key_id}/rotate", json={"overlap_s": 60})
            assert rotated.status == 201
            assert {
                (await gateway.ask("GET", "/v1/sop/x", key=each)).status for each in (key, rotated.json()["key"])
            } == {200}
            assert (await gateway.ask("DELETE", f"/v1/keys/{rotated.json()['id']}")).status == 200
            assert (await gateway.ask("GET", "/v1/sop/x", key=rotated.json()["key"])).status == 401, (
                "at once, whatever was cached"
            )
            events = [entry["event"] for entry in (await gateway.ask("GET", "/v1/audit")).json()["entries"]]
            assert events == ["key_created", "key_created", "key_rotated", "key_revoked"]
            assert (await gateway.ask("GET", "/v1/audit/verification")).json()["intact"] is True
            assert (await gateway.ask("GET", "/v1/keys/nope")).status == 404
            assert (await gateway.ask("POST", "/v1/keys", json={"name": "x", "role": "emperor"})).status == 422

    asyncio.run(story())


def test_a_key_revoked_while_it_is_being_checked_is_not_believed_afterwards(keys: Keys, platform: Platform) -> None:
    looked, revoked = threading.Event(), threading.Event()

    class Slow(Keys):
        def verify(self, token: str) -> ApiKey:
            found = super().verify(token)
            looked.set()
            assert revoked.wait(60)
            return found

    async def story() -> None:
        record, key = keys.create("a")
        authenticator = Authenticator(Slow(keys._database, env="dev"), Settings(platform=platform))
        asked = asyncio.create_task(authenticator.verify(key.encode(), "here"))
        assert await asyncio.to_thread(looked.wait, 60)
        keys.revoke(record.id)
        authenticator.forget()
        revoked.set()
        await asked  # it came before
        assert authenticator.known(key.encode()) is None
        with pytest.raises(Unauthorized):
            await authenticator.verify(key.encode(), "here")

    asyncio.run(story())


def test_an_address_that_keeps_bringing_bad_keys_must_wait_while_good_keys_go_on(platform: Platform) -> None:
    async def story() -> None:
        service = Service()
        chosen = settings(platform, service, failures_per_minute=5, token_cache_s=0)
        async with running(service), door(chosen) as gateway:
            record, bad = gateway.gateway.keys.create("bad")
            gateway.gateway.keys.revoke(record.id)
            assert (await gateway.ask("GET", "/v1/sop/x")).status == 200
            statuses = [(await gateway.ask("GET", "/v1/sop/x", key=bad)).status for _ in range(7)]
            assert statuses == [401] * 5 + [429] * 2
            assert (await gateway.ask("GET", "/v1/sop/x")).status == 200

    asyncio.run(story())


def test_every_role_can_be_given_to_a_key(keys: Keys) -> None:
    for role in ROLES:
        assert keys.verify(keys.create(role, role=role)[1]).principal.scopes == ROLES[role]
