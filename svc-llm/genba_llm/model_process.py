"""A model of transformers in a process of its own: ``python -m genba_llm.model_process FOLDER NAME CALIBRATION``.

``backend_process`` starts it and speaks with it in JSON lines over its standard streams: one task after the other in, pieces
out. It ends when its input does, so it never outlives whoever started it. What goes wrong is said in the answer; nothing
is logged, because a traceback may hold a prompt.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from genba_llm.generation import BackendFailed, Message, Options, Piece, PromptTooLong, Task, TokenLogprob, Usage
from genba_llm.retrieval import Passage

if TYPE_CHECKING:
    from genba_llm.backend_transformers import TransformersModel

Json = dict[str, Any]


def task_of(document: Json) -> Task:
    """A task from the wire, where it lies as ``dataclasses.asdict`` writes it."""
    return Task(
        [Message(**each) for each in document["messages"]],
        Options(**{**document["options"], "stop": tuple(document["options"]["stop"])}),
        [Passage(**each) for each in document["passages"]],
    )


def piece_of(document: Json) -> Piece:
    """A piece from the wire."""
    usage = document["usage"]
    return Piece(
        document["text"],
        tuple(TokenLogprob(**each) for each in document["logprobs"]),
        document["finish"],
        None if usage is None else Usage(**usage),
    )


class _Asked:
    """Tasks as they come in, and whether the one in work is still wanted."""

    def __init__(self, lines: IO[str]) -> None:
        self._lines = lines
        self.tasks: queue.SimpleQueue[Json | None] = queue.SimpleQueue()
        self.left = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self._lines:
            document = json.loads(line)
            if "leave" in document:
                self.left.set()
            else:
                self.tasks.put(document)
        self.left.set()
        self.tasks.put(None)


def _serve(model: TransformersModel, asked: _Asked, out: IO[str]) -> None:
    while (document := asked.tasks.get()) is not None:
        asked.left.clear()
        try:
            for piece in model.generate(task_of(document)):
                _say(out, {"piece": asdict(piece)})
                if asked.left.is_set():
                    break
        except PromptTooLong as failure:
            _say(out, {"too_long": failure.detail, **failure.members})
        except BackendFailed as failure:
            _say(out, {"failed": failure.detail})
        except Exception as failure:  # noqa: BLE001 - a broken task must not end the process
            _say(out, {"failed": f"The language model failed ({type(failure).__name__})."})
        _say(out, {"over": True})


def _say(out: IO[str], document: Json) -> None:
    out.write(json.dumps(document) + "\n")
    out.flush()


def main(folder: str, name: str, calibration: str) -> None:
    """Load, say so or why not, and answer until the input ends."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out, Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), 1)  # libraries that print must not garble the answers
        try:
            from genba_llm.backend_transformers import TransformersModel

            model = TransformersModel(Path(folder), name=name, calibration=float(calibration))
        except Exception as failure:  # noqa: BLE001 - whatever it is, whoever started this is told
            _say(out, {"failed": f"{type(failure).__name__}: {str(failure)[:300]}"})
            return
        _say(out, {"ready": True})
        _serve(model, _Asked(sys.stdin), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
