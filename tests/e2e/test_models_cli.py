"""``genba models`` as a person meets it, over a running embedded mode in which jobs train and register."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.e2e.world import Genba, Shell

from genba_gateway.client import Client, Refused

pytestmark = pytest.mark.xdist_group("jobs-cli")

MODEL = "test.points"


@pytest.fixture(scope="module")
def genba(genba_with_test_recipes: Genba) -> Genba:
    """With four versions: promoted, missed its gate, promoted, promoted."""
    with Client(genba_with_test_recipes.url, genba_with_test_recipes.admin_key) as client:
        for params in ({"epochs": 1}, {"accuracy_at_least": 0.999}, {"epochs": 2}, {"epochs": 3}):
            job = client.jobs.wait(client.jobs.submit("test.train", params).id)
            assert job.succeeded, job.error
    return genba_with_test_recipes


@pytest.fixture(scope="module")
def models(genba: Genba) -> Shell:
    return Shell(genba, "models")


@pytest.fixture
def client(genba: Genba) -> Iterator[Client]:
    with Client(genba.url, genba.admin_key) as client:
        yield client


def test_models_and_versions_are_shown_with_gates_and_lineage(models: Shell, client: Client) -> None:
    (listed,) = (each for each in models.json("list", "--json") if each["name"] == MODEL)
    assert (listed["name"], listed["champion"]["number"], listed["previous"], listed["newest"]) == (MODEL, 4, 3, 4)
    assert MODEL in models("list").out
    shown = models("show", MODEL)
    assert f"{MODEL}: champion 4, challenger –" in shown.out
    assert "a rollback goes to 3" in shown.out
    outcomes = [version["outcome"] for version in models.json("show", MODEL, "--json")["versions"]]
    assert outcomes == ["promoted", "promoted", "gate_failed", "promoted"]
    missed = models("show", MODEL, "2")
    assert "version 2: gate_failed" in missed.out
    assert "missed accuracy is 0.9" in missed.out
    assert "needs at least 0.999" in missed.out
    version = models.json("show", MODEL, "4", "--json")
    assert version["lineage"]["parent"] == 3
    assert client.jobs.get(version["lineage"]["job_id"]).result is not None


def test_a_person_promotes_tries_and_rolls_back_and_the_history_says_why(models: Shell) -> None:
    assert models("rollback", MODEL, "-m", "complaints from line 4").out == f"{MODEL}: champion is version 3\n"
    assert models("challenger", MODEL, "4", "-m", "see whether it is that").out == f"{MODEL}: challenger is version 4\n"
    assert models("challenger", MODEL, "none", "-m", "it was").out == f"{MODEL}: challenger points nowhere\n"
    refused = models("promote", MODEL, "2", "-m", "I want it")
    assert refused.code == 3
    assert "missed" in refused.err or "gate" in refused.err
    overridden = models("promote", MODEL, "2", "-m", "I want it all the same", "--override-gates")
    assert overridden.out == f"{MODEL}: champion is version 2\n"
    assert models("promote", MODEL, "4", "-m", "back to normal").code == 0
    moves = models.json("history", MODEL, "--limit", "6", "--json")
    assert [(move["alias"], move["kind"], move["to_number"]) for move in moves] == [
        ("champion", "promote", 4),
        ("champion", "promote", 2),
        ("challenger", "clear", None),
        ("challenger", "promote", 4),
        ("champion", "rollback", 3),
        ("champion", "promote", 4),
    ]
    assert [move["reason"] for move in moves][:2] == ["back to normal", "I want it all the same"]
    assert "complaints from line 4" in models("history", MODEL, "--alias", "champion").out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("show", "test.nothing"), 3, "404"),
        (("show", MODEL, "99"), 3, "404"),
        (("promote", MODEL, "99", "-m", "x"), 3, "404"),
        (("promote", MODEL, "1", "-m", "x", "--generation", "0"), 3, "409"),
        (("rollback", MODEL, "-m", " "), 3, "reason"),
        (("promote", MODEL, "1"), 2, "--reason"),
        (("challenger", MODEL, "v2", "-m", "x"), 2, "neither a version's number nor none"),
        (("list", "--url", "http://127.0.0.1:9"), 3, "does not answer"),
    ],
)
def test_what_cannot_be_is_said_in_words_with_its_exit_code(
    arguments: tuple[str, ...], code: int, said: str, models: Shell
) -> None:
    ended = models(*arguments)
    assert ended.code == code, ended.err
    assert said in ended.err


def test_the_client_reaches_the_same(client: Client) -> None:
    before = client.models.get(MODEL)
    assert [version.number for version in client.models.versions(MODEL, limit=2)] == [4, 3]
    assert client.models.version(MODEL, 2).gates[0].passed is False
    after = client.models.rollback(MODEL, reason="by a program", generation=before.champion.generation)
    assert after.champion.number == before.previous
    with pytest.raises(Refused) as refused:
        client.models.rollback(MODEL, reason="sent twice", generation=before.champion.generation)
    assert refused.value.status == 409
    (move,) = client.models.history(MODEL, limit=1)
    assert (move.kind, move.reason, move.to_number) == ("rollback", "by a program", before.previous)
