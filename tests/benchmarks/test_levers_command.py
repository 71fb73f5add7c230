"""`levers.py` as a command: its table, its line of JSON, and what it refuses before it measures anything."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import levers
import tiny_run

SMALL = ["encoder.layers=1", "encoder.hidden=16", "encoder.heads=2", "batch.batch_tokens=256"]
SMALL += ["batch.pack_tokens=128", "batch.sequence_tokens=64"]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["levers.py", *map(str, arguments)])
    levers.main()


def test_the_command_prints_a_row_a_form_and_appends_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_run.write_shards(tmp_path / "shards")
    file = tmp_path / "new" / "figures.jsonl"
    options = ["--levers", "scored_rows", "--rounds", "1", "--steps", "1", "--precision", "fp32", "--json", file]
    run(monkeypatch, tmp_path / "shards", *SMALL, *options)
    assert "without scored_rows" in capsys.readouterr().out
    (line,) = file.read_text(encoding="utf-8").splitlines()
    assert [form["form"] for form in json.loads(line)["forms"]] == ["all levers", "without scored_rows"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds: invalid count value: '0'"),
        (["--steps", "0"], "--steps: invalid count value: '0'"),
        (["--json", "/dev/null/x.json"], "/dev/null"),
        (["--tasks", "bogus"], "bogus"),
        (["encoder.layers=none of these"], "encoder.layers"),
    ],
)
def test_what_cannot_be_done_is_one_line_before_anything_is_measured(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    tiny_run.write_shards(tmp_path / "shards")
    monkeypatch.setattr(levers, "take_turns", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, tmp_path / "shards", *arguments)
    assert message in capsys.readouterr().err


def test_a_recipe_that_is_not_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, "no-such-recipe")
    assert "no-such-recipe" in capsys.readouterr().err
