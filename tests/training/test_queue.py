"""Both brokers, one suite: a wake-up arrives once, and what is torn, lost or down stops nobody."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery import Celery
from pydantic import BaseModel

from genba_shared import queue
from genba_shared.queue import TASK, Wakeups, make_celery
from genba_shared.recipe import Params, Recipe, Result
from genba_shared.settings import Platform
from genba_training import recipes
from genba_training.worker import _queues


@pytest.fixture(params=["folder", pytest.param("redis", marks=pytest.mark.distributed)])
def celery(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> Iterator[Celery]:
    if request.param == "folder":
        celery = make_celery(Platform(home=tmp_path))
        yield celery
        celery.close()
        return
    prefix = f"genba-test-{secrets.token_hex(4)}:"
    celery = make_celery(Platform(home=tmp_path, broker_url=f"{redis_url}/0"))
    celery.conf.broker_transport_options = {**celery.conf.broker_transport_options, "global_keyprefix": prefix}
    yield celery
    celery.close()
    with redis.Redis.from_url(redis_url) as client:
        for key in client.scan_iter(f"{prefix}*"):
            client.delete(key)


def taken(celery: Celery, queue: str) -> list[str]:
    """Job ids in the order in which a worker would get them."""
    found = []
    with celery.connection_for_read() as connection:
        channel = connection.default_channel
        while message := channel.basic_get(queue, no_ack=True):
            assert message.headers["task"] == TASK
            found.append(message.decode()[0][0])
    return found


def test_a_wake_up_reaches_its_queue_once_and_in_order(celery: Celery) -> None:
    wakeups = Wakeups(celery)
    sent = [f"job_{secrets.token_hex(4)}" for _ in range(5)]
    assert all(wakeups.send(job_id, "cpu") for job_id in sent)
    assert wakeups.send("job_gpu", "gpu")
    assert wakeups.waiting() == {"cpu": 5, "gpu": 1}
    assert taken(celery, "cpu") == sent
    assert taken(celery, "gpu") == ["job_gpu"]
    assert wakeups.waiting() == {"cpu": 0, "gpu": 0}


def test_a_message_carries_nothing_but_the_job_id(celery: Celery) -> None:
    Wakeups(celery).send("job_1", "cpu")
    with celery.connection_for_read() as connection:
        message = connection.default_channel.basic_get("cpu", no_ack=True)
    args, options, _ = message.decode()
    assert (args, options) == (["job_1"], {})


def test_readers_at_the_same_moment_share_the_messages(celery: Celery) -> None:
    wakeups, found = Wakeups(celery), []
    sent = [f"job_{number}" for number in range(60)]
    for job_id in sent:
        wakeups.send(job_id, "cpu")
    threads = [threading.Thread(target=lambda: found.extend(taken(celery, "cpu"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(sent)


def test_a_torn_message_is_dropped_and_the_next_one_read(tmp_path: Path) -> None:
    celery = make_celery(Platform(home=tmp_path))
    wakeups = Wakeups(celery)
    wakeups.send("job_1", "cpu")
    folder = tmp_path / "broker" / "messages"
    next(folder.iterdir()).write_text('{"body": "W1')
    (folder / ".half-written.cpu.msg").write_text("{")
    wakeups.send("job_2", "cpu")
    assert wakeups.waiting()["cpu"] == 2
    assert taken(celery, "cpu") == ["job_2"]
    celery.close()


def test_nothing_is_left_outside_the_brokers_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    celery = make_celery(Platform(home=tmp_path / "home"))
    Wakeups(celery).send("job_1", "cpu")
    taken(celery, "cpu")
    celery.close()
    assert {path.name for path in tmp_path.iterdir()} == {"home"}
    assert not list((tmp_path / "home" / "broker" / "messages").iterdir())


def test_a_broker_that_is_down_costs_one_try(tmp_path: Path) -> None:
    celery = make_celery(Platform(home=tmp_path, broker_url="redis://127.0.0.1:1/0"))
    wakeups = Wakeups(celery)
    assert not wakeups.down
    assert [wakeups.send("job_1", "cpu"), wakeups.down, wakeups.send("job_2", "cpu")] == [False, True, False]
    assert wakeups.waiting() == {}
    celery.close()


def test_a_broker_that_hangs_costs_one_try_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_BROKER_ANSWERS_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as hangs:  # takes connections and says nothing
        celery = make_celery(Platform(home=tmp_path, broker_url=f"redis://127.0.0.1:{hangs.getsockname()[1]}/0"))
        wakeups = Wakeups(celery)
        assert [wakeups.send("job_1", "cpu"), wakeups.down, wakeups.waiting()] == [False, True, {}]
        celery.close()


def test_another_kind_of_broker_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="GENBA_BROKER_URL"):
        make_celery(Platform(home=tmp_path, broker_url="amqp://localhost"))


# ---- finding recipes ----


def test_what_is_not_installed_is_passed_over_and_what_is_broken_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_recipes.py").write_text("RECIPES = 1 / 0")
    (tmp_path / "needy_recipes.py").write_text("import a_package_that_is_not_here")
    (tmp_path / "empty_recipes.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = recipes.load(
        (
            "genba_training.builtin:RECIPES",
            "genba_nowhere.training:RECIPES",
            "broken_recipes:RECIPES",
            "needy_recipes:RECIPES",
            "empty_recipes:RECIPES",
        )
    )
    assert [recipe.name for recipe in found] == ["platform.prune_jobs", "platform.verify_audit"]
    assert found.broken["broken_recipes:RECIPES"] == "ZeroDivisionError: division by zero"
    assert found.broken["needy_recipes:RECIPES"] == "needs the package a_package_that_is_not_here"
    assert set(found.broken) == {"broken_recipes:RECIPES", "needy_recipes:RECIPES", "empty_recipes:RECIPES"}


def test_two_recipes_of_one_name_are_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "from genba_shared.recipe import *\nRECIPES = {'test.same': Recipe('test.same', Params, lambda p, r: None)}"
    )
    for name in ("one_recipes", "two_recipes"):
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "Two modules" in recipes.load(("one_recipes:RECIPES", "two_recipes:RECIPES")).broken["two_recipes:RECIPES"]


def test_a_recipe_source_has_a_module_and_a_name() -> None:
    with pytest.raises(ValueError, match="must look like"):
        recipes.load(("genba_training.builtin",))


def test_a_recipes_parameters_are_described_by_json_schema() -> None:
    class Count(Params):
        n: int

    recipe: Recipe[Count] = Recipe("test.count", Count, lambda _params, _run: Result())
    assert isinstance(recipes.validate(recipe, {"n": 3}), BaseModel)
    assert Count.model_json_schema()["required"] == ["n"]


@pytest.mark.parametrize("text", ["tpu", "", "cpu,tpu"])
def test_a_worker_refuses_a_queue_that_does_not_exist(text: str) -> None:
    import argparse

    with pytest.raises(argparse.ArgumentTypeError, match="cpu, gpu"):
        _queues(text)
