"""Uploads off the wire, in any chunks, by a real application."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from hypothesis import given, settings
from hypothesis import strategies as st

from genba_shared.forms import Landing, Place, SmallField, check_length, display_name, read_form
from genba_shared.problems import Problem, render

CAP = 4096
FILES = [b"\r\n--x\r\n" * 40, bytes(range(256)) * 9, b""]


def form(*, end: bytes = b"--x--\r\n") -> bytes:
    """Two small fields and three files."""
    parts = [b'--x\r\ncontent-disposition: form-data; name="batch"\r\n\r\n night shift \r\n']
    parts += [
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="C:\\\\lab\\\\%d.tif"\r\n\r\n%s\r\n'
        % (n, data.replace(b"--x", b"==x"))
        for n, data in enumerate(FILES)
    ]
    return b"".join(parts) + b'--x\r\ncontent-disposition: form-data; name="other"\r\n\r\npassed over\r\n' + end


def app() -> FastAPI:
    application = FastAPI()

    async def as_problem(_request: Request, problem: Exception) -> Response:
        assert isinstance(problem, Problem)
        rendered = render(problem)
        return Response(rendered.body, problem.status, media_type="application/problem+json")

    application.add_exception_handler(Problem, as_problem)

    @application.post("/")
    async def take(request: Request) -> dict[str, object]:
        check_length(request, "A form", cap_bytes=CAP)
        landings: list[Landing] = []
        small: list[SmallField] = []

        def place(name: str, file_name: str) -> Landing | SmallField | None:
            if name == "file":
                landings.append(Landing(io.BytesIO(), display_name(file_name), 2304))
                return landings[-1]
            if name == "batch":
                small.append(SmallField(name))
                return small[-1]
            return None

        where: Place = place
        await read_form(request, "A form", where, cap_bytes=CAP)
        return {
            "files": [[each.what, each.size_bytes, each.digest.hexdigest()] for each in landings],
            "batch": [each.text for each in small],
        }

    return application


def send(body: bytes, *, chunk: int = 1 << 16, content_type: str = "multipart/form-data; boundary=x") -> httpx.Response:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), chunk):
            yield body[start : start + chunk]

    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(app=app())
        async with httpx.AsyncClient(transport=transport, base_url="http://genba") as client:
            return await client.post("/", content=pieces(), headers={"content-type": content_type})

    return asyncio.run(post())


@settings(deadline=None)
@given(chunk=st.integers(1, 700))
def test_a_form_reads_the_same_in_any_chunks(chunk: int) -> None:
    answer = send(form(), chunk=chunk)
    assert answer.status_code == 200, answer.text
    kept = [data.replace(b"--x", b"==x") for data in FILES]
    assert answer.json() == {
        "files": [[f"{n}.tif", len(data), hashlib.sha256(data).hexdigest()] for n, data in enumerate(kept)],
        "batch": ["night shift"],
    }


@pytest.mark.parametrize(
    ("body", "content_type", "status", "says"),
    [
        (form(end=b""), "multipart/form-data; boundary=x", 422, "ends too early"),
        (form()[:200], "multipart/form-data; boundary=x", 422, "ends too early"),
        (b"not a form", "multipart/form-data; boundary=x", 400, "cannot be read"),
        (form(), "multipart/form-data", 400, "needs a boundary"),
        (form().replace(b" night shift ", b"\xff\xfe"), "multipart/form-data; boundary=x", 422, "no UTF-8 text"),
        (form().replace(b" night shift ", b"n" * 20_000), "multipart/form-data; boundary=x", 422, "batch is too long"),
        (
            form().replace(b"==x", b"=" * 80),
            "multipart/form-data; boundary=x",
            413,
            "0.tif may have at most 2304 bytes",
        ),
        (form() + b"\n" * 150_000, "multipart/form-data; boundary=x", 413, "A form may have at most 4096 bytes"),
        (b"--x\r\n" + b"h" * 20_000, "multipart/form-data; boundary=x", 400, "Maximum header size exceeded"),
    ],
)
def test_a_bad_form_is_refused_with_what_is_wrong(body: bytes, content_type: str, status: int, says: str) -> None:
    answer = send(body, content_type=content_type)
    assert (answer.status_code, says in answer.text) == (status, True), answer.text


@pytest.mark.parametrize(
    ("given_name", "shown"),
    [
        ("a.mp4", "a.mp4"),
        ("C:\\x\\a.mp4", "a.mp4"),
        ("../../a.mp4", "a.mp4"),
        ("a\x00\x1b[31m.mp4", "a[31m.mp4"),
        ("", ""),
    ],
)
def test_a_files_name_is_shown_without_folders_or_control_characters(given_name: str, shown: str) -> None:
    assert display_name(given_name) == shown
