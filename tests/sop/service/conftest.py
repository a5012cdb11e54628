"""Short real videos of a made-up procedure, filmed once, and the service over both databases.

The service runs whole, decoder child and all; only, bytes that were extracted once in this session are not extracted
again.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from starlette.testclient import TestClient

from genba_shared.principal import Clearance
from genba_shared.settings import Platform
from genba_sop import ingest
from genba_sop.app import create_app
from genba_sop.service import Sop
from genba_sop.settings import Settings
from genba_sop.video import Extraction, extract

FPS = 8
STEP_S = 4.0
STEPS = ("open", "fill", "close", "wipe")
_numbers = itertools.count()

Picture = npt.NDArray[np.uint8]
Headers = Callable[..., dict[str, str]]


def film(path: Path, order: tuple[str, ...], *, seed: int) -> Path:
    """One block per step, each of its own shape, in its own corner and with its own movement, over one table."""
    rng = np.random.default_rng(seed)
    table = np.random.default_rng(1).integers(90, 130, (120, 160, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 160, 120, "yuv420p", 400_000
        for step in order:
            for k in range(int(STEP_S * FPS)):
                sweep = abs(((k + rng.normal(0, 0.3)) / 6) % 2 - 1)
                picture = _painted(table.copy(), STEPS.index(step), sweep)
                for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                    container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def _painted(picture: Picture, at: int, sweep: float) -> Picture:
    left, top = ((10, 10), (85, 15), (20, 65), (95, 70))[at]
    height, width = ((30, 12), (12, 34), (26, 26), (16, 20))[at]
    across, down = ((sweep, 0.4), (0.3, sweep), (0.3, 1 - sweep), (sweep, sweep))[at]
    x, y = int(left + 20 * across), int(top + 18 * down)
    picture[y : y + height, x : x + width] = np.roll([240, 30, 90], at)
    picture[y + 3 : y + height - 3 : 5, x + 2 : x + width - 2] = 20
    return picture


@dataclass(frozen=True)
class Films:
    """Files of the made-up procedure."""

    golds: tuple[Path, ...]
    good: Path  # done as the golds do
    skipped: Path  # without "close", which is critical


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Films:
    folder = tmp_path_factory.mktemp("films")
    return Films(
        golds=tuple(film(folder / f"gold_{n}.mp4", STEPS, seed=n) for n in range(3)),
        good=film(folder / "good.mp4", STEPS, seed=10),
        skipped=film(folder / "skipped.mp4", ("open", "fill", "wipe"), seed=11),
    )


@pytest.fixture(scope="session")
def _extracted() -> dict[tuple[str, float], Extraction]:
    return {}


@pytest.fixture(autouse=True)
def _extract_once(_extracted: dict[tuple[str, float], Extraction], monkeypatch: pytest.MonkeyPatch) -> None:
    def remembered(path: Path, **options: Any) -> Extraction:
        key = (hashlib.sha256(path.read_bytes()).hexdigest(), options["limits"].max_duration_s)
        if key not in _extracted:
            _extracted[key] = extract(path, **options)
        return _extracted[key]

    monkeypatch.setattr(ingest, "extract", remembered)


def document() -> dict[str, Any]:
    """The made-up procedure as an author writes it."""
    return {
        "title": {"en": "Refill", "ja": "補充"},
        "steps": [
            {"id": "open", "name": {"en": "Open the lid", "ja": "蓋を開ける"}, "tool": "lid key"},
            {"id": "fill", "name": {"en": "Fill the tank", "ja": "タンクを満たす"}, "tool": "funnel"},
            {"id": "close", "name": {"en": "Close the lid", "ja": "蓋を閉める"}, "critical": True,
             "action": {"en": "Close it before leaving.", "ja": "離れる前に閉める。"}},
            {"id": "wipe", "name": {"en": "Wipe the table", "ja": "台を拭く"}, "tool": "cloth"},
        ],
    }  # fmt: skip


def spans() -> list[dict[str, Any]]:
    """Where the steps lie in a gold."""
    return [{"id": step, "start_s": STEP_S * k, "end_s": STEP_S * (k + 1)} for k, step in enumerate(STEPS)]


@dataclass
class Service:
    """A running svc-sop and somebody who uses it."""

    client: TestClient
    sop: Sop
    signed: Headers

    def headers(self, *roles: str, **fields: Any) -> dict[str, str]:
        """By default those of an engineer who may also review."""
        return self.signed(*(roles or ("engineer", "reviewer")), **fields)

    def get(self, path: str, *roles: str, **fields: Any) -> Any:
        return self.client.get(path, headers=self.headers(*roles, **fields))

    def post(self, path: str, body: Any, *roles: str, key: str | None = None, **fields: Any) -> Any:
        headers = self.headers(*roles, **fields) | ({"idempotency-key": key} if key else {})
        return self.client.post(path, json=body, headers=headers)

    def delete(self, path: str, *roles: str, **fields: Any) -> Any:
        return self.client.delete(path, headers=self.headers(*roles, **fields))

    def upload(self, path: Path, *, clearance: str | None = None, **fields: Any) -> Any:
        params = {"clearance": clearance} if clearance else {}
        headers = self.headers(**fields) | {"content-type": "video/mp4"}
        return self.client.post("/v1/sop/videos", content=path.read_bytes(), params=params, headers=headers)

    def video(self, path: Path, **fields: Any) -> str:
        """Upload; the video's id."""
        answer = self.upload(path, **fields)
        assert answer.status_code in {200, 201}, answer.text
        return str(answer.json()["id"])

    def procedure(self, films: Films, **fields: Any) -> str:
        """The made-up procedure with its golds; its id."""
        golds = [{"video": self.video(path), "steps": spans()} for path in films.golds]
        answer = self.post("/v1/sop/procedures", {**document(), "golds": golds}, **fields)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def evaluation(self, procedure_id: str, video_id: str, **body: Any) -> Any:
        answer = self.post(
            "/v1/sop/evaluations",
            {"procedure_id": procedure_id, "video_id": video_id, **body},
            key=f"key-{next(_numbers)}",
        )
        assert answer.status_code == 201, answer.text
        return answer.json()


@pytest.fixture
def settings(platform: Platform, database_url: str) -> Settings:
    return Settings(platform=platform.model_copy(update={"database_url": database_url}), sweep_every_s=3600.0)


@pytest.fixture
def service(settings: Settings, signed: Headers) -> Iterator[Service]:
    """svc-sop, over SQLite and over Postgres."""
    app = create_app(settings)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield Service(client, app.state.sop, signed)


@pytest.fixture
def sqlite_service(platform: Platform, signed: Headers) -> Iterator[Service]:
    """svc-sop in embedded mode, for what has nothing to do with the database."""
    app = create_app(Settings(platform=platform, sweep_every_s=3600.0))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield Service(client, app.state.sop, signed)


@pytest.fixture
def secret() -> Clearance:
    return Clearance.SECRET
