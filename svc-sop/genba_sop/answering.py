"""Have a language model word an answer from passages, over OpenAI's chat completions. Knows no database and no route.

Whatever goes wrong is a ``NotWritten`` with its reason: whoever asks has the passages and answers with those.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from typing import Any, Final, Literal

import httpx

from genba_shared.telemetry import get_logger
from genba_shared.trust import trust_of

log = get_logger(__name__)

Reason = Literal["model_unreachable", "model_timed_out", "model_refused", "model_uncited"]

MOST_TOKENS: Final = 500
MOST_BYTES: Final = 1 << 20  # of an answer; the model's own limit is far below
MOST_AT_ONCE: Final = 8

# Short and plain: svc-llm's gate reads it with the question, and a prompt that forbids much looks like one that attacks.
_TASK: Final = "Answer from the passages in up to four sentences and cite them like [1]."
_GATEWAY: Final = "/v1/llm"
_THOUGHT: Final = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_CITED: Final = re.compile(r"[ \t]*[\[【]\s*(\d{1,3}(?:\s*[,、]\s*\d{1,3})*)\s*[\]】]", re.ASCII)


class NotWritten(Exception):
    """No answer came of the model, for this reason."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


class Writer:
    """One model of one server."""

    def __init__(self, base_url: str, model: str, *, api_key: str | None, timeout_s: float) -> None:
        self.model, self._timeout_s = model, timeout_s
        # svc-llm would add passages of its own documents under the same numbers.
        self._ours = {"documents": False} if base_url.rstrip("/").endswith(_GATEWAY) else {}
        self._client = httpx.AsyncClient(
            base_url=base_url.rstrip("/") + "/",
            headers={"authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(timeout_s, connect=min(3.0, timeout_s)),
            limits=httpx.Limits(max_connections=MOST_AT_ONCE),
            verify=trust_of(base_url),
            trust_env=False,
            follow_redirects=False,
        )

    async def write(self, question: str, passages: Sequence[str]) -> tuple[str, list[int]]:
        """The answer and the numbers that it cites, from 1, in the order of the passages. Raises: NotWritten."""
        numbered = "\n".join(f"[{n}] {words}" for n, words in enumerate(passages, start=1))
        body = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": _TASK},
                {"role": "user", "content": f"{question}\n\n{numbered}"},
            ],
            "max_tokens": MOST_TOKENS,
            "temperature": 0.0,
            "stream": False,
            **self._ours,
        }
        try:
            async with asyncio.timeout(self._timeout_s):
                text = _text(await self._ask(body))
        except (TimeoutError, httpx.TimeoutException) as error:
            log.warning("answer_not_written", reason="model_timed_out")
            raise NotWritten("model_timed_out") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            log.warning("answer_not_written", reason="model_unreachable", error=type(error).__name__)
            raise NotWritten("model_unreachable") from error
        return with_known_citations(text, len(passages))

    async def _ask(self, body: dict[str, Any]) -> bytes:
        async with self._client.stream("POST", "chat/completions", json=body) as answer:
            if answer.status_code != httpx.codes.OK:  # its text may quote the prompt, so it goes no further
                log.warning("answer_not_written", reason="model_refused", status=answer.status_code)
                unwell = answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR
                raise NotWritten("model_unreachable" if unwell else "model_refused")
            read = bytearray()
            async for chunk in answer.aiter_bytes():
                read += chunk
                if len(read) > MOST_BYTES:
                    raise NotWritten("model_refused")
        return bytes(read)

    async def close(self) -> None:
        """End its connections."""
        await self._client.aclose()


def _text(body: bytes) -> str:
    try:
        choice = json.loads(body)["choices"][0]
        text, finish = choice["message"]["content"], choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise NotWritten("model_refused") from error
    if not isinstance(text, str) or finish == "content_filter":
        raise NotWritten("model_refused")
    return _THOUGHT.sub("", text).strip()


def with_known_citations(text: str, count: int) -> tuple[str, list[int]]:
    """The text with citations of the passages 1 to ``count`` only, each as [n], and which it cites. Raises: NotWritten for none."""
    cited: set[int] = set()

    def known(found: re.Match[str]) -> str:
        numbers = [n for n in map(int, re.findall(r"\d+", found[1])) if 1 <= n <= count]
        cited.update(numbers)
        return "".join(f" [{n}]" for n in dict.fromkeys(numbers))

    answer = _CITED.sub(known, text).strip()
    if not cited:
        raise NotWritten("model_uncited")
    return answer, sorted(cited)
