"""A global batch whose loss or gradient is not finite, kept with all it takes to compute it again; no pickles.

    RUN/bad_batch/  packs.npz  model.safetensors  batch.json

`packs.npz` holds every pack's arrays as PACK/NAME and PACK/targets/TASK/NAME; `batch.json` where the run stood, how the
model is built and how the step was taken. `python -m ernie2.training.replay RUN/bad_batch` computes it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from ernie2.batches.batch import PackedBatch, Targets
from ernie2.config.settings import EncoderSettings
from ernie2.errors import CheckpointError
from ernie2.model.heads import HeadSpec
from ernie2.model.multitask import MultiTaskModel
from ernie2.storage.arrays import write_arrays
from ernie2.storage.atomic import staged_folder, write_json
from ernie2.storage.json_files import parse_json
from ernie2.storage.tensors import save_tensors
from ernie2.training.bad_steps import Taken
from ernie2.training.distributed import World
from ernie2.training.parallel import whole

FORMAT = 1
_MODEL = "model.safetensors"
_ARRAYS = ("tokens", "positions", "segments", "task_ids", "starts")


def keep(folder: Path, taken: Taken, model: MultiTaskModel, facts: Mapping[str, Any], world: World) -> Path:
    """Leaves the whole batch of a step in `folder`, with `facts` on how it was computed; all ranks call it together."""
    packs: dict[int, PackedBatch] = {}
    lanes: dict[str, Any] = {}
    told = taken.facts()
    for theirs, stood in world.gather((dict(taken.packs), told["lanes"])):
        packs |= theirs
        lanes |= stood
    parameters = {name: whole(parameter.detach()) for name, parameter in model.named_parameters()}
    if world.first:
        write_bad_batch(folder, packs, model, parameters, {**told, **facts, "lanes": lanes})
    return folder


def write_bad_batch(
    folder: Path,
    packs: Mapping[int, PackedBatch],
    model: MultiTaskModel,
    parameters: Mapping[str, Tensor],
    facts: Mapping[str, Any],
) -> None:
    """Writes a step's `packs` by number, the `parameters` it met and `facts` about it, in place of an earlier one.

    Raises `StorageError` where it cannot be written.
    """
    built = {
        "encoder": model.settings.model_dump(mode="json"),
        "vocab_size": model.vocab_size,
        "heads": [asdict(spec) for spec in model.specs.values()],
    }
    shapes = {
        number: {"longest": pack.longest, "counts": {name: targets.count for name, targets in pack.targets.items()}}
        for number, pack in sorted(packs.items())
    }
    described = {"format": FORMAT, **facts, "model": built, "packs": shapes}
    with staged_folder(folder, replace=True, what_now="The batch was not kept; free space.") as staging:
        write_arrays(staging / "packs.npz", _arrays(packs))
        save_tensors(staging / _MODEL, parameters)
        write_json(staging / "batch.json", described)


def read_bad_batch(folder: Path) -> tuple[dict[int, PackedBatch], MultiTaskModel, dict[str, Any]]:
    """The packs, the model as it was (in training mode), and the facts; raises `CheckpointError` where there are none.

    Nothing that is read can run code.
    """
    try:
        facts = parse_json((folder / "batch.json").read_bytes())
        if facts["format"] != FORMAT:
            raise CheckpointError(f"{folder} has format {facts['format']!r}; this version reads {FORMAT}.")
        with np.load(folder / "packs.npz", allow_pickle=False) as arrays:
            packs = {int(number): _pack(arrays, number, shape) for number, shape in facts["packs"].items()}
        built = facts["model"]
        heads = [HeadSpec(head["name"], head["level"], head["classes"]) for head in built["heads"]]
        model = MultiTaskModel(EncoderSettings(**built["encoder"]), built["vocab_size"], heads, seed=0)
        model.load_state_dict(load_file(folder / _MODEL))
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{folder} is not a batch that was kept ({error}). A run that stops because of one leaves RUN/bad_batch."
        ) from error
    return packs, model.train(), facts


def _arrays(packs: Mapping[int, PackedBatch]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, pack in packs.items():
        found |= {f"{number}/{name}": getattr(pack, name) for name in _ARRAYS}
        for task, targets in pack.targets.items():
            found[f"{number}/targets/{task}/positions"] = targets.positions
            found[f"{number}/targets/{task}/labels"] = targets.labels
    return found


def _pack(arrays: Mapping[str, Any], number: str, shape: Mapping[str, Any]) -> PackedBatch:
    targets = {
        task: Targets(
            arrays[f"{number}/targets/{task}/positions"], arrays[f"{number}/targets/{task}/labels"], int(count)
        )
        for task, count in shape["counts"].items()
    }
    return PackedBatch(
        **{name: arrays[f"{number}/{name}"] for name in _ARRAYS}, longest=int(shape["longest"]), targets=targets
    )
