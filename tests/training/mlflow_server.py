"""A tracking server as far as a run needs one: what it demands and answers was recorded from the server of MLflow 3.17.

It keeps runs in memory, refuses what the real one refuses, and can be told to be broken.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

API = "/api/2.0/"
_KEY = re.compile(r"[A-Za-z0-9_\-. :/]{1,250}")
_FILTER = re.compile(r"tags\.`([^`]+)` = '([^']*)'")


@dataclass
class MlflowServer:
    """What has been logged; ``broken`` makes every request fail with 500."""

    url: str = ""
    experiments: dict[str, str] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    authorization: set[str | None] = field(default_factory=set)
    broken: bool = False

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: bytes) -> tuple[int, Any]:
        if self.broken:
            return 500, {"error_code": "INTERNAL_ERROR", "message": "broken"}
        if method == "PUT" and path.startswith("mlflow-artifacts/artifacts/"):
            self.files[unquote(path.removeprefix("mlflow-artifacts/artifacts/"))] = body
            return 200, {}
        given = json.loads(body) if body else {}
        kind, _, call = path.removeprefix("mlflow/").partition("/")
        if kind == "experiments":
            return self._experiments(call, given, query)
        return self._runs(call, given) if kind == "runs" and method == "POST" else (404, _no("ENDPOINT_NOT_FOUND"))

    def _experiments(self, call: str, given: dict[str, Any], query: dict[str, list[str]]) -> tuple[int, Any]:
        if call == "get-by-name":
            found = self.experiments.get(query["experiment_name"][0])
            return (200, {"experiment": {"experiment_id": found}}) if found else (404, _no("RESOURCE_DOES_NOT_EXIST"))
        assert call == "create"
        if given["name"] in self.experiments:
            return 400, _no("RESOURCE_ALREADY_EXISTS")
        self.experiments[given["name"]] = f"{len(self.experiments) + 1}"
        return 200, {"experiment_id": self.experiments[given["name"]]}

    def _runs(self, call: str, given: dict[str, Any]) -> tuple[int, Any]:
        match call:
            case "search":
                wanted = _FILTER.fullmatch(given["filter"])
                assert wanted, given["filter"]
                runs = [run for run in self.runs.values() if run["tags"].get(wanted[1]) == wanted[2]]
                return 200, {"runs": [_shown(run) for run in runs]} if runs else {}
            case "create":
                return 200, {"run": _shown(self._create(given))}
            case "log-batch":
                return self._log(given)
            case "update":
                assert given["status"] in {"RUNNING", "FINISHED", "FAILED", "KILLED"}
                self.runs[given["run_id"]] |= {"status": given["status"], "end_time": given["end_time"]}
                return 200, {}
        return 404, _no("ENDPOINT_NOT_FOUND")

    def _create(self, given: dict[str, Any]) -> dict[str, Any]:
        assert given["experiment_id"] in self.experiments.values()
        assert isinstance(given["start_time"], int)
        run_id = f"{len(self.runs) + 1:032x}"
        tags = {tag["key"]: tag["value"] for tag in given["tags"]}
        self.runs[run_id] = {
            "id": run_id,
            "experiment": given["experiment_id"],
            "name": given["run_name"],
            "tags": tags,
        }
        self.runs[run_id] |= {"status": "RUNNING", "metrics": [], "params": {}}
        return self.runs[run_id]

    def _log(self, given: dict[str, Any]) -> tuple[int, Any]:
        run = self.runs[given["run_id"]]
        if len(given["metrics"]) > 1000 or len(given["params"]) > 100 or len(given["tags"]) > 100:
            return 400, _no("INVALID_PARAMETER_VALUE")
        for each in (*given["metrics"], *given["params"]):
            if not _KEY.fullmatch(each["key"]):
                return 400, _no("INVALID_PARAMETER_VALUE")
        for metric in given["metrics"]:
            assert isinstance(metric["value"], float | int) or metric["value"] in {"NaN", "Infinity", "-Infinity"}
            assert isinstance(metric["timestamp"], int)
            assert isinstance(metric["step"], int)
        for param in given["params"]:
            if run["params"].setdefault(param["key"], param["value"]) != param["value"]:
                return 400, _no("INVALID_PARAMETER_VALUE")
        run["metrics"] += given["metrics"]
        run["tags"] |= {tag["key"]: tag["value"] for tag in given["tags"]}
        return 200, {}


def _no(code: str) -> dict[str, str]:
    return {"error_code": code, "message": f"{code}."}


def _shown(run: dict[str, Any]) -> dict[str, Any]:
    uri = f"mlflow-artifacts:/{run['experiment']}/{run['id']}/artifacts"
    info = {"run_id": run["id"], "run_uuid": run["id"], "experiment_id": run["experiment"], "artifact_uri": uri}
    return {"info": {**info, "status": run["status"]}, "data": {}}


@contextmanager
def mlflow_server() -> Iterator[MlflowServer]:
    server = MlflowServer()

    class TrackingApi(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _do(self) -> None:
            parsed = urlsplit(self.path)
            assert parsed.path.startswith(API)
            server.authorization.add(self.headers.get("authorization"))
            body = self._chunked() if "chunked" in self.headers.get("transfer-encoding", "") else self._sized()
            path = parsed.path.removeprefix(API)
            status, document = server.answer(self.command, path, parse_qs(parsed.query), body)
            answer = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def _sized(self) -> bytes:
            return self.rfile.read(int(self.headers.get("content-length", "0")))

        def _chunked(self) -> bytes:
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        do_GET = do_POST = do_PUT = _do  # noqa: N815 - the library's names

        def log_message(self, *_args: Any) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), TrackingApi)
    server.url = f"http://127.0.0.1:{httpd.server_address[1]}"
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()
