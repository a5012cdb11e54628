"""The reader of topics: what it learns, what it does for a model that is told, and what it refuses to load."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genba_llm.features import FeatureConfig
from genba_llm.generation import Feature, Message, Options, Piece, Task, TokenLogprob
from genba_llm.live_model import ChampionModel
from genba_llm.synthesise import not_known, thought_begun, topic_of, work_answer, work_of
from genba_llm.thinking import final_of
from genba_llm.topics import NONE, NoTopics, Topics, fit_topics

SMALL = FeatureConfig(bits=12)
LEAVE, MINUTES = "休暇の申請方法", "会議の議事録"
QUESTIONS = {
    LEAVE: [
        "有給を取りたい",
        "休みの申請は",
        "how to take leave",
        "I want a day off",
        "有給を申請するには",
        "休みが欲しい",
    ],
    MINUTES: ["議事録の書き方", "会議のメモを取る", "how to write minutes", "notes of a meeting", "議事録を任された"],
    NONE: ["明日の天気", "猫の寿命", "who wrote the bible", "the price of gold", "富士山の標高", "カレーの作り方"],
}


@pytest.fixture(scope="module")
def topics() -> Topics:
    pairs = [(text, name) for name, texts in QUESTIONS.items() for text in texts]
    return fit_topics([text for text, _ in pairs] * 8, [name for _, name in pairs] * 8, seed=0, config=SMALL)


class Writer:
    """Writes what it was told to think, or what it thinks itself, and then of that."""

    model = "writer"
    features: frozenset[Feature] = frozenset({"logprobs"})
    starts_hidden = False

    def __init__(self, thinks_of: str, logprob: float = -0.01) -> None:
        self.thinks_of, self.logprob = thinks_of, logprob

    def generate(self, task: Task) -> Iterator[Piece]:
        own = "" if task.begun else thought_begun(self.thinks_of, "ja")
        topic = topic_of(task.begun or own)
        said = work_answer(work_of(topic), "tell", "ja")
        thought = f"{own}求められているのは説明。</think-task><think-safety>a</think-safety>"
        for text in (thought, "<think-policy>ALLOW p@1</think-policy>", f"<final>{said}</final>"):
            yield Piece(text, logprobs=(TokenLogprob(text, self.logprob),))
        yield Piece(finish="stop")

    def check(self) -> str | None:
        return None

    def close(self) -> None: ...


def _said(model: Writer, topics: Topics, question: str, *, topic_from: float = 0.5) -> str:
    champion = ChampionModel(model, str, thinks=True, sure_from=0.5, topics=topics, topic_from=topic_from)
    task = Task([Message("user", question)], Options(temperature=0.0))
    return final_of("".join(piece.text for piece in champion.generate(task)))[0] or ""


def test_it_reads_what_it_learnt_and_comes_back_from_its_file(topics: Topics, tmp_path: Path) -> None:
    for name, texts in QUESTIONS.items():
        assert [topics.best(text)[0] for text in texts] == [name] * len(texts)
    topics.save(tmp_path / "topics.safetensors")
    again = Topics.load(tmp_path / "topics.safetensors")
    assert again.best("休みを申請したい") == topics.best("休みを申請したい")
    assert again.names == (NONE, *sorted([LEAVE, MINUTES]))
    assert np.array_equal(again.weights, topics.weights)


def test_a_topic_that_the_model_cannot_speak_of_in_a_language_is_none(topics: Topics) -> None:
    speaks_of = {"ja": [MINUTES], "en": [LEAVE]}
    model = ChampionModel(Writer(LEAVE), str, thinks=True, topics=topics, topic_from=0.5, speaks_of=speaks_of)
    assert model.read("有給を取りたい") == (NONE, topics.best("有給を取りたい")[1])
    assert model.read("議事録の書き方")[0] == MINUTES
    assert model.read("how to take leave")[0] == LEAVE
    task = Task([Message("user", "有給を取りたい")], Options(temperature=0.0))
    assert final_of("".join(piece.text for piece in model.generate(task)))[0] == not_known("ja")


def test_the_model_is_told_the_topic_that_is_read_and_goes_on_from_there(topics: Topics) -> None:
    assert "上司に日程を相談" in _said(Writer(MINUTES), topics, "有給を取りたい")
    assert "決まったことと担当者" in _said(Writer(LEAVE), topics, "議事録の書き方")


def test_where_the_reader_is_not_sure_both_have_to_think_of_the_same(topics: Topics) -> None:
    assert "上司に日程を相談" in _said(Writer(LEAVE), topics, "有給を取りたい", topic_from=1.1)
    assert _said(Writer(MINUTES), topics, "有給を取りたい", topic_from=1.1) == not_known("ja")
    assert _said(Writer(LEAVE, logprob=-2.0), topics, "有給を取りたい", topic_from=1.1) == not_known("ja")
    assert _said(Writer(LEAVE), topics, "明日の天気") == not_known("ja"), "it is about nothing that anybody knows"


def test_how_a_thought_begins_tells_its_topic_again() -> None:
    for language in ("ja", "en"):
        assert topic_of(f"{thought_begun(LEAVE, language)} and on") == LEAVE
    assert topic_of("<think-task>依頼の意図を読む。 話題は手元の知識にない。</think-task>") == NONE


def test_what_is_no_reader_is_refused(topics: Topics, tmp_path: Path) -> None:
    path = tmp_path / "topics.safetensors"
    with pytest.raises(NoTopics):
        Topics.load(path)
    path.write_bytes(b"torn")
    with pytest.raises(NoTopics):
        Topics.load(path)
    for other in (
        replace(topics, names=topics.names[:2]),
        replace(topics, scale=topics.scale[:2]),
        replace(topics, bias=topics.bias[:2]),
    ):
        other.save(path)
        with pytest.raises(NoTopics, match="fit together"):
            Topics.load(path)
