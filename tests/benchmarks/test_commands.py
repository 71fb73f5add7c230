"""What parts that run commands note, and of which call."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from gpu_parts import commands
from gpu_parts.job import SCALES, Job

PROJECT = Path(__file__).resolve().parents[2]


def job(folder: Path, part: str, seconds: float = 300.0) -> Job:
    return Job(part, folder, folder / "shards #1", SCALES["tiny"], seconds, None, time.monotonic())


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_bytes().splitlines()]


def test_the_tests_part_says_how_many_tests_passed_failed_and_were_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark, file = "@pytest.mark.gpu\n", tmp_path / "tests" / "test_a.py"
    file.parent.mkdir()
    shutil.copyfile(PROJECT / "pyproject.toml", tmp_path / "pyproject.toml")
    passes, skips = f"{mark}def test_b(): pass", f"{mark}def test_c(): pytest.skip('no card')"
    file.write_text(f"import pytest\n{passes}\n{skips}\ndef test_d(): assert False\n")
    monkeypatch.setattr(commands, "ROOT", tmp_path)
    commands.run_tests(job(tmp_path, "tests"))
    (line,) = lines_of(tmp_path)
    assert line["said"][-1].startswith("1 passed, 1 skipped, 1 deselected in ")
