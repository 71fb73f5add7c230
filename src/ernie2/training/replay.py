"""Computes a kept batch again and says where it stops being finite:

    python -m ernie2.training.replay RUN/bad_batch [--precision fp32] [--device cpu]

Ends with 0 where the loss or a gradient is not finite again, with 1 where all is finite this time: then it was a matter
of precision or device, or of the hardware.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ernie2.console import logger, on_terminal, show
from ernie2.errors import Ernie2Error
from ernie2.model.inputs import Inputs
from ernie2.training.bad_batch import read_bad_batch
from ernie2.training.step import autocast, counts_of, seed_dropout


@dataclass
class Findings:
    """What a batch gave when it was computed again.

    `losses`: mean loss by task; `first`: pack and module whose output was the first that is not finite; `gradients`:
    names of parameters whose gradient is not.
    """

    losses: dict[str, float] = field(default_factory=dict)
    first: tuple[int, str] | None = None
    gradients: list[str] = field(default_factory=list)
    parameters: list[str] = field(default_factory=list)

    @property
    def finite(self) -> bool:
        """Whether every loss and gradient was."""
        return not self.gradients and all(map(math.isfinite, self.losses.values()))


def replay(folder: Path | str, precision: str | None = None, device: str | None = None) -> Findings:
    """Forward and backward over the packs in `folder` with the dropout of their step, in its precision by default."""
    packs, model, facts = read_bad_batch(Path(folder))
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model.to(where)
    counts, found = counts_of(list(packs.values())), Findings()
    found.parameters = [name for name, tensor in model.named_parameters() if not tensor.isfinite().all()]
    summed: dict[str, Tensor] = {}
    for number, pack in packs.items():
        seed_dropout(*facts["dropout_key"], number)
        with _watched(model, number, found), autocast(precision or facts["precision"], where):
            made = model(Inputs.of(pack, where, static=where.type == "cuda"))
        if made:
            terms = [facts["weights"][name] / counts[name] * task.sum for name, task in made.items()]
            torch.autograd.backward(torch.stack(terms).sum() * facts["loss_scale"])
        for name, task in made.items():
            summed[name] = summed[name] + task.sum.detach() if name in summed else task.sum.detach()
    found.losses = {name: float(total) / counts[name] for name, total in summed.items()}
    found.gradients = [n for n, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    return found


@contextmanager
def _watched(model: nn.Module, pack: int, found: Findings) -> Iterator[None]:
    """Notes the first module inside `model` whose output is not finite."""

    def look(name: str, output: Any) -> None:
        floats = isinstance(output, Tensor) and output.is_floating_point()
        if found.first is None and floats and not output.detach().isfinite().all():
            found.first = (pack, name)

    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: look(name, output))
        for name, module in model.named_modules()
        if name
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def main(arguments: Sequence[str] | None = None) -> int:
    """Says what a replay found; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ernie2.training.replay", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="RUN/bad_batch")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), help="default: that of the run")
    parser.add_argument("--device", help="default: cuda where there is one, else cpu")
    given = parser.parse_args(arguments)
    try:
        found = replay(given.folder, given.precision, given.device)
    except Ernie2Error as error:
        with on_terminal():
            logger.error("%s", f"error: {error}")
        return error.exit_code
    for name, loss in found.losses.items():
        show(f"{name:<26} loss {loss:.4g}")
    if found.parameters:
        show(f"Not finite before the step: {_some(found.parameters)}")
    if found.first is not None:
        show(f"First output that is not finite: {found.first[1]}, in pack {found.first[0]}")
    if found.gradients:
        show(f"Gradients that are not finite: {_some(found.gradients)}")
    show("All finite this time." if found.finite else "Not finite again.")
    return 1 if found.finite else 0


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


if __name__ == "__main__":
    sys.exit(main())
