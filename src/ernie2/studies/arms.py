"""The runs of a study: every arm, seed and schedule rule → the recipe of a run and the folder it goes to."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ernie2.config.settings import Recipe
from ernie2.studies.analysis.reading import MAIN_RULE, SENSITIVITY_RULE
from ernie2.studies.settings import ArmName, StudySettings
from ernie2.training.schedules import warmup_steps


@dataclass(frozen=True)
class Arm:
    """A learning method of Table 7. `combine`: token-level tasks ride on the steps of sentence-level ones."""

    name: ArmName
    title: str
    method: str
    combine: bool


ARMS: dict[ArmName, Arm] = {
    "continual": Arm("continual", "continual learning", "continual", False),
    "multitask": Arm("multitask", "multi-task learning", "multitask", False),
    "continual_multitask": Arm("continual_multitask", "continual multi-task learning", "continual_multitask", False),
    "combined": Arm("combined", "continual multi-task, steps combined", "continual_multitask", True),
}
"""The three methods as Table 7 counts them, one task a step, and ours with combined steps."""


@dataclass(frozen=True)
class Unit:
    """One pre-training run: an arm, or a task alone from scratch (`arm` is then None)."""

    seed: int
    restart: str
    arm: ArmName | None = None
    task: str | None = None

    @property
    def name(self) -> str:
        """Its place below FOLDER/runs and FOLDER/finetuned."""
        return f"{self.restart}/seed-{self.seed}/{self.arm or f'scratch-{self.task}'}"

    def folder(self, settings: StudySettings) -> Path:
        """The run folder."""
        return Path(settings.folder) / "runs" / self.name

    def scores(self, settings: StudySettings) -> Path:
        """Where its fine-tuned results go."""
        return Path(settings.folder) / "finetuned" / self.name


def units(settings: StudySettings, recipe: Recipe) -> list[Unit]:
    """Every run of a study: seed by seed, so that a study cut short has whole seeds."""
    made: list[Unit] = []
    for seed in range(settings.seeds):
        made += [Unit(seed, MAIN_RULE, arm) for arm in settings.arms]
        if settings.scratch:
            made += [Unit(seed, MAIN_RULE, task=task) for task in later_tasks(recipe)]
        if seed < settings.without_restart:
            made += [Unit(seed, SENSITIVITY_RULE, arm) for arm in settings.arms if not same_without_restart(arm)]
    return made


def same_without_restart(arm: ArmName) -> bool:
    """Whether an arm has one stage, so that its schedule never restarts."""
    return arm == "multitask"


def later_tasks(recipe: Recipe) -> list[str]:
    """Tasks that enter after the first stage, in order: those that something was learned before."""
    return [name for group in _groups(recipe)[1:] for name in group]


def order_of_tasks(recipe: Recipe) -> list[str]:
    """All tasks in the order in which they enter."""
    return [name for group in _groups(recipe) for name in group]


def steps_of(recipe: Recipe) -> dict[str, int]:
    """Iterations every task gets in total."""
    steps = recipe.stages.steps
    return dict(steps) if isinstance(steps, Mapping) else dict.fromkeys(order_of_tasks(recipe), steps)


def scratch_steps(settings: StudySettings, recipe: Recipe, task: str) -> int:
    """Iterations of a task that is trained alone, for forward transfer."""
    return max(1, round(settings.transfer_at * steps_of(recipe)[task]))


def recipe_of(unit: Unit, settings: StudySettings) -> dict[str, Any]:
    """The recipe of one run.

    A task alone from scratch starts from the encoder and head of the other arms, which depend on seed and name only
    (its row of the task embedding is another one), and has the warm-up of a whole run in steps: its schedule is the
    beginning of one.
    """
    whole = copy.deepcopy(settings.filled_recipe())
    recipe = settings.checked_recipe()
    tasks = dict(whole["tasks"])
    stages = {**(whole.get("stages") or {})}
    train = {**(whole.get("train") or {}), "restart": unit.restart}
    if unit.arm is not None:
        arm = ARMS[unit.arm]
        stages |= {"method": arm.method, "combine": arm.combine}
        about = f"{arm.title}, seed {unit.seed}, schedule restart {unit.restart}"
    else:
        assert unit.task is not None
        stages |= {"method": "continual", "combine": False, "steps": scratch_steps(settings, recipe, unit.task)}
        stages["order"] = None
        tasks = {unit.task: tasks[unit.task]}
        train["warmup"] = warmup_steps(recipe.train, max(steps_of(recipe).values()))
        about = f"{unit.task} alone from scratch, seed {unit.seed}"
    return {
        **whole,
        "name": f"{recipe.name}-{unit.arm or unit.task}-{unit.seed}",
        "about": f"Part of a study of learning methods: {about}.",
        "seed": unit.seed,
        "run": str(unit.folder(settings)),
        "tasks": tasks,
        "stages": stages,
        "train": train,
    }


def _groups(recipe: Recipe) -> list[list[str]]:
    order = recipe.stages.order or tuple(recipe.tasks)
    return [[entry] if isinstance(entry, str) else list(entry) for entry in order]
