"""The project's own model: train it by its own line, or measure the one that ships. Nothing is tuned on what is reported here.

    python -m benchmarks.so8t_model            measure what ships (about five minutes on one core)
    python -m benchmarks.so8t_model --train    make it anew first, into the package

Held out are *questions*: a core that was asked in training under another number or in another room does not count as new, and
a sixth of the things that it should not know are mentioned in no row to learn. Losses stand beside n-gram models of the same
tokens; answers beside the embedded sentences, beside the answer of the most similar question learnt, and beside always
saying the commonest; and then there are questions that a person wrote. Where ``genba[gguf]`` is installed, GGUF files of the
model as trained are compared with it, logit by logit.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.so8t_by_hand import SETS, table
from torch.nn import functional as F  # noqa: N812 - the usual name

from genba_llm import evaluation
from genba_llm.backend_extractive import Extractive
from genba_llm.base_model import load_base, load_tokenizer
from genba_llm.build_own_model import CONFIG, add_reader, all_rows, ship, split, train, unheard_things
from genba_llm.evaluation import Answered, decision_in
from genba_llm.generation import Message, Options, Task
from genba_llm.gguf_export import Quant, export_gguf
from genba_llm.line_data import as_validation, encode
from genba_llm.live_model import OWN_MODEL, OWN_NAME, load_bundle
from genba_llm.ngram import baselines
from genba_llm.normalise import language_of
from genba_llm.policy import Policy
from genba_llm.sft_rows import Row, messages, passages_of
from genba_llm.so8t_bundle import MODEL
from genba_llm.so8t_line import measure
from genba_llm.synthesise import is_small_talk, not_known
from genba_llm.thinking import final_of

_NOT_KNOWN = frozenset({not_known("ja"), not_known("en")})
KL_AT_MOST: dict[Quant, float] = {"F16": 1e-5, "Q8_0": 5e-3, "Q6_K": 5e-2, "Q4_K_M": 5e-2}


def kind_of(row: Row) -> str:
    """What sort of question a row is."""
    if row.decision != "ALLOW":
        return row.decision
    if row.input:
        return "documents"
    if (final_of(row.output)[0] or "") in _NOT_KNOWN:
        return "unheard thing" if any(thing in row.instruction for thing in unheard_things()) else "unknown"
    return "talk" if is_small_talk(row) else "work"


def by_sentences(rows: Sequence[Row]) -> list[Answered]:
    """What sentences of the row's documents answer, where there are any; it decides nothing, so ALLOW."""
    found = []
    for row in rows:
        task = Task([Message("user", row.instruction)], Options(), passages_of(row.input))
        said = (
            "".join(piece.text for piece in Extractive().generate(task))
            if row.input
            else not_known(language_of(row.instruction))
        )
        found.append(Answered(row, f"<think-policy>ALLOW</think-policy><final>{said}</final>", decision_in("ALLOW")))
    return found


def by_nearest(rows: Sequence[Row], learnt: Sequence[Row]) -> list[Answered]:
    """The answer of the learnt question whose character 1- to 4-grams are most similar (tf–idf, cosine)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(analyzer="char", ngram_range=(1, 4), sublinear_tf=True, dtype=np.float32)
    known = vectors.fit_transform([f"{row.instruction}\n{row.input}" for row in learnt])
    asked = vectors.transform([f"{row.instruction}\n{row.input}" for row in rows])
    best = [int((asked[at] @ known.T).toarray().argmax()) for at in range(len(rows))]
    return [
        Answered(row, learnt[at].output, decision_in(learnt[at].output)) for row, at in zip(rows, best, strict=True)
    ]


def right_value(answer: Answered) -> bool:
    """Whether the sentence that answers stands in what was said, whatever else does."""
    wanted = (final_of(answer.row.output)[0] or "").rsplit(" [", 1)[0]
    return wanted in (final_of(answer.text)[0] or "")


def gguf_divergence(model: Any, tokenizer: Any, rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Mean KL (nats a token) of each kind of GGUF file from the model, over whole conversations; whether tokens are the same."""
    import llama_cpp

    texts = [tokenizer.apply_chat_template(messages(row), tokenize=False) for row in rows]
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        for kind, at_most in KL_AT_MOST.items():
            path = export_gguf(model, tokenizer, Path(name) / f"{kind}.gguf", quant=kind)
            llama = llama_cpp.Llama(str(path), n_ctx=CONFIG.max_tokens, logits_all=True, verbose=False, n_threads=1)
            nats, n, same = 0.0, 0, True
            for text in texts:
                ids = tokenizer(text, add_special_tokens=False)["input_ids"]
                same &= llama.tokenize(text.encode(), add_bos=False, special=True) == ids
                llama.reset()
                llama.eval(ids)
                q = F.log_softmax(torch.from_numpy(np.array(llama.scores[: len(ids)])).double(), -1)
                with torch.no_grad():
                    p = F.log_softmax(model(input_ids=torch.tensor([ids])).logits[0].double(), -1)
                nats += float((p.exp() * (p - q)).sum())
                n += len(ids)
            found[kind] = {
                "kl": nats / n,
                "same_tokens": same,
                "bytes": path.stat().st_size,
                "at_most": at_most,
            }
    return found


