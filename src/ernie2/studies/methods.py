"""The learning methods of a study, and the run of each method, seed and schedule rule: its recipe and folder."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ernie2.batches.stages import Stage, continual
from ernie2.config.settings import Recipe
from ernie2.studies.analysis.schema import MAIN_RULE, SENSITIVITY_RULE
from ernie2.studies.settings import MethodName, StudySettings
from ernie2.training.schedules import warmup_steps


@dataclass(frozen=True)
class Method:
    """A learning method of Table 7; `method` and `combine` are its values of `stages`."""

    name: MethodName
    title: str
    method: str
    combine: bool


_METHODS = (
    Method("continual", "continual learning", "continual", False),
    Method("multitask", "multi-task learning", "multitask", False),
    Method("continual_multitask", "continual multi-task learning", "continual_multitask", False),
    Method("combined", "continual multi-task, steps combined", "continual_multitask", True),
)
STUDY_METHODS = {method.name: method for method in _METHODS}
"""The three methods of Table 7, with one task per step, and continual multi-task learning with combined steps."""
SINGLE_STAGE: MethodName = "multitask"
"""The method whose schedule never restarts, because it has one stage."""


@dataclass(frozen=True)
class PlannedRun:
    """One pre-training run: a method, or a single task trained from scratch (`method` is None)."""

    seed: int
    restart: str
    method: MethodName | None = None
    task: str | None = None

    @property
    def name(self) -> str:
        """The path below FOLDER/runs and FOLDER/finetuned."""
        return f"{self.restart}/seed-{self.seed}/{self.method or f'scratch-{self.task}'}"

    def folder(self, settings: StudySettings) -> Path:
        """The run folder."""
        return Path(settings.folder) / "runs" / self.name

    def scores(self, settings: StudySettings) -> Path:
        """The folder of its fine-tuning results."""
        return Path(settings.folder) / "finetuned" / self.name


def planned_runs(settings: StudySettings, recipe: Recipe) -> list[PlannedRun]:
    """Return the runs of a study, seed by seed, so that an interrupted study has complete seeds."""
    later = [task for stage in _introductions(recipe)[1:] for task in stage.tasks] if settings.scratch else []
    runs: list[PlannedRun] = []
    for seed in range(settings.seeds):
        runs += [PlannedRun(seed, MAIN_RULE, method) for method in settings.methods]
        runs += [PlannedRun(seed, MAIN_RULE, task=task) for task in later]
        if seed < settings.seeds_without_restart:
            runs += [PlannedRun(seed, SENSITIVITY_RULE, name) for name in settings.methods if name != SINGLE_STAGE]
    return runs


def _introductions(recipe: Recipe) -> list[Stage]:
    """Return stages with the tasks that are introduced together, in order, each with its total iterations."""
    return continual(recipe.stages.order or tuple(recipe.tasks), recipe.stages.steps)


def iterations_per_task(recipe: Recipe) -> dict[str, int]:
    """Return the total iterations of each task, in the order in which tasks are introduced."""
    return {task: count for stage in _introductions(recipe) for task, count in stage.iterations}


def run_recipe(planned: PlannedRun, settings: StudySettings) -> dict[str, Any]:
    """Return the recipe of one run.

    A task trained from scratch begins with the same encoder and head as in the methods' runs: these depend only on the
    seed and the name. Its row of the task embedding differs. Its warm-up has as many steps as in a full run, so its
    schedule is the first part of that run's.
    """
    recipe = settings.checked_recipe()
    values = copy.deepcopy(settings.filled_recipe())
    stages, train = ({**(values.get(key) or {})} for key in ("stages", "train"))
    if planned.method is not None:
        method = STUDY_METHODS[planned.method]
        stages |= {"method": method.method, "combine": method.combine}
        about = f"{method.title}, seed {planned.seed}, schedule restart {planned.restart}"
    else:
        assert planned.task is not None
        steps = iterations_per_task(recipe)
        part = max(1, round(settings.forward_transfer_at * steps[planned.task]))
        stages |= {"method": "continual", "combine": False, "steps": part, "order": None}
        values["tasks"] = {planned.task: values["tasks"][planned.task]}
        train["warmup"] = warmup_steps(recipe.train, max(steps.values()))
        about = f"{planned.task} from scratch, seed {planned.seed}"
    return {
        **values,
        "name": f"{recipe.name}-{planned.method or planned.task}-{planned.seed}",
        "about": f"Part of a study of learning methods: {about}.",
        "seed": planned.seed,
        "run": str(planned.folder(settings)),
        "stages": stages,
        "train": {**train, "restart": planned.restart},
    }
