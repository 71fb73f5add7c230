"""Parameter initialisation: each parameter depends only on the seed and its name."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def initialise(module: nn.Module, std: float, seed: int, *owner: str) -> None:
    """Initialise weights from N(0, std), biases with 0, norms with 1 and 0.

    Each value depends only on (seed, owner, parameter name). No global generator is used.
    """
    norms = {name for name, part in module.named_modules() if isinstance(part, nn.LayerNorm)}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif name.rpartition(".")[0] in norms:
                parameter.fill_(1.0)
            else:
                parameter.normal_(0.0, std, generator=generator_for(seed, *owner, name))


def generator_for(seed: int, *names: str) -> torch.Generator:
    """Return a CPU generator that depends only on `seed` and `names`, the same on every platform."""
    digest = hashlib.blake2b("\0".join((str(seed), *names)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def uninitialised_linear(inputs: int, outputs: int) -> nn.Linear:
    """Return a linear layer with uninitialised parameters."""
    return nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
