"""Parameters and optimizer state in one place: gathered from however many ranks hold them, and spread over them again.

What is gathered does not depend on the number of ranks nor on how they share the model, so a checkpoint written by
eight sharded ranks goes on in one process, and the other way round.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ernie2.model.multitask import MultiTaskModel
from ernie2.training.distributed import ProcessGroup
from ernie2.training.parallel import full_tensor, reshard


@dataclass(frozen=True)
class FullState:
    """On the host: the model's tensors by name, and the optimizer's by "KIND/NAME", such as "exp_avg/NAME"."""

    parameters: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]


def gather(model: nn.Module, optimizer: torch.optim.Optimizer, group: ProcessGroup) -> FullState | None:
    """A copy of everything on rank 0, None on the others; all ranks must call it together.

    Tensors are gathered one at a time, so a GPU needs room for the largest only.
    """
    found: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    for which, key, tensor in _tensors(model, optimizer):
        full = full_tensor(tensor.detach())
        if group.is_first:
            found[which][key] = full.to("cpu", copy=True).contiguous()
    return FullState(*found) if group.is_first else None


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's own tensors by "KIND/NAME", in one order on all ranks: what a checkpoint holds of it."""
    return {
        f"{kind}/{name}": tensor
        for name, parameter in model.named_parameters()
        for kind, tensor in sorted(optimizer.state[parameter].items())
    }


def scatter(model: nn.Module, optimizer: torch.optim.Optimizer, state: FullState | None, group: ProcessGroup) -> None:
    """Puts the `state` of rank 0, whose names and shapes fit, into model and optimiser of all ranks.

    `state` is asked for on rank 0 only; the others get it from there, so they need not see the disk it came from.
    """
    theirs = ({}, {}) if state is None else (state.parameters, state.optimizer)
    with torch.no_grad():
        for which, key, tensor in _tensors(model, optimizer):
            if group.size == 1:
                tensor.copy_(theirs[which][key])
                continue
            full = theirs[which][key] if group.is_first else torch.empty(tensor.shape, dtype=tensor.dtype)
            _fill(tensor, full.to(group.device), group)


def unsharded(model: MultiTaskModel, group: ProcessGroup) -> MultiTaskModel:
    """`model` as one process has it, on rank 0; all ranks must ask together. The others keep what they have."""
    reshard(model)
    if not any(hasattr(parameter, "full_tensor") for parameter in model.parameters()):
        return model
    parameters = {name: full_tensor(parameter.detach()).cpu() for name, parameter in model.named_parameters()}
    if not group.is_first:
        return model
    made = MultiTaskModel(model.settings, model.vocab_size, list(model.specs.values()), seed=0)
    made.load_state_dict(parameters)
    return made


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[int, str, Tensor]]:
    """Every tensor of a checkpoint, in one order on all ranks: 0 (model) or 1 (optimizer), its key, the tensor."""
    reshard(model)
    for name, parameter in model.named_parameters():
        yield 0, name, parameter
    for key, tensor in optimizer_tensors(model, optimizer).items():
        yield 1, key, tensor


def _fill(tensor: Tensor, full: Tensor, group: ProcessGroup) -> None:
    """Fills `tensor`, whole or this rank's share of it, from `full` on rank 0."""
    placements = getattr(tensor, "placements", None)
    if placements is None:
        tensor.copy_(group.broadcast(full))
        return
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(tensor, DTensor)
    tensor.copy_(distribute_tensor(full, tensor.device_mesh, placements))
