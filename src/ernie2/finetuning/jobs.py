"""What a run is and how it is kept: a job for a seed, and its figures in RESULT beside its model.

A folder is finished when RESULT, which is written last, and the whole model are there; else it starts again. A
finished run of another checkpoint, of other settings or data is never taken for this one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ernie2.config.finetuning_settings import FineTuningSettings
from ernie2.datasets.examples import LabelledData
from ernie2.errors import ConfigError, DamagedFile, DataError
from ernie2.finetuning.pretrained import PretrainedCheckpoint
from ernie2.storage.checksums import is_complete
from ernie2.storage.json_files import read_checked_json, write_checked_json
from ernie2.training.hooks.named import HookSource

RESULT, MODEL = "result.json", "model"


@dataclass(frozen=True)
class RunResult:
    """What one run did. `metrics`: split → metric → percent; empty where the run was given up. `diverged`: why its
    figures are not those of a trained model, '' where they are. `folder` holds `model`."""

    seed: int
    folder: Path
    metrics: Mapping[str, Mapping[str, float]]
    epochs: Sequence[Mapping[str, Any]] = ()
    diverged: str = ""
    sequences_per_second: float = 0.0
    seconds: float = 0.0
    notes: Sequence[str] = ()
    losses: Sequence[float] = field(default=(), repr=False)


@dataclass(frozen=True)
class Job:
    """What all runs of one data set share. `task_id` is the row of the task embedding, checked; `folder` holds a folder
    for each seed. `hooks` take part in every run, each made
    anew, and are no part of what it is."""

    pretrained: PretrainedCheckpoint
    data: LabelledData
    settings: FineTuningSettings
    task_id: int
    folder: Path
    hooks: tuple[HookSource, ...] = ()

    def identity(self) -> dict[str, Any]:
        """What makes two runs of one seed the same run, as JSON values."""
        digest = hashlib.blake2b(digest_size=16)
        for name, split in self.data.splits.items():
            digest.update(name.encode())
            for example in split.examples:
                digest.update(repr(example).encode())
        settings = self.settings.model_dump(mode="json", exclude={"runs", "summary", "pack_tokens"})
        return {
            "checkpoint": self.pretrained.fingerprint(),
            "data": {
                "name": self.data.name,
                "head": self.data.head,
                "scheme": self.data.scheme,
                "examples": digest.hexdigest(),
            },
            "settings": settings | {"task_id": self.task_id},
        }

    def run_folder(self, seed: int) -> Path:
        """The folder of one seed."""
        return self.folder / f"seed-{seed}"


def load_finished_run(job: Job, seed: int, identity: Mapping[str, Any]) -> RunResult | None:
    """The run of this seed if it is finished; raises `ConfigError` where another one is, naming what differs."""
    folder = job.run_folder(seed)
    try:
        told = read_checked_json(folder / RESULT)
    except FileNotFoundError:
        return None
    except DamagedFile as error:
        raise DataError(f"{error} Remove {folder} to run it again.") from error
    if told.get("identity") != identity:
        raise ConfigError(
            f"{folder} holds a finished run of {_describe_difference(told.get('identity') or {}, identity)}. "
            "Choose another --out, or remove that folder."
        )
    if not is_complete(folder / MODEL):
        return None
    metrics = {
        split: {name: math.nan if value is None else value for name, value in figures.items()}
        for split, figures in told["metrics"].items()
    }
    known = {name: told[name] for name in ("epochs", "diverged", "sequences_per_second", "seconds", "notes", "losses")}
    return RunResult(seed, folder, metrics, **known)


def save_run(run: RunResult, identity: Mapping[str, Any]) -> None:
    """Writes the RESULT of a run whose model lies in its folder already."""
    told = {key: value for key, value in asdict(run).items() if key not in ("folder", "seed")}
    write_checked_json(run.folder / RESULT, {"identity": identity, "seed": run.seed, **to_json_values(told)})


def _describe_difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    if one.get("checkpoint") != other["checkpoint"]:
        return "another checkpoint"
    if one.get("data") != other["data"]:
        scheme = one.get("data", {}).get("scheme")
        same = other["data"] | {"scheme": scheme} == one.get("data")
        return f"another tag scheme ({scheme})" if same else "other data"
    before, now = one.get("settings", {}), other["settings"]
    changed = [f"{key}={before.get(key)} (now {now[key]})" for key in now if before.get(key) != now[key]]
    return "other settings: " + ", ".join(changed)


def to_json_values(value: Any) -> Any:
    """JSON values; what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): to_json_values(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_values(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
