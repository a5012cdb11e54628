"""The demo begins at the beginning each time, and touches no home but its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from genba_gateway.cli import Failed
from genba_gateway.demo import fresh_home
from genba_gateway.home import only_one


def test_what_an_earlier_demo_left_goes(tmp_path: Path) -> None:
    home = fresh_home(tmp_path / "demo")
    before = {path.name for path in home.iterdir()}
    (home / "genba.db").write_bytes(b"labels of the first time")
    (home / "secrets").mkdir()
    assert fresh_home(tmp_path / "demo") == home
    assert {path.name for path in home.iterdir()} == before


def test_a_home_that_no_demo_made_stays(tmp_path: Path) -> None:
    mine = tmp_path / "home" / "genba.db"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    with pytest.raises(Failed, match="was not made by a demo: name another folder"):
        fresh_home(tmp_path)
    assert mine.read_bytes() == b"mine"


def test_a_home_in_use_stays(tmp_path: Path) -> None:
    database = fresh_home(tmp_path) / "genba.db"
    database.write_bytes(b"of a demo that runs")
    with only_one(tmp_path / "home"), pytest.raises(Failed, match="already runs"):
        fresh_home(tmp_path)
    assert database.exists()
