"""Find recipes by name in the modules that settings list, and check what somebody asks of them.

Imports domains by name only, so that none is a dependency.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import orjson
from pydantic import JsonValue, ValidationError

from genba_shared.principal import Principal
from genba_shared.problems import Invalid, PayloadTooLarge, ScopeMissing, fault_in, field_name
from genba_shared.recipe import P, Recipe
from genba_shared.telemetry import get_logger

log = get_logger(__name__)


@dataclass(frozen=True)
class Recipes:
    """What can be run here. ``broken`` says, by source, why the recipes of an installed module are not offered."""

    by_name: Mapping[str, Recipe[Any]]
    broken: Mapping[str, str]

    def __iter__(self) -> Iterator[Recipe[Any]]:
        return iter(sorted(self.by_name.values(), key=lambda recipe: recipe.name))

    def get(self, name: str) -> Recipe[Any]:
        """Raises: Invalid that lists what there is."""
        recipe = self.by_name.get(name)
        if recipe is None:
            known = ", ".join(sorted(self.by_name))
            message = f"there is no recipe {name!r}; there are: {known}"
            raise Invalid(f"There is no recipe {name!r}.", errors=[{"field": "recipe", "message": message}])
        return recipe

    @property
    def limits(self) -> Mapping[str, int]:
        """How many jobs of a recipe may run at a time, for those that say so."""
        return {name: recipe.max_running for name, recipe in self.by_name.items() if recipe.max_running is not None}

    def accept(
        self, name: str, params: Mapping[str, Any], *, principal: Principal, max_bytes: int | None = None
    ) -> tuple[Recipe[Any], dict[str, Any]]:
        """The recipe and the parameters as they are stored, once both are what ``principal`` may ask for.

        Raises: Invalid with the schema's words, or for what only a service submits; ScopeMissing; PayloadTooLarge.
        """
        recipe = self.get(name)
        if recipe.submitted_by is not None:
            message = f"is submitted by {recipe.submitted_by} alone; ask for it there"
            raise Invalid(f"The recipe {name} {message}.", errors=[{"field": "recipe", "message": message}])
        if recipe.scope is not None and not principal.allows(recipe.scope):
            raise ScopeMissing(f"The recipe {name} needs the scope {recipe.scope}.", scope=recipe.scope)
        if max_bytes is not None:
            _check_storable(params, max_bytes=max_bytes)
        accepted: dict[str, Any] = validate(recipe, params).model_dump(mode="json")
        return recipe, accepted


def load(sources: Iterable[str]) -> Recipes:
    """Import every source (``module:attribute``, a dict of name → Recipe) that is installed.

    A module that is not there is passed over: an image holds only what it runs. One that is there and does not load
    is reported and the rest is offered. Raises: ValueError for a source that is not ``module:attribute``.
    """
    found: dict[str, Recipe[Any]] = {}
    broken: dict[str, str] = {}
    for source in sources:
        module_name, separator, attribute = source.partition(":")
        if not separator:
            msg = f"Recipe source {source!r} must look like 'genba_sop.training:RECIPES'."
            raise ValueError(msg)
        try:
            recipes: Mapping[str, Recipe[Any]] = getattr(importlib.import_module(module_name), attribute)
            for name, recipe in recipes.items():
                _add(found, name, recipe)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                broken[source] = f"needs the package {error.name}"
                log.warning("recipes_unavailable", source=source, missing=error.name)
        except Exception as error:
            broken[source] = f"{type(error).__name__}: {error}"
            log.exception("recipes_broken", source=source)
    return Recipes(MappingProxyType(found), MappingProxyType(broken))


def _add(found: dict[str, Recipe[Any]], name: str, recipe: Recipe[Any]) -> None:
    if name != recipe.name:
        msg = f"Recipe {recipe.name!r} is listed as {name!r}."
        raise ValueError(msg)
    if name in found and found[name] is not recipe:
        msg = f"Two modules offer a recipe {name!r}."
        raise ValueError(msg)
    found[name] = recipe


def validate(recipe: Recipe[P], params: Mapping[str, Any]) -> P:
    """The parameters as the recipe will get them. Raises: Invalid with the schema's words, each with its field."""
    try:
        return recipe.params.model_validate(params)
    except ValidationError as error:
        errors: list[JsonValue] = [
            fault_in(found, field_name(("body", "params", *found["loc"]))) for found in error.errors(include_url=False)
        ]
        raise Invalid(f"The parameters do not fit the recipe {recipe.name}.", errors=errors) from error


def _check_storable(params: Mapping[str, Any], *, max_bytes: int) -> None:
    """Refuse what a database would choke on later: NUL and lone surrogates in texts, integers beyond 64 bits."""
    try:
        text = orjson.dumps(params)
    except TypeError as error:
        raise Invalid("The params are no plain JSON.", errors=[{"field": "params", "message": str(error)}]) from error
    if b"\\u0000" in text:
        raise Invalid("NUL has no place in params.", errors=[{"field": "params", "message": "holds a NUL character"}])
    if len(text) > max_bytes:
        raise PayloadTooLarge(f"The params have {len(text)} bytes and may have {max_bytes}.", max_bytes=max_bytes)
