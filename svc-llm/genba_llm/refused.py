"""What a user can put right: every refusal of the training line is one of these, and anything else is a fault of ours."""

from __future__ import annotations


class Refused(ValueError):
    """The work cannot be done as asked; the message says what to change."""
