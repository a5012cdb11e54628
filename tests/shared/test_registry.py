"""Versions and aliases: numbered, gated, moved by compare-and-swap, and every move on record. On SQLite and on Postgres."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from genba_shared.artifacts import Artifacts
from genba_shared.audit import AuditLog
from genba_shared.bundles import BadBundle
from genba_shared.db import Database
from genba_shared.principal import Clearance, Principal
from genba_shared.problems import Conflict, GateNotMet, Gone, NotFound, Unavailable, VersionConflict
from genba_shared.recipe import Champion, Gate, Registration
from genba_shared.registry import Registry, Version
from genba_shared.registry_rows import VersionRow

MODEL = "test.toy"
Register = Callable[..., Version]


@pytest.fixture
def registry(database: Database, tmp_path: Path) -> Registry:
    return Registry(database, Artifacts(str(tmp_path / "artifacts")))


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[..., Path]:
    """A bundle's folder: ``bundle(weights=b"…")``."""

    def build(*, name: str = "bundle", weights: bytes = b"weights", **files: bytes) -> Path:
        folder = tmp_path / name
        (folder / "weights").mkdir(parents=True, exist_ok=True)
        (folder / "bundle.json").write_text(json.dumps({"config": {"dim": 4}, "code_commit": "abc123"}))
        (folder / "weights" / "towers.safetensors").write_bytes(weights)
        for each, content in files.items():
            (folder / each.replace("__", ".")).write_bytes(content)
        return folder

    return build


@pytest.fixture
def register(registry: Registry, bundle: Callable[..., Path]) -> Register:
    """``register(ndcg=0.4, gates=…, compared=…)``: one version, in a transaction of its own."""

    def register(
        *,
        model: str = MODEL,
        ndcg: float = 0.4,
        weights: bytes | None = None,
        job_id: str = "job_1",
        principal: Principal | None = None,
        compared: Any = "not_asked",
        **fields: Any,
    ) -> Version:
        folder = bundle(weights=weights or f"weights of {ndcg}".encode())
        registration = Registration(model, folder, {"ndcg": ndcg}, data_hash="d1", **fields)
        stored = registry.store(registration)
        with registry.database.transaction() as session:
            return registry.register(
                session, registration, job_id=job_id, by="key_1", stored=stored, compared=compared, principal=principal
            )

    return register


def numbers(registry: Registry) -> tuple[int | None, int | None]:
    """(champion, version that a rollback would go back to)."""
    return registry.pointer(MODEL).number, registry.previous(MODEL)


# ---- registering ----


def test_the_first_version_is_number_one_and_becomes_champion(register: Register, registry: Registry) -> None:
    version = register(ndcg=0.4)
    assert (version.number, version.status, version.outcome) == (1, "registered", "promoted")
    assert registry.current(MODEL) == version == registry.get(MODEL, 1)
    assert version.metrics == {"ndcg": 0.4}
    assert (version.lineage.job_id, version.lineage.data_hash, version.lineage.code_commit) == ("job_1", "d1", "abc123")
    assert (version.lineage.parent, version.created_by, version.clearance) == (None, "key_1", Clearance.INTERNAL)


def test_a_model_that_nobody_registered_has_no_champion_and_no_history(registry: Registry) -> None:
    assert registry.current(MODEL) is None
    assert registry.peek(MODEL) == (None, 0)
    assert list(registry.versions(MODEL)) == []
    for look in (registry.pointer, registry.history):
        with pytest.raises(NotFound):
            look(MODEL)


def test_numbers_count_per_model_and_the_next_version_remembers_its_parent(
    register: Register, registry: Registry
) -> None:
    register()
    assert register(model="test.other").number == 1
    second = register(ndcg=0.5)
    assert (second.number, second.lineage.parent) == (2, 1)
    assert [version.number for version in registry.versions(MODEL)] == [2, 1]
    assert [version.number for version in registry.versions(MODEL, before=2)] == [1]
    assert registry.models() == ["test.other", MODEL]


