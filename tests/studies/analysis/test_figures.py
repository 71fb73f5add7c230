from __future__ import annotations

from dataclasses import replace

import pytest

from ernie2.studies.analysis import figures
from ernie2.studies.analysis.schema import Evaluation, Result, Run, StageInfo


def evaluation(step, stage, at, iterations, **accuracies):
    tasks = {task: Result(accuracy=accuracy) for task, accuracy in accuracies.items()}
    return Evaluation(step=step, stage=stage, at=at, iterations=iterations, tasks=tasks)


RUN = Run(
    method="continual_multitask",
    restart="per_stage",
    seed=0,
    initial="00",
    iterations={"first": 30, "second": 20},
    steps=50,
    passes=50,
    tokens=100,
    seconds=1.0,
    stages=(StageInfo(introduced=("first",)), StageInfo(introduced=("second",)), StageInfo(introduced=("third",))),
    heldout=(
        evaluation(0, 0, "start", {"first": 0, "second": 0}, first=0.1, second=0.95),
        evaluation(5, 0, "during", {"first": 5, "second": 0}, first=0.9, second=0.4),
        evaluation(10, 0, "stage_end", {"first": 10, "second": 0}, first=0.5, second=0.3),
        evaluation(20, 1, "during", {"first": 10, "second": 10}, first=0.4, second=0.8),
        evaluation(30, 1, "stage_end", {"first": 20, "second": 10}, first=0.7, second=0.6),
        evaluation(50, 2, "stage_end", {"first": 30, "second": 20, "third": 9}, first=0.6, second=0.65, third=0.2),
    ),
)


def test_forgetting_is_the_best_end_of_a_stage_since_the_task_entered_less_the_last():
    assert figures.forgetting(RUN, "first") == pytest.approx(0.7 - 0.6)  # 0.9 came during a stage


def test_a_task_that_ends_at_its_best_forgot_nothing_whatever_it_scored_before_it_entered():
    assert figures.forgetting(RUN, "second") == 0.0  # 0.95 came before its stage


def test_backward_transfer_is_from_the_end_of_its_own_stage_to_the_end():
    assert figures.backward_transfer(RUN, "first") == pytest.approx(0.1)
    assert figures.backward_transfer(RUN, "second") == pytest.approx(0.05)


def test_a_task_of_the_last_stage_can_neither_forget_nor_gain():
    assert figures.final_accuracy(RUN, "third") == 0.2
    assert figures.forgetting(RUN, "third") is None
    assert figures.backward_transfer(RUN, "third") is None


def test_a_task_that_never_entered_has_no_figures():
    assert figures.forgettable_tasks(RUN) == {"first", "second"}
    assert figures.final_accuracy(RUN, "other") is figures.forgetting(RUN, "other") is None


def test_an_end_without_a_finite_accuracy_leaves_no_forgetting():
    broken = evaluation(30, 1, "stage_end", {"first": 20, "second": 10}, first=None, second=0.6)
    run = replace(RUN, heldout=(*RUN.heldout[:4], broken, RUN.heldout[5]))
    assert figures.forgetting(run, "first") is None
    assert figures.backward_transfer(run, "first") == pytest.approx(0.1)  # both its ends are known


@pytest.mark.parametrize(
    ("iterations", "accuracy"),
    [
        (0, 0.95),  # the first with so many
        (2.5, 0.3 + (0.8 - 0.3) / 4),  # from the last with 0, not from the first
        (10, 0.8),
        (15, (0.6 + 0.65) / 2),
        (20, 0.65),
        (20.1, None),
    ],
)
def test_accuracy_after_so_many_of_a_task_s_own_iterations_is_interpolated(iterations, accuracy):
    found = figures.accuracy_after(RUN.heldout, "second", iterations)
    assert found == (None if accuracy is None else pytest.approx(accuracy))


def test_before_the_first_evaluation_nothing_is_known():
    assert figures.accuracy_after(RUN.heldout[3:], "second", 5) is None


def test_forward_transfer_is_less_the_task_alone():
    alone = (
        evaluation(0, 0, "start", {"second": 0}, second=0.2),
        evaluation(4, 0, "stage_end", {"second": 4}, second=0.6),
    )
    # 0.3 + 0.5 · 2 / 10 = 0.4 against 0.2 + 0.4 · 2 / 4 = 0.4
    assert figures.forward_transfer(RUN, alone, "second", 2) == pytest.approx(0.0)
    assert figures.forward_transfer(RUN, alone, "second", 4) == pytest.approx(0.5 - 0.6)
    assert figures.forward_transfer(RUN, alone, "second", 5) is None
