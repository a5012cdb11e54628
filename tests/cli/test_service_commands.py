"""What services' commands send for what a person typed: over real HTTP, to somebody who keeps what arrives."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner

from genba_llm.cli import app as llm
from genba_sem.cli import app as sem
from genba_sop.cli import app as sop

run = CliRunner().invoke
PARTICLE: dict[str, object] = {
    "id": "par_1",
    "status": "waiting",
    "label": None,
    "confidence": None,
    "reasons": [],
    "dropped": [],
}


@dataclass
class Server:
    """Answers everything alike and keeps what it was asked."""

    status: int = 200
    document: object = field(default_factory=lambda: PARTICLE)
    asked: list[tuple[str, str, bytes]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    kept = Server()

    class Keeps(BaseHTTPRequestHandler):
        def _keep(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            kept.asked.append((self.command, self.path, body))
            answer = json.dumps(kept.document).encode()
            self.send_response(kept.status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = _keep  # noqa: N815 - names of the base class

        def log_message(self, *_args: object) -> None:
            """Say nothing."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Keeps)
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    kept.url = f"http://127.0.0.1:{listening.server_port}"
    yield kept
    listening.shutdown()
    listening.server_close()
    thread.join()


@pytest.fixture
def particle(tmp_path: Path) -> list[str]:
    folder = tmp_path / "粒子-7"
    folder.mkdir()
    for number in range(2):
        (folder / f"view_{number}.tif").write_bytes(b"II*\0")
    return [str(path) for path in sorted(folder.iterdir())]


def test_a_folder_of_views_gives_its_name_to_the_particle(server: Server, particle: list[str]) -> None:
    said = run(sem, ["send", *particle, "--later", "--batch", "b1", "--url", server.url])
    assert said.exit_code == 0, said.output
    assert 'name="name"\r\n\r\n粒子-7\r\n'.encode() in server.asked[0][2]


def test_some_files_of_a_folder_and_a_name_that_is_given_do_not(server: Server, particle: list[str]) -> None:
    run(sem, ["send", particle[0], "--url", server.url])
    run(sem, ["send", *particle, "--name", "mine", "--url", server.url])
    assert b'name="name"' not in server.asked[0][2]
    assert b'name="name"\r\n\r\nmine\r\n' in server.asked[1][2]


def test_a_report_of_days_holds_the_last_one_whole(server: Server, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "report.csv"), "--url", server.url]
    assert run(llm, ["report", "--start", "2026-11-01", "--end", "2026-11-30", *out]).exit_code == 0
    asked = parse_qs(urlsplit(server.asked[0][1]).query)
    days = [datetime.fromisoformat(asked[name][0]) for name in ("start", "end")]
    assert all(each.tzinfo is not None for each in days)
    assert [f"{each:%Y-%m-%d %H:%M:%S}" for each in days] == ["2026-11-01 00:00:00", "2026-12-01 00:00:00"]
    run(llm, ["report", "--start", "2026-11-01T00:00:00Z", "--end", "gestern", *out])
    asked = parse_qs(urlsplit(server.asked[1][1]).query)
    assert (asked["start"], asked["end"]) == (["2026-11-01T00:00:00Z"], ["gestern"])


def test_no_film_is_sent_for_a_procedure_that_is_not_there(server: Server, tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"a film")
    server.status, server.document = 404, {"detail": "There is no procedure proc_1."}
    said = run(sop, ["evaluate", "--procedure", "proc_1", "--video", str(tmp_path / "film.mp4"), "--url", server.url])
    assert (said.exit_code, [method for method, _, _ in server.asked]) == (3, ["GET"])


def test_a_video_that_is_neither_a_file_nor_an_id_is_named(server: Server) -> None:
    said = run(sop, ["evaluate", "--procedure", "proc_1", "--video", "film.mp4", "--url", server.url])
    assert (said.exit_code, "There is no file film.mp4" in said.output) == (2, True)


def test_who_has_no_key_hears_where_one_goes(server: Server) -> None:
    server.status, server.document = 401, {"detail": "Send an API key."}
    assert "GENBA_API_KEY" in run(sop, ["videos", "list", "--url", server.url]).output