def test_a_transaction_that_fails_registers_nothing(
    registry: Registry, bundle: Callable[..., Path], register: Register
) -> None:
    registration = Registration(MODEL, bundle(), {}, data_hash="d1")

    def registers_and_fails() -> None:
        with registry.database.transaction() as session:
            registry.register(session, registration, job_id="job_1", by="key_1")
            raise RuntimeError("fenced")

    with pytest.raises(RuntimeError, match="fenced"):
        registers_and_fails()
    assert registry.current(MODEL) is None
    assert AuditLog(registry.database).entries() == []
    assert register().number == 1


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("model__pkl", b"anything", "pickle"),
        ("weights__bin", b"\x80\x04\x95rest", "pickle"),
        ("weights__safetensors", b"\x80\x04\x95rest", "pickle"),
        ("bundle__json", b"{", "not readable as JSON"),
        ("bundle__json", b"[]", "must hold an object"),
    ],
)
def test_a_bundle_that_cannot_be_read_safely_is_refused(
    file: str, content: bytes, words: str, registry: Registry, bundle: Callable[..., Path]
) -> None:
    with pytest.raises(BadBundle, match=words):
        registry.store(Registration(MODEL, bundle(**{file: content}), {}, data_hash="d1"))


def test_safetensors_whose_header_is_as_long_as_a_pickle_begins_are_no_pickle(
    registry: Registry, bundle: Callable[..., Path]
) -> None:
    header = b"{}".ljust(0x0380)  # its length is written as 80 03
    content = len(header).to_bytes(8, "little") + header
    assert content.startswith(b"\x80\x03")
    stored = registry.store(Registration(MODEL, bundle(weights__safetensors=content), {}, data_hash="d1"))
    assert "weights.safetensors" in stored.files


