"""Reads PromQL as far as these tests need it: which metrics does an expression name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
RULES = sorted((ROOT / "deploy/prometheus/rules").glob("*.yml"))

# Words of the language; a word with "(" behind it is a function and needs no entry.
_KEYWORDS = frozenset(
    {"by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless", "bool", "offset"}
)
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_NAME_MATCHER = re.compile(r'__name__\s*=~\s*"([^"]+)"')
_WORD = re.compile(r"(?<![\w:.])[a-zA-Z_:][a-zA-Z0-9_:]*(?!\s*\(|[a-zA-Z0-9_:])")


def metrics_in(expression: str) -> set[str]:
    """Names of metrics; for a matcher on ``__name__`` its pattern, beginning with ``~``."""
    found = {f"~{pattern}" for pattern in _NAME_MATCHER.findall(expression)}
    bare = _GROUPING.sub(" ", re.sub(r'"[^"]*"', " ", expression))
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare)
    return found | {word for word in _WORD.findall(bare) if word not in _KEYWORDS}


def unknown(expressions: Iterable[str], known: AbstractSet[str]) -> set[str]:
    """Metrics that ``expressions`` name and that are not among ``known``."""
    wanted = set[str]().union(*(metrics_in(expression) for expression in expressions))
    return {
        name
        for name in wanted
        if not (any(re.fullmatch(name[1:], each) for each in known) if name.startswith("~") else name in known)
    }


def families_in(exposition: str) -> set[str]:
    """Every name that a query may use, from the TYPE lines: a labelled metric without samples yet has one too."""
    names: set[str] = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", exposition, flags=re.MULTILINE):
        names |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    return names


def rules() -> list[dict[str, Any]]:
    """Every rule of every file."""
    documents = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in RULES]
    return [rule for document in documents for group in document["groups"] for rule in group["rules"]]
