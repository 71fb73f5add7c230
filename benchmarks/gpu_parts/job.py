"""Settings of a part: folders, sizes, time limit, and where results are recorded."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from comparisons.shards_recipe import FIVE_TASKS, FOUR_TASKS, recipe_of_shards
from ernie2.config.settings import Recipe
from ernie2.shards.store import Shards
from gpu_parts.results import Results


@dataclass(frozen=True)
class Scale:
    """Sizes of one scale. Recipe values are dotted overrides, as on the command line.

    `tasks`: trained tasks. `copied`: floats of the copy. `square`: side of the square matrix product. `tokens`,
    `heads`, `head_width`, `longest`, `layers`: sizes for the attention kernels. `repeats`: timings per kernel. `steps`:
    training steps of base; `few`: of other parts. `sequences`: initial maximum per batch of Hugging Face. `workers`:
    numbers of loader workers. `study`: preset and overrides.
    """

    tasks: tuple[str, ...]
    base: tuple[str, ...]
    large: tuple[str, ...]
    copied: int
    square: int
    tokens: int
    heads: int
    head_width: int
    longest: int
    layers: int
    repeats: int
    steps: int
    few: int
    sequences: int
    workers: tuple[int, ...]
    study: tuple[str, ...]

    @property
    def width(self) -> int:
        """Width of the encoder whose attention and matrix products are measured."""
        return self.heads * self.head_width


_STUDY = ("seeds=1", "seeds_without_restart=0", "recipe.train.compile=false")
SCALES = {
    "real": Scale(
        tasks=FIVE_TASKS,
        base=("batch.batch_tokens=393216", "batch.pack_tokens=65536"),
        large=("encoder.layers=24", "encoder.hidden=1024", "encoder.heads=16"),
        copied=1 << 30,
        square=8192,
        tokens=65_536,
        heads=12,
        head_width=64,
        longest=512,
        layers=12,
        repeats=20,
        steps=24,
        few=8,
        sequences=128,
        workers=(4, 6),
        study=("small", *_STUDY, "recipe.stages.steps=150", "recipe.train.evaluate_every=25"),
    ),
    "tiny": Scale(
        tasks=FOUR_TASKS,
        base=(
            "batch.batch_tokens=1024",
            "batch.pack_tokens=512",
            "encoder.layers=1",
            "encoder.hidden=32",
            "encoder.heads=2",
            "train.precision=fp32",
        ),
        large=("encoder.layers=2",),
        copied=1 << 18,
        square=128,
        tokens=512,
        heads=2,
        head_width=16,
        longest=64,
        layers=2,
        repeats=2,
        steps=3,
        few=2,
        sequences=8,
        workers=(1,),
        study=(
            "small",
            *_STUDY,
            "methods=[multitask]",
            "scratch=false",
            "recipe.stages.steps=2",
            "recipe.stages.max_epochs=10000",
            "recipe.batch.batch_tokens=1024",
            "recipe.batch.pack_tokens=1024",
            "recipe.encoder.layers=1",
            "recipe.encoder.hidden=32",
            "recipe.encoder.heads=2",
            "recipe.train.heldout_instances=8",
            "recipe.train.evaluate_every=4",
            "recipe.train.log_every=1",
        ),
    ),
}


@dataclass(frozen=True)
class Job:
    """Settings of one part. `seconds`: time limit. `mini`: recipe of the small encoder."""

    part: str
    results: Results
    shards: Path
    scale: Scale
    seconds: float
    mini: Path | None
    began: float

    @property
    def out(self) -> Path:
        """Folder of results."""
        return self.results.out

    @property
    def device(self) -> torch.device:
        """The first CUDA device, else the CPU."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def left(self) -> float:
        """Seconds until this part is killed."""
        return self.seconds - (time.monotonic() - self.began)

    def recipe(self, *overrides: str) -> Recipe:
        """Return the recipe of base on the shards, with `overrides`."""
        return recipe_of_shards(self.shards, [*self.scale.base, *overrides], self.scale.tasks)

    def open_shards(self) -> Shards:
        """Return the shards for training."""
        return Shards(self.shards)

    def note(self, what: str, **facts: Any) -> None:
        """Append one measurement to results.jsonl, synced to disk, and print it shortened."""
        self.results.note(self.part, what, **facts)
