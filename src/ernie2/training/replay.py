"""Save and replay a global batch whose loss or gradient is not finite; no pickles.

    RUN/bad_batch/  packs.npz  model.safetensors  batch.json
    python -m ernie2.training.replay RUN/bad_batch [--precision fp32] [--device cpu]

`packs.npz` has the arrays of every pack as PACK/NAME and PACK/targets/TASK/NAME; `batch.json` has the position of the
run, the configuration of the model and the settings of the step. The command computes the step again and reports the
first output that is not finite.

Exits with 0 if the loss or a gradient is not finite again, with 1 if all are finite: then precision, device or hardware
made the difference.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ernie2.batches.batch import PackedBatch, Targets
from ernie2.config.settings import EncoderSettings
from ernie2.console import logger, print_line, terminal_output
from ernie2.errors import CheckpointError, Ernie2Error
from ernie2.model.heads import HeadSpec
from ernie2.model.inputs import Inputs
from ernie2.model.multitask import MultiTaskModel
from ernie2.storage.arrays import save_tensors, write_arrays
from ernie2.storage.atomic import staged_folder, write_json
from ernie2.storage.json_files import parse_json
from ernie2.training.step import autocast, counts_of, seed_dropout

FORMAT = 1
_MODEL = "model.safetensors"
_ARRAYS = ("tokens", "positions", "segments", "task_ids", "starts")


def write_bad_batch(
    folder: Path,
    packs: Mapping[int, PackedBatch],
    model: MultiTaskModel,
    parameters: Mapping[str, Tensor],
    facts: Mapping[str, Any],
) -> None:
    """Write `packs` by number, the `parameters` before the step and its `facts`; replaces an earlier bad batch.

    Raises `StorageError` if it cannot be written.
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
    with staged_folder(folder, replace=True, advice="The batch was not saved. Free space.") as staging:
        write_arrays(staging / "packs.npz", _arrays(packs))
        save_tensors(staging / _MODEL, parameters)
        write_json(staging / "batch.json", described)


def read_bad_batch(folder: Path) -> tuple[dict[int, PackedBatch], MultiTaskModel, dict[str, Any]]:
    """Load the packs, the model (in training mode) and the facts. Raises `CheckpointError` if that fails.

    Loading cannot run code.
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
            f"{folder} is not a saved bad batch ({error}). A run that stops because of one saves it in RUN/bad_batch."
        ) from error
    return packs, model.train(), facts


def _arrays(packs: Mapping[int, PackedBatch]) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for number, pack in packs.items():
        arrays |= {f"{number}/{name}": getattr(pack, name) for name in _ARRAYS}
        for task, targets in pack.targets.items():
            arrays[f"{number}/targets/{task}/positions"] = targets.positions
            arrays[f"{number}/targets/{task}/labels"] = targets.labels
    return arrays


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


@dataclass
class ReplayResult:
    """Result of a replay.

    `losses`: mean loss by task; `first`: pack and module of the first non-finite output; `gradients`, `parameters`:
    names of parameters with a non-finite gradient or, before the step, non-finite values.
    """

    losses: dict[str, float] = field(default_factory=dict)
    first: tuple[int, str] | None = None
    gradients: list[str] = field(default_factory=list)
    parameters: list[str] = field(default_factory=list)

    @property
    def finite(self) -> bool:
        return not self.gradients and all(map(math.isfinite, self.losses.values()))


def replay(folder: Path | str, precision: str | None = None, device: str | None = None) -> ReplayResult:
    """Run forward and backward over the packs in `folder` with dropout and, by default, precision of their step."""
    packs, model, facts = read_bad_batch(Path(folder))
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model.to(target)
    counts, result = counts_of(list(packs.values())), ReplayResult()
    result.parameters = [name for name, tensor in model.named_parameters() if not tensor.isfinite().all()]
    summed: dict[str, Tensor] = {}
    for number, pack in packs.items():
        seed_dropout(*facts["dropout_key"], number)
        with _watched(model, number, result), autocast(precision or facts["precision"], target):
            computed = model(Inputs.from_batch(pack, target, static=target.type == "cuda"))
        if computed:
            terms = [facts["weights"][name] / counts[name] * task.sum for name, task in computed.items()]
            torch.autograd.backward(torch.stack(terms).sum() * facts["loss_scale"])
        for name, task in computed.items():
            summed[name] = summed[name] + task.sum.detach() if name in summed else task.sum.detach()
    result.losses = {name: float(total) / counts[name] for name, total in summed.items()}
    result.gradients = [n for n, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    return result


@contextmanager
def _watched(model: nn.Module, pack: int, result: ReplayResult) -> Iterator[None]:
    """Record the first module of `model` whose output is not finite."""

    def check(name: str, output: Any) -> None:
        floats = isinstance(output, Tensor) and output.is_floating_point()
        if result.first is None and floats and not output.detach().isfinite().all():
            result.first = (pack, name)

    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: check(name, output))
        for name, module in model.named_modules()
        if name
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the result of a replay and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ernie2.training.replay", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="RUN/bad_batch")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), help="default: that of the run")
    parser.add_argument("--device", help="default: cuda if available, else cpu")
    given = parser.parse_args(arguments)
    try:
        result = replay(given.folder, given.precision, given.device)
    except Ernie2Error as error:
        with terminal_output():
            logger.error("%s", f"error: {error}")
        return error.exit_code
    for name, loss in result.losses.items():
        print_line(f"{name:<26} loss {loss:.4g}")
    if result.parameters:
        print_line(f"Not finite before the step: {_some(result.parameters)}")
    if result.first is not None:
        print_line(f"First output that is not finite: {result.first[1]}, in pack {result.first[0]}")
    if result.gradients:
        print_line(f"Gradients that are not finite: {_some(result.gradients)}")
    print_line("All finite this time." if result.finite else "Not finite again.")
    return 1 if result.finite else 0


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


if __name__ == "__main__":
    sys.exit(main())
