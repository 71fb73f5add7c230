from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from ernie2.reporting.curves import charts, downsample

MASKING = "knowledge_masking"


def by_role(chart):
    return {series["role"]: list(zip(series["x"], series["y"], strict=True)) for series in chart["series"]}


def test_training_and_held_out_values_are_drawn_as_recorded(small):
    plots = charts(small())["charts"]
    loss = by_role(plots["loss-0"])
    assert loss["training"] == [(10, 7.0), (20, 6.5), (30, 6.2), (40, 6.1)]
    assert loss["before"] == [(0, 8.3)]
    assert loss["heldout"] == [(20, 6.0), (40, 5.5)]
    case = by_role(plots["heldout-1"])
    assert case["before"] == [(0, 0.5), (20, 0.4)]
    assert (case["low"], case["high"]) == ([(40, 0.79)], [(40, 0.83)])


def test_the_lines_are_the_feature_baseline_and_the_best_constant_answer(small):
    plots = charts(small())["charts"]
    assert [(rule["role"], rule["value"]) for rule in plots["heldout-0"]["rules"]] == [
        ("feature", 0.05),
        ("majority", 0.04),
    ]
    assert plots["loss-0"]["rules"] == [{"role": "feature", "value": 6.31, "label": "unigram 6.310"}]


def test_stages_that_do_not_train_a_task_are_marked_untrained_and_break_its_line(small):
    stages = [
        {"iterations": {MASKING: 20}, "steps": 20},
        {"iterations": {}, "steps": 10},
        {"iterations": {MASKING: 9}, "steps": 10},
    ]
    steps = [{"kind": "step", "step": n, "loss": {MASKING: 1.0}} for n in (10, 20, 35, 40)]
    chart = charts(small(steps, stages=stages))["charts"]["loss-0"]
    assert chart["untrained"] == [[20, 30]]
    assert by_role(chart)["training"] == [(10, 1.0), (20, 1.0), (34, None), (35, 1.0), (40, 1.0)]


def test_a_loss_that_is_no_number_is_a_gap(small):
    steps = [{"kind": "step", "step": n, "loss": {MASKING: value}} for n, value in ((1, 2.0), (2, math.nan), (3, 1.0))]
    chart = charts(small(steps))["charts"]["loss-0"]
    assert by_role(chart)["training"] == [(1, 2.0), (2, None), (3, 1.0)]


def test_the_axis_runs_to_the_planned_end(small, small_lines):
    assert charts(small(small_lines[:3]))["steps"] == 40


def test_long_curves_become_weighted_means():
    points = [(1, 1.0), (2, 4.0), (3, 5.0), (4, 7.0)]
    assert downsample(points, [3, 1, 1, 1], limit=2) == [(2, 1.75), (4, 6.0)]


@given(
    st.lists(st.one_of(st.none(), st.floats(-5, 5)), max_size=60),
    st.integers(1, 20),
)
def test_thinning_keeps_gaps_order_and_bounds(values, limit):
    points = list(enumerate(values))
    weights = [0 if value is None else 1 for value in values]
    thinned = downsample(points, weights, limit)
    assert [step for step, _ in thinned] == sorted({step for step, _ in thinned})
    assert [step for step, value in thinned if value is None] == [step for step, value in points if value is None]
    known = [value for value in values if value is not None]
    assert all(min(known) - 1e-9 <= value <= max(known) + 1e-9 for _, value in thinned if value is not None)
    assert len(thinned) <= limit + 2 * values.count(None) + 1
