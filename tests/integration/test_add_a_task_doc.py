"""docs/add-a-task.md works: its files are written and its commands run in order, unchanged."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "add-a-task.md"
BLOCK = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INSTALL = """
import pathlib, sys, tomllib
package, site = pathlib.Path(sys.argv[-1]), pathlib.Path(__file__).with_name("site")
project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
info.mkdir(parents=True)
(info / "METADATA").write_text(f"Metadata-Version: 2.1\\nName: {project['name']}\\nVersion: {project['version']}\\n")
groups = project["entry-points"].items()
lines = [line for group, named in groups for line in (f"[{group}]", *(f"{n} = {m}" for n, m in named.items()))]
(info / "entry_points.txt").write_text("\\n".join(lines))
(site / "my_tasks").symlink_to((package / "src" / "my_tasks").resolve())
"""
"""`pip install -e PACKAGE` as far as it matters here, without a network and without touching this environment."""


def environment(bin_folder: Path) -> dict[str, str]:
    """This process's, with `ernie2` and `python` being those under test, and a `pip` that keeps to a folder beside."""
    bin_folder.mkdir()
    (bin_folder / "install.py").write_text(INSTALL, encoding="utf-8")
    commands = {"ernie2": "-m ernie2", "python": "", "pip": str(bin_folder / "install.py")}
    for name, arguments in commands.items():
        (bin_folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n', encoding="utf-8")
        (bin_folder / name).chmod(0o755)
    paths = [str(bin_folder / "site"), str(Path(__file__).parents[2] / "src")]
    return {
        **os.environ,
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HF_HUB_OFFLINE": "1",
    }


@pytest.mark.slow
def test_the_page_leads_to_a_task_that_is_trained_evaluated_and_reported(tmp_path: Path) -> None:
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert [kind for kind, _, _ in blocks] == ["toml", *["python"] * 3, "sh", "yaml", "sh", "sh"]
    surroundings = environment(tmp_path / "bin")
    output = ""
    for kind, file, text in blocks:
        if kind != "sh":
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text(text, encoding="utf-8")
            continue
        done = subprocess.run(
            ["sh", "-ec", text], cwd=tmp_path, env=surroundings, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        output += done.stdout
    assert "1 passed" in output
    assert "passage_half  (token-level, 2 labels, from my-tasks)" in output
    assert re.search(r"^passage_half: .*\n.*\n  learned: ", output, re.MULTILINE), output
    assert "Passage half" in (tmp_path / "my-run" / "report.html").read_text(encoding="utf-8")
