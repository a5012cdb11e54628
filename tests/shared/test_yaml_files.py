"""YAML that people write: what stands twice is refused with its line."""

from __future__ import annotations

import pytest
import yaml

from genba_shared import yaml_files


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: 1\nb: 2\na: 3\n", 3), ("rules:\n  - id: x\n    when: {y: 1,\n      y: 2}\n", 4)],
)
def test_a_key_that_stands_twice_is_refused_with_its_line(text: str, line: int) -> None:
    with pytest.raises(yaml.YAMLError) as refused:
        yaml_files.load(text)
    assert yaml_files.fault(refused.value).startswith(f"line {line}: the key ")


def test_anything_else_is_read_as_ever() -> None:
    text = "base: &base {a: 1, b: [1, 2]}\nmade: {<<: *base, a: 3}\nagain: {a: 1}\n1: x\n"
    assert yaml_files.load(text) == yaml.safe_load(text)
    with pytest.raises(yaml.YAMLError) as refused:
        yaml_files.load("a: [1\nb: 2\n")
    assert yaml_files.fault(refused.value).startswith("line 2: ")
    with pytest.raises(yaml.YAMLError):
        yaml_files.load("!!python/object/apply:os.system [ls]")
