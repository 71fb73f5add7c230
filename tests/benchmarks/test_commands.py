"""What parts that run commands note, and of which call."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from ernie2.studies.settings import load_settings
from gpu_parts import commands
from gpu_parts.driver import STOPPED
from gpu_parts.job import SCALES, Job
from gpu_parts.results import Results

PROJECT = Path(__file__).resolve().parents[2]


def job(folder: Path, part: str, call: str = "c1", seconds: float = 300.0) -> Job:
    return Job(part, Results(folder, call), folder / "shards #1", SCALES["tiny"], seconds, None, time.monotonic())


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


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Shards that look like some, and in place of a study tables that are written into its folder, or none."""
    folders: list[Path] = []

    def ran(_: Job, command: list[str]) -> commands.CommandResult:
        values = [value for value in command if "=" in value]
        folders.append(Path(load_settings("small", values).folder))
        if len(folders) == 1:
            folders[0].mkdir()
            (folders[0] / "study.md").write_text("# Methods")
        return commands.CommandResult(0 if len(folders) == 1 else -15, len(folders) > 1, [])

    monkeypatch.setattr(commands, "_run", ran)
    return folders


def test_every_call_has_its_own_study_folder_and_a_stopped_study_is_cut_off(tmp_path: Path, study: list[Path]) -> None:
    place = tmp_path / "out #2: new"
    (place / "shards #1").mkdir(parents=True)
    (place / "shards #1" / "shards.json").write_text('{"corpora": {"wiki": {}}}')
    commands.run_study(job(place, "study"))
    with pytest.raises(SystemExit) as ended:
        commands.run_study(job(place, "study", "c2"))
    assert ended.value.code == STOPPED
    assert study == [place / "study-c1", place / "study-c2"]
    assert [(line["table"], line["stopped"]) for line in lines_of(place)] == [("# Methods", False), ("", True)]


def test_a_command_that_failed_by_itself_fails_its_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_run", lambda *_: commands.CommandResult(3, False, ["why"]))
    with pytest.raises(SystemExit) as ended:
        commands.run_tests(job(tmp_path, "tests"))
    assert ended.value.code == 1
