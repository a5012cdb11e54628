"""The Python client over real sockets: what it repeats, what it must not, and how it follows a job over broken connections."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.gateway.world import parse_head
from typer.testing import CliRunner

from genba_gateway import jobs_cli
from genba_gateway.client import Client, JobEvent, Refused, Unreachable, fresh_key
from genba_gateway.job_progress import Display
from genba_shared import commands

DROP = b""  # the connection ends without an answer


@dataclass
class Asked:
    """A request as it arrived."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Server:
    """Answers each connection with the next of its lines, then closes it; keeps what it was asked."""

    script: list[bytes] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def serve(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return  # closed: the test is over
            with connection, connection.makefile("rwb") as stream:
                raw = b""
                while not raw.endswith(b"\r\n\r\n") and (line := stream.readline()):
                    raw += line
                line_text, headers = parse_head(raw)
                self.asked.append(Asked(line_text, headers, stream.read(int(headers.get("content-length", "0")))))
                stream.write(self.script.pop(0))


def answer(status: int, document: Any = None, *, head: str = "", body: bytes = b"") -> bytes:
    body = json.dumps(document).encode() if document is not None else body
    return f"HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {len(body)}\r\n{head}\r\n".encode() + body


def problem(status: int, code: str, *, head: str = "") -> bytes:
    document = {"type": f"urn:genba:problem:{code}", "title": "No.", "detail": "Not now.", "request_id": "req_1"}
    return answer(status, document, head=head)


def stream(*parts: str) -> bytes:
    """A stream of events that ends when its connection does."""
    head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n"
    return (head + "".join(parts)).encode()


def event(seq: int, kind: str = "progress", **data: Any) -> str:
    document = {"at": "2026-11-25T10:00:00+00:00", "attempt": 1, **data}
    return f": keep-alive\n\nid: {seq}\nevent: {kind}\ndata: {json.dumps(document)}\n\n"


END = 'event: end\ndata: {"status": "succeeded"}\n\n'
JOB = {"id": "job_1", "recipe": "test.work", "status": "succeeded", "created_at": "2026-11-25T10:00:00Z", "later": 1}


@pytest.fixture
def server() -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = Server(port=listening.getsockname()[1])
        thread = threading.Thread(target=server.serve, args=(listening,))
        thread.start()
        yield server
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client would have waited."""
    found: list[float] = []
    monkeypatch.setattr(time, "sleep", found.append)
    return found


@pytest.fixture
def genba(server: Server, pauses: list[float]) -> Iterator[Client]:
    with Client(server.url, "gnb_key", timeout_s=60) as client:
        yield client


def test_a_submission_is_sent_until_it_is_known_to_be_there_with_one_key(server: Server, genba: Client) -> None:
    server.script = [DROP, problem(503, "draining"), problem(409, "idempotency-in-flight"), answer(202, JOB)]
    job = genba.jobs.submit("test.work", {"steps": 3})
    assert (job.id, job.succeeded, job.created_at.tzinfo is not None, job.error) == ("job_1", True, True, None)
    assert len({asked.headers["idempotency-key"] for asked in server.asked}) == 1
    assert len(server.asked) == 4
    assert {asked.body for asked in server.asked} == {server.asked[0].body}
    assert json.loads(server.asked[0].body)["params"] == {"steps": 3}
    assert server.asked[0].headers["authorization"] == "Bearer gnb_key"
    assert genba.jobs.submit.__doc__


def test_two_submissions_have_two_keys_unless_one_is_given(server: Server, genba: Client) -> None:
    server.script = [answer(202, JOB)] * 4
    for key in (None, None, "order-7", "order-7"):
        genba.jobs.submit("test.work", idempotency_key=key)
    sent = [asked.headers["idempotency-key"] for asked in server.asked]
    assert len(set(sent)) == 3
    assert sent[2:] == ["order-7", "order-7"]
    assert fresh_key() != fresh_key()


@pytest.mark.parametrize(("script", "error"), [([DROP], Unreachable), ([problem(502, "bad-gateway")], Refused)])
def test_what_might_be_doubled_is_not_repeated(
    script: list[bytes], error: type[Exception], server: Server, genba: Client
) -> None:
    server.script = [*script, answer(201, {})]
    with pytest.raises(error):
        genba.request("POST", "/v1/sop/search", json={})
    assert len(server.asked) == 1


def test_reads_and_what_had_no_effect_are_repeated_and_the_server_says_how_long_to_wait(
    server: Server, genba: Client, pauses: list[float]
) -> None:
    server.script = [DROP, problem(504, "gateway-timeout"), answer(200, {"a": 1})]
    assert genba.request("GET", "/v1/sop/videos", params={"limit": 2, "cursor": None}) == {"a": 1}
    assert server.asked[0].line == "GET /v1/sop/videos?limit=2 HTTP/1.1"
    server.script = [problem(429, "too-many-requests", head="retry-after: 7\r\n"), answer(204)]
    assert genba.request("POST", "/v1/sop/search", json={}) is None
    assert pauses[-1] == 7.0


def test_a_refusal_carries_the_problems_own_words(server: Server, genba: Client) -> None:
    document = {
        "type": "urn:genba:problem:invalid",
        "title": "The payload does not validate.",
        "detail": "The parameters do not fit.",
        "errors": [{"field": "params.steps", "message": "at least 1"}],
        "request_id": "req_9",
    }
    server.script = [answer(422, document), answer(403, body=b"<html>a proxy's page</html>")]
    with pytest.raises(Refused) as refused:
        genba.jobs.submit("test.work", {"steps": 0})
    said = refused.value
    assert (said.status, said.code, said.errors, said.request_id) == (422, "invalid", document["errors"], "req_9")
    assert str(said) == "422 The parameters do not fit.; params.steps: at least 1 (request req_9)"
    with pytest.raises(Refused, match="a proxy's page"):
        genba.jobs.get("job_1")


def test_somebody_who_is_not_there_is_unreachable_in_the_end(pauses: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}", retry_within_s=0.0) as genba, pytest.raises(Unreachable, match=f"{port}"):
        genba.request("POST", "/v1/sop/search", json={})
    assert pauses == []


def test_an_id_cannot_lead_to_another_address(server: Server, genba: Client) -> None:
    server.script = [problem(404, "not-found")]
    with pytest.raises(Refused):
        genba.jobs.get("../keys?x=1")
    assert server.asked[0].line == "GET /v1/jobs/..%2Fkeys%3Fx%3D1 HTTP/1.1"


def test_lists_go_on_over_pages_until_enough(server: Server, genba: Client) -> None:
    def page(*numbers: int, more: str | None) -> bytes:
        return answer(200, {"jobs": [{**JOB, "id": f"job_{n}"} for n in numbers], "next_before": more})

    server.script = [page(5, 4, more="job_4"), page(3, 2, more="job_2")]
    assert [job.id for job in genba.jobs.list(status="dead", limit=4)] == ["job_5", "job_4", "job_3", "job_2"]
    assert server.asked[1].line == "GET /v1/jobs?status=dead&before=job_4&limit=2 HTTP/1.1"
    server.script = [page(1, more=None)]
    assert [job.id for job in genba.jobs.list(limit=None)] == ["job_1"]


# ---- following ----


def test_the_list_says_what_a_running_job_does_and_not_what_an_attempt_before_failed_with(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands.out, "width", 200)  # it was told another one when it was made: xdist sets COLUMNS
    job = {
        **JOB,
        "attempt": 2,
        "message": "step 3",
        "progress": 0.5,
        "error": {"detail": "RuntimeError: attempt 1 failed"},
    }
    jobs = [{**job, "status": status} for status in ("running", "queued")]
    server.script = [answer(200, {"jobs": jobs, "next_before": None})]
    said = CliRunner().invoke(jobs_cli.app, ["list", "--url", server.url, "--key", "gnb_key"])
    assert said.exit_code == 0, said.output
    running, queued = (line for line in said.output.splitlines() if "job_1" in line)
    assert "step 3" in running
    assert "attempt 1 failed" not in running
    assert "RuntimeError: attempt 1 failed" in queued


def test_a_job_is_followed_over_broken_connections_without_a_gap_or_a_repeat(server: Server, genba: Client) -> None:
    server.script = [
        stream("retry: 2000\n\n", event(1, "status", status="queued"), event(2, fraction=0.1), "id: 3\nevent: pro"),
        DROP,
        problem(503, "draining"),
        stream(event(3, fraction=0.5), "data: "),  # ended by the server, as it does after some minutes
        stream(event(4, "line", message="日本語: a, b"), END),
    ]
    seen = list(genba.jobs.watch("job_1"))
    assert [each.seq for each in seen] == [1, 2, 3, 4]
    assert (seen[3].kind, seen[3].data) == ("line", {"message": "日本語: a, b"})
    assert [asked.headers.get("last-event-id") for asked in server.asked] == [None, "2", "2", "2", "3"]


def test_waiting_ends_with_the_job_and_a_finished_one_is_not_followed(server: Server, genba: Client) -> None:
    seen: list[JobEvent] = []
    server.script = [stream(event(1, fraction=1.0), END), answer(200, JOB)]
    assert genba.jobs.wait("job_1", on_event=seen.append).succeeded
    assert len(seen) == 1
    server.script = [answer(204), answer(200, {**JOB, "status": "dead"})]
    assert not genba.jobs.wait("job_1").succeeded


def test_a_server_that_restarts_between_the_end_and_the_result_is_waited_for_while_following(
    server: Server, pauses: list[float]
) -> None:
    troubles: list[str] = []
    server.script = [
        stream(event(1, fraction=1.0)),
        DROP,
        stream(END),
        DROP,
        problem(503, "draining"),
        answer(200, JOB),
    ]
    with Client(server.url, "gnb_key", retry_within_s=0.0) as hasty:
        assert hasty.jobs.wait("job_1", on_trouble=lambda error: troubles.append(str(error))).succeeded
    assert [server.url in each or "503" in each for each in troubles] == [True] * 3
    assert len(pauses) == 4  # and one between two streams


def test_a_job_that_one_may_not_see_is_refused_at_once(server: Server, genba: Client) -> None:
    server.script = [problem(404, "not-found")]
    with pytest.raises(Refused, match="404"):
        genba.jobs.wait("job_1")


def test_waiting_has_an_end_if_one_is_asked_for(server: Server, genba: Client) -> None:
    server.script = [stream(event(1, fraction=0.1))] * 3
    with pytest.raises(TimeoutError, match="job_1 was not over"):
        genba.jobs.wait("job_1", within_s=0.0)


# ---- files ----


def test_an_upload_is_streamed_with_its_length_and_progress(server: Server, genba: Client, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(bytes(600_000))
    server.script = [answer(201, {"id": "vid_1"})]
    told: list[tuple[int, int]] = []
    made = genba.upload(
        "/v1/sop/videos",
        film,
        content_type="video/mp4",
        params={"title": "a b"},
        progress=lambda sent, total: told.append((sent, total)),
    )
    (asked,) = server.asked
    assert made == {"id": "vid_1"}
    assert (asked.line, asked.headers["content-length"]) == ("POST /v1/sop/videos?title=a+b HTTP/1.1", "600000")
    assert "transfer-encoding" not in asked.headers
    assert asked.body == bytes(600_000)
    assert told == [(262_144, 600_000), (524_288, 600_000), (600_000, 600_000)]


def test_a_form_carries_its_files_and_is_repeated_with_its_key(server: Server, genba: Client, tmp_path: Path) -> None:
    views = [tmp_path / name for name in ("top.tif", "side.tif")]
    for view in views:
        view.write_bytes(view.name.encode() * 3)
    server.script = [DROP, answer(201, {"id": "par_1"}), DROP]
    files = [("views", view) for view in views]
    made = genba.form("/v1/sem/particles", files=files, name="p", pixel_size_nm=2.5, lot=None, idempotency_key="k")
    assert made == {"id": "par_1"}
    first, second = server.asked
    assert {first.headers["idempotency-key"], second.headers["idempotency-key"]} == {"k"}
    for part in (b'filename="top.tif"', b"side.tif" * 3, b'name="pixel_size_nm"\r\n\r\n2.5\r\n'):
        assert part in second.body
    assert b"lot" not in second.body
    with pytest.raises(Unreachable):  # without a key it might be doubled
        genba.form("/v1/sem/particles", files=files)


def test_a_download_appears_whole_or_not_at_all(server: Server, genba: Client, tmp_path: Path) -> None:
    server.script = [answer(200, body=b"weights"), b"HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\nhalf"]
    into = tmp_path / "weights.bin"
    assert genba.jobs.download("job_1", "weights", into).read_bytes() == b"weights"
    with pytest.raises(Unreachable):
        genba.jobs.download("job_1", "other", tmp_path / "other.bin")
    assert [path.name for path in tmp_path.iterdir()] == ["weights.bin"]


# ---- showing ----


def shown(*events: JobEvent, live: bool) -> str:
    console = Console(force_terminal=live, record=True, width=100, quiet=False, file=None)
    with console.capture() as captured, Display(console, "job_1") as display:
        for each in events:
            display.show(each)
    return captured.get()


@pytest.fixture
def happened() -> Callable[[], list[JobEvent]]:
    def events() -> list[JobEvent]:
        at = datetime(2026, 11, 25, tzinfo=UTC)
        told: list[tuple[str, dict[str, Any]]] = [
            ("status", {"status": "running"}),
            ("metrics", {"step": 1, "values": {"loss": 0.5, "nan": None}}),
            ("progress", {"fraction": 0.05, "message": ""}),
            ("progress", {"fraction": 0.5, "message": "[half]"}),
            ("status", {"status": "queued", "reason": "the worker went silent"}),
            ("progress", {"fraction": 0.2, "message": "again"}),
            ("line", {"level": "warning", "message": "few likes [12]"}),
        ]
        return [JobEvent(seq, kind, at, 1, data) for seq, (kind, data) in enumerate(told, 1)]

    return events


def test_a_log_gets_a_line_for_what_matters_and_no_bar(happened: Callable[[], list[JobEvent]]) -> None:
    assert shown(*happened(), live=False).splitlines() == [
        "running",
        "50%  [half]  step 1  loss=0.5",
        "queued: the worker went silent",
        "20%  again  step 1  loss=0.5",
        "few likes [12]",
    ]


def test_a_server_that_is_away_is_said_once_until_it_speaks_again() -> None:
    console = Console(force_terminal=False, record=True, width=200)
    with Display(console, "job_1") as display:
        for _ in range(3):
            display.trouble(Unreachable("http://genba does not answer: refused"))
        display.show(JobEvent(1, "line", datetime.now(UTC), 1, {"message": "back"}))
        display.trouble(Unreachable("http://genba does not answer: again"))
    lines = console.export_text().splitlines()
    assert lines == [
        "http://genba does not answer: refused; trying again",
        "back",
        "http://genba does not answer: again; trying again",
    ]


def test_a_terminal_gets_a_bar(happened: Callable[[], list[JobEvent]]) -> None:
    text = shown(*happened(), live=True)
    assert "━" in text
    assert "few likes [12]" in text
