"""What the console says of problems in Japanese is what services say, and the codes of roles and clearances have words."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genba_shared.principal import ROLES, Clearance

ROOT = Path(__file__).parents[2]
CONSOLE = ROOT / "gateway/genba_gateway/console"
PAIRS = [
    json.loads(line.strip().removesuffix(","))
    for line in (CONSOLE / "details.js").read_text().splitlines()
    if line.startswith("  [")
]


def text(node: ast.Constant | ast.JoinedStr) -> str:
    """A text in the code, with {} for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)


def said() -> Iterator[str]:
    """Every text in the code."""
    for folder in ("gateway", "shared", "svc-sop", "svc-llm", "svc-recommend", "svc-sem", "svc-training"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str)):
                    yield text(node)


class Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=3, max_length=4)
    at_least: int = Field(ge=1, le=2)
    above: float = Field(gt=1, lt=2)
    kind: Literal["a", "b"]


WRONG: list[dict[str, Any]] = [
    {"more": 1},
    {"text": "ab", "at_least": 0, "above": 1, "kind": "c"},
    {"text": "abcde", "at_least": 3, "above": 2},
    {"text": 1, "at_least": "x", "above": "x"},
]


def pydantic_says() -> set[str]:
    found: set[str] = set()
    for each in WRONG:
        with pytest.raises(ValidationError) as refused:
            Asked.model_validate(each)
        found |= {error["msg"] for error in refused.value.errors()}
    return found


def test_each_detail_that_is_translated_is_one_that_is_said_and_its_places_are_kept() -> None:
    known, messages = set(said()), pydantic_says()
    assert len(PAIRS) > 50
    for template, japanese in PAIRS:
        english = template.replace("{word}", "{}")
        # The gateway puts the service's name into what its connection to it says.
        pattern = re.compile(re.escape(english).replace(r"\{\}", ".*?"))
        is_said = english.replace("The service{}", "The service") in known
        assert is_said or any(pattern.fullmatch(message) for message in messages), english
        assert japanese.count("{}") <= english.count("{}"), english
        assert re.search(r"[ぁ-んァ-ヶ一-龠]", japanese), english


def test_whoever_types_something_malformed_reads_in_japanese_what_is_wanted() -> None:
    translated = {english for english, _ in PAIRS}
    for folder in ("gateway", "shared", "svc-sop", "svc-llm", "svc-recommend", "svc-sem", "svc-training"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "pattern":
                    words = [each.value for each in node.args[1:] if isinstance(each, ast.Constant)]
                    assert set(words) <= translated, f"{path.name}: {words}"


def test_whoever_follows_a_job_reads_in_japanese_how_far_it_is() -> None:
    """Whatever a recipe says beside its progress; what is a name alone stays as it is."""
    translated = {english.replace("{word}", "{}") for english, _ in PAIRS}
    found: set[str] = set()
    for path in (path for folder in ROOT.glob("svc-*") for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "progress":
                found |= {text(each) for each in node.args[1:] if isinstance(each, ast.Constant | ast.JoinedStr)}
    assert len(found) > 20
    assert found <= translated, found - translated


def test_roles_and_clearances_have_words_in_both_languages() -> None:
    texts = (CONSOLE / "texts.js").read_text(encoding="utf-8")
    for name in [*(f"role_{role}" for role in ROLES), *(f"clearance_{each.label}" for each in Clearance)]:
        assert len(re.findall(rf"\b{name}: \"[^\"]+\"", texts)) == 2, name


def test_every_recipe_and_every_described_parameter_has_words_in_japanese() -> None:
    translated = exported("recipes.js", "RECIPES_JA")
    wanted = {name: recipe for name, recipe in load(RECIPE_SOURCES).by_name.items() if name.partition(".")[0] != "test"}
    assert set(translated) == set(wanted)
    for name, recipe in wanted.items():
        properties = recipe.params.model_json_schema().get("properties", {})
        described = {each for each, schema in properties.items() if schema.get("description")}
        summary, words = translated[name]
        assert set(words) == described, name
        assert all(re.search(r"[ぁ-んァ-ヶ一-龠]", text) for text in (summary, *words.values())), name


def test_every_shape_word_that_search_answers_with_has_words() -> None:
    texts = exported("texts.js", "TEXTS")["en"]
    assert {f"shape_{each.name.replace(' ', '_')}" for each in CONCEPTS} <= set(texts)
