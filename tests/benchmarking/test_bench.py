"""`ernie2 bench`: its table, its line of JSON, and what it refuses before it measures anything."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pytest
import yaml

import ernie2
import tiny_run
from ernie2 import cli
from ernie2.batches.loader import Loader
from ernie2.benchmarking import bench as bench_module
from ernie2.benchmarking import input_pipeline
from ernie2.benchmarking.flops import Peak
from ernie2.console import Bar


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny shards with a recipe for them in recipe.yaml."""
    folder = tmp_path_factory.mktemp("benching")
    tiny_run.write_shards(folder / "shards")
    recipe = tiny_run.recipe(folder).model_dump(mode="json")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No matrix products, and a loader that makes everything here: starting processes takes seconds."""
    rate = input_pipeline.loader_rate
    monkeypatch.setattr(bench_module, "device_peak", lambda *_: Peak(1e9, "made up"))
    monkeypatch.setattr(input_pipeline, "loader_rate", lambda streams, sets, seconds: rate(streams, sets, 0.01))
    monkeypatch.setattr(input_pipeline, "Loader", lambda streams, plans, workers: Loader(streams, plans, 0))


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bench", *map(str, arguments)])
    return int(stopped.value.code or 0)


def test_the_table_and_the_line_have_every_figure(
    folder: Path, tmp_path: Path, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new" / "figures.jsonl"
    assert run(folder / "recipe.yaml", "--steps", "4", "--json", file) == 0
    shown = capsys.readouterr().out
    for part in ("tokens/s without padding", "MFU", "peak memory", "attention", "padded for", "recompilations",
                 "operations", "thread", "waits", "instances/s", "warm-up steps", str(file)):  # fmt: skip
        assert part in shown, part
    (device,) = [row for row in shown.splitlines() if row.split()[:1] == ["device"]]
    assert device.count("thread") == 1
    *measured, line = lines_of(file)
    whats = [each["what"] for each in measured if each["what"] != "warm_up"]
    assert whats == ["begin"] + ["step"] * 4 + ["one_process", "waiting", "waiting"]
    assert (line["what"], {each["bench"] for each in measured}) == ("summary", {line["bench"]})
    assert measured[0]["batch"] == line["batch"]
    assert (line["recipe"], line["precision"], line["step"]["steps"]) == ("tiny", "fp32", 4)
    assert line["versions"]["torch"]
    assert line["batch"] == {"batch_tokens": 256, "pack_tokens": 128, "sequence_tokens": 64}
    assert line["step"]["tokens_per_second"] > 0
    assert line["step"]["mfu"] > 0
    assert line["step"]["warm_up_steps"] >= 24
    assert [fed["workers"] for fed in line["input"]["waiting"]] == [0, 1]
    assert all(0 <= fed["share"] <= 1 for fed in line["input"]["waiting"])
    assert line["input"]["one_process"]["tokens_per_second"] > 0
    assert not (folder / "run").exists()


def test_what_was_measured_before_a_cut_off_is_in_the_file(
    folder: Path, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench_module.Bench, "measure_input", cut_off)
    with pytest.raises(KeyboardInterrupt):
        ernie2.bench(folder / "recipe.yaml", steps=2, json_file=tmp_path / "b.jsonl")
    whats = [line["what"] for line in lines_of(tmp_path / "b.jsonl") if line["what"] != "warm_up"]
    assert whats == ["begin", "step", "step"]


def test_a_warm_up_that_is_cut_off_leaves_its_steps_and_shows_whose_and_how_many(
    folder: Path, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ernie2.console.LINE_SECONDS", 0.0)
    advance = Bar.advance

    def cut_off(bar: Bar, *arguments: Any, **options: Any) -> None:
        advance(bar, *arguments, **options)
        if bar.done == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Bar, "advance", cut_off)
    with pytest.raises(KeyboardInterrupt):
        ernie2.bench(folder / "recipe.yaml", steps=2, json_file=tmp_path / "b.jsonl")
    lines = lines_of(tmp_path / "b.jsonl")
    assert [line["what"] for line in lines] == ["begin"] + ["warm_up"] * 3
    assert all(line["side"] == "ernie2" and line["seconds"] > 0 and line["tokens"] > 0 for line in lines[1:])
    assert "warm-up of ernie2, step 3 of 24 to 64" in capsys.readouterr().out


def test_the_weighed_rate_can_be_recomputed_from_the_lines(folder: Path, tmp_path: Path, quick: None) -> None:
    made = ernie2.bench(folder / "recipe.yaml", steps=7, json_file=tmp_path / "b.jsonl")
    begin, *lines = lines_of(tmp_path / "b.jsonl")
    tokens = seconds = 0.0
    for chosen in begin["plan"]:
        wanted = (chosen["main_task"], chosen["active"])
        steps = [line for line in lines if line["what"] == "step" and (line["main_task"], line["active"]) == wanted]
        if steps:
            tokens += chosen["steps"] * fmean(step["tokens"] for step in steps)
            seconds += chosen["steps"] * median(step["seconds"] for step in steps)
    assert len(begin["plan"]) == made["step"]["task_sets"]
    assert tokens / seconds == pytest.approx(made["step"]["tokens_per_second"])


def test_a_second_measurement_has_a_second_summary(folder: Path, tmp_path: Path, quick: None) -> None:
    file = tmp_path / "figures.jsonl"
    for _ in range(2):
        made = ernie2.bench(folder / "recipe.yaml", ["train.compile=false"], 1, json_file=file)
    lines = [line for line in lines_of(file) if line["what"] == "summary"]
    assert len({line["bench"] for line in lines}) == len(lines) == 2
    assert lines[1] == json.loads(json.dumps(made))


def test_what_cannot_be_done_is_said_before_anything_is_measured(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ernie2.benchmarking.bench.Bench", lambda *_: pytest.fail("measured"))
    recipe, file = folder / "recipe.yaml", tmp_path / "b.jsonl"
    assert run(recipe, "--json", tmp_path) == 2
    assert "Name another file with --json" in capsys.readouterr().err
    assert run("no-such-recipe", "--json", file) == 2
    with pytest.raises(ernie2.errors.ConfigError, match="must be at least 1"):  # type: ignore[attr-defined]
        ernie2.bench(recipe, steps=0, json_file=file)
    assert list(tmp_path.iterdir()) == []
