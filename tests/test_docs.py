"""The docs say what is so: links lead somewhere, commands and settings exist, generated pages are what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("svc-*/*.md"),
        *ROOT.glob("gateway/*.md"),
        *ROOT.glob("shared/*.md"),
    ]
)
IDS = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http:", "https:", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_make_targets_and_benchmarks_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for target in re.findall(r"(?:`|^)make ([a-z][a-z-]*)", text, flags=re.MULTILINE):
        assert target in targets, f"{page.name} names make {target}"
    for name in re.findall(r"benchmarks/[a-z_]+\.py", text):
        assert (ROOT / name).exists(), f"{page.name} names {name}"


@pytest.mark.parametrize("page", [*PAGES, ROOT / ".env.example"], ids=[*IDS, ".env.example"])
def test_settings_that_are_named_exist(page: Path) -> None:
    known = set(re.findall(r"`(GENBA_[A-Z_]+)`", (ROOT / "docs/reference/settings.md").read_text()))
    known |= {"GENBA_URL", "GENBA_API_KEY", "GENBA_DATA", "GENBA_HOST", "GENBA_PORT"}
    known |= {"GENBA_TEST_POSTGRES_URL", "GENBA_TEST_REDIS_URL"}
    for name in set(re.findall(r"\bGENBA_[A-Z_]*[A-Z]\b(?!_)", page.read_text(encoding="utf-8"))):
        assert any(each == name or each.startswith(f"{name}_") for each in known), f"{page.name} names {name}"


def test_the_reference_is_what_the_code_says() -> None:
    made = subprocess.run(
        [sys.executable, str(ROOT / "docs/generate.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stdout + made.stderr


def test_both_readmes_name_the_same_commands() -> None:
    commands = [
        set(re.findall(r"^(?:make|genba) .*$", (ROOT / name).read_text(encoding="utf-8"), flags=re.MULTILINE))
        for name in ("README.md", "README.ja.md")
    ]
    assert commands[0]
    assert commands[0] == commands[1]


def test_the_root_stays_small() -> None:
    tracked = subprocess.run(
        ["git", "ls-tree", "--name-only", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(tracked) <= 26
