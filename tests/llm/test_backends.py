"""One suite for every backend: what is generated, how it ends, how it fails. The model server is real HTTP; Phi-3 is tiny and real."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.llm.llama_server import NAME, llama_serving, need_llama
from tests.llm.service.model_server import MODEL, ModelServer, Wire, closed_port, serving

from genba_llm.backend_extractive import Extractive
from genba_llm.backend_openai import OpenAiServer
from genba_llm.backend_process import ProcessModel
from genba_llm.backend_small import SmallModel
from genba_llm.egress import EgressGuard, EgressRefused
from genba_llm.generation import (
    Backend,
    BackendFailed,
    BackendUnreachable,
    Message,
    Options,
    Piece,
    PromptTooLong,
    Task,
)
from genba_llm.retrieval import Passage
from genba_llm.synthesise import synthesise
from genba_shared.torchvision import make_torchvision_importable

QUESTION = Message("user", "What is the torque of an M8 bolt?")
PASSAGES = (Passage("doc_1", 0, "Manual", "The torque of an M8 bolt is 25 Nm. Lunch is at noon.", 0, 1.0),)
WIRES: tuple[Wire, ...] = ("openai", "ollama", "lmstudio", "reasoning", "whole")
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="session")
def tiny_phi3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_phi3(tmp_path_factory.mktemp("models") / "tiny-phi3")


def make_tiny_phi3(folder: Path) -> Path:
    """Phi-3's own architecture with its real kinds of layers, 60,000 weights, and a tokenizer trained on these lines."""
    make_torchvision_importable()
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import Phi3Config, Phi3ForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator([QUESTION.content, PASSAGES[0].text, TEMPLATE] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = Phi3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        original_max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=tokenizer.eos_token_id,
        sliding_window=None,
    )
    Phi3ForCausalLM(config).save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small_phi3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base as the line makes it, with its own chat template."""
    from genba_llm.so8t_line import FreshShape, make_fresh_base

    shape = FreshShape(vocab_size=512, hidden_size=64, layers=1, heads=2, kv_heads=1)
    rows = list(synthesise("general", 40, seed=0))
    return make_fresh_base(rows, shape, tmp_path_factory.mktemp("small"), max_tokens=512, seed=0)


@pytest.fixture(scope="session")
def apart(tiny_phi3: Path) -> Iterator[ProcessModel]:
    """One for the session: each start imports transformers anew."""
    found = ProcessModel(tiny_phi3, name="apart")
    yield found
    found.close()


@pytest.fixture(scope="session")
def llama_url(tiny_phi3: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The same Phi-3 as a GGUF file, behind llama.cpp's own server."""
    need_llama()
    from genba_llm.base_model import load_base, load_tokenizer
    from genba_llm.gguf_export import export_gguf

    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    with llama_serving(export_gguf(load_base(tiny_phi3), load_tokenizer(tiny_phi3), path), n_ctx=512) as url:
        yield url


