"""`ablation.py` as a command: its table, its line of JSON, and what it refuses before it measures anything."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import ablation
import tiny_run
from ernie2.console import Bar
from ernie2.model.optimizations import OPTIMIZATIONS

SMALL = ["encoder.layers=1", "encoder.hidden=16", "encoder.heads=2", "batch.batch_tokens=256"]
SMALL += ["batch.pack_tokens=128", "batch.sequence_tokens=64"]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["ablation.py", *map(str, arguments)])
    ablation.main()


def test_the_command_prints_a_row_a_form_and_appends_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_run.write_shards(tmp_path / "shards")
    file = tmp_path / "new" / "figures.jsonl"
    options = ["--optimizations", "scored_rows", "--rounds", "1", "--steps", "1", "--precision", "fp32", "--json", file]
    run(monkeypatch, tmp_path / "shards", *SMALL, *options)
    shown = capsys.readouterr().out
    assert "round 1, without / with: without scored_rows " in shown
    assert "256 tokens a step, fp32, cpu" in shown
    begin, *steps, line = lines_of(file)
    assert (begin["what"], begin["precision"]) == ("begin", "fp32")
    assert [(step["what"], step["form"]) for step in steps] == [
        ("step", "all optimisations"),
        ("step", "without scored_rows"),
    ]
    assert [form["form"] for form in line["forms"]] == ["all optimisations", "without scored_rows"]


def test_a_run_that_is_cut_off_leaves_the_steps_before_and_shows_whose_and_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_run.write_shards(tmp_path / "shards")
    monkeypatch.setattr("ernie2.console.LINE_SECONDS", 0.0)
    advance = Bar.advance

    def cut_off(bar: Bar, *arguments: Any, **options: Any) -> None:
        advance(bar, *arguments, **options)
        if "round 1" in options["note"]:
            raise KeyboardInterrupt

    monkeypatch.setattr(Bar, "advance", cut_off)
    file = tmp_path / "figures.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(
            monkeypatch,
            tmp_path / "shards",
            *SMALL,
            "--optimizations",
            "none",
            "--rounds",
            "3",
            "--steps",
            "2",
            "--json",
            file,
        )
    assert [(line["what"], line.get("form")) for line in lines_of(file)] == [
        ("begin", None),
        ("step", "all optimisations"),
    ]
    shown = capsys.readouterr().out
    assert "warm-up of every variant, step 24 of 24 to 64" in shown
    assert "every variant, round 1 of 3, task set 1 of 2" in shown


def test_help_names_the_optimizations_and_the_defaults(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        run(monkeypatch, "--help")
    shown = capsys.readouterr().out
    for name in OPTIMIZATIONS:
        assert f"\n  {name} " in shown
    assert "default: 5" in shown
    assert "default: auto" in shown


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


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
    monkeypatch.setattr(ablation, "time_variants", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, tmp_path / "shards", *arguments)
    assert message in capsys.readouterr().err


def test_a_recipe_that_is_not_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, "no-such-recipe")
    assert "no-such-recipe" in capsys.readouterr().err
