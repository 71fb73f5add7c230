"""How parameters start: each by the seed and its own name alone."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def initialise(module: nn.Module, std: float, seed: int, *owner: str) -> None:
    """Weights N(0, std), biases 0, norms 1 and 0, each parameter by (seed, owner, its own name) alone.

    So a parameter starts the same whatever else the model holds, and no global generator is touched.
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
    """A CPU generator that depends on `seed` and `names` only, the same on every platform."""
    digest = hashlib.blake2b("\0".join((str(seed), *names)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def bare_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear whose parameters are not yet initialised."""
    return nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
