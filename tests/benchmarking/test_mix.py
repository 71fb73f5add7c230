"""The sample of task sets, and the figures of the full plan that follow from it."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie2.benchmarking.mix import MeasuredStep, MeasuredSteps, RepeatingPlan, sample_task_sets
from ernie2.training.measuring import TaskSet

A, B, C = TaskSet("a", ("a",)), TaskSet("a", ("a", "b")), TaskSet("c", ("b", "c"))


def test_every_set_comes_once_and_the_commonest_as_often_as_its_share_leaves() -> None:
    assert Counter(sample_task_sets({A: 8, B: 1, C: 1}, 5)) == {A: 3, B: 1, C: 1}
    assert Counter(sample_task_sets({A: 6, B: 3, C: 1}, 10)) == {A: 6, B: 3, C: 1}
    assert sample_task_sets({A: 8, B: 1, C: 1}, 2) == [A, B]


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=12), st.integers(1, 40))
def test_the_sample_has_the_requested_number_of_steps(counts: list[int], steps: int) -> None:
    sets = {TaskSet(str(n), (str(n),)): count for n, count in enumerate(sorted(counts, reverse=True))}
    made = sample_task_sets(sets, steps)
    assert len(made) == steps
    assert len(set(made)) == min(steps, len(sets))


def test_a_repeating_plan_cycles_through_its_task_sets() -> None:
    mix = RepeatingPlan([A, C, B])
    assert [mix.active_tasks(step) for step in range(4)] == [("a",), ("b", "c"), ("a", "b"), ("a",)]
    assert [mix.main_task(step) for step in range(4)] == ["a", "c", "a", "a"]
    assert len(mix) > 10**9
    assert [mix.tasks[index] for index in mix.main_tasks] == ["a", "c", "a"]


def test_rates_weigh_the_median_step_of_each_set_by_the_plan() -> None:
    taken = MeasuredSteps()
    for seconds in (1.0, 2.0, 90.0):  # one disturbed step does no harm
        taken.add(A, MeasuredStep(seconds, 100, 1_000, 200))
    taken.add(B, MeasuredStep(4.0, 50, 500, 50))
    rates = taken.rates({A: 3, B: 1, C: 7})
    assert rates is not None
    assert rates.tokens_per_second == pytest.approx((3 * 100 + 50) / (3 * 2 + 4))
    assert rates.flops_per_second == pytest.approx((3 * 1_000 + 500) / 10)
    assert rates.real_share == pytest.approx(350 / 650)
    assert (rates.median_seconds, rates.steps) == (3.0, 4)


def test_rates_of_the_sets_with_one_task_leave_the_others_out() -> None:
    taken = MeasuredSteps()
    taken.add(A, MeasuredStep(1.0, 100, 1, 100))
    taken.add(B, MeasuredStep(4.0, 50, 1, 50))
    only_b = taken.rates({A: 3, B: 1}, ["b"])
    assert only_b is not None
    assert only_b.tokens_per_second == pytest.approx(12.5)
    assert taken.rates({A: 3, B: 1}, ["c"]) is None
