"""GGUF files of the model that ships, read by llama.cpp itself: the same tokens, and logits as near as each kind promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from tests.llm.llama_server import NAME, llama_serving, need_llama
from torch.nn import functional as F  # noqa: N812 - the usual name

from genba_llm.backend_small import SmallModel
from genba_llm.base_model import load_base, load_tokenizer
from genba_llm.generation import Message, Options, Task
from genba_llm.gguf_export import Quant, export_gguf
from genba_llm.live_model import OWN_MODEL
from genba_llm.sft_rows import messages
from genba_llm.so8t_bundle import MODEL
from genba_llm.synthesise import synthesise
from genba_llm.tokenizer_training import LONGEST_BYTES

N_ROWS = 12


@pytest.fixture(scope="module")
def model() -> Any:
    need_llama()
    return load_base(OWN_MODEL / MODEL)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(OWN_MODEL / MODEL)


@pytest.fixture(scope="module")
def talks(tokenizer: Any) -> list[str]:
    """Conversations of rows that the model did not learn from."""
    return [
        tokenizer.apply_chat_template(messages(row), tokenize=False) for row in synthesise("medical", N_ROWS, seed=8)
    ]


@pytest.mark.parametrize(("quant", "at_most"), [("F16", 1e-5), ("Q8_0", 5e-3), ("Q6_K", 5e-2), ("Q4_K_M", 5e-2)])
def test_llama_cpp_reads_the_same_tokens_and_nearly_the_same_logits(
    model: Any, tokenizer: Any, talks: list[str], tmp_path: Path, quant: Quant, at_most: float
) -> None:
    import llama_cpp

    path = export_gguf(model, tokenizer, tmp_path / "model.gguf", quant=quant)
    llama = llama_cpp.Llama(str(path), n_ctx=256, logits_all=True, verbose=False, n_threads=1)
    nats, n = 0.0, 0
    for talk in talks:
        ids = tokenizer(talk, add_special_tokens=False)["input_ids"]
        assert llama.tokenize(talk.encode(), add_bos=False, special=True) == ids
        llama.reset()
        llama.eval(ids)
        found = F.log_softmax(torch.from_numpy(np.array(llama.scores[: len(ids)])).double(), -1)
        with torch.no_grad():
            expected = F.log_softmax(model(input_ids=torch.tensor([ids])).logits[0].double(), -1)
        nats += float((expected.exp() * (expected - found)).sum())
        n += len(ids)
    assert nats / n <= at_most
    llama.close()


def test_the_smaller_the_kind_the_smaller_the_file(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    kinds: tuple[Quant, ...] = ("F16", "Q8_0", "Q6_K", "Q4_K_M")
    sizes = [export_gguf(model, tokenizer, tmp_path / f"{kind}.gguf", quant=kind).stat().st_size for kind in kinds]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(kinds)


def test_llama_cpps_server_says_what_the_embedded_model_says(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    """Template, tokens, weights and the end of an answer at once: greedy, so that one other token is another answer.

    The server is llama-cpp-python's. It writes nothing for tokens of more than 32 bytes, of which the model that ships has a
    few, and punishes repetition unless it is told not to, as the Modelfile tells Ollama.
    """
    talks = [messages(row)[:-1] for row in synthesise("general", 6, seed=8)]
    embedded = SmallModel(OWN_MODEL / MODEL, name="embedded")

    def of_embedded(talk: list[dict[str, Any]]) -> str:
        task = Task([Message(**turn) for turn in talk], Options(temperature=0.0, max_tokens=200))
        tokens = tokenizer.tokenize("".join(piece.text for piece in embedded.generate(task)))
        written = [
            each for each in tokens if len(each) <= LONGEST_BYTES
        ]  # of the byte-level alphabet: a character is a byte
        return str(tokenizer.convert_tokens_to_string(written))

    def of_server(url: str, talk: list[dict[str, Any]]) -> str:
        body = {"model": NAME, "messages": talk, "max_tokens": 200, "temperature": 0.0, "repeat_penalty": 1.0}
        answer = httpx.post(f"{url}/chat/completions", json=body, timeout=120.0, trust_env=False)
        return str(answer.raise_for_status().json()["choices"][0]["message"]["content"])

    with llama_serving(export_gguf(model, tokenizer, tmp_path / "model.gguf", quant="F16")) as url:
        answers = [of_server(url, talk) for talk in talks]
    assert answers == [of_embedded(talk) for talk in talks]
    assert all(answer.startswith("<think-task>") and answer.endswith("</final>") for answer in answers)
