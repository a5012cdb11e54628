"""A causal language model in this process: a folder with config, safetensors and tokenizer. Never downloads, never runs its code.

Its own loop over the KV cache instead of ``generate``: a generation can be stopped between two tokens, its seed is its own
generator's and not the process's, and log-probabilities are those of the tokens that were taken.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genba_llm.generation import Feature, Options, Piece, PromptTooLong, Task, with_instructions
from genba_llm.thinking import parts_thought
from genba_llm.token_loop import write_tokens
from genba_shared.torchvision import make_torchvision_importable

if TYPE_CHECKING:
    from genba_llm.one_forward import OneForward


class TransformersModel:
    """One model. Generations take turns: a model on one device does not get faster by sharing it."""

    features: frozenset[Feature] = frozenset({"logprobs"})

    def __init__(
        self,
        folder: Path,
        *,
        name: str | None = None,
        starts_hidden: bool = False,
        device: str | None = None,
        calibration: float = 1.0,
    ) -> None:
        """``name``: what answers call it, instead of the folder's name.   ``calibration``: divides the logits before all else.

        Raises: ValueError for a folder without a model that can be loaded from safetensors.
        """
        if not (folder / "config.json").is_file():  # before anything is imported, which takes seconds
            raise ValueError(f"{folder} holds no model: there is no config.json.")
        make_torchvision_importable()
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._torch = torch
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, **local)
            model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, **local)
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder} holds no model that can be loaded: {str(error).splitlines()[0]}") from error
        self._model = model.to(self._device).eval()
        self.model = name or folder.name
        self.starts_hidden = starts_hidden
        self._calibration = calibration
        self._turn = threading.Lock()
        taken = inspect.signature(type(self._model).forward).parameters
        self._cache_name = "cache" if "cache" in taken else "past_key_values"  # renamed in transformers 5
        self._ends = self._end_tokens()
        added = self._tokenizer.added_tokens_decoder.items()
        self._unsaid = {number for number, each in added if each.special and not parts_thought(each.content)}
        self._longest = int(getattr(model.config, "max_position_embeddings", 4096))
        self._reasoner: OneForward | None = None

    def as_reasoner(self) -> OneForward:
        """The same weights as a judge for the gate. Raises: ValueError where its tokenizer has no token for each label."""
        from genba_llm.one_forward import OneForward

        if self._reasoner is None:
            self._reasoner = OneForward(self._model, self, version=f"one-forward:{self.model}")
        return self._reasoner

    def encode(self, text: str) -> list[int]:
        """Token ids without special tokens."""
        found: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def _end_tokens(self) -> frozenset[int]:
        named = self._model.generation_config.eos_token_id
        found = named if isinstance(named, list) else [named, self._tokenizer.eos_token_id]
        return frozenset(int(each) for each in found if each is not None)

    def generate(self, task: Task) -> Iterator[Piece]:
        """See the seam."""
        prompt = self._prompt(task)
        options = task.options
        room = self._longest - len(prompt)
        if room < 1:
            raise PromptTooLong.of(len(prompt), self._longest)
        with self._turn, self._torch.inference_mode():
            yield from self._tokens(prompt, options, most=min(options.max_tokens, room))

    def _prompt(self, task: Task) -> list[int]:
        turns = [{"role": each.role, "content": each.content} for each in with_instructions(task)]
        found = self._tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=True)
        return [int(each) for each in found["input_ids"]]

    def _tokens(self, prompt: list[int], options: Options, *, most: int) -> Iterator[Piece]:
        torch = self._torch
        rng = torch.Generator(device=self._device)
        rng.manual_seed(options.seed) if options.seed is not None else rng.seed()
        cache: Any = None

        def following(fed: Sequence[int]) -> tuple[int, float]:
            nonlocal cache
            ids = torch.tensor([fed], device=self._device)
            out = self._model(input_ids=ids, use_cache=True, **{self._cache_name: cache})
            cache = out[self._cache_name]
            return self._choose(out.logits[0, -1].float(), options, rng)

        return write_tokens(following, self._decode, prompt, options, ends=self._ends, most=most)

    def _decode(self, tokens: Sequence[int]) -> str:
        """Without control tokens, but for those that part a thought from the answer: without them both would be text."""
        said = [each for each in tokens if each not in self._unsaid]
        return str(self._tokenizer.decode(said, skip_special_tokens=False))

    def _choose(self, logits: Any, options: Options, rng: Any) -> tuple[int, float]:
        """logits: (V,). The token and its log-probability, calibrated, before the temperature that was asked for."""
        torch = self._torch
        logits = logits / self._calibration
        logprobs = torch.log_softmax(logits, dim=-1)
        if options.temperature == 0:
            token = int(logits.argmax())
        else:
            probs = torch.softmax(logits / options.temperature, dim=-1)
            if options.top_p < 1:
                ordered, places = probs.sort(descending=True)
                ordered[ordered.cumsum(0) - ordered > options.top_p] = 0.0
                token = int(places[torch.multinomial(ordered, 1, generator=rng)])
            else:
                token = int(torch.multinomial(probs, 1, generator=rng))
        return token, float(logprobs[token])

    def check(self) -> str | None:
        return None

    def close(self) -> None:
        pass
