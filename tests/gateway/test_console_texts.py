"""What the console says of problems in Japanese is what services say, and the codes of roles and clearances have words."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import core_schema

from genba_sem.lexicon import CONCEPTS
from genba_shared.principal import ROLES, Clearance
from genba_shared.problems import fault_in
from genba_training.recipes import load
from genba_training.settings import Settings

ROOT = Path(__file__).parents[2]
CONSOLE = ROOT / "gateway/genba_gateway/console"
RECIPE_SOURCES = Settings.model_fields["recipes"].default
PAIRS = [
    json.loads(line.strip().removesuffix(","))
    for line in (CONSOLE / "details.js").read_text().splitlines()
    if line.startswith("  [")
]


def exported(script: str, name: str) -> dict[str, Any]:
    """What a module of the console exports under this name."""
    if (node := shutil.which("node")) is None:
        pytest.skip("no Node on this machine")
    module = CONSOLE / script
    command = f"import({json.dumps(module.as_uri())}).then((all) => console.log(JSON.stringify(all.{name})))"
    quiet = {**os.environ, "NODE_NO_WARNINGS": "1"}
    found: dict[str, Any] = json.loads(
        subprocess.run([node, "-e", command], capture_output=True, check=True, env=quiet).stdout
    )
    return found


def text(node: ast.Constant | ast.JoinedStr) -> str:
    """A text in the code, with {} for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)


Node = ast.Call | ast.Constant | ast.JoinedStr


@pytest.fixture(scope="module")
def code() -> list[tuple[Path, Node]]:
    """Every call and every constant or filled text in the code, with its file: parsed once, which takes a second."""
    return [
        (path, node)
        for folder in ("gateway", "shared", "svc-sop", "svc-llm", "svc-recommend", "svc-sem", "svc-training")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call | ast.Constant | ast.JoinedStr)
    ]


def test_each_detail_that_is_translated_is_one_that_is_said_and_its_places_are_kept(
    code: list[tuple[Path, Node]],
) -> None:
    known = {
        text(node)
        for _, node in code
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    }
    assert len(PAIRS) > 50
    for template, japanese in PAIRS:
        english = template.replace("{word}", "{}")
        # The gateway puts the service's name into what its connection to it says, sop's faults the first of them.
        ways = {english.replace("The service{}", "The service"), english.partition(": {}: {}")[0]}
        assert ways & known, english
        assert japanese.count("{}") <= english.count("{}"), english
        assert re.search(r"[ぁ-んァ-ヶ一-龠]", japanese), english


def test_what_a_kind_of_problem_says_in_japanese_is_filled_from_members_that_it_has(
    code: list[tuple[Path, Node]],
) -> None:
    members: dict[str, set[str]] = {}  # what is given to a problem of each kind, beside its detail
    for _, node in code:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            members.setdefault(node.func.id, set()).update(each.arg for each in node.keywords if each.arg)
    script = (CONSOLE / "problems.js").read_text(encoding="utf-8")
    block = script.partition("export const SAID_JA = {")[2].partition("};")[0]
    kinds = re.findall(r'"([a-z-]+)": (\[.+\]),', block)
    assert len(kinds) > 8
    for code_name, texts in kinds:
        name = "".join(word.capitalize() for word in code_name.split("-"))
        for template in json.loads(texts):
            places = set(re.findall(r"\{(\w+)\}", template))
            assert places <= members.get(name, set()), f"{code_name}: {template}"


class Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=3, max_length=4)
    at_least: int = Field(ge=1, le=4, multiple_of=2)
    above: float = Field(gt=1, lt=2)
    kind: Literal["a", "b"]
    many: list[str] = Field(default_factory=list, min_length=1, max_length=2)
    exact: bool = True


WRONG: list[dict[str, Any]] = [
    {"more": 1},
    {"text": "ab", "at_least": 0, "above": 1, "kind": "c", "many": []},
    {"text": "abcde", "at_least": 6, "above": 2, "many": ["a", "b", "c"], "exact": "perhaps"},
    {"text": 1, "at_least": "x", "above": "x", "many": "a"},
    {"at_least": 3},
]


def test_what_is_wrong_with_a_field_is_told_by_codes_and_limits_that_it_has() -> None:
    script = (CONSOLE / "problems.js").read_text(encoding="utf-8")
    block = script.partition("export const FAULTS_JA = {")[2].partition("};")[0]
    texts = dict(re.findall(r'"(\w+)": "([^"]+)"', block))
    assert set(texts) <= set(get_args(core_schema.ErrorType))
    for wrong in WRONG:
        with pytest.raises(ValidationError) as refused:
            Asked.model_validate(wrong)
        for error in refused.value.errors():
            fault = fault_in(error, "field")
            assert set(re.findall(r"\{(\w+)\}", texts[str(fault["code"])])) <= set(fault), fault


def test_whoever_types_something_malformed_reads_in_japanese_what_is_wanted(code: list[tuple[Path, Node]]) -> None:
    translated = {english for english, _ in PAIRS}
    for path, node in code:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "pattern":
            words = [each.value for each in node.args[1:] if isinstance(each, ast.Constant)]
            assert set(words) <= translated, f"{path.name}: {words}"


def test_whoever_follows_a_job_reads_in_japanese_how_far_it_is(code: list[tuple[Path, Node]]) -> None:
    """Whatever a recipe says beside its progress; what is a name alone stays as it is."""
    translated = {english.replace("{word}", "{}") for english, _ in PAIRS}
    found: set[str] = set()
    for path, node in code:
        if not path.relative_to(ROOT).parts[0].startswith("svc-") or not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Attribute) and node.func.attr == "progress":
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


def test_both_languages_have_the_same_texts() -> None:
    made = exported("texts.js", "TEXTS")
    assert set(made["en"]) == set(made["ja"])
    assert all(made[language][name] for language in made for name in made[language])


def test_every_problem_has_a_title_in_japanese() -> None:
    reference = (ROOT / "docs/reference/problems.md").read_text("utf-8")
    assert set(exported("problems.js", "TITLES_JA")) == set(re.findall(r"`urn:genba:problem:([a-z-]+)`", reference))