def test_a_bundle_without_its_manifest_or_with_a_link_is_refused(
    registry: Registry, bundle: Callable[..., Path], tmp_path: Path
) -> None:
    folder = bundle()
    (folder / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(BadBundle, match="no plain file"):
        registry.store(Registration(MODEL, folder, {}, data_hash="d1"))
    with pytest.raises(BadBundle, match=r"no bundle\.json"):
        registry.store(Registration(MODEL, tmp_path / "nothing", {}, data_hash="d1"))


@pytest.mark.parametrize("name", ["toy", "test.Toy", "../toy.x", "test.toy\n", ""])
def test_a_model_is_named_like_a_recipe(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must look like"):
        Registration(name, tmp_path, {}, data_hash="d1")


# ---- gates ----


@pytest.mark.parametrize(
    ("gate", "ndcg", "passes", "words"),
    [
        (Gate("ndcg", at_least=0.4), 0.4, True, "needs at least 0.4"),
        (Gate("ndcg", at_least=0.4), 0.39, False, "ndcg is 0.39, needs at least 0.4."),
        (Gate("ndcg", at_most=0.4), 0.5, False, "may be at most 0.4"),
        (Gate("ndcg", at_most=0.4), 0.4, True, "may be at most"),
        (Gate("recall", at_least=0.0), 0.4, False, "recall was not measured."),
        (Gate("ndcg", at_least=0.0), float("nan"), False, "ndcg is not a number."),
        (Gate("ndcg", not_below_champion_by=0.0), 0.1, True, "no champion to compare with"),
    ],
)
def test_a_gate_judges_and_says_why(gate: Gate, ndcg: float, passes: bool, words: str, register: Register) -> None:  # noqa: FBT001
    version = register(ndcg=ndcg, gates=(gate,))
    assert [(found.passed, words in found.reason) for found in version.gates] == [(passes, True)]
    assert version.outcome == ("promoted" if passes else "gate_failed")


def test_a_gate_without_a_bound_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no bound"):
        Gate("ndcg")


def test_a_version_that_misses_a_gate_is_registered_and_not_promoted(register: Register, registry: Registry) -> None:
    register(ndcg=0.5)
    worse = register(ndcg=0.2, gates=(Gate("ndcg", at_least=0.4),))
    assert (worse.number, worse.status) == (2, "gate_failed")
    assert numbers(registry) == (1, None)
    with pytest.raises(GateNotMet, match=r"ndcg is 0\.2, needs at least 0\.4"):
        registry.promote(MODEL, 2, by="key_1", reason="because")
    registry.promote(MODEL, 2, by="key_1", reason="the test set was wrong", gates="overridden")
    assert numbers(registry) == (2, 1)


@pytest.mark.parametrize(("ndcg", "outcome"), [(0.495, "promoted"), (0.48, "gate_failed")])
def test_a_version_may_be_worse_than_the_champion_by_so_much(ndcg: float, outcome: str, register: Register) -> None:
    register(ndcg=0.6)
    version = register(
        ndcg=ndcg,
        gates=(Gate("ndcg", not_below_champion_by=0.01),),
        champion_metrics={"ndcg": 0.5},  # on this data, not what it was registered with
        compared=Champion(1, Path()),
    )
    assert version.outcome == outcome


@pytest.mark.parametrize("theirs", [None, {}, {"ndcg": float("nan")}])
def test_a_champion_that_was_not_evaluated_on_the_same_data_fails_the_gate(theirs: Any, register: Register) -> None:
    register(ndcg=0.1)
    version = register(ndcg=0.9, gates=(Gate("ndcg", not_below_champion_by=0.0),), champion_metrics=theirs)
    assert version.outcome == "gate_failed"
    assert version.gates[0].reason == "The champion, version 1, was not evaluated for ndcg on this data."


@pytest.mark.parametrize("compared", [None, Champion(1, Path())])
def test_a_version_is_not_promoted_over_another_champion_than_it_was_compared_with(
    compared: Champion | None, register: Register, registry: Registry
) -> None:
    register(ndcg=0.4)
    register(ndcg=0.5)
    version = register(ndcg=0.6, compared=compared)
    assert (version.status, version.outcome) == ("registered", "champion_changed")
    assert version.lineage.parent == (compared and 1)
    assert numbers(registry) == (2, 1)
    registry.promote(MODEL, 3, by="key_1", reason="looked at it")


def test_a_recipe_may_ask_for_no_promotion_and_a_submitter_may_lack_the_right(
    register: Register, registry: Registry, principal: Callable[..., Principal]
) -> None:
    assert register(promote="never").outcome == "not_asked"
    assert register(principal=principal("operator")).outcome == "not_allowed"
    assert register(principal=principal("engineer")).outcome == "promoted"
    assert numbers(registry) == (3, None)


# ---- promote, roll back, history ----


def test_a_rollback_goes_back_and_a_second_one_further_back(register: Register, registry: Registry) -> None:
    for ndcg in (0.1, 0.2, 0.3):
        register(ndcg=ndcg)
    assert numbers(registry) == (3, 2)
    assert registry.rollback(MODEL, by="key_1", reason="bad lists").number == 2
    assert numbers(registry) == (2, 1)
    registry.promote(MODEL, 3, by="key_1", reason="it was not the model")
    assert numbers(registry) == (3, 2)
    registry.rollback(MODEL, by="key_1", reason="it was")
    registry.rollback(MODEL, by="key_1", reason="and this one too")
    assert numbers(registry) == (1, None)
    with pytest.raises(Conflict, match="no champion before this one"):
        registry.rollback(MODEL, by="key_1", reason="?")


def test_every_move_is_in_the_history_and_in_the_audit_log(register: Register, registry: Registry) -> None:
    register()
    register()
    registry.rollback(MODEL, by="key_2", reason="bad lists")
    registry.promote(MODEL, 2, alias="challenger", by="key_3", reason="try it")
    registry.clear(MODEL, "challenger", by="key_3", reason="tried")
    told = [(m.alias, m.kind, m.from_number, m.to_number, m.by, m.generation) for m in registry.history(MODEL)]
    assert told == [
        ("challenger", "clear", 2, None, "key_3", 2),
        ("challenger", "promote", None, 2, "key_3", 1),
        ("champion", "rollback", 2, 1, "key_2", 3),
        ("champion", "promote", 1, 2, "key_1", 2),
        ("champion", "promote", None, 1, "key_1", 1),
    ]
    assert [move.reason for move in registry.history(MODEL, alias="champion", limit=1)] == ["bad lists"]
    log = AuditLog(registry.database)
    assert log.verify().intact
    assert [(entry.event, entry.actor, entry.subject) for entry in log.entries()][2:4] == [
        ("model_rollback", "key_2", f"{MODEL}/champion"),
        ("model_promote", "key_3", f"{MODEL}/challenger"),
    ]
    assert "bad lists" not in str(log.entries())


def test_promoting_what_is_champion_already_changes_nothing(register: Register, registry: Registry) -> None:
    register()
    before = registry.pointer(MODEL)
    assert registry.promote(MODEL, 1, by="key_1", reason="again") == before
    assert len(registry.history(MODEL)) == 1


def test_a_move_from_a_generation_that_is_past_is_refused(register: Register, registry: Registry) -> None:
    for _ in range(3):
        register()
    late: list[Callable[[], object]] = [
        lambda: registry.promote(MODEL, 1, by="key_1", reason="late", generation=2),
        lambda: registry.rollback(MODEL, by="key_1", reason="late", generation=2),
        lambda: registry.clear(MODEL, "champion", by="key_1", reason="late", generation=2),
    ]
    for move in late:
        with pytest.raises(VersionConflict, match="moved in the meantime"):
            move()
    assert registry.rollback(MODEL, by="key_1", reason="in time", generation=3).number == 2


def test_of_two_promotions_at_the_same_moment_one_is_told_so(
    register: Register, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        register()
    both_have_looked, look = threading.Barrier(2), registry.get

    def look_and_wait(*args: Any, **options: Any) -> Version:
        both_have_looked.wait(20)
        return look(*args, **options)

    def promote(number: int) -> str:
        try:
            registry.promote(MODEL, number, by="key_1", reason="now")
        except VersionConflict:
            return "conflict"
        return "moved"

    monkeypatch.setattr(registry, "get", look_and_wait)
    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(promote, (1, 2))) == ["conflict", "moved"]
    assert registry.pointer(MODEL).generation == 4
    assert len(registry.history(MODEL)) == 4


def test_jobs_that_finish_at_the_same_moment_get_a_number_each(registry: Registry, bundle: Callable[..., Path]) -> None:
    registration = Registration(MODEL, bundle(), {}, data_hash="d1")
    start = threading.Barrier(4)

    def finish(job: int) -> int:
        start.wait(20)
        with registry.database.transaction() as session:
            return registry.register(session, registration, job_id=f"job_{job}", by="key_1").number

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(finish, range(4))) == [1, 2, 3, 4]
    assert [move.generation for move in registry.history(MODEL)] == [4, 3, 2, 1]
    assert registry.current(MODEL) == registry.get(MODEL, 4)


def test_a_cleared_champion_can_be_rolled_back_to(register: Register, registry: Registry) -> None:
    register()
    registry.clear(MODEL, "champion", by="key_1", reason="none is good")
    assert registry.current(MODEL) is None
    assert registry.clear(MODEL, "champion", by="key_1", reason="again").generation == 2
    assert registry.rollback(MODEL, by="key_1", reason="one was").number == 1


# ---- who may see ----


def test_a_version_is_hidden_from_who_may_not_see_the_job_that_made_it(
    register: Register, registry: Registry, principal: Callable[..., Principal]
) -> None:
    register()
    secret = principal("engineer", clearance=Clearance.SECRET, compartments=frozenset({"line_4"}))
    register(principal=secret)
    viewer = principal("engineer")
    assert [version.number for version in registry.versions(MODEL, viewer=viewer)] == [1]
    assert [version.number for version in registry.versions(MODEL, viewer=secret)] == [2, 1]
    assert [version.number for version in registry.versions(MODEL)] == [2, 1]
    assert [move.to_number for move in registry.history(MODEL, viewer=viewer)] == [1]
    for move in (
        lambda: registry.get(MODEL, 2, viewer=viewer),
        lambda: registry.promote(MODEL, 2, by="key_1", reason="?", viewer=viewer),
        lambda: registry.rollback(MODEL, by="key_1", reason="?", viewer=viewer),
    ):
        with pytest.raises(NotFound):
            move()
    register(model="test.other", principal=secret)
    assert registry.models(viewer=viewer) == [MODEL]
    with pytest.raises(NotFound):
        registry.pointer("test.other", viewer=viewer)


# ---- bundles ----


def test_a_fetched_bundle_is_what_was_registered(register: Register, registry: Registry, tmp_path: Path) -> None:
    folder = registry.fetch(register(weights=b"w1"), tmp_path / "cache")
    assert (folder / "weights" / "towers.safetensors").read_bytes() == b"w1"
    assert json.loads((folder / "bundle.json").read_text())["config"] == {"dim": 4}
    assert registry.fetch(registry.get(MODEL, 1), tmp_path / "cache") == folder


@pytest.mark.parametrize("harm", ["change", "delete", "add"])
def test_a_cached_bundle_that_somebody_harmed_is_fetched_again(
    harm: str, register: Register, registry: Registry, tmp_path: Path
) -> None:
    version = register(weights=b"w1")
    folder = registry.fetch(version, tmp_path / "cache")
    weights = folder / "weights" / "towers.safetensors"
    harms: dict[str, Callable[[], object]] = {
        "change": lambda: weights.write_bytes(b"w2"),
        "delete": weights.unlink,
        "add": lambda: (folder / "conftest.py").write_text("import os"),
    }
    harms[harm]()
    assert registry.fetch(version, tmp_path / "cache") == folder
    assert weights.read_bytes() == b"w1"
    assert {path.name for path in folder.iterdir()} == {"bundle.json", "weights"}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_bytes_that_the_store_changed_are_not_handed_out(
    register: Register, registry: Registry, tmp_path: Path
) -> None:
    version = register(weights=b"w1")
    key = version.files["weights/towers.safetensors"]
    (tmp_path / "artifacts" / "models" / MODEL / key).write_bytes(b"w2")
    with pytest.raises(OSError, match="arrived damaged"):
        registry.fetch(version, tmp_path / "cache")
    assert list((tmp_path / "cache").rglob("*.safetensors")) == []


def test_a_name_that_leads_out_of_the_bundle_is_refused(register: Register, registry: Registry, tmp_path: Path) -> None:
    key = next(iter(register().files.values()))
    with registry.database.transaction() as session:
        session.execute(update(VersionRow).values(files={"../../evil": key}))
    with pytest.raises(ValueError, match="no name of a file"):
        registry.fetch(registry.get(MODEL, 1), tmp_path / "cache")


# ---- retention ----


def test_retention_keeps_aliases_the_way_back_and_the_newest(register: Register, registry: Registry) -> None:
    for ndcg in (0.1, 0.2, 0.3):  # 3 is champion, 2 the way back
        register(ndcg=ndcg)
    for _ in range(4):
        register(promote="never")
    registry.promote(MODEL, 1, alias="challenger", by="key_1", reason="compare")
    assert registry.retain(MODEL, keep=2) == [4, 5]
    assert [version.number for version in registry.versions(MODEL) if version.status != "retired"] == [7, 6, 3, 2, 1]
    assert registry.retain(MODEL, keep=2) == []
    registry.clear(MODEL, "challenger", by="key_1", reason="compared")
    assert registry.retain(MODEL, keep=2) == [1]
    assert numbers(registry) == (3, 2)
    registry.rollback(MODEL, by="key_1", reason="the way back is there")
    with pytest.raises(Conflict, match="no champion before"):
        registry.rollback(MODEL, by="key_1", reason="further back are no files")


def test_a_retired_version_keeps_its_row_and_loses_the_files_that_nobody_else_needs(
    register: Register, registry: Registry, tmp_path: Path
) -> None:
    for weights in (b"w1", b"w2", b"w3"):  # all three share their bundle.json
        register(weights=weights)
    assert registry.retain(MODEL, keep=1) == [1]
    retired = registry.get(MODEL, 1)
    assert (retired.status, retired.size_bytes, retired.metrics) == ("retired", 0, {"ndcg": 0.4})
    store = registry.artifacts.below(f"models/{MODEL}")
    kept = {name: store.exists(key) for name, key in retired.files.items()}
    assert kept == {"bundle.json": True, "weights/towers.safetensors": False}
    for number in (2, 3):
        registry.fetch(registry.get(MODEL, number), tmp_path / "cache")
    for use in (
        lambda: registry.promote(MODEL, 1, by="key_1", reason="?"),
        lambda: registry.fetch(retired, tmp_path / "cache"),
    ):
        with pytest.raises(Gone, match="retired"):
            use()


def test_files_of_a_retired_version_go_later_if_the_process_died_before(
    register: Register, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for weights in (b"w1", b"w2", b"w3"):
        register(weights=weights)
    with monkeypatch.context() as patched:
        patched.setattr(registry, "_delete_files", lambda _model: None)
        assert registry.retain(MODEL, keep=1) == [1]
    key = registry.get(MODEL, 1).files["weights/towers.safetensors"]
    assert registry.artifacts.below(f"models/{MODEL}").exists(key)
    assert registry.retain(MODEL, keep=1) == []
    assert not registry.artifacts.below(f"models/{MODEL}").exists(key)


def test_a_version_on_bytes_that_retention_took_meanwhile_is_not_registered(
    registry: Registry, register: Register, bundle: Callable[..., Path]
) -> None:
    for weights in (b"w1", b"w2", b"w3"):
        register(weights=weights)
    registration = Registration(MODEL, bundle(weights=b"w1"), {}, data_hash="d1")
    stored = registry.store(registration)
    registry.retain(MODEL, keep=1)
    with pytest.raises(Unavailable, match=r"towers\.safetensors"), registry.database.transaction() as session:
        registry.register(session, registration, job_id="job_1", by="key_1", stored=stored)
    with registry.database.transaction() as session:
        registry.register(session, registration, job_id="job_1", by="key_1", stored=registry.store(registration))
    assert registry.current(MODEL) == registry.get(MODEL, 4)
