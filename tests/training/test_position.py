from __future__ import annotations

from ernie2.training.position import Position

STAGES = [{"masking": 4}, {"masking": 2, "order": 4}, {"masking": 1, "order": 1, "distance": 4}]


def test_before_the_first_step_no_task_is_trained():
    assert Position([]).trained(STAGES) == frozenset()


def test_a_task_is_trained_from_its_first_iteration_on():
    assert Position([], task_steps={"masking": 3}).trained(STAGES) == {"masking"}
    assert Position([], stage=1, task_steps={"masking": 4}).trained(STAGES) == {"masking"}
    assert Position([], stage=1, task_steps={"masking": 5, "order": 1}).trained(STAGES) == {"masking", "order"}


def test_tasks_of_a_run_that_was_extended_stay_trained_though_their_iterations_are_counted_anew():
    assert Position([], stage=2).trained(STAGES) == {"masking", "order"}


def test_a_task_without_iterations_in_a_stage_that_ended_is_not_trained():
    assert Position([], stage=1).trained([{"masking": 2, "order": 0}, {"order": 2}]) == {"masking"}
