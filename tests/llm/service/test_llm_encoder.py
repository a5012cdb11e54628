"""Documents are found by what they mean where an embedding model is, by words where it is not, and never above a clearance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.llm.service.conftest import Headers, running
from tests.llm.service.model_server import ModelServer

from genba_llm.document_encoder import DocumentEncoder
from genba_llm.egress import EgressGuard
from genba_llm.settings import Settings
from genba_shared.principal import Clearance
from genba_shared.settings import Platform

Service = Any
LORRY, SOUP = "The lorry stands behind hall three.", "Soup is served at noon."


@pytest.fixture
def meaning(upgraded: Platform, signed: Headers, model: ModelServer) -> Iterator[Service]:
    model.meanings = (("lorry", "truck"), ("soup", "lunch"))
    settings = Settings(platform=upgraded, encoder_url=model.url, encoder_model="bge-m3")
    with running(settings, signed) as found:
        yield found


def _found(service: Service, query: str, **fields: Any) -> list[str]:
    answer = service.post("office/search", {"query": query}, **fields)
    assert answer.status_code == 200, answer.text
    return [each["text"] for each in answer.json()["hits"]]


def test_other_words_find_what_means_the_same(meaning: Service, model: ModelServer) -> None:
    for text in (LORRY, SOUP):
        assert meaning.document(text).status_code == 201
    meaning.llm.library.encode_new()
    assert _found(meaning, "truck") == [LORRY]
    assert _found(meaning, "lunch") == [SOUP]
    assert _found(meaning, "zeppelin") == []
    assert model.asked[-1] == {"model": "bge-m3", "input": ["zeppelin"]}


def test_what_is_near_and_above_the_clearance_stays_unseen(meaning: Service) -> None:
    assert meaning.document(LORRY, params={"clearance": "confidential"}, clearance=Clearance.SECRET).status_code == 201
    meaning.llm.library.encode_new()
    assert _found(meaning, "truck", clearance=Clearance.INTERNAL) == []
    assert _found(meaning, "truck", clearance=Clearance.CONFIDENTIAL) == [LORRY]


def test_a_server_that_is_away_costs_the_meaning_alone(meaning: Service, model: ModelServer) -> None:
    made = meaning.document(LORRY).json()
    meaning.llm.library.encode_new()
    kept = list(meaning.llm.settings.platform.home.glob("document-vectors/*/doc_*.npy"))
    assert [path.stem for path in kept] == [made["id"]]
    model.status = 500
    assert _found(meaning, "truck") == []
    assert _found(meaning, "lorry") == [LORRY]
    assert "by words alone" in str(meaning.llm.backend_answers())
    assert meaning.delete(f"documents/{made['id']}").status_code in {200, 204}
    meaning.llm.library.encode_new()
    assert not kept[0].exists(), "the vectors of a document that is gone tell of its text"


def test_what_was_read_once_is_not_asked_again(upgraded: Platform, model: ModelServer) -> None:
    model.meanings = (("lorry",),)
    folder = upgraded.home / "vectors-of-a-test"
    for _ in range(2):
        encoder = DocumentEncoder(model.url, "m", guard=EgressGuard([model.url]), cache=folder)
        if encoder.kept("doc_1", 2) is None:
            assert encoder.encode("doc_1", ["a lorry", "a tree"])
        encoder.close()
    assert len(model.asked) == 1
    assert encoder.kept("doc_1", 3) is None, "of another number of chunks"


def test_a_closed_encoder_asks_nothing(upgraded: Platform, model: ModelServer) -> None:
    encoder = DocumentEncoder(model.url, "m", guard=EgressGuard([model.url]), cache=upgraded.home / "vectors")
    encoder.close()
    assert not encoder.encode("doc_1", ["a lorry"])
    assert encoder.of_query("a lorry") is None
    assert model.asked == []


def test_half_of_an_encoder_is_refused_at_the_start(upgraded: Platform, signed: Headers) -> None:
    with (
        pytest.raises(ValueError, match="GENBA_LLM_ENCODER_MODEL"),
        running(Settings(platform=upgraded, encoder_url="http://127.0.0.1:1/v1"), signed),
    ):
        pass
