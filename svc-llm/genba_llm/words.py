"""The word lists in ``lexicon/words.yaml``: names, particles, the commonest words. Data, kept out of the code."""

from __future__ import annotations

import functools
from pathlib import Path

import yaml


def words(name: str) -> tuple[str, ...]:
    """One list, in the order of the file. Raises: KeyError for one that is not there."""
    return tuple(_lists()[name].split())


@functools.cache
def _lists() -> dict[str, str]:
    found: dict[str, str] = yaml.safe_load((Path(__file__).parent / "lexicon" / "words.yaml").read_text("utf-8"))
    return found
