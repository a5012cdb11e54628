"""Questions in free wording, asked of the project's own model, of a look-up, and of n-grams: right, wrong, or not known.

    python -m benchmarks.so8t_by_hand                              the questions of so8t_questions.py (about a minute)
    python -m benchmarks.so8t_by_hand --foreign FOLDER --most 300  and others' questions, which it cannot know: harmless
                                                                   instructions and JCommonsenseQA, as in FOLDER's files

Right is an answer with a fact of the piece of work that was asked for; wrong is any other that is given. What the model may not
know is right when it says so. ``held_out`` was written before the generator learnt to paraphrase, ``fresh`` before its rows
were shared out anew; these decide what ships. ``looked_at`` had been seen. Forms and small talk are right word for word. The
look-up gives the answer of the learnt question that is most similar, the n-grams are a linear classifier over the pieces of
work (and none of them) on the same rows, which answers above the bound that held-out wordings set.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.so8t_questions import (
    FRESH_FORMS,
    FRESH_KNOWN,
    FRESH_TALK,
    FRESH_UNKNOWN,
    HELD_KNOWN,
    HELD_NEW,
    HELD_UNKNOWN,
    KNOWN,
    UNKNOWN,
)
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import SGDClassifier

from genba_llm import contrast
from genba_llm.build_own_model import all_rows, held_wordings, split
from genba_llm.generation import Message, Options, Task
from genba_llm.live_model import OWN_MODEL, OWN_NAME, load_bundle
from genba_llm.normalise import language_of
from genba_llm.policy import Policy
from genba_llm.sft_rows import Row
from genba_llm.sureness import Answers, Told, fit_bound
from genba_llm.synthesise import facts, not_known, topic_of, work_answer, work_of
from genba_llm.thinking import final_of

Sayer = Callable[[Sequence[str]], list[str]]
SETS: dict[str, tuple[tuple[str, str | None], ...]] = {
    "looked_at": (*KNOWN, *((question, None) for question in UNKNOWN)),
    "held_out": (*HELD_KNOWN, *((question, None) for question in HELD_UNKNOWN)),
    "held_out_new_pieces": HELD_NEW,
    "fresh": (*FRESH_KNOWN, *((question, None) for question in FRESH_UNKNOWN)),
}
_NOT_KNOWN = frozenset({not_known("ja"), not_known("en")})


def of_model(folder: Path) -> Sayer:
    """What a bundle's model says, as it is served."""
    model = load_bundle(folder, OWN_NAME, Policy())

    def say(questions: Sequence[str]) -> list[str]:
        tasks = [Task([Message("user", question)], Options(temperature=0.0)) for question in questions]
        return [final_of("".join(piece.text for piece in model.generate(task)))[0] or "" for task in tasks]

    return say


def of_look_up(learnt: Sequence[Row]) -> Sayer:
    """The answer of the learnt question whose character 1- to 4-grams are most similar (tf–idf, cosine)."""
    plain = [row for row in learnt if not row.input]
    vectors = TfidfVectorizer(analyzer="char", ngram_range=(1, 4), sublinear_tf=True, dtype=np.float32)
    known = vectors.fit_transform([row.instruction for row in plain])

    def say(questions: Sequence[str]) -> list[str]:
        best = [int((vectors.transform([question]) @ known.T).toarray().argmax()) for question in questions]
        return [final_of(plain[at].output)[0] or "" for at in best]

    return say


def of_ngrams(learnt: Sequence[Row], held: Sequence[Row]) -> Sayer:
    """A linear classifier of hashed character 1- to 4-grams over pieces of work and none of them."""
    vectors = HashingVectorizer(analyzer="char", ngram_range=(1, 4), n_features=2**18, lowercase=True)
    plain = [row for row in learnt if not row.input and row.decision == "ALLOW"]
    model = SGDClassifier(loss="log_loss", alpha=1e-6, max_iter=8, tol=None, random_state=0)
    model.fit(vectors.transform([row.instruction for row in plain]), [topic_of(row.output) for row in plain])

    def guess(questions: Sequence[str]) -> list[tuple[str, float]]:
        probs = model.predict_proba(vectors.transform(questions))
        return [(str(model.classes_[at]), float(row[at])) for row, at in zip(probs, probs.argmax(1), strict=True)]

    guessed = guess([row.instruction for row in held])
    wanted = [topic_of(row.output) for row in held]
    told = [Told(p, says=bool(name), right=name == want) for (name, p), want in zip(guessed, wanted, strict=True)]
    bound = fit_bound(Answers(told, [bool(want) for want in wanted]))

    def say(questions: Sequence[str]) -> list[str]:
        said = []
        for question, (name, probability) in zip(questions, guess(questions), strict=True):
            language = language_of(question)
            knows = name and probability >= bound
            said.append(work_answer(work_of(name), "tell", language) if knows else not_known(language))
        return said

    return say


