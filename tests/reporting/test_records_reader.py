from __future__ import annotations

import json
from pathlib import Path

import pytest

from ernie2.errors import CheckpointError, DataError
from ernie2.reporting.records_reader import Step, read_records
from ernie2.storage.json_files import write_checked_json
from ernie2.storage.line_files import file_extent
from tiny_run import run_values

RUN = run_values(name="r")
STEP = {"kind": "step", "step": 10, "stage": 0, "loss": {"knowledge_masking": 6.5}}


def write(run: Path, lines: str = "", **changes: object) -> Path:
    run.mkdir(exist_ok=True)
    write_checked_json(run / "run.json", RUN | changes)
    (run / "metrics.jsonl").write_text(lines, encoding="utf-8")
    return run


def test_lines_become_typed_values(tmp_path):
    records = read_records(write(tmp_path, json.dumps(STEP) + "\n"))
    assert records.run.name == "r"
    assert records.steps == (Step(step=10, stage=0, loss={"knowledge_masking": 6.5}),)


def test_a_last_line_cut_short_is_ignored_even_inside_a_character(tmp_path):
    run = write(tmp_path)
    (run / "metrics.jsonl").write_bytes(json.dumps(STEP).encode() + b'\n{"kind": "score", "name": "caf\xc3')
    assert [step.step for step in read_records(run).steps] == [10]


def test_a_damaged_line_before_the_last_is_named(tmp_path):
    run = write(tmp_path, "{broken\n" + json.dumps(STEP) + "\n")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl is damaged: line 1 is not JSON"):
        read_records(run)


def test_of_two_lines_about_one_step_the_later_counts_and_steps_come_in_order(tmp_path):
    again = STEP | {"loss": {"knowledge_masking": 6.0}}
    lines = [STEP, STEP | {"step": 20}, again]
    records = read_records(write(tmp_path, "".join(json.dumps(line) + "\n" for line in lines)))
    assert [(step.step, step.loss["knowledge_masking"]) for step in records.steps] == [(10, 6.0), (20, 6.5)]


def test_unknown_kinds_and_keys_are_ignored_and_null_means_the_default(tmp_path):
    lines = '{"kind": "weather", "rain": true}\n' + json.dumps(STEP | {"lr": None, "moon": "full"}) + "\n"
    records = read_records(write(tmp_path, lines))
    assert records.steps[0].lr is None


def test_a_run_that_has_only_begun_has_no_metrics_file(tmp_path):
    run = write(tmp_path)
    (run / "metrics.jsonl").unlink()
    assert read_records(run).steps == ()


def test_whole_numbers_serve_as_floats_but_text_does_not_serve_as_a_number(tmp_path):
    assert read_records(write(tmp_path, json.dumps(STEP | {"lr": 1}) + "\n")).steps[0].lr == 1.0
    with pytest.raises(
        DataError, match=r"line 1: lr: must be a number \(got 'fast'\)\. ernie2 did not write this file"
    ):
        read_records(write(tmp_path, json.dumps(STEP | {"lr": "fast"}) + "\n"))


def test_what_is_no_run_is_refused_with_what_to_give_instead(tmp_path):
    with pytest.raises(CheckpointError, match="is not a run folder"):
        read_records(tmp_path)


def test_a_report_is_not_drawn_from_records_that_were_changed(tmp_path):
    line = json.dumps(STEP) + "\n"
    run = write(tmp_path, line)
    write_checked_json(run / "run.json", RUN | {"metrics": file_extent(run / "metrics.jsonl")})
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "score", "name": "later"}\n')
    assert [score.name for score in read_records(run).scores] == ["later"]
    (run / "metrics.jsonl").write_text(line.replace("6.5", "2.5"))
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl is damaged: lines 1 to 1 changed"):
        read_records(run)
    (run / "run.json").write_text((run / "run.json").read_text().replace('"r"', '"s"'))
    with pytest.raises(CheckpointError, match=r"run\.json is damaged: its content does not match its checksum"):
        read_records(run)


def test_figures_without_the_best_constant_answer_are_refused_with_what_to_do(folder, small_lines):
    del small_lines[4]["tasks"]["knowledge_masking"]["constant_baseline"]
    with pytest.raises(
        DataError, match=r"metrics\.jsonl, line 5: the figures lack the constant baseline.*train it again"
    ):
        read_records(folder(small_lines))
