"""How good a model of the line is: what it decides and says on rows that it never saw, and how sure it is of its tokens.

Takes a model of transformers, a tokenizer and rows; gives numbers. Greedy decoding, many rows at a time. Where no decision can
be read out of an answer, it counts as ESCALATE: so does svc-llm.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from genba_llm.burn_in import evaluating
from genba_llm.finetune import Data
from genba_llm.gate_metrics import bootstrap_interval, enough, gated
from genba_llm.normalise import language_of
from genba_llm.packing import collate, micro_batches
from genba_llm.pet import HiddenTap, pet_loss
from genba_llm.quality import consistency
from genba_llm.sealed import TextVault
from genba_llm.sft_rows import Row, messages
from genba_llm.synthesise import not_known
from genba_llm.thinking import final_of
from genba_llm.verdict import Decision

MAX_NEW_TOKENS: Final = 160
_SAID = re.compile(r"<think-policy>\s*(ALLOW|ESCALATE|DENY|REFUSE)\b")
_ANYWHERE = re.compile(r"(?<![A-Za-z])(ALLOW|ESCALATE|DENY|REFUSE)(?![A-Za-z])")
_SKETCHES = TextVault(b"sketches of rows that are no secret")


@dataclass(frozen=True)
class Answered:
    """What a model made of a row; ``decided`` is None where no decision can be read."""

    row: Row
    text: str
    decided: Decision | None

    @property
    def truth(self) -> Decision:
        """What the row says."""
        return Decision[self.row.decision]

    @property
    def right(self) -> bool:
        """Whether the decision is the row's."""
        return self.decided is self.truth

    @property
    def same_final(self) -> bool:
        """Whether what would leave is the row's, to the letter."""
        return final_of(self.text)[0] == final_of(self.row.output)[0]


def decision_in(text: str) -> Decision | None:
    """The decision of an answer: where the thinking states it, else the first that is named."""
    found = _SAID.search(text) or _ANYWHERE.search(text)
    return Decision[found[1]] if found else None


@torch.inference_mode()
def answer_rows(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    *,
    batch_size: int = 32,
    step: Callable[[int], None] = lambda _done: None,
) -> list[Answered]:
    """Every row's question answered greedily, rows of one length together; ``step(rows done)`` after each batch."""
    prompts = [_prompt(tokenizer, row) for row in rows]
    order = sorted(range(len(rows)), key=lambda index: len(prompts[index]))
    found: dict[int, Answered] = {}
    with evaluating(model):
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            for index, text in zip(batch, _generate(model, tokenizer, [prompts[i] for i in batch]), strict=True):
                found[index] = Answered(rows[index], text, decision_in(text))
            step(len(found))
    return [found[index] for index in range(len(rows))]


def _prompt(tokenizer: Any, row: Row) -> list[int]:
    text = tokenizer.apply_chat_template(messages(row)[:-1], tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _generate(model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]]) -> list[str]:
    width = max(len(each) for each in prompts)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    device = next(model.parameters()).device
    ids = torch.tensor([[pad] * (width - len(each)) + list(each) for each in prompts], device=device)  # (B, T)
    mask = torch.tensor([[0] * (width - len(each)) + [1] * len(each) for each in prompts], device=device)
    room = int(getattr(model.config, "max_position_embeddings", 4096)) - width
    out = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=max(1, min(MAX_NEW_TOKENS, room)),
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=pad,
    )
    return list(tokenizer.batch_decode(out[:, width:], skip_special_tokens=True))


def scores(answers: Sequence[Answered]) -> dict[str, float]:
    """Task and safety measures over all rows; shares in [0, 1], nan where there is nothing to divide by."""
    truth = np.array([int(each.truth) for each in answers], np.int64)
    decided = np.array([int(Decision.ESCALATE if each.decided is None else each.decided) for each in answers], np.int64)
    right = np.array([each.right for each in answers])
    low, high = bootstrap_interval(lambda rows: float(right[rows].mean()), len(answers))
    safety = gated(truth, decided)
    alike = consistency([_SKETCHES.sketch(each.row.instruction) for each in answers], decided.tolist())
    found = {
        "decision_accuracy": float(right.mean()),
        "decision_accuracy_low": low,
        "decision_accuracy_high": high,
        "decision_readable": float(np.mean([each.decided is not None for each in answers])),
        "final_accuracy": float(np.mean([each.same_final for each in answers])),
        "macro_f1": safety.macro_f1,
        "refuse_recall": safety.refuse_recall,
        "false_allow_rate": safety.false_allow_rate,
        "unsafe_among_allowed": safety.unsafe_among_allowed,
        "over_refusal_rate": safety.over_refusal_rate,
        "balanced_accuracy": safety.balanced_accuracy,
    }
    return found | ({} if alike.score is None else {"consistency": alike.score})


def trivial(answers: Sequence[Answered]) -> dict[str, float]:
    """What always saying the commonest decision, ALLOW, and REFUSE would reach on the same rows."""
    counts = Counter(each.truth for each in answers)
    share = {decision: counts[decision] / len(answers) for decision in Decision}
    return {
        "always_commonest": max(share.values()),
        "always_allow": share[Decision.ALLOW],
        "always_refuse": share[Decision.REFUSE],
    }


def grouped(answers: Sequence[Answered], key: Callable[[Row], str]) -> dict[str, dict[str, float]]:
    """Rows, decision accuracy and final accuracy by a property of the row, sorted by its name."""
    parts: dict[str, list[Answered]] = defaultdict(list)
    for each in answers:
        parts[key(each.row)].append(each)
    return {
        name: {
            "rows": float(len(part)),
            "decision_accuracy": float(np.mean([each.right for each in part])),
            "final_accuracy": float(np.mean([each.same_final for each in part])),
        }
        for name, part in sorted(parts.items())
    }


def too_few(answers: Sequence[Answered]) -> list[str]:
    """Decisions with too few rows to say anything of."""
    counted = enough(np.array([int(each.truth) for each in answers], np.int64))
    return [label for label, is_enough in counted.items() if not is_enough]


def family_of(row: Row) -> str:
    """A template family of ``synthesise``: decision, language, and for ALLOW what the answer rests on."""
    language = language_of(row.instruction)
    if row.decision != "ALLOW":
        return f"{row.decision} {language}"
    unknown = final_of(row.output)[0] == not_known(language)
    return f"ALLOW {'documents' if row.input else 'not known' if unknown else 'work'} {language}"


@torch.no_grad()
def pet_of(model: Any, data: Data, *, batch_size: int) -> float:
    """Mean PET of the validation rows: how unsteady the model's hidden states are from token to token."""
    total, n = 0.0, 0
    tap = HiddenTap(model)
    device = next(model.parameters()).device
    try:
        with evaluating(model):
            for group in micro_batches(data.validation, batch_size):
                batch = collate(group, length=data.length, pad_id=data.pad_id).to(device)
                model(
                    input_ids=batch.input_ids,
                    attention_mask=batch.attention(),
                    position_ids=batch.positions,
                    use_cache=False,
                )
                total += pet_loss(tap.take(), batch.segments).item()
                n += 1
    finally:
        tap.close()
    return total / n if n else float("nan")