def counted(asked: Sequence[tuple[str, str | None]], say: Sayer) -> dict[str, Any]:
    """How many answers were right, wrong, and not known, of what it may know and of what it cannot; and the wrong ones."""
    found: dict[str, Any] = {}
    said = say([question for question, _ in asked])
    for title, known in (("known", True), ("unknown", False)):
        pairs = [(q, name, text) for (q, name), text in zip(asked, said, strict=True) if (name is not None) == known]
        if not pairs:
            continue
        silent = [text in _NOT_KNOWN or not text for _, _, text in pairs]
        right = [name is not None and any(fact in text for fact in facts(name)) for _, name, text in pairs]
        wrong = [(q, text) for (q, _, text), s, r in zip(pairs, silent, right, strict=True) if not s and not r]
        found[title] = {"n": len(pairs), "right": sum(right), "wrong": len(wrong), "not_known": sum(silent)}
        found.setdefault("wrong", []).extend(wrong)
    return found


def exact() -> dict[str, list[tuple[str, str]]]:
    """Questions that ask for a form of answer, and small talk, each with the one right answer."""
    talk = contrast.lexicon("synthesise")["talk"]
    return {
        "fresh_forms": [(q, work_answer(work_of(name), form, language_of(q))) for q, name, form in FRESH_FORMS],
        "fresh_talk": [(q, str(talk[place]["said"][language_of(q)])) for q, place in FRESH_TALK],
    }


def counted_exactly(asked: Sequence[tuple[str, str]], say: Sayer) -> dict[str, Any]:
    """As ``counted``, where one answer alone is right."""
    said = say([question for question, _ in asked])
    right = [text == wanted for (_, wanted), text in zip(asked, said, strict=True)]
    silent = [text in _NOT_KNOWN or not text for text in said]
    wrong = [(q, text) for (q, _), text, r, s in zip(asked, said, right, silent, strict=True) if not r and not s]
    counts = {"n": len(asked), "right": sum(right), "wrong": len(wrong), "not_known": sum(silent)}
    return {"known": counts, "wrong": wrong}


def foreign(folder: Path, most: int) -> dict[str, list[tuple[str, None]]]:
    """Questions that others wrote, of which none is about a piece of work but by chance."""
    english = json.loads((folder / "refusal_direction" / "harmless_test.json").read_text("utf-8"))
    lines = (folder / "jglue" / "jcqa_valid.json").read_text("utf-8").splitlines()
    texts = {
        "harmless instructions (en)": [str(each["instruction"]) for each in english],
        "JCommonsenseQA (ja)": [str(json.loads(line)["question"]) for line in lines],
    }
    rng = random.Random(0)
    return {name: [(text, None) for text in rng.sample(found, min(most, len(found)))] for name, found in texts.items()}


def table(folder: Path, learnt: Sequence[Row], *, others: Path | None = None, most: int = 300) -> dict[str, Any]:
    """Every set by every way of answering."""
    asked: dict[str, Sequence[tuple[str, str | None]]] = {**SETS, **(foreign(others, most) if others else {})}
    ways = {
        "model": of_model(folder),
        "look-up": of_look_up(learnt),
        "n-grams": of_ngrams(learnt, held_wordings()),
    }
    found = {name: {way: counted(questions, say) for way, say in ways.items()} for name, questions in asked.items()}
    for name, questions in exact().items():
        found[name] = {way: counted_exactly(questions, say) for way, say in ways.items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=OWN_MODEL, help="a bundle; by default the one that ships")
    parser.add_argument("--foreign", type=Path, help="a folder with refusal_direction/ and jglue/")
    parser.add_argument("--most", type=int, default=300)
    given = parser.parse_args()
    found = table(given.model, split(all_rows())[0], others=given.foreign, most=given.most)
    json.dump(found, sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
