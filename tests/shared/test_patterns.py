"""A malformed id is answered in words, in every service and every recipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from fastapi import Path
from pydantic import TypeAdapter, ValidationError

from genba_gateway.embedded import SERVICES
from genba_shared.patterns import in_words, message, pattern
from genba_shared.settings import Platform
from genba_training import recipes, settings


def patterns(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        if isinstance(document.get("pattern"), str):
            yield document["pattern"]
        for part in document.values():
            yield from patterns(part)
    elif isinstance(document, list):
        for part in document:
            yield from patterns(part)


# Pydantic checks none of these: two headers that functions of ours read, which answer in words, and the id of an event that we send.
READ_BY_HAND = {
    "^[0-9]+$",
    '^([!#-~]([ !#-~]{0,253}[!#-~])?|"[ !#-~]{1,253}")$',
    r'^((W/)?"[0-9]{1,9}"|[0-9]{1,9}|\*)$',
}


@pytest.mark.parametrize("service", SERVICES)
def test_every_pattern_that_a_service_publishes_is_put_into_words(service: str, platform: Platform) -> None:
    published = set(patterns(SERVICES[service](platform).openapi()))
    assert published
    assert {regex for regex in published - READ_BY_HAND if in_words(regex) is None} == set()


def test_every_pattern_of_a_recipe_is_put_into_words() -> None:
    found = {
        regex
        for recipe in recipes.load(settings.Settings().recipes)
        for regex in patterns(recipe.params.model_json_schema())
    }
    assert found
    assert {regex for regex in found if in_words(regex) is None} == set()


def test_a_text_that_does_not_match_is_told_what_is_wanted_and_other_faults_keep_their_message() -> None:
    shape = Annotated[str, Path(pattern=pattern("^z[0-9]{3}$", "must be z and three digits"), max_length=4)]
    for text, said in (("y123", "must be z and three digits"), ("z12345", "String should have at most 4 characters")):
        with pytest.raises(ValidationError) as refused:
            TypeAdapter(shape).validate_python(text)
        assert message(refused.value.errors()[0]) == said
