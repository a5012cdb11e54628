"""What a process loads by the time that it works: every library that it does not need is waited for at each start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from genba_gateway import home as homes
from genba_shared.settings import Platform

WEB = {"fastapi", "starlette", "uvicorn", "jinja2", "mcp"}
STORES = {"sqlalchemy", "alembic", "mako", "psycopg", "celery", "qdrant_client", "fsspec"}
NUMERICS = {"numpy", "scipy", "numba", "cv2", "av", "skimage", "onnxruntime"}
LEARNING = {"torch", "transformers", "sklearn", "pandas", "matplotlib", "tensorflow", "onnx"}

COMMANDS = """
import contextlib, io
from genba_gateway.cli import main
for command in sys.argv[1:]:
    sys.argv = ["genba", *command.split()]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            main()
        except SystemExit as ended:
            print(command, ended.code or 0, file=sys.__stdout__)
"""
API = """
from genba_gateway.embedded import create_app
from genba_shared.settings import Platform
from genba_training import recipes
from genba_training.settings import Settings
create_app(Platform())
found = recipes.load(Settings().recipes)
print(sorted(found.by_name.keys() & {"llm.so8t", "recommend.federated"}), dict(found.broken))
"""
WORKER = """
from genba_gateway import embedded
from genba_training import recipes, worker
from genba_training.settings import Settings
found = recipes.load(Settings().recipes)
print(sorted(found.by_name.keys() & {"llm.so8t", "recommend.federated"}), dict(found.broken))
"""
OFFERED = "['llm.so8t', 'recommend.federated'] {}"  # recipes that train with torch, and no source that is broken


def loaded(among: set[str], script: str, *arguments: str, home: Path, said: Sequence[str]) -> set[str]:
    """Which of ``among`` a process of its own has in ``sys.modules`` once it has run ``script`` and printed what it should."""
    program = f"import json, sys\n{script}\nprint(json.dumps(list(sys.modules)))"
    env = {**os.environ, "GENBA_HOME": str(home), "GENBA_URL": "http://127.0.0.1:1", "GENBA_API_KEY": "none"}
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=240, env=env, check=True
    )
    *lines, modules = ended.stdout.splitlines()
    assert lines == list(said)
    return among.intersection(json.loads(modules))


def test_the_command_itself_loads_no_service_and_no_client(tmp_path: Path) -> None:
    heavy = WEB | STORES | NUMERICS | LEARNING | {"httpx", "sqlite3"}
    said = ["version 0", "--help 0"]
    assert loaded(heavy, COMMANDS, "version", "--help", home=tmp_path, said=said) == set()


def test_a_command_that_speaks_to_a_server_loads_what_speaks_and_what_prints(tmp_path: Path) -> None:
    heavy = WEB | STORES | NUMERICS | LEARNING
    asked = ["jobs list", "models list", "sop videos list", "llm triage text", "sem queue", "recommend status"]
    said = ["sop score --help 0", *(f"{command} 3" for command in asked)]
    assert loaded(heavy, COMMANDS, "sop score --help", *asked, home=tmp_path, said=said) == set()


def test_a_command_on_the_database_loads_no_web_and_no_migrations_where_none_is_due(tmp_path: Path) -> None:
    heavy = WEB | NUMERICS | LEARNING | {"alembic", "mako", "psycopg", "celery"}
    homes.migrate(Platform(home=tmp_path)).close()
    assert loaded(heavy, COMMANDS, "keys list", home=tmp_path, said=["keys list 0"]) == set()


def test_whoever_only_starts_processes_loads_nothing_that_they_load(tmp_path: Path) -> None:
    heavy = WEB | NUMERICS | LEARNING | {"alembic", "celery", "psycopg"}
    assert loaded(heavy, "import genba_gateway.up", home=tmp_path, said=[]) == set()


def test_a_worker_has_its_recipes_without_the_web_and_without_what_only_some_of_them_use(tmp_path: Path) -> None:
    heavy = WEB | LEARNING | {"scipy.stats", "scipy.optimize", "alembic", "psycopg"}
    assert loaded(heavy, WORKER, home=tmp_path, said=[OFFERED]) == set()


def test_the_api_comes_up_without_what_trains_and_without_what_nobody_has_asked_for_yet(tmp_path: Path) -> None:
    heavy = LEARNING | {"scipy.stats", "scipy.optimize", "alembic", "psycopg", "mcp"}
    assert loaded(heavy, API, home=tmp_path, said=[OFFERED]) == set()
