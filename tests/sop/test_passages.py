"""What answers a question, and what does not."""

from __future__ import annotations

import pytest

from genba_sop.passages import Passage, best, joined, language_of, words_of
from genba_sop.procedure import Step, Text
from genba_sop.transcripts import Cue

STEP = Step(
    "drain",
    Text("Drain the oil", "オイルを抜く"),
    tool="drain pan",
    min_s=5,
    max_s=20,
    action=Text("Stop.", "止める。"),
)
SAID = [
    "Tighten the drain plug to twenty five newton metres.",
    "Wipe the rim before the filter goes on.",
    "ドレンプラグは25ニュートンメートルで締め付けます。",
    "最後に周りを布で拭きます。",
]


def asked(question: str, *, k: int = 5) -> list[str]:
    passages = [Passage(words, "vid_1", n, n + 1.0, said=True) for n, words in enumerate(SAID)]
    step = Passage(words_of(STEP, language_of(question)), "vid_2", 0.0, 9.0, "proc_1", STEP)
    return [each.passage.words for each in best(question, [*passages, step], k=k)]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("How tightly is the drain plug tightened?", SAID[0]),
        ("What do I do before the filter?", SAID[1]),
        ("ドレンプラグの締め付けトルクは？", SAID[2]),
        ("周りは何で拭くのですか", SAID[3]),
        ("布はいつですか", SAID[3]),
        ("How long may it take to drain the oil?", "Drain the oil. Stop. Tool: drain pan. At least 5 s. At most 20 s."),
        ("オイルを抜く時間は？", "オイルを抜く。止める。工具: drain pan。最短5秒。最長20秒。"),
    ],
)
def test_the_passage_that_answers_comes_first(question: str, answer: str) -> None:
    assert asked(question)[0] == answer


@pytest.mark.parametrize(
    "question", ["What is the capital of France?", "有給休暇の申請方法は？", "?", "Where is it?", "who wrote this poem"]
)
def test_what_nobody_speaks_of_is_not_found(question: str) -> None:
    assert asked(question) == []


def test_a_sentence_over_several_cues_is_one_passage_and_a_pause_ends_it() -> None:
    cues = [
        ("vid_1", Cue(0, 2, "The drain plug is tightened")),
        ("vid_1", Cue(2, 4, "to 25 Nm.")),
        ("vid_1", Cue(4, 5, "布で")),
        ("vid_1", Cue(5, 6, "拭きます")),
        ("vid_1", Cue(9, 10, "After a pause")),
        ("vid_2", Cue(10, 11, "another video")),
    ]
    assert [(each.words, each.start_s, each.end_s) for each in joined(cues)] == [
        ("The drain plug is tightened to 25 Nm.", 0, 4),
        ("布で拭きます", 4, 6),
        ("After a pause", 9, 10),
        ("another video", 10, 11),
    ]


def test_the_same_words_are_one_passage() -> None:
    twice = [Passage(SAID[0], f"vid_{n}", 0.0, 1.0, said=True) for n in range(3)]
    assert len(best("drain plug", twice, k=5)) == 1
