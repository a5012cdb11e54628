"""A real HTTP server that answers like Ollama, LM Studio, vLLM or llama.cpp do, with a text that the test chooses."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Wire = Literal["openai", "ollama", "lmstudio", "reasoning", "whole"]
MODEL = "phi-4-mini"


@dataclass
class ModelServer:
    """What the server says, and what it was asked."""

    port: int
    text: str = "The answer is 25 Nm. It is in the manual."
    wire: Wire = "openai"
    piece_chars: int = 3
    finish: str = "stop"
    status: int = 200
    error: dict[str, Any] | None = None  # in the place of one that quotes the prompt
    breaks_after: int | None = None  # pieces, then the connection ends
    garbage: bool = False
    error_event: bool = False
    pause_s: float = 0.0
    asked: list[dict[str, Any]] = field(default_factory=list)
    meanings: tuple[tuple[str, ...], ...] = ()  # words that mean the same: what its embeddings tell apart

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def pieces(self) -> list[str]:
        return [self.text[at : at + self.piece_chars] for at in range(0, len(self.text), self.piece_chars)]


class _ChatApi(BaseHTTPRequestHandler):
    model: ModelServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._json(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    def do_POST(self) -> None:
        model = self.model
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        model.asked.append(body)
        if self.path.endswith("/embeddings"):
            self._embed(body["input"])
        elif model.status != 200:
            quoting = {"message": f"failed on {body['messages'][-1]['content']}"}
            self._json(model.status, {"error": model.error or quoting})
        elif model.wire == "whole":
            message = {"role": "assistant", "content": model.text}
            choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": model.finish}
            if body.get("logprobs"):  # vLLM counts the reasoning in, which it took out of the content
                said = [{"token": token, "logprob": -0.5} for token in ("REASONING-BESIDE", *model.pieces())]
                choice["logprobs"] = {"content": said}
            self._json(200, {"choices": [choice], "usage": {"prompt_tokens": 11, "completion_tokens": 7}})
        else:
            self._stream(body)

    def _embed(self, texts: list[str]) -> None:
        counts = [[sum(text.lower().count(word) for word in group) for group in self.model.meanings] for text in texts]
        rows = [{"index": at, "embedding": [*count, 0.1]} for at, count in enumerate(counts)]
        self._json(self.model.status, {"object": "list", "data": rows[::-1]})

    def _json(self, status: int, document: Any) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, body: dict[str, Any]) -> None:
        model = self.model
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        if model.garbage:
            self._event("this is no json")
            return
        if model.error_event:
            self._event(json.dumps({"error": {"message": "out of memory"}}))
            return
        if model.wire == "lmstudio":
            self.wfile.write(b": keep-alive\n\nevent: message\n")
        if model.wire in {"openai", "reasoning"}:
            self._choice({"role": "assistant", "content": ""})
        if model.wire == "reasoning":
            self._choice({"reasoning_content": "REASONING-BESIDE", "content": None})
        for number, piece in enumerate(model.pieces()):
            if number == model.breaks_after:
                return
            delta = {"role": "assistant", "content": piece} if model.wire == "ollama" else {"content": piece}
            extra: dict[str, Any] = (
                {"logprobs": {"content": [{"token": piece, "logprob": -0.5}]}} if body.get("logprobs") else {}
            )
            self._choice(delta, **extra)
            time.sleep(model.pause_s)
        self._choice({}, finish=model.finish)
        if body.get("stream_options", {}).get("include_usage") and model.wire != "lmstudio":
            self._event(json.dumps({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}}))
        self._event("[DONE]")

    def _choice(self, delta: dict[str, Any], *, finish: str | None = None, **extra: Any) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, **extra}
        self._event(json.dumps({"id": "c1", "object": "chat.completion.chunk", "model": MODEL, "choices": [choice]}))

    def _event(self, data: str) -> None:
        self.wfile.write(f"data: {data}\n\n".encode())
        self.wfile.flush()


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that went away is part of the story."""


@contextmanager
def serving() -> Iterator[ModelServer]:
    """Until the block ends."""
    handler = type("ChatApi", (_ChatApi,), {})
    with _Quiet(("127.0.0.1", 0), handler) as server:
        model = ModelServer(server.server_address[1])
        handler.model = model  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield model
        finally:
            server.shutdown()
            thread.join()


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
