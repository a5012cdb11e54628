"""Token after token until a model stops, is stopped, or has said enough; the text of them as it becomes certain.

Knows no framework: who computes the next token is a function, so that a generation can be left between two tokens wherever
it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from genba_llm.generation import Finish, Options, Piece, TokenLogprob, Usage

_BROKEN = "\ufffd"  # what a tokenizer shows for half a character


def write_tokens(
    following: Callable[[Sequence[int]], tuple[int, float]],
    decode: Callable[[Sequence[int]], str],
    prompt: Sequence[int],
    options: Options,
    *,
    ends: Collection[int],
    most: int,
) -> Iterator[Piece]:
    """Pieces of text, the last one with its finish.

    ``following``: takes tokens that are new to the model, and gives the next one with its log-probability.
    ``decode``: all tokens so far as text, control tokens left out.   ``most``: tokens at most.
    """
    fed: Sequence[int] = prompt
    taken: list[int] = []
    text = _Text(decode, options.stop)
    finish: Finish = "length"
    while len(taken) < most:
        token, logprob = following(fed)
        if token in ends:
            finish = "stop"
            break
        taken.append(token)
        piece, stopped = text.take(taken)
        if piece:
            yield Piece(piece, logprobs=(TokenLogprob(piece, logprob),) if options.logprobs else ())
        if stopped:
            finish = "stop"
            break
        fed = [token]
    if rest := text.rest():
        yield Piece(rest)
    yield Piece(finish=finish, usage=Usage(len(prompt), len(taken)))


class _Text:
    """Tokens as text that has already been shown and text that has not: half characters and half stop words wait."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: tuple[str, ...]) -> None:
        self._decode, self._stop = decode, stop
        self._shown = 0
        self._text = ""

    def take(self, tokens: list[int]) -> tuple[str, bool]:
        self._text = self._decode(tokens)
        for word in self._stop:
            at = self._text.find(word, max(0, self._shown - len(word)))
            if at >= 0:
                self._text = self._text[:at]
                return self._show(len(self._text)), True
        end = len(self._text.rstrip(_BROKEN))
        held = max((_overlap(self._text[:end], word) for word in self._stop), default=0)
        return self._show(end - held), False

    def rest(self) -> str:
        return self._show(len(self._text))

    def _show(self, end: int) -> str:
        piece = self._text[self._shown : end]
        self._shown = max(self._shown, end)
        return piece


def _overlap(text: str, word: str) -> int:
    """How many characters at the end of ``text`` may be the beginning of ``word``."""
    return next((n for n in range(min(len(word) - 1, len(text)), 0, -1) if text.endswith(word[:n])), 0)
