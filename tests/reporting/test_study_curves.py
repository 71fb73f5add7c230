"""The points of the forgetting picture: shares of training, means over seeds, the runs that count."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ernie2.reporting.study_curves import Strip, mean_line, panels
from ernie2.studies.analysis.analyse import analyse
from study_records import study_record


def evaluation(step: int, stage: int, at: str, **accuracy: float | None) -> dict[str, Any]:
    tasks = {task: {"accuracy": value, "loss": 1.0, "cheap": 0.25} for task, value in accuracy.items()}
    return {"step": step, "stage": stage, "at": at, "iterations": {}, "tasks": tasks}


def two_stages(
    seed: int, *heldout: dict[str, Any], arm: str = "continual", restart: str = "per_stage"
) -> dict[str, Any]:
    stages = [
        {"begin": 0, "end": 10, "tasks": {"first": 10}, "introduced": ["first"]},
        {"begin": 10, "end": 40, "tasks": {"first": 6, "second": 24}, "introduced": ["second"]},
    ]
    return {"arm": arm, "restart": restart, "seed": seed, "stages": stages, "heldout": list(heldout)}


def record(*runs: dict[str, Any], title: str = "continual") -> dict[str, Any]:
    tasks = [{"name": name, "title": name, "level": "token"} for name in ("first", "second")]
    return {"tasks": tasks, "arms": [{"name": "continual", "title": title}], "runs": list(runs)}


ENDS = (evaluation(10, 0, "stage_end", first=0.5, second=0.1), evaluation(40, 1, "stage_end", first=0.25, second=0.75))


def test_points_lie_at_the_share_of_the_run_and_marks_at_the_ends_of_stages() -> None:
    (first, second) = panels(record(two_stages(0, evaluation(0, 0, "start", first=0.0, second=0.0), *ENDS)))
    (line,) = first.lines
    assert line.mean == ((0.0, 0.0), (0.25, 0.5), (1.0, 0.25))
    assert line.ends == ((0.25, 0.5), (1.0, 0.25))
    assert line.last == 0.25
    assert first.baseline == 0.25
    assert line.strips == (Strip(0.0, 0.25, 1.0), Strip(0.25, 1.0, 0.2))
    assert second.lines[0].entered == 0.25
    assert second.lines[0].strips == (Strip(0.25, 1.0, 0.8),)


def test_the_baseline_is_the_mean_over_seeds_whose_held_out_instances_differ() -> None:
    runs = [two_stages(seed, *(json.loads(json.dumps(end)) for end in ENDS)) for seed in (0, 0, 1)]
    runs[1]["restart"] = "never"  # the same instances again, which count once
    for end in runs[2]["heldout"]:
        end["tasks"]["first"]["cheap"] = 0.75
    first, second = panels(record(*runs))
    assert (first.baseline, second.baseline) == (0.5, 0.25)


def test_the_mean_is_taken_where_every_seed_has_a_value_and_is_straight_between_them() -> None:
    lines = [[(0.0, 0.0), (1.0, 1.0)], [(0.0, 0.5), (0.5, 0.5), (1.0, 0.0)]]
    assert mean_line(lines) == ((0.0, 0.25), (0.5, 0.5), (1.0, 0.5))
    assert mean_line([[(0.0, 0.0), (1.0, 1.0)], [(0.5, 0.5), (1.0, 0.0)]]) == ((0.5, 0.5), (1.0, 0.5))


def test_runs_that_did_not_reach_their_end_and_those_of_the_other_rule_are_not_drawn() -> None:
    cut_off = two_stages(1, ENDS[0], evaluation(20, 1, "during", first=0.9, second=0.9))
    other = two_stages(2, *ENDS, restart="never")
    (first, _) = panels(record(two_stages(0, *ENDS), cut_off, other))
    assert list(first.lines[0].seeds) == [0]
    assert panels(record(cut_off, other))[0].lines == ()


def test_an_evaluation_without_a_finite_accuracy_is_passed_over() -> None:
    (first, _) = panels(record(two_stages(0, evaluation(0, 0, "start", first=None, second=0.0), *ENDS)))
    assert first.lines[0].mean == ((0.25, 0.5), (1.0, 0.25))


def test_a_title_too_long_for_a_line_s_end_gives_way_to_the_arm_s_name() -> None:
    (first, _) = panels(record(two_stages(0, *ENDS), title="a title that goes on and on"))
    assert first.lines[0].label == "continual"


def test_what_stands_at_the_end_of_a_line_is_what_the_analysis_gives() -> None:
    made = study_record()
    for panel, task in zip(panels(made), made["tasks"], strict=True):
        for line, arm in zip(panel.lines, analyse(made).arms, strict=True):
            figure = next(figure for figure in arm.tasks if figure.task == task["name"])
            assert line.last == pytest.approx(figure.final.mean, abs=1e-12)
            assert panel.baseline == pytest.approx(figure.baseline, abs=1e-12)
