from functools import partial
from typing import get_args

import pytest

from ernie2.batches.stages import Stage, StagePlan
from ernie2.config.settings import TrainSettings
from ernie2.training.schedules import SCHEDULES, learning_rate, linear, noam, warmup_stable_decay, warmup_steps
from ernie2.training.state import Position

STAGES = [Stage((("old", 4),)), Stage((("old", 2), ("new", 6)))]
PLANS = [StagePlan(stage, {"old": "sentence", "new": "sentence"}) for stage in STAGES]


def test_noam_rises_linearly_to_the_peak_and_falls_with_the_root():
    assert [noam(step, 100, 4, 0) for step in (1, 2, 4, 16, 64)] == [0.25, 0.5, 1.0, 0.5, 0.25]


def test_linear_rises_to_the_peak_and_falls_to_0_behind_the_last_step():
    shares = [linear(step, 8, 2, 0) for step in range(1, 9)]
    assert shares == pytest.approx([1 / 2, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


def test_warmup_stable_decay_stays_at_the_peak_until_the_last_steps():
    shares = [warmup_stable_decay(step, 10, 2, 4) for step in range(1, 11)]
    assert shares == [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]


def test_if_rise_and_fall_overlap_the_lower_counts_and_without_a_decay_the_rate_stays():
    assert [warmup_stable_decay(step, 4, 4, 3) for step in range(1, 5)] == pytest.approx([1 / 4, 2 / 4, 2 / 3, 1 / 3])
    assert [warmup_stable_decay(step, 4, 2, 0) for step in range(1, 5)] == [0.5, 1, 1, 1]
    assert [linear(step, 3, 6, 0) for step in range(1, 4)] == pytest.approx([1 / 6, 2 / 6, 3 / 6])


def test_the_table_has_every_schedule_a_recipe_can_name():
    assert set(get_args(TrainSettings.model_fields["schedule"].annotation)) == set(SCHEDULES)


@pytest.mark.parametrize(
    ("warmup", "steps", "expected"),
    [(None, 50_000, 4_000), (None, 1_000, 80), (None, 3, 1), (0.1, 1_000, 100), (500, 1_000, 500)],
)
def test_warmup_is_steps_or_a_fraction_or_at_most_4000_and_8_percent(warmup, steps, expected):
    assert warmup_steps(TrainSettings(warmup=warmup), steps) == expected


def rates(begin=0, **train):
    """The rates of both stages, step by step, with a warm-up of 2 steps; `begin`: the schedule's first stage."""
    settings = TrainSettings(peak_lr=1.0, **train)
    at, found = Position([], step=begin * 4, stage=begin, schedule_start=begin * 4), []
    for stage, plan in list(enumerate(PLANS))[begin:]:
        at.stage, at.stage_step = stage, 0
        for step in range(len(plan)):
            at.step, at.stage_step = at.step + 1, step + 1
            for task in plan.active_tasks(step):
                at.task_steps[task] = at.task_steps.get(task, 0) + 1
            found.append(learning_rate(settings, 2, at, PLANS, plan.active_tasks(step)))
    return found


@pytest.mark.parametrize(
    ("schedule", "share"),
    [("noam", partial(noam, warmup=2, decay=0)), ("linear", partial(linear, warmup=2, decay=0))],
)
def test_a_schedule_counts_in_the_stage_the_run_or_the_iterations_of_each_task(schedule, share):
    counted = {"old": 0, "new": 0}
    by_task = []
    for plan in PLANS:
        for step in range(len(plan)):
            (task,) = plan.active_tasks(step)
            counted[task] += 1
            by_task.append(share(counted[task], 6))  # both have 6 iterations in all
    by_stage = [share(step, total) for total in (4, 8) for step in range(1, total + 1)]
    assert rates(schedule=schedule, restart="per_stage") == by_stage
    assert rates(schedule=schedule, restart="never") == [share(step, 12) for step in range(1, 13)]
    assert rates(schedule=schedule, restart="per_task") == by_task


@pytest.mark.parametrize(("lr_decay", "steps"), [(4, 4), (0.5, 4), (0, 0)])
def test_the_decay_of_wsd_is_steps_or_a_share_of_what_the_schedule_counts(lr_decay, steps):
    found = rates(schedule="wsd", lr_decay=lr_decay)[4:]
    assert found == [warmup_stable_decay(step, 8, 2, steps) for step in range(1, 9)]


def test_combined_steps_use_the_smallest_rate_of_their_tasks():
    plans = [
        StagePlan(
            Stage((("main", 8), ("attached", 5))), {"main": "sentence", "attached": "token"}, token_only_share=0.0
        )
    ]
    at = Position([], step=3, stage_step=3, task_steps={"main": 3, "attached": 1})
    settings = TrainSettings(peak_lr=1.0, restart="per_task")
    assert learning_rate(settings, 4, at, plans, ["main", "attached"]) == 0.25
    assert learning_rate(settings, 4, at, plans, ["main"]) == 0.75


def test_the_schedule_of_an_extension_counts_from_its_start():
    extended = rates(begin=1, schedule="linear", restart="never")
    assert extended == [linear(step, 8, 2, 0) for step in range(1, 9)]


def test_a_stage_that_ended_early_brings_the_end_of_the_run_nearer():
    settings = TrainSettings(peak_lr=1.0, restart="never", schedule="linear")
    at = Position([], step=3 + 8, stage=1, stage_step=8)  # the first stage took 3 of 4 steps
    assert learning_rate(settings, 2, at, PLANS, ["new"]) == linear(11, 11, 2, 0)