@pytest.fixture(params=["extractive", *WIRES, "transformers", "process", "small", "llama.cpp"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    if request.param == "extractive":
        yield Extractive()
    elif request.param == "process":
        yield request.getfixturevalue("apart")
    elif request.param == "small":
        yield SmallModel(request.getfixturevalue("small_phi3"), name="small")
    elif request.param == "llama.cpp":
        found = OpenAiServer(request.getfixturevalue("llama_url"), NAME, guard=EgressGuard([]))
        yield found
        found.close()
    elif request.param == "transformers":
        from genba_llm.backend_transformers import TransformersModel

        yield TransformersModel(request.getfixturevalue("tiny_phi3"), device="cpu")
    else:
        with serving() as server:
            server.wire = request.param
            found = OpenAiServer(server.url, MODEL, guard=EgressGuard([]))
            yield found
            found.close()


def said(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def task(**options: Any) -> Task:
    return Task([QUESTION], Options(**{"max_tokens": 24, "seed": 3, **options}), PASSAGES)


def test_a_generation_says_something_why_it_ended_and_what_it_took(backend: Backend) -> None:
    pieces = list(backend.generate(task()))
    assert said(pieces)
    assert [piece.finish for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1].finish in {"stop", "length"}
    usage = pieces[-1].usage
    assert usage is None or (usage.prompt > 0 and usage.completion > 0)
    assert "REASONING-BESIDE" not in said(pieces)


def test_the_same_seed_says_the_same(backend: Backend) -> None:
    first, second = (said(list(backend.generate(task(temperature=1.0)))) for _ in range(2))
    assert first == second


def test_a_generation_can_be_left_and_the_next_one_works(backend: Backend) -> None:
    pieces = backend.generate(task())
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert said(list(backend.generate(task())))


def test_a_backend_that_is_well_says_nothing(backend: Backend) -> None:
    assert backend.check() is None
    assert backend.model


def test_log_probabilities_are_those_of_the_text_where_they_are_promised(backend: Backend) -> None:
    if "logprobs" not in backend.features or (isinstance(backend, OpenAiServer) and "whole" in repr(backend)):
        return
    pieces = [piece for piece in backend.generate(task(logprobs=True)) if piece.logprobs]
    assert all(one.logprob <= 0 for piece in pieces for one in piece.logprobs)


def test_phi3_stops_at_a_word_at_its_end_and_at_its_limit(tiny_phi3: Path) -> None:
    from genba_llm.backend_transformers import TransformersModel

    model = TransformersModel(tiny_phi3, device="cpu")
    free = said(list(model.generate(task(max_tokens=30, temperature=0.0))))
    word = free[6:9]
    stopped = list(model.generate(task(max_tokens=30, temperature=0.0, stop=(word,))))
    assert said(stopped) == free[: free.index(word)]
    assert stopped[-1].finish == "stop"
    limited = list(model.generate(task(max_tokens=3)))
    assert limited[-1].finish == "length"
    assert limited[-1].usage is not None
    assert limited[-1].usage.completion == 3
    assert said(list(model.generate(task(seed=1, temperature=2.0)))) != said(
        list(model.generate(task(seed=2, temperature=2.0)))
    )
    with pytest.raises(PromptTooLong, match="512"):
        list(model.generate(Task([Message("user", "torque " * 600)])))


def test_phi3_agrees_with_transformers_own_greedy_generation(tiny_phi3: Path) -> None:
    import torch

    from genba_llm.backend_transformers import TransformersModel

    model = TransformersModel(tiny_phi3, device="cpu")
    prompt = model._prompt(task())
    with torch.inference_mode():
        ids = model._model.generate(
            torch.tensor([prompt]), max_new_tokens=16, do_sample=False, attention_mask=torch.ones(1, len(prompt))
        )[0, len(prompt) :]
    expected = model._tokenizer.decode(ids, skip_special_tokens=True)
    assert said(list(model.generate(task(max_tokens=16, temperature=0.0)))) == expected


def test_control_tokens_that_part_a_thought_from_the_answer_stay_in_the_text(tiny_phi3: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from genba_llm.backend_transformers import TransformersModel

    folder = tmp_path / "thinker"
    shutil.copytree(tiny_phi3, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]", "<|channel|>", "<|mark|>"]})
    tokenizer.save_pretrained(folder)
    model = TransformersModel(folder, device="cpu")
    said = "[THINK]torque[/THINK]bolt"
    assert model._decode(model.encode(said)) == said
    assert model._decode(model.encode("<|channel|>torque<|mark|>")) == "<|channel|>torque"


def test_a_folder_without_a_model_is_refused_with_a_reason(tmp_path: Path) -> None:
    from genba_llm.backend_transformers import TransformersModel

    with pytest.raises(ValueError, match=r"no config\.json"):
        TransformersModel(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "phi3"}')
    with pytest.raises(ValueError, match="can be loaded"):
        TransformersModel(tmp_path)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with serving() as found:
        yield found


@pytest.fixture
def remote(server: ModelServer) -> Iterator[OpenAiServer]:
    found = OpenAiServer(server.url, MODEL, guard=EgressGuard([]), timeout_s=60.0)
    yield found
    found.close()


def test_a_server_that_is_not_there_is_unreachable() -> None:
    gone = OpenAiServer(f"http://127.0.0.1:{closed_port()}/v1", MODEL, guard=EgressGuard([]))
    with pytest.raises(BackendUnreachable):
        list(gone.generate(task()))
    assert "does not answer" in (gone.check() or "")
    gone.close()


@pytest.mark.parametrize(
    ("status", "kind"),
    [(503, BackendUnreachable), (429, BackendUnreachable), (500, BackendFailed), (404, BackendFailed)],
)
def test_a_servers_refusal_keeps_its_words_to_itself(
    server: ModelServer, remote: OpenAiServer, status: int, kind: type[Exception]
) -> None:
    server.status = status
    with pytest.raises(kind) as told:
        list(remote.generate(task()))
    assert "torque" not in str(told.value)


@pytest.mark.parametrize(
    "error",
    [
        {"code": 400, "type": "exceed_context_size_error", "message": "torque", "n_prompt_tokens": 900, "n_ctx": 512},
        {"code": "context_length_exceeded", "type": "invalid_request_error", "message": "torque"},
        {
            "code": 400,
            "type": "BadRequestError",
            "message": "This model's maximum context length is 512 tokens. torque",
        },
    ],
)
def test_a_server_that_cannot_read_so_much_says_so_to_who_asks(
    server: ModelServer, remote: OpenAiServer, error: dict[str, Any]
) -> None:
    server.status, server.error = 400, error
    with pytest.raises(PromptTooLong, match="fewer words") as told:
        list(remote.generate(task()))
    assert "torque" not in str(told.value)
    server.error = {"code": 400, "message": "no such tool"}
    with pytest.raises(BackendFailed):
        list(remote.generate(task()))


def test_what_a_server_sends_that_is_no_answer_is_a_failure(server: ModelServer, remote: OpenAiServer) -> None:
    server.garbage = True
    with pytest.raises(BackendFailed, match="no JSON"):
        list(remote.generate(task()))
    server.garbage, server.error_event = False, True
    with pytest.raises(BackendFailed, match="error"):
        list(remote.generate(task()))
    server.error_event, server.breaks_after = False, 2
    with pytest.raises(BackendFailed, match="broke off"):
        list(remote.generate(task()))


def test_a_server_that_falls_silent_is_unreachable(server: ModelServer) -> None:
    server.pause_s = 3.0
    slow = OpenAiServer(server.url, MODEL, guard=EgressGuard([]), timeout_s=0.2)
    with pytest.raises(BackendUnreachable):
        list(slow.generate(task()))
    slow.close()


def test_a_server_that_is_not_allowed_is_never_called() -> None:
    away = OpenAiServer("http://192.0.2.1:8000/v1", MODEL, guard=EgressGuard(["10.0.0.0/8"]))
    with pytest.raises(EgressRefused):
        list(away.generate(task()))
    away.close()


def test_the_extractive_model_cites_and_knows_when_it_knows_nothing() -> None:
    found = said(list(Extractive().generate(task())))
    assert found == "The torque of an M8 bolt is 25 Nm. [1]"
    nothing = Task([Message("user", "富士山の高さは？")], Options(), PASSAGES)
    assert "ありません" in said(list(Extractive().generate(nothing)))


# -- a model in a process of its own -------------------------------------------------------------------------------------


def test_a_model_apart_says_what_it_says_here_and_survives_its_process(apart: ProcessModel, tiny_phi3: Path) -> None:
    from genba_llm.backend_transformers import TransformersModel

    asked = task(temperature=0.0, logprobs=True, stop=("@@",))
    here = list(TransformersModel(tiny_phi3, device="cpu").generate(asked))
    there = list(apart.generate(asked))
    assert [(each.text, each.finish, each.usage) for each in there] == [
        (each.text, each.finish, each.usage) for each in here
    ]
    pieces = apart.generate(task(max_tokens=500))
    next(pieces)
    apart._child.kill()
    with pytest.raises(BackendFailed, match="process ended"):
        list(pieces)
    assert said(list(apart.generate(asked))) == said(here)
    idle = apart._child
    idle.kill()
    idle.wait()
    assert said(list(apart.generate(asked))) == said(here)
    assert idle.stdin is not None
    assert idle.stdout is not None
    assert idle.stdin.closed
    assert idle.stdout.closed
    with pytest.raises(PromptTooLong, match="512") as too_long:
        list(apart.generate(Task([Message("user", "torque " * 600)])))
    assert too_long.value.members == {"limit": 512, "unit": "tokens"}


def test_a_process_whose_model_does_not_load_says_why(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config\.json"):
        ProcessModel(tmp_path, name="none")


def test_a_process_ends_with_its_model(tiny_phi3: Path) -> None:
    model = ProcessModel(tiny_phi3, name="apart")
    child = model._child
    del model
    assert child.wait(timeout=60) != 0


def test_who_serves_the_model_of_a_folder_loads_no_framework(tiny_phi3: Path) -> None:
    script = (
        "import sys, time\n"
        "from genba_llm.egress import EgressGuard\n"
        "from genba_llm.generation import Message, Options, Task\n"
        "from genba_llm.service import open_backend\n"
        "from genba_llm.settings import Settings\n"
        f"settings = Settings(backend='transformers', backend_folder={str(tiny_phi3)!r}, backend_starts_hidden=True)\n"
        "aside = open_backend(settings, EgressGuard([]))\n"
        "assert 'is being loaded' in aside.check()\n"
        "while aside.check(): time.sleep(0.05)\n"
        "assert list(aside.generate(Task([Message('user', 'torque')], Options(max_tokens=2))))[-1].finish\n"
        "assert aside.model == 'tiny-phi3' and aside.starts_hidden and aside.loaded.starts_hidden\n"
        "print(sorted({'torch', 'transformers', 'tokenizers'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.splitlines()[-1] == "[]"
