"""Query strings into checked values, once for each string: filters repeat from request to request, and users do not stand in them.

A dozen parameters cost FastAPI half a millisecond a request to gather and check, as much as the list itself. A route that takes
them from here says what they are with ``parameters_of``, so that the OpenAPI document tells the same.
"""

from __future__ import annotations

import typing
from functools import lru_cache
from typing import Any, Final, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import QueryParams

Model = TypeVar("Model", bound=BaseModel)
LONGEST_KEPT: Final = 512  # bytes of a string that is remembered; 4,096 of them take a few MB
KEPT: Final = 4096


def read_query(model: type[Model], request: Request) -> Model:
    """The query of a request as a model, shared between requests and not to be written to.

    Raises: RequestValidationError, as FastAPI does.
    """
    raw: bytes = request.scope.get("query_string", b"")
    found = _remembered(model, raw) if len(raw) <= LONGEST_KEPT else _read(model, raw)
    return typing.cast("Model", found)


def _read(model: type[BaseModel], raw: bytes) -> BaseModel:
    given = QueryParams(raw.decode("latin-1"))
    lists = _lists_of(model)
    values: dict[str, Any] = {name: given.getlist(name) if name in lists else given[name] for name in given}
    try:
        return model.model_validate(values)
    except ValidationError as err:
        errors = [{**each, "loc": ("query", *each["loc"])} for each in err.errors(include_url=False)]
        raise RequestValidationError(errors) from err


_remembered = lru_cache(maxsize=KEPT)(_read)


@lru_cache(maxsize=64)
def _lists_of(model: type[BaseModel]) -> frozenset[str]:
    """The parameters that may come several times."""
    return frozenset(name for name, field in model.model_fields.items() if typing.get_origin(field.annotation) is list)


def parameters_of(model: type[BaseModel]) -> dict[str, Any]:
    """What a route gives to ``openapi_extra``: the model's fields as parameters of the query."""
    schema = model.model_json_schema()
    needed = schema.get("required", [])
    return {
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": name in needed,
                "schema": _inlined(each, schema.get("$defs", {})),
                **({"description": each["description"]} if "description" in each else {}),
            }
            for name, each in schema["properties"].items()
        ]
    }


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """Definitions in their place: parameters have no place for them."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inlined(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions)
        return {key: _inlined(value, definitions) for key, value in schema.items()}
    return [_inlined(each, definitions) for each in schema] if isinstance(schema, list) else schema
