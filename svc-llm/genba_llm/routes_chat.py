"""``/v1/llm/chat/completions`` and ``/models``: OpenAI's API, so that any of its clients works here; streams as its server does.

The gate decides before anything is generated; its refusal is an answer of the assistant with ``finish_reason``
``content_filter``, because clients show answers and hide errors. While text streams it is held back until it was looked at.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Response

from genba_llm.assistant import Released, Written, whole
from genba_llm.decisions import Asked, Recorded
from genba_llm.generation import Backend, Feature, TokenLogprob
from genba_llm.routes_gate import Reader, Writer
from genba_llm.schemas_openai import (
    AssistantMessage,
    ChatIn,
    ChatOut,
    Choice,
    Logprobs,
    ModelOut,
    ModelsOut,
    TopLogprob,
    UsageOut,
)
from genba_llm.service import Here
from genba_llm.texts import refusal
from genba_llm.wire_out import decision_out
from genba_shared.problems import Invalid, NotFound, Problem
from genba_shared.service import problem_responses
from genba_shared.streamed import Streamed

router = APIRouter(prefix="/v1/llm", tags=["llm openai"])
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; with `stream`, server-sent events that end with `[DONE]`.",
        "model": ChatOut,
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@router.post("/chat/completions", response_model=ChatOut, responses={**_STREAM, **problem_responses(413, 502)})
def complete(body: ChatIn, here: Here, principal: Writer) -> Any:
    """Go on with a conversation."""
    turns = body.turns()
    said = [turn.content for turn in turns if turn.role == "user"]
    others = [turn.content for turn in turns if turn.role in {"system", "developer", "tool"} and turn.content]
    asked = Asked(said[-1] or " ", "chat", domain=body.domain, earlier=(*others, *said[:-1]), shown=tuple(body.shown()))
    _able(body, here.assistant.speakers.all())
    recorded = here.decisions.decide(principal, asked)
    passages = here.assistant.passages(principal, said[-1]) if body.documents and recorded.allowed else []
    speakers = here.assistant.speakers
    backend = _able(body, [speakers.choose(documents=bool(passages)), *speakers.all()])
    answer = _Answer(f"chatcmpl-{recorded.id}", int(recorded.created_at.timestamp()), backend.model)
    if not recorded.allowed:
        text = refusal(recorded)
        written = Written(finish="content_filter", text=text)
        if body.stream:
            return _events(answer.stream(iter([Released(text)]), written, recorded, usage=_wants_usage(body)))
        return answer.out(recorded, written, text, [])
    options = body.options(most_tokens=here.settings.max_answer_tokens)
    released, written = here.assistant.answer(
        principal, recorded, turns, options, mode="strip", passages=passages, asked=asked, backend=backend
    )
    if body.stream:
        return _events(answer.stream(released, written, recorded, usage=_wants_usage(body)))
    text, logprobs = whole(released, written)
    return answer.out(recorded, written, text, logprobs if body.logprobs else [])


def _able(body: ChatIn, backends: Sequence[Backend]) -> Backend:
    """The first of the backends that can do what is asked.

    Raises: Invalid for what none of them can do: a promise that is not kept is worse than none.
    """
    wanted: list[tuple[str, Feature]] = [("logprobs", "logprobs")] if body.logprobs else []
    if body.response_format is not None and body.response_format.type != "text":
        wanted.append(("response_format", body.response_format.type))
    for backend in backends:
        if backend.features.issuperset(feature for _, feature in wanted):
            return backend
    name, feature = next(each for each in wanted if each[1] not in backends[0].features)
    message = f"{backends[0].model} cannot do {feature}"
    raise Invalid(f"Mend {name}: {message}.", errors=[{"field": name, "message": message}])


def _wants_usage(body: ChatIn) -> bool:
    return body.stream_options is not None and bool(body.stream_options.include_usage)


def _events(events: Generator[bytes, None, None]) -> Response:
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return Streamed(events, media_type="text/event-stream", headers=headers)


@dataclass(frozen=True)
class _Answer:
    """What every part of one answer repeats."""

    id: str
    created: int
    model: str

    def out(self, recorded: Recorded, written: Written, text: str, logprobs: Sequence[TokenLogprob]) -> ChatOut:
        """The whole answer."""
        return ChatOut(
            id=self.id,
            created=self.created,
            model=self.model,
            choices=[
                Choice(
                    message=AssistantMessage(content=text),
                    finish_reason=written.finish,
                    logprobs=Logprobs(content=[_logprob(each) for each in logprobs]) if logprobs else None,
                )
            ],
            usage=_usage(written),
            system_fingerprint=recorded.verdict.policy_ref,
            genba=decision_out(recorded),
        )

    def stream(
        self, released: Iterator[Released], written: Written, recorded: Recorded, *, usage: bool
    ) -> Generator[bytes, None, None]:
        """Server-sent events."""
        yield self._event({"role": "assistant", "content": ""}, genba=decision_out(recorded).model_dump(mode="json"))
        try:
            for each in released:
                content = [_logprob(one).model_dump() for one in each.logprobs]
                yield self._event({"content": each.text}, logprobs={"content": content} if content else None)
        except Problem as problem:
            error = {"message": problem.detail, "type": problem.code, "code": problem.status}
            yield _data({"error": error})
            return
        yield self._event({}, finish=written.finish)
        if usage:
            yield _data({**self._head(), "choices": [], "usage": _usage(written).model_dump()})
        yield b"data: [DONE]\n\n"

    def _head(self) -> dict[str, Any]:
        return {"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model}

    def _event(
        self,
        delta: dict[str, Any],
        *,
        finish: str | None = None,
        logprobs: dict[str, Any] | None = None,
        genba: dict[str, Any] | None = None,
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
        return _data({**self._head(), "choices": [choice], **({"genba": genba} if genba else {})})


def _data(document: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def _usage(written: Written) -> UsageOut:
    prompt, completion = written.usage.prompt, written.usage.completion
    return UsageOut(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


def _logprob(each: TokenLogprob) -> TopLogprob:
    return TopLogprob(token=each.token, logprob=each.logprob, bytes=list(each.token.encode("utf-8", "replace")))


@router.get("/models")
def list_models(here: Here, _: Reader) -> ModelsOut:
    """The models that answer now."""
    created = int(here.started_at.timestamp())
    names = [backend.model for backend in here.assistant.speakers.all()]
    return ModelsOut(data=[ModelOut(id=name, created=created, owned_by="genba") for name in names])


@router.get("/models/{model}", responses=problem_responses(404))
def get_model(model: str, here: Here, _: Reader) -> ModelOut:
    """One model, as OpenAI's client asks for it."""
    if model not in {backend.model for backend in here.assistant.speakers.all()}:
        raise NotFound(f"There is no model {model[:80]}.")
    return ModelOut(id=model, created=int(here.started_at.timestamp()), owned_by="genba")