def report(folder: Path, learnt: Sequence[Row], held: Sequence[Row], *, most: int) -> dict[str, Any]:
    """Everything that is said of the model."""
    model, tokenizer = load_base(folder / MODEL), load_tokenizer(folder / MODEL)
    data = as_validation(held, tokenizer, CONFIG)
    samples = [s for row in learnt if (s := encode(tokenizer, row, max_tokens=CONFIG.max_tokens))]
    counted = baselines(samples, [s for packed in data.validation for s in packed], vocab_size=len(tokenizer))
    asked = list(held[:: max(1, len(held) // most)][:most])
    told = {
        "model": evaluation.answer_rows(model, tokenizer, asked),
        "sentences": by_sentences(asked),
        "nearest question": by_nearest(asked, learnt[::4]),
    }
    began = time.process_time()
    own = load_bundle(folder, OWN_NAME, Policy())
    load_ms = 1000 * (time.process_time() - began)
    spent = {"s": 0.0, "tokens": 0.0}

    def say(questions: Sequence[str]) -> list[str]:
        said = []
        for question in questions:
            began = time.process_time()
            pieces = list(own.generate(Task([Message("user", question)], Options(temperature=0.0))))
            spent["s"] += time.process_time() - began
            spent["tokens"] += pieces[-1].usage.completion if pieces[-1].usage else 0
            said.append("".join(piece.text for piece in pieces))
        return said

    asked_by_hand = [question for questions in SETS.values() for question, _ in questions]
    said = say(asked_by_hand)
    documents = {
        name: [each for each in answers if each.row.input and right_value(each)] for name, answers in told.items()
    }
    n_documents = sum(bool(row.input) for row in asked)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        "rows_learnt": len(learnt),
        "rows_held_out": len(held),
        "rows_answered": len(asked),
        "loss": measure(model, tokenizer, data, batch_size=CONFIG.batch_size),
        "unigram_loss": counted.unigram,
        "bigram_loss": counted.bigram,
        "fourgram_loss": counted.fourgram,
        "scores": {name: evaluation.scores(answers) for name, answers in told.items()},
        "trivial": evaluation.trivial(told["model"]),
        "by_kind": {name: evaluation.grouped(answers, kind_of) for name, answers in told.items()},
        "by_domain": evaluation.grouped(told["model"], lambda row: row.domain),
        "documents_with_the_right_sentence": {
            name: len(right) / max(1, n_documents) for name, right in documents.items()
        },
        "by_hand": table(folder, learnt),
        "serving": {
            "load_cpu_ms": load_ms,
            "cpu_ms_per_answer": 1000 * spent["s"] / len(said),
            "tokens_per_cpu_s": spent["tokens"] / spent["s"],
        },
        "gguf": _gguf(model, tokenizer, asked),
        "said": {question: final_of(text)[0] for question, text in zip(asked_by_hand, said, strict=True)},
        "wrong": [
            {"q": each.row.instruction, "wanted": each.row.output, "said": each.text}
            for each in told["model"]
            if not each.same_final
        ][:12],
    }


def _gguf(model: Any, tokenizer: Any, rows: Sequence[Row]) -> dict[str, dict[str, Any]] | str:
    if importlib.util.find_spec("llama_cpp") is None:
        return "genba[gguf] is not installed"
    return gguf_divergence(model, tokenizer, rows[:: max(1, len(rows) // 40)][:40])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", action="store_true", help="train it anew and put it into the package")
    parser.add_argument("--work", type=Path, help="where checkpoints are kept, so that a killed training goes on")
    parser.add_argument("--answered", type=int, default=400)
    given = parser.parse_args()
    learnt, held = split(all_rows())
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        began = time.process_time()
        if given.train:
            ship(train(learnt, given.work or Path(name)), OWN_MODEL, rows=len(learnt))
            add_reader(OWN_MODEL, learnt)
        cpu_s = time.process_time() - began
    found = report(OWN_MODEL, learnt, held, most=given.answered)
    json.dump({"train_cpu_s": round(cpu_s, 1), **found}, sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
