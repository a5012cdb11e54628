"""The model that ships: what it knows, what it says it does not know, and what it needs."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from genba_llm.generation import Message, Options, Task
from genba_llm.live_model import OWN_MODEL, ChampionModel, load_own
from genba_llm.policy import Policy
from genba_llm.so8t_bundle import MODEL as WEIGHTS
from genba_llm.synthesise import not_known
from genba_llm.thinking import final_of


@pytest.fixture(scope="module")
def own() -> Any:
    return load_own(Policy())


def _said(own: Any, question: str) -> str:
    task = Task([Message("user", question)], Options(temperature=0.0))
    return "".join(piece.text for piece in own.generate(task))


@pytest.mark.parametrize(
    ("question", "fact"),
    [
        ("休暇の申請方法を箇条書きにして。", "上司に日程を相談"),
        ("パスワードの変え方を教えてください。", "十二文字以上"),
        ("Tell me about how to write minutes.", "what was decided"),
    ],
)
def test_the_model_that_ships_knows_ordinary_work_and_thinks_in_private(own: Any, question: str, fact: str) -> None:
    text = _said(own, question)
    final, hidden = final_of(text)
    assert final is not None
    assert fact in final
    assert "ALLOW" in hidden
    assert "think" not in final


@pytest.mark.parametrize(
    ("question", "language"), [("円周率の桁を教えてください。", "ja"), ("What is the capital of France?", "en")]
)
def test_the_model_that_ships_says_what_it_does_not_know(own: Any, question: str, language: Any) -> None:
    assert final_of(_said(own, question))[0] == not_known(language)


def test_what_it_only_guesses_is_not_answered_and_the_next_question_is(own: Any) -> None:
    question = "休暇の申請方法を箇条書きにして。"
    doubtful = ChampionModel(own.inner, own.told, thinks=True, sure_from=1.0)
    task = Task([Message("user", question)], Options(temperature=0.0))
    pieces = list(doubtful.generate(task))
    final, hidden = final_of("".join(piece.text for piece in pieces))
    assert final == not_known("ja")
    assert "休暇の申請方法" in hidden
    assert pieces[-1].finish == "stop"
    assert pieces[-1].usage is not None
    assert pieces[-1].usage.prompt > 0
    assert not any(piece.logprobs for piece in pieces)
    assert final_of(_said(own, question))[0] != not_known("ja"), "nobody holds the model"


@pytest.mark.parametrize("pairs", [1, 2, 20])
def test_in_a_conversation_the_last_question_is_answered_as_it_is_alone(own: Any, pairs: int) -> None:
    earlier = [
        Message("user", "議事録の書き方を教えてください。"),
        Message("assistant", "議題と決定事項を書きます。"),
    ] * pairs
    question = Message("user", "5Sとは何ですか。")
    alone, among = (
        "".join(piece.text for piece in own.generate(Task(turns, Options(temperature=0.0))))
        for turns in ([question], [*earlier, question])
    )
    assert alone == among


def test_a_question_that_is_too_long_is_told_so(own: Any) -> None:
    for long, told in (
        ("手順を確認してください。" * 100, "長さを超えています"),
        ("Check our steps. " * 100, "longer than I can read"),
    ):
        pieces = list(own.generate(Task([Message("user", long)], Options(temperature=0.0))))
        assert told in (final_of("".join(piece.text for piece in pieces))[0] or "")
        assert pieces[-1].finish == "stop"


@pytest.mark.parametrize(
    ("hello", "back"),
    [("こんにちは", "こんにちは"), ("Good morning", "Hello"), ("あなたは誰ですか。", "小さな言語モデル")],
)
def test_it_greets_and_says_what_it_is(own: Any, hello: str, back: str) -> None:
    assert back in (final_of(_said(own, hello))[0] or "")


def test_the_model_that_ships_is_small_and_needs_no_framework() -> None:
    assert sum(path.stat().st_size for path in OWN_MODEL.rglob("*") if path.is_file()) < 6 * 2**20
    assert (OWN_MODEL / WEIGHTS / "tokenizer.json").is_file()
    script = (
        "import sys\n"
        "from genba_llm.live_model import load_own\n"
        "from genba_llm.generation import Message, Options, Task\n"
        "from genba_llm.policy import Policy\n"
        "model = load_own(Policy())\n"
        "assert list(model.generate(Task([Message('user', 'こんにちは')], Options(max_tokens=3))))\n"
        "print(sorted({'torch', 'transformers', 'tokenizers'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
