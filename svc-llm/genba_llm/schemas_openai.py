"""OpenAI's formats, as its client library and LiteLLM send and read them. Fields that are not known are let pass, as there."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from genba_llm.generation import Message, Options
from genba_llm.schemas import DecisionOut
from genba_llm.verdict import Domain
from genba_shared.wire import Flag, Text, Whole

MAX_MESSAGES = 200


class OpenAi(BaseModel):
    """Lenient in what it takes."""

    model_config = ConfigDict(extra="allow")


class ContentPart(OpenAi):
    """A part of a message; only text is read."""

    type: Literal["text"]
    text: Text


class ChatMessage(OpenAi):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[ContentPart] | None = None

    def plain(self) -> str:
        """Its text."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class ResponseFormat(OpenAi):
    """What form the answer should have."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _schema_where_it_is_needed(self) -> ResponseFormat:
        if self.type == "json_schema" and not self.json_schema:
            raise ValueError("json_schema is missing")
        try:
            self.said().encode()
        except UnicodeEncodeError as error:
            raise ValueError("json_schema holds half of a surrogate pair") from error
        return self

    def said(self) -> str:
        """All that it tells a model, fields that servers have of their own (llama.cpp's ``schema``) included; mostly empty."""
        said = {**(self.model_extra or {}), "json_schema": self.json_schema}
        return json.dumps(said, ensure_ascii=False) if any(said.values()) else ""


class StreamOptions(OpenAi):
    """Whether the stream ends with a count of tokens."""

    include_usage: Flag | None = False


class ChatIn(OpenAi):
    """A conversation to go on with."""

    model: str = Field(
        default="genba", max_length=200, description="One of /v1/llm/models; any name is answered by the one there is."
    )
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    stream: Flag | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[Whole | None, Field(ge=1, le=131072)] = None
    max_completion_tokens: Annotated[Whole | None, Field(ge=1, le=131072)] = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    seed: Annotated[Whole | None, Field(ge=-(2**63), le=2**63 - 1)] = None
    stop: Text | Annotated[list[Text], Field(max_length=4)] | None = None
    n: Annotated[Whole | None, Field(ge=1, le=1)] = 1
    logprobs: Flag | None = False
    response_format: ResponseFormat | None = None
    tool_choice: Any = Field(
        default=None, description="none or auto: nothing here calls tools; those that are offered are let pass."
    )
    domain: Domain | None = Field(default=None, description="Ours: the domain, where the caller knows it.")
    documents: Flag = Field(
        default=True, description="Ours: whether the answer may rest on documents that you may see."
    )

    @field_validator("messages")
    @classmethod
    def _turns_make_sense(cls, messages: list[ChatMessage]) -> list[ChatMessage]:
        roles = [message.role for message in messages]
        if "user" not in roles:
            raise ValueError("needs a turn of the user")
        if roles[-1] not in {"user", "tool"}:
            raise ValueError("must end with a turn of the user")
        for at, message in enumerate(messages):
            if message.content is None and message.role != "assistant":
                raise ValueError(f"turn {at} has no content")
        return messages

    @field_validator("tool_choice")
    @classmethod
    def _no_tool_is_promised(cls, wanted: object) -> object:
        if wanted not in (None, "none", "auto"):
            raise ValueError("must be none or auto: nothing here calls tools")
        return wanted

    def turns(self) -> list[Message]:
        """As the seam has them."""
        return [Message(each.role, each.plain()) for each in self.messages]

    def shown(self) -> list[str]:
        """What reaches the model beside the turns of those who ask: earlier answers, and the form that this one is to have."""
        answers = [each.plain() for each in self.messages if each.role == "assistant"]
        form = self.response_format.said() if self.response_format else ""
        return [each for each in (*answers, form) if each]

    def options(self, *, most_tokens: int) -> Options:
        """As the seam has them."""
        asked = self.max_completion_tokens or self.max_tokens or most_tokens
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        form = self.response_format
        return Options(
            max_tokens=min(asked, most_tokens),
            temperature=0.2 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            seed=None if self.seed is None else self.seed % 2**31,  # what every backend takes
            stop=tuple(each for each in stop if each),
            response_format=None
            if form is None or form.type == "text"
            else form.model_dump(mode="json", exclude_none=True),
            logprobs=bool(self.logprobs),
        )


class TopLogprob(OpenAi):
    """A token, and how likely it was."""

    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[Any] = Field(default_factory=list)


class Logprobs(OpenAi):
    """Of the text that left; null where the text is not what the model wrote token by token."""

    content: list[TopLogprob] | None


class AssistantMessage(OpenAi):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: str | None = None


class Choice(OpenAi):
    """The one choice."""

    index: int = 0
    message: AssistantMessage
    finish_reason: Literal["stop", "length", "content_filter"]
    logprobs: Logprobs | None = None


class UsageOut(OpenAi):
    """Tokens as the model counts them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatOut(OpenAi):
    """A whole answer. ``genba`` says what the gate decided."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: UsageOut
    system_fingerprint: str | None = None
    genba: DecisionOut


class ModelOut(OpenAi):
    """A model that can be named."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelsOut(OpenAi):
    """Every model that can be named."""

    object: Literal["list"] = "list"
    data: list[ModelOut]


class ModerationIn(OpenAi):
    """Texts to look at: one, several, or the parts of one."""

    input: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=32)]
        | Annotated[list[ContentPart], Field(min_length=1, max_length=32)]
    )
    model: str | None = None

    def texts(self) -> list[str]:
        if isinstance(self.input, str):
            return [self.input]
        parts = [each.text for each in self.input if isinstance(each, ContentPart)]
        return ["\n".join(parts)] if parts else [each for each in self.input if isinstance(each, str)]


class ModerationResult(OpenAi):
    """``flagged`` when it would not be answered at once."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    genba: DecisionOut


class ModerationOut(OpenAi):
    """One result for each text."""

    id: str
    model: str
    results: list[ModerationResult]


class GuardrailIn(OpenAi):
    """What LiteLLM's Generic Guardrail sends."""

    texts: Annotated[list[str] | None, Field(max_length=64)] = None
    images: Annotated[list[str] | None, Field(max_length=64)] = None
    tool_calls: Annotated[list[dict[str, Any]] | None, Field(max_length=64)] = None
    input_type: Literal["request", "response"] = "request"
    request_data: dict[str, Any] | None = None
    structured_messages: list[dict[str, Any]] | None = None
    litellm_call_id: str | None = None
    additional_provider_specific_params: dict[str, Any] | None = None

    def said(self) -> list[str]:
        """What is to be judged: the texts, and the words in the arguments of each call of a tool."""
        calls = ["\n".join(_words(call)) for call in self.tool_calls or []]
        return [text for text in [*(self.texts or []), *calls] if text.strip()]


class GuardrailOut(OpenAi):
    """BLOCKED stops the request with the reason; NONE lets it pass; GUARDRAIL_INTERVENED replaces the texts."""

    action: Literal["BLOCKED", "NONE", "GUARDRAIL_INTERVENED"]
    blocked_reason: str | None = None
    texts: list[str] | None = None


def _words(value: object) -> Iterator[str]:
    """Every text in a call, also in the arguments that it holds as JSON."""
    if isinstance(value, str):
        with contextlib.suppress(json.JSONDecodeError, RecursionError):
            inner = json.loads(value)
            if isinstance(inner, dict | list):
                yield from _words(inner)
                return
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _words(each)
    elif isinstance(value, list):
        for each in value:
            yield from _words(each)
