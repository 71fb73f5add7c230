"""docs/own-corpus.md works: its blocks run in order, unchanged."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "own-corpus.md"
BLOCK = re.compile(r"^```(sh|python|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def environment(bin_folder: Path) -> dict[str, str]:
    """This process's, with `ernie2` and `python` being those under test; no network may be needed."""
    bin_folder.mkdir()
    for name, command in (("ernie2", f"{sys.executable} -m ernie2"), ("python", sys.executable)):
        (bin_folder / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
        (bin_folder / name).chmod(0o755)
    return {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}


@pytest.mark.slow
def test_the_page_leads_from_a_text_and_entities_to_a_folder_that_transformers_loads(tmp_path: Path) -> None:
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert [kind for kind, _ in blocks] == ["python", "python", "yaml", "sh", "sh", "python", "sh"]
    surroundings = environment(tmp_path / "bin")
    output = ""
    for kind, text in blocks:
        if kind == "yaml":
            (tmp_path / "my-recipe.yaml").write_text(text, encoding="utf-8")
            continue
        command = [sys.executable, "-c", text] if kind == "python" else ["sh", "-ec", text]
        done = subprocess.run(command, cwd=tmp_path, env=surroundings, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        output += done.stdout
    assert "knowledge_masking" in output
    assert re.search(r"\(1, \d+, 32\) \(1, \d+, \d+\)", output)
    assert (tmp_path / "my-run" / "report.html").is_file()
