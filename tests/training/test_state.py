from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from ernie2.training.state import Convergence, Position

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


def seen(*losses, min_gain=0.0):
    convergence = Convergence()
    for loss in losses:
        convergence.update({"a": loss}, min_gain)
    return convergence


def test_a_task_that_stops_improving_is_waited_for_as_often_as_patience_says():
    assert seen(3.0, 2.0, 2.5, 2.1).waited == {"a": 2}
    assert seen(3.0, 2.0, 2.5, 2.1).has_converged(["a"], 2)
    assert not seen(3.0, 2.0, 2.5).has_converged(["a"], 2)


def test_an_improvement_starts_the_waiting_anew_and_a_small_one_does_not_count():
    assert seen(3.0, 3.1, 2.9).waited == {"a": 0}
    assert seen(3.0, 2.99, 2.98, min_gain=0.01).waited == {"a": 2}
    assert seen(3.0, 2.9, min_gain=0.01).waited == {"a": 0}


def test_a_stage_continues_as_long_as_one_of_its_tasks_improves():
    convergence = seen(2.0, 2.0, 2.0)
    assert not convergence.has_converged(["a", "never evaluated"], 2)
    assert convergence.has_converged(["a"], 2)


def test_without_patience_nothing_ever_converges():
    assert not seen(1.0, 1.0, 1.0).has_converged(["a"], None)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=20))
def test_the_best_is_the_least_loss_and_its_state_can_be_restored(losses):
    convergence = seen(*losses)
    assert convergence.best["a"] == min(losses)
    stored = json.loads(json.dumps(Position([], convergence=convergence).state()))
    assert Position.of(stored).convergence == convergence
