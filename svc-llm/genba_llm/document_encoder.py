"""What texts mean, as vectors of an embedding model behind an OpenAI-compatible server (Ollama, LM Studio, llama.cpp, vLLM).

Vectors of documents lie on disk, a file each, so that a start asks for none of them again. A server that is away costs the
meaning and nothing else: words are found all the same. Knows no database.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from genba_llm.egress import EgressGuard
from genba_shared.telemetry import get_logger

Vectors = npt.NDArray[np.float32]
_BATCH = 32
_QUERY_S = 2.0
_REST_S = 10.0  # after a failure nobody asks for so long, so that searches do not wait each

log = get_logger(__name__)


class DocumentEncoder:
    """One embedding model of one server, and the vectors that it gave."""

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        guard: EgressGuard,
        cache: Path,
        api_key: str | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        """``base_url`` ends where ``/embeddings`` begins, mostly in ``/v1``."""
        self.model = model
        self._folder = cache / hashlib.sha256(f"{base_url}\n{model}".encode()).hexdigest()[:12]
        self._timeout_s = timeout_s
        self._rests_until_s = 0.0
        self._closed = False
        self.reason: str | None = None  # why the last question was not answered
        self._client = httpx.Client(
            base_url=base_url.rstrip("/") + "/",
            headers={"authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(timeout_s, connect=3.0),
            transport=guard.transport(),
            trust_env=False,
            follow_redirects=False,
        )

    def of_query(self, text: str) -> Vectors | None:
        """(D,) of length 1; None where the server does not answer in time."""
        found = self._ask([text], timeout_s=_QUERY_S)
        return None if found is None else found[0]

    def kept(self, document_id: str, n: int) -> Vectors | None:
        """(n, D) of a document's ``n`` chunks, if they are on disk."""
        try:
            found = np.load(self._folder / f"{document_id}.npy", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return found if found.ndim == 2 and len(found) == n else None

    def encode(self, document_id: str, texts: Sequence[str]) -> bool:
        """Ask for a document's vectors and keep them. False while the server does not answer."""
        parts: list[Vectors] = []
        for start in range(0, len(texts), _BATCH):
            part = self._ask(texts[start : start + _BATCH], timeout_s=self._timeout_s)
            if part is None:
                return False
            parts.append(part)
        self._folder.mkdir(parents=True, exist_ok=True)
        staged = self._folder / f".{document_id}.{os.getpid()}.npy"
        np.save(staged, np.concatenate(parts), allow_pickle=False)
        staged.rename(self._folder / f"{document_id}.npy")
        return True

    def forget_all_but(self, document_ids: Collection[str]) -> None:
        """Erase the vectors of documents that are gone: they tell of their texts."""
        for path in self._folder.glob("*.npy"):
            if path.stem not in document_ids:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Ask nothing any more; a document that is being read stays unread."""
        self._closed = True
        self._client.close()

    def _ask(self, texts: Sequence[str], *, timeout_s: float) -> Vectors | None:
        if self._closed or time.monotonic() < self._rests_until_s:
            return None
        try:
            answer = self._client.post(
                "embeddings",
                json={"model": self.model, "input": list(texts)},
                timeout=httpx.Timeout(timeout_s, connect=2),
            )
            answer.raise_for_status()
            found = _vectors(answer.json(), len(texts))
        except (
            httpx.HTTPError,
            ValueError,
            KeyError,
            TypeError,
            RuntimeError,
        ) as error:  # the last one: closed meanwhile
            self.reason = type(error).__name__
            self._rests_until_s = time.monotonic() + _REST_S
            log.warning("encoder_unavailable", reason=self.reason)
            return None
        self.reason = None
        return found


def _vectors(document: Any, n: int) -> Vectors:
    """(n, D) of length 1 each. Raises: ValueError, KeyError or TypeError for an answer that is none."""
    rows = sorted(document["data"], key=lambda each: int(each["index"]))
    found = np.array([each["embedding"] for each in rows], np.float32)
    if found.ndim != 2 or len(found) != n or not np.isfinite(found).all():
        raise ValueError("not one vector a text")
    return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9), np.float32)
