"""Problem documents: what a caller gets to read when something fails."""

from __future__ import annotations

import orjson
import pytest
from pydantic import BaseModel, Field, ValidationError, field_validator

from genba_shared import problems
from genba_shared.problems import Invalid, NotFound, Problem, TooManyRequests, Unauthorized, field_name, invalid, render


def everything(kind: type[Problem] = Problem) -> list[type[Problem]]:
    found = [found for child in kind.__subclasses__() for found in (child, *everything(child))]
    return [kind for kind in found if kind.__module__ == problems.__name__]


def test_a_document_has_the_members_of_rfc_9457_and_its_own() -> None:
    document = NotFound("No video vid_1.", video="vid_1").document(request_id="req_1", instance="/v1/sop/videos/vid_1")
    assert document == {
        "type": "urn:genba:problem:not-found",
        "title": "There is nothing here.",
        "status": 404,
        "detail": "No video vid_1.",
        "instance": "/v1/sop/videos/vid_1",
        "request_id": "req_1",
        "video": "vid_1",
    }


def test_a_member_cannot_replace_a_standard_one() -> None:
    assert NotFound("x", status=200, type="lie").document()["status"] == 404


@pytest.mark.parametrize("kind", everything(), ids=lambda kind: kind.code)
def test_every_problem_has_a_title_a_code_and_a_place_in_the_drawn_tree(kind: type[Problem]) -> None:
    assert kind.title.endswith(".")
    assert kind.code.replace("-", "") == kind.__name__.lower()
    assert 400 <= kind.status < 600
    drawn = problems.__doc__ or ""
    line = next(line for line in drawn.splitlines() if kind.__name__ in line.replace("·", " ").split())
    assert str(kind.status) in line


def test_codes_and_titles_are_each_used_once() -> None:
    kinds = everything()
    assert len({kind.code for kind in kinds}) == len({kind.title for kind in kinds}) == len(kinds)


def test_every_status_has_one_general_problem() -> None:
    assert set(problems.BY_STATUS) == {kind.status for kind in everything()}


def test_a_rendered_problem_is_json_with_its_length_and_is_not_cached() -> None:
    status, headers, body = render(NotFound("見つかりません"), request_id="r")
    assert status == 404
    assert dict(headers)[b"content-type"] == b"application/problem+json"
    assert dict(headers)[b"content-length"] == str(len(body)).encode()
    assert dict(headers)[b"cache-control"] == b"no-store"
    assert orjson.loads(body)["detail"] == "見つかりません"


def test_waiting_time_is_a_member_and_a_header_in_whole_seconds() -> None:
    problem = TooManyRequests("Slow down.", retry_after_s=1.2)
    assert problem.document()["retry_after_s"] == 1.2
    assert dict(render(problem).headers)[b"retry-after"] == b"2"


def test_an_unknown_caller_is_told_how_to_say_who_they_are() -> None:
    assert b"www-authenticate" in dict(render(Unauthorized("No key.")).headers)


@pytest.mark.parametrize(
    ("location", "name"),
    [
        (("body", "steps", 2, "after"), "steps[2].after"),
        (("body", "steps", 0, "after", 1), "steps[0].after[1]"),
        (("query", "limit"), "limit"),
        (("body",), "body"),
        (("body", 3), "[3]"),
        ((), "body"),
    ],
)
def test_fields_are_named_as_one_would_write_them(location: tuple[int | str, ...], name: str) -> None:
    assert field_name(location) == name


def test_what_pydantic_found_becomes_errors_by_field() -> None:
    class Sent(BaseModel):
        title: str
        note: str = Field(max_length=3)
        min_s: float

        @field_validator("min_s")
        @classmethod
        def _is_below(cls, value: float) -> float:
            raise ValueError(f"must be below {value}")

    with pytest.raises(ValidationError) as found:
        Sent.model_validate({"note": "long", "min_s": 1})
    problem = invalid([{**each, "loc": ("body", *each["loc"])} for each in found.value.errors()])
    assert isinstance(problem, Invalid)
    assert problem.detail == "Mend title, note, min_s."
    assert problem.document()["errors"] == [
        {"field": "title", "message": "Field required", "code": "missing"},
        {
            "field": "note",
            "message": "String should have at most 3 characters",
            "code": "string_too_long",
            "max_length": 3,
        },
        {"field": "min_s", "message": "must be below 1.0", "code": "value_error"},
    ]
