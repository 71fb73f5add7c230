"""Build the optimizer of a recipe, with state for every parameter from the start."""

from __future__ import annotations

import inspect
from pkgutil import resolve_name

import torch
from torch import Tensor, nn

from ernie2.config.settings import OPTIMIZERS, TrainSettings


def build_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """Return `settings.optimizer` over all parameters, fused if possible; biases and norms have no weight decay.

    State exists for every parameter from the start, so checkpoints are complete even if a head was never trained.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (plain if parameter.ndim < 2 or name.endswith("bias") else decayed).append(parameter)
    path, keys = OPTIMIZERS[settings.optimizer]
    build = resolve_name(path)
    options = {option: getattr(settings, key) for option, key in keys.items()}
    if "fused" in inspect.signature(build).parameters:
        sharded = any(hasattr(parameter, "placements") for parameter in (*decayed, *plain))
        options["fused"] = build is torch.optim.AdamW or not sharded  # with sharded parameters torch fuses only AdamW
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer: torch.optim.Optimizer = build(groups, lr=settings.peak_lr, **options)
    _create_state(optimizer)
    return optimizer


def parameter_state(settings: TrainSettings) -> dict[str, Tensor]:
    """Return the state of `settings.optimizer` for a parameter of shape (1, 1): tensors by name."""
    model = nn.Linear(1, 1, bias=False)
    return dict(build_optimizer(model, settings).state[model.weight])


def state_numbers(settings: TrainSettings) -> int:
    """Return how many fp32 numbers `settings.optimizer` stores per number of a parameter."""
    return sum(tensor.numel() for tensor in parameter_state(settings).values() if tensor.ndim)


def _create_state(optimizer: torch.optim.Optimizer) -> None:
    """Make the optimizer create its state, which torch does in the first step, and set it to zero.

    The step has zero gradients and rate 0, so no parameter changes. All supported optimizers start from zeros.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    for state in optimizer.state.values():
        for tensor in state.values():
            tensor.zero_()
