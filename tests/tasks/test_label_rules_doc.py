"""Pages on tasks: every built-in task has rules and a row in README; every rule and attribute is documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ernie2.tasks.base import SentenceTask, Task, TokenTask, find_task, known_tasks

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "label-rules.md").read_text(encoding="utf-8")
BUILT_IN = [name for name, origin in known_tasks().items() if origin == "ernie2"]


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_task_has_a_heading_with_its_level(name: str) -> None:
    assert re.search(rf"^### `{name}`, {find_task(name).level}-level, classes: .+$", PAGE, re.MULTILINE)


def test_every_rule_bears_a_mark() -> None:
    rules = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| rule")]
    assert len(rules) > 30
    assert [line for line in rules if not re.search(r"\[(paper|code|inferred|ours)\][^|]*\|$", line)] == []


@pytest.mark.parametrize("name", BUILT_IN)
def test_readme_has_a_row_for_every_built_in_task(name: str) -> None:
    row = rf"^\| `{name}` \| {find_task(name).level} \|"
    assert re.search(row, (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("base", [Task, SentenceTask, TokenTask])
def test_the_page_on_adding_a_task_names_everything_a_task_may_override(base: type[Task]) -> None:
    page = (ROOT / "docs" / "add-a-task.md").read_text(encoding="utf-8")
    names = {name for name in (*vars(base), *base.__annotations__) if not name.startswith("_")}
    assert sorted(name for name in names if not re.search(rf"\b{name}\b", page)) == []
