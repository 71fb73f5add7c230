"""Settings of a study: methods, seeds, the recipe they share, and fine-tuning; presets and overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

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
    """Fine-tuning of every pre-trained encoder of a study."""

    RENAMED: ClassVar = {"sets": "datasets"}

    data: PathText | None = None
    """The folder of the datasets, as in `ernie2 finetune --data`; null: no fine-tuning."""
    datasets: tuple[str, ...] = ("mnli", "sst2", "mrpc")
    """Names of datasets; by default those of Table 7."""
    seeds: int = Field(default=3, ge=1, le=1_000)
    """Fine-tuning runs per encoder and dataset."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Replace the paper's fine-tuning settings, for all datasets."""

    @property
    def assignments(self) -> list[str]:
        """`settings` as a list of KEY=VALUE, for `finetune`."""
        return [
            f"{key}={','.join(map(str, value)) if isinstance(value, list) else value}"
            for key, value in self.settings.items()
        ]


class StudySettings(SettingsModel):
    """A comparison of learning methods like Table 7 of the paper."""

    RENAMED: ClassVar = {
        "arms": "methods",
        "without_restart": "seeds_without_restart",
        "transfer_at": "forward_transfer_at",
        "keep": "keep_checkpoints",
    }

    folder: PathText
    """The output folder."""
    seeds: int = Field(default=5, ge=1, le=1_000)
    """Pre-training seeds 0 to seeds - 1, each with every method."""
    methods: tuple[MethodName, ...] = Field(default=get_args(MethodName), min_length=1)
    """The methods to compare; `combined` is continual_multitask with stages.combine."""
    seeds_without_restart: int = Field(default=1, ge=0)
    """Number of seeds that also run with train.restart=never, to measure the effect of the schedule; 0: none."""
    forward_transfer_at: float = Field(default=0.1, gt=0, le=1)
    """Forward transfer is measured after this share of a task's iterations."""
    scratch: bool = True
    """Also train each later task from scratch for that share of its iterations, as the reference of forward
    transfer."""
    keep_checkpoints: bool = False
    """Keep checkpoints and fine-tuned models; false: delete them once their results are recorded (hf/ and records
    stay)."""
    finetuning: FinetuningSettings = FinetuningSettings()
    """Fine-tuning of every pre-trained encoder."""
    recipe: dict[str, Any]
    """The recipe of all methods, without run, seed, stages.method, stages.combine and train.restart, which the study
    sets; `shards.folder` is FOLDER/shards by default."""

    @model_validator(mode="after")
    def _check_methods(self) -> StudySettings:
        if len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods contains a method twice: {', '.join(self.methods)}")
        if self.seeds_without_restart > self.seeds:
            raise ValueError(f"seeds_without_restart={self.seeds_without_restart} is more than seeds={self.seeds}")
        return self

    def checked_recipe(self) -> Recipe:
        """Return the recipe that all methods share; raises `ConfigError` for its problems."""
        keys = [f"{key}." for key in flatten(self.recipe)]
        if given := [key for key in _SET_BY_STUDY if any(one.startswith(f"{key}.") for one in keys)]:
            raise ConfigError(
                f"recipe: {', '.join(given)}: the study sets this for every run; remove it. Set seeds with seeds=…, "
                "methods with methods=…, runs without restarts with seeds_without_restart=…"
            )
        recipe = load_recipe(self.filled_recipe())
        if recipe.stages.patience is not None:
            raise ConfigError("a study compares methods at equal iterations, so recipe.stages.patience must be null.")
        if self.scratch and recipe.train.schedule != "noam":
            raise ConfigError(
                f"recipe.train.schedule={recipe.train.schedule} depends on the length of a run, so a shorter run from "
                "scratch would have other learning rates than a full run. Use noam, or set scratch=false."
            )
        return recipe

    def filled_recipe(self) -> dict[str, Any]:
        """Return `recipe` with default folders inside the study's folder."""
        shards = self.recipe.get("shards") or {}
        if isinstance(shards, Mapping):  # otherwise the check of the recipe reports it
            shards = {"folder": str(Path(self.folder) / "shards"), **shards}
        return {"name": "study", **self.recipe, "run": str(Path(self.folder) / "runs"), "shards": shards}


_SET_BY_STUDY = ("run", "seed", "stages.method", "stages.combine", "train.restart")


def presets() -> dict[str, str]:
    """Return the YAML texts of the presets of `study table7` by name."""
    folder = resources.files("ernie2") / "studies" / "presets"
    files = (entry for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return {file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8") for file in files}


def load_settings(preset: str, overrides: Sequence[str] = ()) -> StudySettings:
    """Return a preset with dotted overrides (`seeds=3`, `recipe.train.peak_lr=1e-3`), validated with its recipe.

    Raises `ConfigError` with every wrong key and value.
    """
    known = presets()
    if preset not in known:
        raise ConfigError(f"no preset {preset!r}.{did_you_mean(preset, known)} Available: {', '.join(sorted(known))}.")
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
