"""`bench_against_hf.py`: its table, its lines of JSON, and what it refuses before it measures anything."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import bench_against_hf
import tiny_run
from ernie2.batches.loader import Loader
from ernie2.benchmarking import bench as bench_module
from ernie2.benchmarking import input_pipeline
from ernie2.benchmarking.flops import Peak


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe with tiny shards."""
    folder = tmp_path_factory.mktemp("against")
    tiny_run.write_shards(folder / "shards")
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(tiny_run.recipe(folder).model_dump(mode="json")), encoding="utf-8")
    return file


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No matrix products, and a loader that makes everything here."""
    rate = input_pipeline.loader_rate
    monkeypatch.setattr(bench_module, "device_peak", lambda *_: Peak(1e9, "made up"))
    monkeypatch.setattr(input_pipeline, "loader_rate", lambda streams, sets, seconds: rate(streams, sets, 0.01))
    monkeypatch.setattr(input_pipeline, "Loader", lambda streams, plans, workers: Loader(streams, plans, 0))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["bench_against_hf.py", *map(str, arguments)])
    return bench_against_hf.main()


def summary(file: Path) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(file.read_text(encoding="utf-8").splitlines()[-1])
    assert line["what"] == "summary"
    return line


@pytest.mark.usefixtures("quick")
def test_the_table_and_the_lines_have_both_sides(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    file = tmp_path / "figures.jsonl"
    assert run(monkeypatch, recipe, "--steps", "2", "--json", file) == 0
    shown = capsys.readouterr().out
    for part in ("MFU", "grouped by length", "ours / theirs", "warm-up", "waits"):
        assert part in shown, part
    *measured, line = [json.loads(each) for each in file.read_text(encoding="utf-8").splitlines()]
    assert {each["side"] for each in measured if each["what"] == "warm_up"} == {"ernie2", "padded", "grouped by length"}
    taken = [each for each in measured if each["what"] == "step"]
    tokens = {name: [each["tokens"] for each in taken if each["side"] == name] for name in ("padded", "ernie2")}
    assert len(tokens["padded"]) == 2
    assert tokens["padded"] == tokens["ernie2"]
    assert [side["name"] for side in line["against"]["sides"]] == ["padded", "grouped by length"]


@pytest.mark.usefixtures("quick")
def test_sides_and_the_size_of_their_batches_can_be_chosen(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    options = ["--steps", "1", "--against", "hf-padded", "--json", tmp_path / "b.jsonl"]
    assert run(monkeypatch, recipe, *options) == 0
    (whole,) = summary(tmp_path / "b.jsonl")["against"]["sides"]
    assert run(monkeypatch, recipe, *options, "--sequences", "1") == 0
    (single,) = summary(tmp_path / "b.jsonl")["against"]["sides"]
    assert whole["name"] == single["name"] == "padded"
    assert whole["sequences_at_once"] > single["sequences_at_once"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encoder.kind=gru"], "does not support kind=gru"),
        (["--against", "fairseq"], "--against fairseq: choose hf"),
        (["--sequences", "0"], "must be at least 1"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_measured(
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setattr("ernie2.benchmarking.bench.Bench", lambda *_: pytest.fail("measured"))
    assert run(monkeypatch, recipe, *arguments, "--json", tmp_path / "b.jsonl") == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
