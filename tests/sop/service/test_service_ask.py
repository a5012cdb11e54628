"""Questions about videos: answered by passages, or by a model that a real server of OpenAI's format stands for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from starlette.testclient import TestClient
from tests.llm.service.model_server import MODEL, ModelServer, serving
from tests.sop.signing import signing

from genba_llm.app import create_app as create_llm
from genba_llm.settings import Settings as LlmSettings
from genba_shared.principal import Clearance
from genba_shared.settings import Platform
from genba_sop.answering import NotWritten, with_known_citations
from genba_sop.app import create_app
from genba_sop.settings import Settings

Service = Any  # of conftest, which tests cannot import
Films = Any
Headers = Callable[..., dict[str, str]]

QUESTION = "What should the gauge read?"
VTT = "WEBVTT\n\n00:05.000 --> 00:06.000\nPour until the gauge\n\n00:06.000 --> 00:07.500\nreads forty.\n"
WORDS = "Pour until the gauge reads forty."


def say(client: TestClient, video: str, headers: dict[str, str]) -> None:
    path = f"/v1/sop/videos/{video}/transcript"
    answer = client.put(path, content=VTT, headers=headers | {"content-type": "text/vtt"})
    assert answer.status_code == 200, answer.text


def test_passages_answer_and_cite_their_places(service: Service, films: Films) -> None:
    procedure, video = service.procedure(films), service.video(films.good)
    say(service.client, video, service.headers())
    found = service.post("/v1/sop/ask", {"question": QUESTION}).json()
    assert (found["answer"], found["found"], found["written_by"], found["note"]) == (
        f"{WORDS} [1]",
        True,
        "passages",
        None,
    )
    [cited] = found["citations"]
    assert (cited["video_id"], cited["start_s"], cited["end_s"]) == (video, 5.0, 7.5)
    assert (cited["words"], cited["kind"], cited["step_id"]) == (WORDS, "transcript", None)
    found = service.post("/v1/sop/ask", {"question": "タンクを満たす工具は？"}).json()
    assert found["citations"][0]["step_id"] == "fill"
    assert (found["citations"][0]["procedure_id"], found["citations"][0]["kind"]) == (procedure, "step")
    assert found["citations"][0]["words"] == "タンクを満たす。工具: funnel。"
    assert found["citations"][0]["start_s"] == 4.0
    only = service.post("/v1/sop/ask", {"question": QUESTION, "procedure_id": procedure}).json()
    assert not only["found"]


def test_what_is_not_there_is_said_in_the_language_of_the_question(sqlite_service: Service, films: Films) -> None:
    sqlite_service.procedure(films)
    for question, answer in (
        ("What is the capital of France?", "Nothing was found that answers this."),
        ("有給休暇の申請は？", "この質問に答えるものは見つかりませんでした。"),
    ):
        found = sqlite_service.post("/v1/sop/ask", {"question": question}).json()
        assert (found["answer"], found["found"], found["citations"]) == (answer, False, [])
    assert sqlite_service.post("/v1/sop/ask", {"question": ""}).status_code == 422
    assert sqlite_service.post("/v1/sop/ask", {"question": "lid", "procedure_id": "proc_0"}).status_code == 404


def test_nobody_is_answered_from_what_they_may_not_see(sqlite_service: Service, films: Films) -> None:
    service = sqlite_service
    headers = service.headers(clearance=Clearance.SECRET)
    made = service.client.post(
        "/v1/sop/videos",
        content=films.good.read_bytes(),
        params={"clearance": "secret"},
        headers=headers | {"content-type": "video/mp4"},
    )
    say(service.client, made.json()["id"], headers)
    assert service.post("/v1/sop/ask", {"question": QUESTION}, clearance=Clearance.SECRET).json()["found"]
    assert not service.post("/v1/sop/ask", {"question": QUESTION}).json()["found"]
    other = {"clearance": Clearance.SECRET, "tenant": "plant-2"}
    assert not service.post("/v1/sop/ask", {"question": QUESTION}, **other).json()["found"]


@contextlib.contextmanager
def asking(platform: Platform, signed: Headers, films: Films, **settings: Any) -> Iterator[Callable[[], Any]]:
    """A service with a model, and one question about a video whose transcript answers it."""
    with TestClient(create_app(Settings(platform=platform, sweep_every_s=3600.0, **settings))) as client:
        headers = signed("engineer")
        film = films.good.read_bytes()
        made = client.post("/v1/sop/videos", content=film, headers=headers | {"content-type": "video/mp4"})
        say(client, made.json()["id"], headers)

        def ask() -> Any:
            answer = client.post("/v1/sop/ask", json={"question": QUESTION}, headers=headers)
            assert answer.status_code == 200, answer.text
            return answer.json()

        yield ask


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with serving() as found:
        found.wire = "whole"
        yield found


def test_a_model_words_the_answer_and_only_passages_that_exist_are_cited(
    platform: Platform, signed: Headers, films: Films, model: ModelServer
) -> None:
    model.text = "<think>[1] says so</think>It should read forty [1][7], as said [1, 9]."
    key = SecretStr("sk-1")
    with asking(platform, signed, films, llm_url=model.url, llm_model=MODEL, llm_api_key=key) as ask:
        found = ask()
    assert (found["answer"], found["written_by"]) == ("It should read forty [1], as said [1].", "model")
    assert (found["model"], found["note"], [each["n"] for each in found["citations"]]) == (MODEL, None, [1])
    prompt = model.asked[0]["messages"][-1]["content"]
    assert f"[1] {WORDS}" in prompt
    assert QUESTION in prompt


def test_the_gate_of_svc_llm_lets_the_question_with_its_passages_through(
    platform: Platform, signed: Headers, films: Films, model: ModelServer
) -> None:
    model.text, model.wire = "It should read forty [1].", "openai"
    llm = create_llm(LlmSettings(platform=platform, backend="openai", backend_url=model.url, backend_model=MODEL))
    with (
        signing(llm, signed("operator")) as url,
        asking(platform, signed, films, llm_url=f"{url}/v1/llm", llm_model=MODEL) as ask,
    ):
        found = ask()
    assert (found["answer"], found["written_by"], found["note"]) == ("It should read forty [1].", "model", None)


def test_whatever_is_wrong_with_the_model_passages_answer_and_say_so(
    platform: Platform, signed: Headers, films: Films, model: ModelServer
) -> None:
    with asking(platform, signed, films, llm_url=model.url, llm_model=MODEL) as ask:
        for change, note in (
            ({"text": "It should read forty."}, "model_uncited"),
            ({"text": "I may not say [1].", "finish": "content_filter"}, "model_refused"),
            ({"finish": "stop", "wire": "openai"}, "model_refused"),  # a stream that nobody asked for
            ({"status": 403}, "model_refused"),
            ({"status": 503}, "model_unreachable"),
        ):
            for name, value in change.items():
                setattr(model, name, value)
            found = ask()
            assert (found["note"], found["written_by"]) == (note, "passages")
            assert (found["answer"], len(found["citations"])) == (f"{WORDS} [1]", 1)


def test_a_model_that_is_not_there_or_too_slow_is_noted(
    platform: Platform, signed: Headers, films: Films, model: ModelServer
) -> None:
    with asking(platform, signed, films, llm_url="http://127.0.0.1:9/v1", llm_model=MODEL) as ask:
        assert ask()["note"] == "model_unreachable"
    model.wire, model.pause_s = "openai", 0.05
    with asking(platform, signed, films, llm_url=model.url, llm_model=MODEL, llm_timeout_s=0.2) as ask:
        assert ask()["note"] == "model_timed_out"


def test_what_is_too_secret_for_the_model_is_not_sent(
    platform: Platform, signed: Headers, films: Films, model: ModelServer
) -> None:
    with asking(platform, signed, films, llm_url=model.url, llm_model=MODEL, llm_clearance="public") as ask:
        assert ask()["note"] == "above_model_clearance"
    assert model.asked == []


def test_a_server_needs_the_name_of_a_model() -> None:
    with pytest.raises(ValidationError, match="GENBA_SOP_LLM_MODEL"):
        Settings(llm_url="http://127.0.0.1:11434/v1")


def test_the_key_may_come_from_a_file(tmp_path: Any) -> None:
    (tmp_path / "key").write_text("sk-2\n", "utf-8")
    assert Settings(llm_api_key_file=tmp_path / "key").load_llm_api_key() == "sk-2"
    assert Settings(llm_api_key=SecretStr("sk-3")).load_llm_api_key() == "sk-3"


def test_citations_come_in_the_ways_that_models_write_them() -> None:
    assert with_known_citations("締める【2】。\n[1]", 2) == ("締める [2]。\n [1]", [1, 2])
    with pytest.raises(NotWritten):
        with_known_citations("a[0] b[3] c", 2)
