"""The runs of a study: which there are, and what differs between them."""

from __future__ import annotations

from typing import Any

import pytest

from ernie2.batches.stages import METHODS, Stage, StagePlan
from ernie2.errors import ConfigError
from ernie2.runs.recipes import load_recipe
from ernie2.studies.methods import STUDY_METHODS, PlannedRun, iterations_per_task, planned_runs, run_recipe
from ernie2.studies.settings import StudySettings, load_settings, presets
from ernie2.training.schedules import learning_rate, warmup_steps
from ernie2.training.state import Position

TASKS = ["knowledge_masking", "capitalization_prediction", "token_document_relation", "sentence_reordering"]


def smoke(*overrides: str) -> StudySettings:
    return load_settings("smoke", overrides)


def made(run: PlannedRun, settings: StudySettings) -> Any:
    return load_recipe(run_recipe(run, settings))


def test_every_seed_has_every_method_a_start_from_scratch_of_each_later_task_and_some_run_without_restart() -> None:
    settings = smoke("seeds=2", "seeds_without_restart=1", "methods=[continual, multitask, combined]")
    methods = ["continual", "multitask", "combined"]
    alone = [f"scratch-{task}" for task in TASKS[1:]]
    assert [run.name for run in planned_runs(settings, settings.checked_recipe())] == [
        *(f"per_stage/seed-0/{name}" for name in [*methods, *alone]),
        "never/seed-0/continual",  # multitask has one stage and never restarts anyway
        "never/seed-0/combined",
        *(f"per_stage/seed-1/{name}" for name in [*methods, *alone]),
    ]


def test_methods_of_a_seed_differ_in_method_and_combining_alone() -> None:
    settings = smoke()
    recipes = {name: made(PlannedRun(3, "per_stage", name), settings).model_dump() for name in STUDY_METHODS}
    differing = set()
    for one in recipes.values():
        for key, value in one.items():
            if value != recipes["continual"][key]:
                differing.add(key)
    assert differing == {"name", "about", "run", "stages"}
    assert {name: (one["stages"]["method"], one["stages"]["combine"]) for name, one in recipes.items()} == {
        "continual": ("continual", False),
        "multitask": ("multitask", False),
        "continual_multitask": ("continual_multitask", False),
        "combined": ("continual_multitask", True),
    }
    for key in ("method", "combine"):
        for one in recipes.values():
            one["stages"].pop(key)
    assert len({str(one["stages"]) for one in recipes.values()}) == 1


def test_every_method_plans_the_same_iterations_of_each_task() -> None:
    recipe = smoke().checked_recipe()
    for method in STUDY_METHODS.values():
        stages = METHODS[method.method](tuple(recipe.tasks), recipe.stages.steps)
        assert {task: sum(stage.iterations_of(task) for stage in stages) for task in TASKS} == dict.fromkeys(TASKS, 60)


def test_a_task_alone_from_scratch_begins_as_a_whole_run_of_it_would() -> None:
    settings = smoke("recipe.train.warmup=0.2", "recipe.stages.steps=200")
    whole = settings.checked_recipe()
    alone = made(PlannedRun(1, "per_stage", task="sentence_reordering"), settings)
    assert list(alone.tasks) == ["sentence_reordering"]
    assert iterations_per_task(alone) == {"sentence_reordering": 20}
    plan = StagePlan(Stage((("t", 20),)), {"t": "sentence"})
    positions = [Position([], step=k, stage_step=k, task_steps={"t": k}) for k in range(1, 21)]
    rates = [
        [learning_rate(recipe.train, warmup, at, [plan], ["t"]) for at in positions]
        for recipe, warmup in ((whole, warmup_steps(whole.train, 200)), (alone, warmup_steps(alone.train, 20)))
    ]
    assert rates[0] == rates[1]


def test_tasks_that_enter_together_at_the_start_are_not_later_ones() -> None:
    together = f"recipe.stages.order=[[{TASKS[0]}, {TASKS[1]}], {TASKS[3]}, {TASKS[2]}]"
    settings = smoke(together)
    alone = [run.task for run in planned_runs(settings, settings.checked_recipe()) if run.task and run.seed == 0]
    assert alone == [TASKS[3], TASKS[2]]


@pytest.mark.parametrize("preset", sorted(presets()))
def test_every_preset_is_right_and_has_the_tasks_of_table_7_in_their_order(preset: str) -> None:
    settings = load_settings(preset)
    assert list(settings.checked_recipe().tasks) == TASKS
    assert set(settings.methods) == set(STUDY_METHODS)


def test_the_base_preset_is_the_papers() -> None:
    settings = load_settings("base")
    recipe = settings.checked_recipe()
    assert (recipe.encoder.layers, recipe.encoder.hidden) == (12, 768)
    assert (recipe.stages.steps, recipe.batch.batch_tokens, recipe.shards.share) == (50_000, 393_216, 0.1)
    assert (settings.finetuning.seeds, settings.finetuning.settings) == (5, {})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seds=3", "seds: there is no such key. Did you mean 'seeds'?"),
        ("methods=[continual, continual]", "methods contains a method twice"),
        ("seeds_without_restart=9", "seeds_without_restart=9 is more than seeds=2"),
        ("recipe.encoder.hiden=3", "hiden"),
        ("recipe.stages.patience=2", "patience"),
        ("finetuning.seeds=0", "finetuning.seeds"),
        ("recipe.seed=7", "recipe: seed: the study sets this"),
        ("recipe.train.restart=never", "recipe: train.restart: the study sets this"),
        ("recipe.stages={steps: 5, method: continual, combine: true}", "recipe: stages.method, stages.combine: the"),
        ("recipe.shards=here", "shards: must be a mapping"),
    ],
)
def test_what_is_wrong_is_told_by_its_key(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        smoke(override)
    assert message in str(raised.value)


def test_a_preset_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"no preset 'smal'.*Did you mean 'small'.*base, laptop, small, smoke"):
        load_settings("smal")


def test_a_schedule_that_falls_towards_the_end_needs_a_study_without_runs_from_scratch() -> None:
    with pytest.raises(ConfigError, match=r"schedule=linear.*set scratch=false"):
        smoke("recipe.train.schedule=linear").checked_recipe()
    assert smoke("recipe.train.schedule=linear", "scratch=false").checked_recipe().train.schedule == "linear"
