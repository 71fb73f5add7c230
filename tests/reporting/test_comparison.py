"""Runs side by side: seeds together, changes run by run."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ernie2.reporting.comparison import compare, result_before
from ernie2.reporting.report import render

MASKING, CASE = "knowledge_masking", "capitalization_prediction"


@pytest.fixture
def extension(small, small_lines, heldout_result):
    """A run of one stage of masking which a second one, with or without replay, extended by capitals."""

    def make_run(seed: int, start: float, end: float, replay: int = 10, source: str = "", **changes: Any):
        def heldout(at: str, masking: float, case: float):
            tasks = {MASKING: heldout_result(masking, 0.02, 0.05), CASE: heldout_result(case, 0.02, 0.8)}
            return {"kind": "heldout", "step": 20 if at == "start" else 40, "stage": 1, "at": at, "tasks": tasks}

        lines = [*small_lines[:6], heldout("start", start, 0.3), *small_lines[6:9], heldout("stage_end", end, 0.9)]
        iterations = {MASKING: replay, CASE: 30} if replay else {CASE: 30}
        stages = [
            {"name": "1", "iterations": {MASKING: 20}, "steps": 20, "introduced": [MASKING]},
            {"name": "2", "iterations": iterations, "steps": 20, "introduced": [CASE]},
        ]
        came = {"run": source or f"run{seed}", "step": 20, "stages": 1, "task": CASE, "replay": replay}
        return small(lines, seed=seed, stages=stages, extended_from=came, **changes)

    return make_run


def test_the_interval_over_seeds_is_student_s_t(extension):
    runs = [extension(seed, 0.5, end) for seed, end in enumerate((0.1, 0.2, 0.3))]
    spread = compare(runs).rows[0].cells[0].after
    # deviation 0.1, 4.3027 × 0.1 / √3 = 0.2484
    assert spread.mean == pytest.approx(0.2)
    assert (spread.low, spread.high) == pytest.approx((0.2 - 0.24841, 0.2 + 0.24841), abs=1e-4)


def test_runs_that_differ_in_the_seed_alone_are_one_column(extension):
    table = compare([extension(0, 0.30, 0.28), extension(1, 0.32, 0.31), extension(0, 0.30, 0.1, replay=0)])
    assert [column.label for column in table.columns] == ["with replay (10 each)", "new task only"]
    assert [column.seeds for column in table.columns] == [(0, 1), (0,)]


def test_changes_are_computed_per_run(extension):
    table = compare([extension(0, 0.10, 0.08), extension(1, 0.50, 0.48), extension(2, 0.30, 0.28)])
    masking, case = table.rows
    change = masking.cells[0].change
    assert (change.mean, change.low, change.high) == (pytest.approx(-0.02), None, None)
    assert change.note == "all 3 seeds agree"
    assert masking.cells[0].after.high - masking.cells[0].after.low > 0.9
    assert masking.before.mean == pytest.approx(0.3)
    assert masking.baseline == pytest.approx(0.05)
    assert case.before is None, "the new task had nothing to keep"
    assert case.cells[0].change is None


def test_a_finished_run_that_two_runs_extend_counts_once_in_before(extension):
    pairs = [extension(seed, 0.2 + seed / 10, 0.2, replay, f"s{seed}") for seed in (0, 1) for replay in (10, 0)]
    assert compare(pairs).rows[0].before.values == pytest.approx({0: 0.2, 1: 0.3})


def test_of_a_single_run_the_interval_is_that_of_its_held_out_instances(extension):
    cell = compare([extension(0, 0.3, 0.28)]).rows[0].cells[0]
    assert (cell.after.low, cell.after.high) == pytest.approx((0.26, 0.30))
    assert (cell.change.mean, cell.change.low) == (pytest.approx(-0.02), None)


def test_other_settings_are_another_column_with_another_name(extension):
    other = extension(0, 0.3, 0.2, recipe={"name": "small", "train": {"peak_lr": 0.1}})
    labels = [column.label for column in compare([extension(0, 0.3, 0.28), other]).columns]
    assert labels == ["with replay (10 each)", "with replay (10 each) · 2"]


def test_runs_that_extend_nothing_are_compared_by_their_ends(small):
    table = compare([small(), small(name="other", seed=8, recipe={"train": {"peak_lr": 1}})])
    assert [column.label for column in table.columns] == ["small", "other"]
    assert not table.extended
    assert [cell.after.mean for cell in table.rows[0].cells] == pytest.approx([0.15, 0.15])
    assert result_before(small(), MASKING) is None


def test_different_held_out_documents_are_reported(extension):
    assert compare([extension(0, 0.3, 0.2), extension(1, 0.3, 0.2)]).same_text
    assert not compare([extension(0, 0.3, 0.2), extension(1, 0.3, 0.2, data={"fingerprint": "else"})]).same_text


def test_the_page_shows_the_table_and_only_where_there_are_others(extension):
    runs = [extension(seed, 0.3 + seed / 100, 0.28, replay) for replay in (10, 0) for seed in (0, 1, 2)]
    page = render(runs[0], runs[1:])
    for figure in (
        "Comparison with other runs",
        "with replay (10 each)",
        "new task only",
        "seeds 0, 1, 2",
        "0.310",
        "−0.030",
        "0.280",
        "all 3 seeds agree",
    ):
        assert figure in page, figure
    assert "Comparison with other runs" not in render(runs[0])


def test_a_task_without_figures_at_the_end_is_left_out(extension):
    assert [row.task.name for row in compare([extension(0, math.nan, math.nan)]).rows] == [CASE]
