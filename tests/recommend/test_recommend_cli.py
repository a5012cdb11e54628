"""``genba recommend``: data with structure, refusals in one line, and a catalogue sent to whoever listens."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from tests.recommend.model_world import serving
from tests.sem.service.pictures import picture
from typer.testing import CliRunner

from genba_recommend import cli
from genba_recommend.cli import app

run = CliRunner().invoke


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    said = run(app, ["demo-data", "--out", str(folder), "--items", "40", "--users", "15", "--days", "5"])
    assert said.exit_code == 0, said.output
    return folder


@pytest.fixture
def busy() -> list[int]:
    """Statuses that the next requests are answered with instead."""
    return []


@pytest.fixture
def door(tmp_path: Path, busy: list[int]) -> Iterator[str]:
    """A real svc-recommend behind a small HTTP server that signs requests as the gateway would."""
    with serving(tmp_path / "home") as service:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _forwarding(service.client, service.headers("engineer"), busy))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        server.server_close()
        thread.join()


def _forwarding(client: TestClient, headers: dict[str, str], busy: list[int]) -> type[BaseHTTPRequestHandler]:
    class Forwards(BaseHTTPRequestHandler):
        def _forward(self) -> None:
            length = int(self.headers.get("content-length", 0))
            if busy:
                self.rfile.read(length)
                self.send_response(busy.pop())
                self.send_header("retry-after", "0")
                self.send_header("content-length", "0")
                self.end_headers()
                return
            kept = {**headers, "content-type": self.headers.get("content-type", "application/json")}
            answer = client.request(self.command, self.path, content=self.rfile.read(length), headers=kept)
            self.send_response(answer.status_code)
            self.send_header("content-type", answer.headers.get("content-type", ""))
            self.send_header("content-length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_PUT = do_DELETE = _forward  # noqa: N815 - names of the base class

        def log_message(self, *_args: object) -> None:
            """Say nothing."""

    return Forwards


def test_a_catalogue_is_sent_a_bad_row_is_named_and_lists_come_back(shop: Path, door: str, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (shop / "items.jsonl").read_text().splitlines()]
    rows[3]["price"], rows[0]["title"] = -1, "[4k] x"
    (tmp_path / "items.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    said = run(app, ["load", str(tmp_path), "--url", door])
    assert said.exit_code == 0, said.output
    assert "items.jsonl:4: price:" in said.output
    assert "39 rows taken, 1 refused" in said.output
    listed = run(app, ["popular", "-k", "3", "--json", "--url", door])
    made: Any = json.loads(listed.stdout)
    assert len(made["items"]) == 3
    assert "[4k]" in run(app, ["popular", "-k", "39", "--url", door]).stdout
    status = json.loads(run(app, ["status", "--url", door]).stdout)
    assert (status["items"], status["model_version"]) == (39, None)
    arms = ["--arm", "old=popular", "--arm", "new=trending"]
    started = run(app, ["experiments", "start", "[ab]", *arms, "--url", door])
    assert started.stdout.startswith("exp_")
    experiment = started.stdout.strip()
    assert "[ab]" in run(app, ["experiments", "list", "--url", door]).stdout
    empty = run(app, ["experiments", "results", experiment, "--url", door])
    assert empty.output.count("nothing") == 2  # a narrow table folds the rest
    assert run(app, ["list", "somebody", "--url", door]).exit_code == 0
    unknown = run(app, ["experiments", "estimate", "1", "--url", door])
    assert unknown.exit_code != 0
    assert "recommend.two_tower" in unknown.output
    found = json.loads(run(app, ["experiments", "results", experiment, "--json", "--url", door]).stdout)
    assert sum(arm["users"] for arm in found["arms"]) == 1
    assert run(app, ["experiments", "stop", experiment, "--url", door]).stdout.strip() == "stopped"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["load", "/nowhere"], 2, "holds none of items.jsonl"),
        (["experiments", "start", "x", "--arm", "a"], 2, "must look like"),
        (["status", "--url", "http://127.0.0.1:1"], 3, "does not answer"),
    ],
)
def test_a_failure_is_one_line_and_an_exit_code(arguments: list[str], code: int, said: str) -> None:
    found = run(app, arguments)
    assert found.exit_code == code
    assert said in found.output.replace("\n", " ")


def test_rows_of_a_part_that_are_all_malformed_are_named_and_the_rest_is_sent(
    door: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "ROWS_AT_ONCE", 2)
    items = [
        '{"item_id": "a"}',
        "",
        '{"item_id": "b"}',
        '{"item_id": "c", "price": -1}',
        '{"item_id": "[d]"}',
        '{"item_id": "e"}',
    ]
    (tmp_path / "items.jsonl").write_text("\n".join(items) + "\n\n")
    likes = [{"event_id": f"e{n}", "user_id": "u1", "item_id": it, "kind": "like"} for n, it in enumerate("aexyz")]
    (tmp_path / "events.jsonl").write_text("\n".join(map(json.dumps, likes)))
    said = run(app, ["load", str(tmp_path), "--url", door])
    assert said.exit_code == 0, said.output
    assert "items.jsonl:4: price:" in said.output
    assert "items.jsonl:5: item_id:" in said.output
    assert "items.jsonl: 3 rows taken, 2 refused" in said.output
    assert "events.jsonl: 5 rows taken, 0 refused, 3 of items that are not in the catalogue yet" in said.output


def test_a_part_is_sent_again_when_too_much_is_being_written(door: str, tmp_path: Path, busy: list[int]) -> None:
    (tmp_path / "items.jsonl").write_text('{"item_id": "a"}')
    busy.extend([429, 429])
    said = run(app, ["load", str(tmp_path), "--url", door])
    assert "1 rows taken, 0 refused" in said.output
    assert busy == []


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"event_id": "e1"\n')
    found = run(app, ["load", str(tmp_path), "--url", "http://127.0.0.1:1"])
    assert (found.exit_code, "events.jsonl:1" in found.output) == (2, True)


@pytest.mark.parametrize("price", [b"1e400", b"\xff"])
def test_a_number_too_large_and_bytes_that_are_no_text_are_named_with_their_line(tmp_path: Path, price: bytes) -> None:
    rows = b'\xef\xbb\xbf{"item_id": "a", "title": "A"}\n{"item_id": "b", "title": "B", "price": ' + price + b"}\n"
    (tmp_path / "items.jsonl").write_bytes(rows)
    said = run(app, ["load", str(tmp_path), "--url", "http://127.0.0.1:9"])
    assert (said.exit_code, "items.jsonl:2 is not readable as JSON" in said.output) == (2, True)


def test_a_folder_that_is_no_bundle_is_not_exported(tmp_path: Path) -> None:
    found = run(app, ["export", str(tmp_path), "--out", str(tmp_path / "out"), "--format", "tfjs"])
    assert (found.exit_code, "bundle.json" in found.output) == (2, True)


def test_pictures_of_a_folder_are_sent_and_a_refused_one_is_named(shop: Path, door: str, tmp_path: Path) -> None:
    assert run(app, ["load", str(shop), "--url", door, "--key", "k"]).exit_code == 0
    names = [json.loads(line)["item_id"] for line in (shop / "items.jsonl").read_text().splitlines()[:3]]
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in names:
        (folder / f"{name}.png").write_bytes(picture("disc", seed=1))
    (folder / "nobody.png").write_bytes(picture("disc", seed=1))
    (folder / f"{names[0]}.txt").write_text("passed over")
    said = run(app, ["pictures", "send", str(folder), "--url", door, "--key", "k"])
    assert said.exit_code == 1
    assert "nobody.png: There is no item nobody." in said.output
    assert "3 pictures taken, 1 refused" in said.output
    (tmp_path / "text.png").write_text("no picture")
    alone = run(app, ["pictures", "send", str(tmp_path / "text.png"), "--item", names[0], "--url", door, "--key", "k"])
    assert alone.exit_code == 3
    assert "no JPEG, PNG or WebP" in alone.output
    made = run(app, ["pictures", "status", "--url", door, "--key", "k"])
    assert json.loads(made.stdout)["waiting"] == 3  # there is no svc-sop here
    assert run(app, ["pictures", "remove", names[0], "--url", door, "--key", "k"]).exit_code == 0
    assert run(app, ["pictures", "remove", names[0], "--url", door, "--key", "k"]).exit_code == 3
    assert run(app, ["pictures", "send", str(tmp_path / "nothing"), "--url", door, "--key", "k"]).exit_code == 2
