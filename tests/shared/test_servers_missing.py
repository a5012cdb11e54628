"""Tests that need servers are never silently left out where it counts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ONE = "test_db.py::test_a_transaction_commits_when_its_block_ends"


@pytest.mark.long
def test_in_ci_a_test_fails_without_its_server_instead_of_being_skipped(tmp_path: Path) -> None:
    unreachable = {"GENBA_TEST_POSTGRES_URL": "postgresql+psycopg://postgres@127.0.0.1:1", "CI": "true"}
    apart = f"cache_dir={tmp_path}"
    command = [sys.executable, "-m", "pytest", "-q", "-o", apart, f"{Path(__file__).parent / ONE}"]
    run = subprocess.run(command, env={**os.environ, **unreachable}, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "1 passed, 1 error" in run.stdout  # SQLite's half passes
    assert "127.0.0.1:1" in run.stdout
