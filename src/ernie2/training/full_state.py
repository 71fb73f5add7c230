"""Gather parameters and optimizer state from all ranks, and scatter them again.

The gathered state does not depend on the number of ranks or on sharding, so a checkpoint of eight sharded ranks can be
resumed by one process and vice versa.
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
    """In host memory: the model's tensors by name, the optimizer's by "KIND/NAME", such as "exp_avg/NAME"."""

    parameters: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]


def gather(model: nn.Module, optimizer: torch.optim.Optimizer, group: ProcessGroup) -> FullState | None:
    """Return a copy of the state on rank 0, None on the others; a collective call.

    Tensors are gathered one at a time, so a GPU needs memory only for the largest.
    """
    gathered: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    for which, key, tensor in _tensors(model, optimizer):
        full = full_tensor(tensor.detach())
        if group.is_first:
            gathered[which][key] = full.to("cpu", copy=True).contiguous()
    return FullState(*gathered) if group.is_first else None


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's tensors by "KIND/NAME", in the same order on all ranks."""
    return {
        f"{kind}/{name}": tensor
        for name, parameter in model.named_parameters()
        for kind, tensor in sorted(optimizer.state[parameter].items())
    }


def scatter(model: nn.Module, optimizer: torch.optim.Optimizer, state: FullState | None, group: ProcessGroup) -> None:
    """Copy the `state` of rank 0 into model and optimizer of all ranks; names and shapes must fit.

    Only rank 0 passes `state`; the others receive it and need no access to its disk.
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
    """Return an unsharded copy of `model` on rank 0, `model` itself on the others; a collective call."""
    reshard(model)
    if not any(hasattr(parameter, "full_tensor") for parameter in model.parameters()):
        return model
    parameters = {name: full_tensor(parameter.detach()).cpu() for name, parameter in model.named_parameters()}
    if not group.is_first:
        return model
    full_model = MultiTaskModel(model.settings, model.vocab_size, list(model.specs.values()), seed=0)
    full_model.load_state_dict(parameters)
    return full_model


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[int, str, Tensor]]:
    """Yield every tensor of a checkpoint in the same order on all ranks: 0 (model) or 1 (optimizer), key, tensor."""
    reshard(model)
    for name, parameter in model.named_parameters():
        yield 0, name, parameter
    for key, tensor in optimizer_tensors(model, optimizer).items():
        yield 1, key, tensor


def _fill(tensor: Tensor, full: Tensor, group: ProcessGroup) -> None:
    """Fill `tensor`, or this rank's shard of it, from `full` on rank 0."""
    placements = getattr(tensor, "placements", None)
    if placements is None:
        tensor.copy_(group.broadcast(full))
        return
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(tensor, DTensor)
    tensor.copy_(distribute_tensor(full, tensor.device_mesh, placements))
