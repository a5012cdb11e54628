"""Pictures as vectors: alike pictures lie close, and what is hostile costs itself alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from genba_sop.pictures import Limits, Unreadable, read_pictures

Service = Any  # of conftest, which tests cannot import
Pixels = npt.NDArray[np.uint8]
PATH = "/v1/sop/embed"


def scene(kind: int, seed: int, *, width: int = 320, height: int = 200) -> Pixels:
    """A picture of one of four kinds: stripes of one slope on one colour, moved and lit by chance."""
    rng = np.random.default_rng(seed)
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    slope = np.cos(kind * np.pi / 4) * across + np.sin(kind * np.pi / 4) * down
    stripes = 60 * np.sin(slope / 9 + rng.uniform(0, 6))
    colour = np.array([[200, 60, 60], [60, 180, 60], [60, 80, 210], [200, 180, 40]][kind])
    noisy = colour + stripes[..., None] + rng.normal(0, 12, (height, width, 3)) + rng.uniform(-25, 25)
    return np.asarray(np.clip(noisy, 0, 255), np.uint8)


def encoded(pixels: Pixels, suffix: str = ".jpg") -> bytes:
    return bytes(cv2.imencode(suffix, pixels[..., ::-1])[1].tobytes())


def sent(service: Service, *pictures: bytes, role: str = "viewer") -> Any:
    files = [("pictures", (f"{at}.jpg", data)) for at, data in enumerate(pictures)]
    return service.client.post(PATH, files=files, headers=service.headers(role))


def test_pictures_of_one_kind_lie_closer_than_those_of_others(sqlite_service: Service) -> None:
    kinds = [kind for kind in range(4) for _ in range(4)]
    suffixes = [".jpg", ".png", ".webp", ".jpg"]
    answer = sent(sqlite_service, *(encoded(scene(kind, at), suffixes[at % 4]) for at, kind in enumerate(kinds)))
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert (said["encoder"], said["dim"], said["needs_weights"]) == ("picture-hog-v1", 132, False)
    rows = np.array([each["embedding"] for each in said["pictures"]])
    assert rows.shape == (16, 132)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    near = rows @ rows.T
    alike = np.equal.outer(kinds, kinds)
    assert near[alike].min() > near[~alike].max()


def test_one_picture_may_be_the_body(sqlite_service: Service) -> None:
    picture = encoded(scene(1, 1))
    headers = sqlite_service.headers("viewer") | {"content-type": "image/jpeg"}
    [alone] = sqlite_service.client.post(PATH, content=picture, headers=headers).json()["pictures"]
    assert alone == sent(sqlite_service, picture).json()["pictures"][0]


def a_png_of(width: int, height: int) -> bytes:
    """A small file that says it is large."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")


HOSTILE: list[tuple[str, bytes, str]] = [
    ("text", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an XML or HTML document"),
    ("empty", b"", "empty"),
    ("a playlist", b"#EXTM3U\nfile:///etc/passwd\n", "an HLS playlist"),
    ("a bomb", a_png_of(60_000, 60_000), "more pixels"),
    ("half a picture", encoded(scene(0, 0), ".png")[:40], "cannot be decoded"),
    ("a head alone", b"\xff\xd8\xff" + b"\0" * 500, "cannot be decoded"),
    ("noise", b"RIFF\0\0\0\0WEBP" + bytes(range(256)), "cannot be decoded"),
]


def test_a_hostile_picture_fails_by_itself_and_the_others_are_embedded(sqlite_service: Service) -> None:
    good = encoded(scene(2, 2))
    answer = sent(sqlite_service, *(data for _, data, _ in HOSTILE), good)
    assert answer.status_code == 200, answer.text
    found = answer.json()["pictures"]
    for (name, _, why), said in zip(HOSTILE, found, strict=False):
        assert said["embedding"] is None, name
        assert why in said["error"], name
    assert found[-1]["embedding"] == sent(sqlite_service, good).json()["pictures"][0]["embedding"]


def test_a_picture_that_kills_its_child_costs_that_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    good = encoded(scene(0, 0, width=64, height=64))
    large = encoded(np.zeros((6000, 6000, 3), np.uint8), ".png")  # 108 MB of pixels, more than the child may have
    few = Limits(max_memory_bytes=300 * 2**20)
    found = read_pictures([good, large, good], width_px=160, height_px=120, limits=few)
    assert isinstance(found[1], Unreadable)
    assert [getattr(each, "shape", None) for each in found] == [(120, 160, 3), None, (120, 160, 3)]


@pytest.mark.parametrize(
    ("ask", "status"),
    [
        pytest.param(lambda s: sent(s, *[encoded(scene(0, 0))] * 65), 413, id="65 pictures"),
        pytest.param(lambda s: s.client.post(PATH, files={"other": b"x"}, headers=s.headers("viewer")), 422, id="none"),
        pytest.param(lambda s: sent(s, b"{}", b"text"), 422, id="none that can be read"),
        pytest.param(lambda s: s.client.post(PATH, json={}, headers=s.headers("viewer")), 415, id="json"),
        pytest.param(lambda s: sent(s, encoded(scene(0, 0)), role="auditor"), 403, id="an auditor"),
        pytest.param(lambda s: s.client.post(PATH, files={"pictures": b"x"}), 401, id="nobody"),
    ],
)
def test_what_is_no_request_of_pictures_is_refused(
    sqlite_service: Service, ask: Callable[[Service], Any], status: int
) -> None:
    assert ask(sqlite_service).status_code == status
