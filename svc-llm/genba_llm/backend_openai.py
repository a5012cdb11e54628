"""Any server that speaks OpenAI's chat completions: vLLM, llama.cpp, Ollama (11434), LM Studio, another Genba.

Always asks for a stream, so that a generation can be stopped. Reasoning that a server sends beside the text
(``reasoning_content``, ``reasoning``) is dropped here: it never enters this process's answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx

from genba_llm.egress import EgressGuard
from genba_llm.generation import (
    BackendFailed,
    BackendUnreachable,
    Feature,
    Finish,
    Piece,
    PromptTooLong,
    Task,
    TokenLogprob,
    Usage,
    with_instructions,
)

_MAX_LINE_BYTES = 1_000_000
# OpenAI, llama.cpp, vLLM
_SAY_TOO_LONG = ("context_length_exceeded", "exceed_context_size_error", "maximum context length")


class OpenAiServer:
    """One model of one server."""

    features: frozenset[Feature] = frozenset({"json_object", "json_schema", "logprobs"})

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        guard: EgressGuard,
        api_key: str | None = None,
        timeout_s: float = 120.0,
        connect_s: float = 3.0,
        starts_hidden: bool = False,
    ) -> None:
        """``base_url`` ends where ``/chat/completions`` begins, mostly in ``/v1``."""
        self.model, self.starts_hidden = model, starts_hidden
        self._client = httpx.Client(
            base_url=base_url.rstrip("/") + "/",
            headers={"authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(timeout_s, connect=connect_s),
            transport=guard.transport(),
            trust_env=False,
            follow_redirects=False,
        )

    def generate(self, task: Task) -> Iterator[Piece]:
        """See the seam."""
        try:
            with self._client.stream("POST", "chat/completions", json=self._body(task)) as answer:
                if answer.status_code != httpx.codes.OK:
                    answer.read()
                    raise _refusal(answer)
                if "text/event-stream" in answer.headers.get("content-type", ""):
                    yield from _pieces(answer)
                else:  # a server that does not stream
                    answer.read()
                    yield from _whole(answer)
        except httpx.TransportError as error:
            raise BackendUnreachable(
                f"The language model does not answer ({type(error).__name__}).", retry_after_s=5
            ) from error

    def _body(self, task: Task) -> dict[str, Any]:
        options = task.options
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": each.role, "content": each.content} for each in with_instructions(task)],
            "max_tokens": options.max_tokens,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if options.seed is not None:
            body["seed"] = options.seed
        if options.stop:
            body["stop"] = list(options.stop)
        if options.response_format is not None:
            body["response_format"] = options.response_format
        if options.logprobs:
            body["logprobs"] = True
        return body

    def check(self) -> str | None:
        """Whether the server lists its models."""
        try:
            answer = self._client.get("models", timeout=2.0)
        except httpx.HTTPError as error:
            return f"does not answer ({type(error).__name__})"
        return None if answer.is_success else f"answers {answer.status_code}"

    def close(self) -> None:
        self._client.close()


def _refusal(answer: httpx.Response) -> Exception:
    """What a server's own refusal means to our caller; its text may quote the prompt, so it goes no further."""
    if answer.status_code in {429, 502, 503, 504}:
        return BackendUnreachable(f"The language model answered {answer.status_code}.", retry_after_s=5)
    if answer.status_code == httpx.codes.BAD_REQUEST and any(word in answer.text for word in _SAY_TOO_LONG):
        return PromptTooLong.of(None, None)
    return BackendFailed(f"The language model answered {answer.status_code}.")


def _pieces(answer: httpx.Response) -> Iterator[Piece]:
    finish: Finish | None = None
    usage: Usage | None = None
    for line in answer.iter_lines():
        if len(line) > _MAX_LINE_BYTES:
            raise BackendFailed("The language model sent a line without end.")
        if not line.startswith("data:"):
            continue  # a comment that keeps the connection alive, or an event's name
        data = line[5:].strip()
        if data == "[DONE]":
            break
        event = _read(data)
        usage = _usage(event) or usage
        for choice in event.get("choices") or []:
            delta = choice.get("delta") or {}
            finish = _finish(choice.get("finish_reason")) or finish
            text = delta.get("content")
            if isinstance(text, str) and text:
                yield Piece(text, logprobs=_logprobs(choice, text))
    if finish is None:
        raise BackendFailed("The language model broke off.")
    yield Piece(finish=finish, usage=usage)


def _whole(answer: httpx.Response) -> Iterator[Piece]:
    document = _read(answer.text)
    choices = document.get("choices") or []
    if not choices:
        raise BackendFailed("The language model gave no choice.")
    text = (choices[0].get("message") or {}).get("content") or ""
    if text:
        yield Piece(text, logprobs=_logprobs(choices[0], text))
    yield Piece(finish=_finish(choices[0].get("finish_reason")) or "stop", usage=_usage(document))


def _read(data: str) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except ValueError as error:
        raise BackendFailed("The language model sent something that is no JSON.") from error
    if not isinstance(document, dict) or "error" in document:
        raise BackendFailed("The language model reported an error.")
    return document


def _finish(reason: object) -> Finish | None:
    if reason is None:
        return None
    return "length" if reason == "length" else "content_filter" if reason == "content_filter" else "stop"


def _usage(document: dict[str, Any]) -> Usage | None:
    found = document.get("usage")
    if not isinstance(found, dict):
        return None
    return Usage(int(found.get("prompt_tokens") or 0), int(found.get("completion_tokens") or 0))


def _logprobs(choice: dict[str, Any], text: str) -> tuple[TokenLogprob, ...]:
    """Those of ``text``, and none where they spell more: servers count the tokens of their reasoning in."""
    found = (choice.get("logprobs") or {}).get("content") or []
    tokens = tuple(TokenLogprob(str(each["token"]), float(each["logprob"])) for each in found)
    return tokens if "".join(each.token for each in tokens) == text else ()
