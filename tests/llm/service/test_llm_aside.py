"""A user's own model is loaded beside the work: the service answers meanwhile, says so, and writes once it is there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.world import until
from tests.llm.service.conftest import HARMLESS, Headers, running
from tests.llm.test_backends import make_tiny_phi3

from genba_llm import backend_aside
from genba_llm.backend_aside import Aside
from genba_llm.backend_extractive import Extractive
from genba_llm.backend_transformers import TransformersModel
from genba_llm.generation import BackendUnreachable, Message, Options, Task
from genba_llm.settings import Settings
from genba_shared.settings import Platform

ASKED = Task([Message("user", HARMLESS)], Options(max_tokens=4, temperature=0.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_phi3(tmp_path_factory.mktemp("models") / "tiny-phi3")


@pytest.fixture
def slow(folder: Path) -> Iterator[tuple[Aside[TransformersModel], threading.Event]]:
    """A real model whose loading takes until the event is set."""
    there = threading.Event()

    def load() -> TransformersModel:
        there.wait()
        return TransformersModel(folder, device="cpu")

    yield Aside(load, model="tiny-phi3"), there
    there.set()


def test_while_it_is_loaded_readiness_says_so_people_are_asked_and_the_gate_decides_on(
    upgraded: Platform, signed: Headers, slow: tuple[Aside[TransformersModel], threading.Event]
) -> None:
    aside, there = slow
    with running(Settings(platform=upgraded), signed, backend=aside) as service:
        ready = service.client.get("/ready")
        assert ready.status_code == 200
        assert "is being loaded" in ready.json()["degraded"]["backend"]
        asked = service.chat(max_tokens=4)
        assert (asked.status_code, asked.json()["decision"]) == (503, "ESCALATE")
        assert "is being loaded" in asked.json()["detail"]
        assert int(asked.headers["retry-after"]) > 0
        assert service.chat(max_tokens=4, stream=True).status_code == 503
        for _ in range(service.llm.settings.generations):  # who was turned away holds no turn
            assert "is being loaded" in service.chat(max_tokens=4).json()["detail"]
        assert service.post("triage", {"text": HARMLESS}).json()["decision"] == "ALLOW"
        assert service.get("models").json()["data"][0]["id"] == "tiny-phi3"
        there.set()
        until(lambda: "backend" not in service.client.get("/ready").json()["degraded"])
        answered = service.chat(max_tokens=4)
        assert (answered.status_code, answered.json()["model"]) == (200, "tiny-phi3")


def test_a_judge_that_is_still_loaded_lets_nothing_through(
    upgraded: Platform, signed: Headers, slow: tuple[Aside[TransformersModel], threading.Event]
) -> None:
    aside, there = slow
    with running(Settings(platform=upgraded, reasoner="one_forward"), signed, backend=aside) as service:
        waiting = service.post("triage", {"text": HARMLESS}).json()
        assert waiting["decision"] == "ESCALATE"
        assert "reasoning_error_backendunreachable" in waiting["reasons"]
        there.set()
        until(lambda: aside.check() is None)
        judged = service.post("triage", {"text": HARMLESS}).json()
    assert any(each["stage"] == "reasoning" and each["scores"] for each in judged["evidence"])


def test_what_does_not_load_is_said_and_tried_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_aside, "_RETRY_FIRST_S", 0.01)
    gone = folder.rename(folder.with_name("away"))
    aside = Aside(lambda: TransformersModel(folder, device="cpu"), model="tiny-phi3")
    until(lambda: "does not load: " in (aside.check() or "loaded"))
    assert "there is no config.json" in (aside.check() or "")
    with pytest.raises(BackendUnreachable, match="does not load"):
        aside.generate(ASKED)
    gone.rename(folder)
    until(lambda: aside.check() is None)
    assert [piece for piece in aside.generate(ASKED) if piece.finish]
    aside.close()


class Closable(Extractive):
    closed = False

    def close(self) -> None:
        self.closed = True


def test_a_model_that_comes_after_the_service_has_ended_is_let_go() -> None:
    there, late = threading.Event(), Closable()

    def load() -> Closable:
        there.wait()
        return late

    aside = Aside(load, model="late")
    aside.close()
    there.set()
    until(lambda: late.closed)
