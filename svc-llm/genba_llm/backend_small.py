"""A small model of the line in this process, on NumPy: loaded in a fraction of a second, without torch or transformers.

For the model that ships, and for champions of ``llm.so8t`` that are as small: tokenizer and chat template must be those that
the line makes (``tokenizer_training``). A prompt is built turn by turn from ids, so a user's text holds no control token.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from genba_llm.byte_bpe import ByteBpe, NoByteBpe
from genba_llm.generation import Feature, Options, Piece, PromptTooLong, Task, with_instructions
from genba_llm.small_phi3 import Array, Cache, NotSmall, load_small, shape_of
from genba_llm.token_loop import write_tokens
from genba_llm.turns import CHAT_TEMPLATE, END, turn_mark

_TAG: Final = re.compile(r"(<[a-z-]+>)")
_TEMPLATES: Final = ("chat_template.jinja", "tokenizer_config.json")


class SmallModel:
    """One model. Generations take turns: two at once would each take twice as long."""

    features: frozenset[Feature] = frozenset({"logprobs"})
    starts_hidden = False

    def __init__(self, folder: Path, *, name: str, calibration: float = 1.0) -> None:
        """``name``: what answers call it.   ``calibration``: divides the logits before all else.

        Raises: NotSmall, NoByteBpe (both ValueErrors); OSError.
        """
        check_small(folder)
        self._model = load_small(folder)
        self.tokenizer = ByteBpe.load(folder / "tokenizer.json")
        self.model = name
        self._calibration = np.float32(calibration)
        self._ends = self._model.shape.end_tokens | {self.tokenizer.control[END]}
        self._turn = threading.Lock()

    def generate(self, task: Task) -> Iterator[Piece]:
        """See the seam."""
        prompt = self.prompt(task)
        room = self.longest - len(prompt)
        if room < 1:
            raise PromptTooLong.of(len(prompt), self.longest)
        with self._turn:
            yield from self._tokens(prompt, task.options, most=min(task.options.max_tokens, room))

    @property
    def longest(self) -> int:
        """Tokens that it reads and writes together."""
        return self._model.shape.longest

    def prompt(self, task: Task) -> list[int]:
        """The ids that the chat template's text would have, but for control tokens in the turns' own texts."""
        control, ids = self.tokenizer.control, list[int]()
        for turn in with_instructions(task):
            ids += [control[turn_mark(turn.role)], *self.tokenizer.encode(turn.content), control[END]]
        ids.append(control[turn_mark("assistant")])
        for part in _TAG.split(task.begun):
            ids += [control[part]] if part in control else self.tokenizer.encode(part)
        return ids

    def _tokens(self, prompt: list[int], options: Options, *, most: int) -> Iterator[Piece]:
        rng, cache = np.random.default_rng(options.seed), Cache()

        def following(fed: Sequence[int]) -> tuple[int, float]:
            return choose(self._model.logits(fed, cache) / self._calibration, options, rng)

        return write_tokens(following, self.tokenizer.decode, prompt, options, ends=self._ends, most=most)

    def check(self) -> str | None:
        return None

    def close(self) -> None:
        pass


def choose(logits: Array, options: Options, rng: np.random.Generator) -> tuple[int, float]:
    """logits: (V,). The token and its log-probability before the temperature that was asked for."""
    logprobs = logits - logits.max()
    logprobs = logprobs - np.log(np.exp(logprobs).sum())
    if options.temperature == 0:
        token = int(logits.argmax())
    else:
        probs = np.exp(logprobs.astype(np.float64) / options.temperature)
        probs /= probs.sum()
        if options.top_p < 1:
            order = np.argsort(-probs, kind="stable")
            cut = np.cumsum(probs[order]) - probs[order] > options.top_p
            probs[order[cut]] = 0.0
            probs /= probs.sum()
        token = int(rng.choice(len(probs), p=probs))
    return token, float(logprobs[token])


def check_small(folder: Path) -> None:
    """Whether a folder's model can run here, without reading its weights. Raises: NotSmall, NoByteBpe; OSError."""
    shape_of(folder)
    if not (folder / "tokenizer.json").is_file():
        raise NoByteBpe("There is no tokenizer.json.")
    if _chat_template(folder) != CHAT_TEMPLATE:
        raise NotSmall("The chat template is not the line's own.")


def _chat_template(folder: Path) -> str | None:
    plain, config = (folder / name for name in _TEMPLATES)
    if plain.is_file():
        return plain.read_text("utf-8")
    if not config.is_file():
        return None
    found: str | None = json.loads(config.read_text("utf-8")).get("chat_template")
    return found
