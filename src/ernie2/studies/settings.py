"""What a study depends on: arms, seeds, one recipe for all of them, fine-tuning; presets, and overrides on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError, model_validator

from ernie2.config.base import PathText, SettingsModel
from ernie2.config.overrides import apply_override, check_list, flatten
from ernie2.config.plain_yaml import parse_yaml
from ernie2.config.problems import explain, list_problems
from ernie2.config.settings import Recipe
from ernie2.errors import ConfigError, did_you_mean
from ernie2.runs.recipes import load_recipe

MethodName = Literal["continual", "multitask", "continual_multitask", "combined"]


class FinetuningSettings(SettingsModel):
    """How every pre-trained encoder of a study is scored."""

    data: PathText | None = None
    """The folder that holds the sets, as `ernie2 finetune --data`; null: no scores."""
    sets: tuple[str, ...] = ("mnli", "sst2", "mrpc")
    """Declared data sets; those of Table 7 by default."""
    seeds: int = Field(default=3, ge=1, le=1_000)
    """Fine-tuning runs of every encoder on every set."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """In place of the paper's fine-tuning settings, for all sets."""

    @property
    def assignments(self) -> list[str]:
        """`settings` as `finetune` takes them."""
        return [
            f"{key}={','.join(map(str, value)) if isinstance(value, list) else value}"
            for key, value in self.settings.items()
        ]


class StudySettings(SettingsModel):
    """A study of learning methods, in the way of Table 7."""

    folder: PathText
    """Where everything goes."""
    seeds: int = Field(default=5, ge=1, le=1_000)
    """Pre-training seeds 0 to seeds - 1, each with every arm."""
    arms: tuple[MethodName, ...] = Field(default=get_args(MethodName), min_length=1)
    """Learning methods compared; `combined` is continual_multitask with stages.combine."""
    without_restart: int = Field(default=1, ge=0)
    """So many of the seeds also run with train.restart=never, to see what depends on the schedule; 0: none."""
    transfer_at: float = Field(default=0.1, gt=0, le=1)
    """Forward transfer is read off at this share of a task's iterations."""
    scratch: bool = True
    """Train each later task alone for that share of its iterations, which forward transfer is measured against."""
    keep: bool = False
    """Keep checkpoints and fine-tuned models; else they go once their figures are recorded (hf/ and records stay)."""
    finetuning: FinetuningSettings = FinetuningSettings()
    """How every pre-trained encoder is scored."""
    recipe: dict[str, Any]
    """The recipe of all arms, without run, seed, stages.method, stages.combine and train.restart, which the study sets;
    `shards.folder` is FOLDER/shards where it says nothing."""

    @model_validator(mode="after")
    def _check_methods(self) -> StudySettings:
        if len(set(self.arms)) < len(self.arms):
            raise ValueError(f"arms names one twice: {', '.join(self.arms)}")
        if self.without_restart > self.seeds:
            raise ValueError(f"without_restart={self.without_restart} is more than seeds={self.seeds}")
        return self

    def checked_recipe(self) -> Recipe:
        """The recipe all arms share; raises `ConfigError` for what is wrong in it."""
        keys = [f"{key}." for key in flatten(self.recipe)]
        if given := [key for key in _SET_BY_STUDY if any(one.startswith(f"{key}.") for one in keys)]:
            raise ConfigError(
                f"recipe: {', '.join(given)}: the study itself sets this for every run; leave it out. Seeds are "
                "seeds=…, learning methods arms=…, runs without restarts without_restart=…"
            )
        recipe = load_recipe(self.filled_recipe())
        if recipe.stages.patience is not None:
            raise ConfigError("a study compares arms at equal iterations, so recipe.stages.patience must be null.")
        if self.scratch and recipe.train.schedule != "noam":
            raise ConfigError(
                f"recipe.train.schedule={recipe.train.schedule} falls towards the end of a run, so a task alone from "
                "scratch, which ends early, would not begin as a whole run does. Leave it noam, or set scratch=false."
            )
        return recipe

    def filled_recipe(self) -> dict[str, Any]:
        """`recipe` with the folders of the study where it names none."""
        shards = self.recipe.get("shards") or {}
        if isinstance(shards, Mapping):  # else the recipe's own check says what is wrong
            shards = {"folder": str(Path(self.folder) / "shards"), **shards}
        return {"name": "study", **self.recipe, "run": str(Path(self.folder) / "runs"), "shards": shards}


_SET_BY_STUDY = ("run", "seed", "stages.method", "stages.combine", "train.restart")


def presets() -> dict[str, str]:
    """Name → YAML text of the presets of `study table7`."""
    folder = resources.files("ernie2") / "studies" / "presets"
    files = (entry for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return {file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8") for file in files}


def load_settings(preset: str, overrides: Sequence[str] = ()) -> StudySettings:
    """A preset with flatten overrides (`seeds=3`, `recipe.train.peak_lr=1e-3`), checked, its recipe included.

    Raises `ConfigError` that names every wrong key and value.
    """
    known = presets()
    if preset not in known:
        raise ConfigError(
            f"there is no preset {preset!r}.{did_you_mean(preset, known)} There are: {', '.join(sorted(known))}."
        )
    values = parse_yaml(known[preset], f"preset {preset}")
    check_list(overrides, "overrides")
    for override in overrides:
        apply_override(values, override)
    try:
        settings = StudySettings.model_validate(values)
    except ValidationError as error:
        listed = list_problems(explain(error, StudySettings, values))
        raise ConfigError(f"study table7, preset {preset}:\n{listed}") from error
    settings.checked_recipe()
    return settings
