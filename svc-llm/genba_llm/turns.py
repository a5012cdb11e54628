"""How a conversation is written for the line's own models: the Phi family's turns. Plain values, for training and serving."""

from __future__ import annotations

from typing import Final

PAD, BOS, EOS, END = "<|pad|>", "<|bos|>", "<|endoftext|>", "<|end|>"
ROLES: Final = ("system", "user", "assistant")
CHAT_TEMPLATE: Final = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def turn_mark(role: str) -> str:
    """The control token that opens a turn."""
    return f"<|{role}|>"
