"""What the docs tell people to type exists: each `genba …` line has a command, options that it takes, and all that it requires."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from genba_gateway.cli import _others, app

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("svc-*/*.md")])
_FENCED = re.compile(r"^\s*```sh\n(.*?)^\s*```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`(?:\.venv/bin/)?(genba [^`\n]+)`")
_IN_A_LINE = re.compile(r"^\s*(?:\w+=\S*\s+)*(?:\.venv/bin/)?(genba [a-z].*)")


@pytest.fixture(scope="module")
def root() -> Any:
    """The whole command, with every service's own."""
    whole = typer.Typer()
    for each in app.registered_commands:
        whole.registered_commands.append(each)
    for entry in _others():
        whole.add_typer(entry.load(), name=entry.name)
    return get_command(whole)


def typed(page: Path) -> Iterator[tuple[str, bool]]:
    """Each command of a page, and whether it is to be typed as it stands."""
    text = page.read_text(encoding="utf-8")
    for block in _FENCED.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            # "$(genba …)" is a command of its own; what stands around it reads better without.
            for inner in re.findall(r"\$\((genba [^()]*)\)", line):
                yield inner, True
            if found := _IN_A_LINE.search(re.sub(r"\"?\$\([^()]*\)\"?", "X", line)):
                yield found[1], True
    for inline in _INLINE.findall(text):
        yield inline, False


def fault(root: Any, line: str, *, whole: bool) -> str | None:
    """What is wrong with a line; None if nothing is. A command without anything behind it may be a mere mention."""
    words = shlex.split(line, comments=True)[1:]
    words = words[: next((at for at, word in enumerate(words) if word in {"|", "&&", ";", "&", ">"}), None)]
    command, path = root, ["genba"]
    while hasattr(command, "commands"):
        if not words or words[0].startswith("-") or words[0] in {"…", "..."}:
            return f"{' '.join(path)} needs a command" if whole and not words else None
        if unknown := [each for each in words[0].split("|") if each not in command.commands]:
            return f"{' '.join(path)} has no {unknown[0]}"
        if "|" in words[0]:
            return None
        path.append(words[0])
        command, words = command.commands[words[0]], words[1:]
    if not words and not whole:
        return None
    context = command.make_context(path[-1], [], resilient_parsing=True)
    context.resilient_parsing = False  # only making it had to overlook that nothing was given
    try:
        given, _, _ = command.make_parser(context).parse_args(args=words)
    except Exception as error:  # noqa: BLE001 - whatever the parser says
        return f"{' '.join(path)}: {error}"
    missing = [p.opts[0] for p in command.params if p.required and given.get(p.name) in (None, ()) and not p.envvar]
    return f"{' '.join(path)} needs {', '.join(missing)}" if missing else None


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_commands_exist_with_all_that_they_require(page: Path, root: Any) -> None:
    faults = {line: said for line, whole in typed(page) if (said := fault(root, line, whole=whole))}
    assert faults == {}


def test_a_wrong_line_is_told(root: Any) -> None:
    assert fault(root, "genba models rollback recommend.two_tower", whole=True) is not None
    assert fault(root, "genba models nothing", whole=False) is not None
    assert fault(root, "genba jobs list --unknown 1", whole=True) is not None
    assert fault(root, "genba models rollback recommend.two_tower --reason x", whole=True) is None
