"""The runs of a study: every arm, seed and schedule rule → the recipe of a run and the folder it goes to."""

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
    """A learning method of Table 7. `combine`: token-level tasks share the steps of sentence-level ones."""

    name: MethodName
    title: str
    method: str
    combine: bool


_ARMS = (
    Method("continual", "continual learning", "continual", False),
    Method("multitask", "multi-task learning", "multitask", False),
    Method("continual_multitask", "continual multi-task learning", "continual_multitask", False),
    Method("combined", "continual multi-task, steps combined", "continual_multitask", True),
)
STUDY_METHODS = {arm.name: arm for arm in _ARMS}
"""The three methods as Table 7 counts them, one task a step, and ours with combined steps."""
SINGLE_STAGE: MethodName = "multitask"
"""The arm whose schedule never restarts, as it has one stage."""


@dataclass(frozen=True)
class PlannedRun:
    """One pre-training run: an arm, or a task alone from scratch (`arm` is then None)."""

    seed: int
    restart: str
    method: MethodName | None = None
    task: str | None = None

    @property
    def name(self) -> str:
        """Its place below FOLDER/runs and FOLDER/finetuned."""
        return f"{self.restart}/seed-{self.seed}/{self.method or f'scratch-{self.task}'}"

    def folder(self, settings: StudySettings) -> Path:
        """The run folder."""
        return Path(settings.folder) / "runs" / self.name

    def scores(self, settings: StudySettings) -> Path:
        """Where its fine-tuned results go."""
        return Path(settings.folder) / "finetuned" / self.name


def planned_runs(settings: StudySettings, recipe: Recipe) -> list[PlannedRun]:
    """Every run of a study: seed by seed, so that a study cut short has whole seeds."""
    later = [task for stage in _introductions(recipe)[1:] for task in stage.tasks] if settings.scratch else []
    listed: list[PlannedRun] = []
    for seed in range(settings.seeds):
        listed += [PlannedRun(seed, MAIN_RULE, arm) for arm in settings.arms]
        listed += [PlannedRun(seed, MAIN_RULE, task=task) for task in later]
        if seed < settings.without_restart:
            listed += [PlannedRun(seed, SENSITIVITY_RULE, arm) for arm in settings.arms if arm != SINGLE_STAGE]
    return listed


def _introductions(recipe: Recipe) -> list[Stage]:
    """The tasks that enter together, in the order in which they enter, each with its iterations in total."""
    return continual(recipe.stages.order or tuple(recipe.tasks), recipe.stages.steps)


def iterations_per_task(recipe: Recipe) -> dict[str, int]:
    """Iterations every task gets in total, in the order in which tasks enter."""
    return {task: count for stage in _introductions(recipe) for task, count in stage.iterations}


def run_recipe(planned: PlannedRun, settings: StudySettings) -> dict[str, Any]:
    """The recipe of one run.

    A task alone from scratch starts from the encoder and head of the other arms, which depend on seed and name only
    (its row of the task embedding is another one), and has the warm-up of a whole run in steps: its schedule is the
    beginning of one.
    """
    recipe = settings.checked_recipe()
    values = copy.deepcopy(settings.filled_recipe())
    stages, train = ({**(values.get(key) or {})} for key in ("stages", "train"))
    if planned.method is not None:
        arm = STUDY_METHODS[planned.method]
        stages |= {"method": arm.method, "combine": arm.combine}
        about = f"{arm.title}, seed {planned.seed}, schedule restart {planned.restart}"
    else:
        assert planned.task is not None
        steps = iterations_per_task(recipe)
        alone = max(1, round(settings.transfer_at * steps[planned.task]))
        stages |= {"method": "continual", "combine": False, "steps": alone, "order": None}
        values["tasks"] = {planned.task: values["tasks"][planned.task]}
        train["warmup"] = warmup_steps(recipe.train, max(steps.values()))
        about = f"{planned.task} alone from scratch, seed {planned.seed}"
    return {
        **values,
        "name": f"{recipe.name}-{planned.method or planned.task}-{planned.seed}",
        "about": f"Part of a study of learning methods: {about}.",
        "seed": planned.seed,
        "run": str(planned.folder(settings)),
        "stages": stages,
        "train": {**train, "restart": planned.restart},
    }
