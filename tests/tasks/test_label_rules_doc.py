"""docs/label-rules.md: no built-in task without its rules, no rule without its evidence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ernie2.tasks.base import find, known

PAGE = (Path(__file__).parents[2] / "docs" / "label-rules.md").read_text(encoding="utf-8")
BUILT_IN = [name for name, origin in known().items() if origin == "ernie2"]


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_task_has_a_heading_with_its_level(name: str) -> None:
    assert re.search(rf"^### `{name}`, {find(name).level}-level, classes: .+$", PAGE, re.MULTILINE)


def test_every_rule_bears_a_mark() -> None:
    rules = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| rule")]
    assert len(rules) > 30
    assert [line for line in rules if not re.search(r"\[(paper|code|inferred|ours)\][^|]*\|$", line)] == []
