"""Fine-tuning jobs and their saved runs, one run per seed.

A run is finished when its folder holds the complete model and RESULT, which is written last; any other run restarts.
A finished run is reused only for the same checkpoint, settings and data.
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
from ernie2.training.hooks.loading import HookSource

RESULT, MODEL = "result.json", "model"


@dataclass(frozen=True)
class RunResult:
    """Metrics and history of one run. `folder` holds its model.

    `metrics`: split → metric → percent; empty if training was ended by a non-finite loss. `diverged`: why the metrics
    are not those of a trained model, or ''.
    """

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
    """Everything the runs on one dataset share, except the seed.

    `task_id`: checked row of the task embedding. `folder`: contains a folder per seed. `hooks` are created anew for
    every run and do not count in `identity`.
    """

    pretrained: PretrainedCheckpoint
    data: LabelledData
    settings: FineTuningSettings
    task_id: int
    folder: Path
    hooks: tuple[HookSource, ...] = ()

    def identity(self) -> dict[str, Any]:
        """Return checkpoint, data and settings as JSON values; runs of one seed are equal if these are equal."""
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
        """Return the folder of one seed."""
        return self.folder / f"seed-{seed}"


def load_finished_run(job: Job, seed: int, identity: Mapping[str, Any]) -> RunResult | None:
    """Return the finished run of this seed, or None.

    Raises `ConfigError` if the folder holds another run, naming the difference.
    """
    folder = job.run_folder(seed)
    try:
        values = read_checked_json(folder / RESULT)
    except FileNotFoundError:
        return None
    except DamagedFile as error:
        raise DataError(f"{error} Remove {folder} to run it again.") from error
    if values.get("identity") != identity:
        raise ConfigError(
            f"{folder} holds a finished run of {_describe_difference(values.get('identity') or {}, identity)}. "
            "Give another --out, or remove that folder."
        )
    if not is_complete(folder / MODEL):
        return None
    metrics = {
        split: {name: math.nan if value is None else value for name, value in figures.items()}
        for split, figures in values["metrics"].items()
    }
    keys = ("epochs", "diverged", "sequences_per_second", "seconds", "notes", "losses")
    return RunResult(seed, folder, metrics, **{key: values[key] for key in keys})


def save_run(run: RunResult, identity: Mapping[str, Any]) -> None:
    """Write the RESULT of a run whose model is already saved."""
    values = {key: value for key, value in asdict(run).items() if key not in ("folder", "seed")}
    write_checked_json(run.folder / RESULT, {"identity": identity, "seed": run.seed, **to_json_values(values)})


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
    """Convert to JSON values; non-finite numbers become null."""
    if isinstance(value, Mapping):
        return {str(key): to_json_values(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_values(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
