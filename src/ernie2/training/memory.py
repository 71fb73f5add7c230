"""Memory of a training step, estimated before anything is built, and what was really used."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch

from ernie2.config.settings import EncoderSettings
from ernie2.errors import ConfigError
from ernie2.training.environment import machine_memory


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a training step by what holds them; `total` leaves out the program and its libraries."""

    parameters: int
    gradients: int
    moments: int
    activations: int

    @property
    def total(self) -> int:
        """All four together."""
        return self.parameters + self.gradients + self.moments + self.activations


def estimate(
    encoder: EncoderSettings,
    parameters: int,
    pack_tokens: int,
    precision: str,
    recompute: bool,
    weights_tokens: int = 0,
) -> Memory:
    """What a step with `parameters` parameters needs; parameters, gradients and Adam's two moments are fp32.

    Activations of a Transformer layer, a token, in elements: 4 of width `hidden` around norms and residual sums, 5
    more into and out of attention, 1 into the feed-forward layer, 2 of its own width, and 2 masks of dropout. In bf16
    everything but the norms takes 2 bytes: 34 bytes × hidden a token and layer where all are of 2 bytes, as Korthikanti
    et al. (arXiv 2205.05198) count without the attention matrix. With `recompute` a layer keeps its input only.
    A recurrent layer keeps its gates: 8 × hidden. Heads and embeddings are small beside it and left out (ours).
    `weights_tokens`: the longest sequence where attention weights are kept, as on a CPU (a number a head and pair of
    tokens), else 0.
    """
    small = 4 if precision == "fp32" else 2
    hidden, layers = encoder.hidden, encoder.layers
    if encoder.kind == "transformer":
        layer = 4 * 2 * hidden + small * (6 * hidden + 2 * encoder.ffn_width) + 2 * hidden
        layer += small * encoder.heads * weights_tokens
    else:
        layer = 4 * 8 * hidden
    kept = layers * 4 * hidden + layer if recompute else layers * layer
    return Memory(4 * parameters, 4 * parameters, 8 * parameters, pack_tokens * kept)


def check_memory(encoder: EncoderSettings, vocab_size: int, device: torch.device) -> None:
    """Raise `ConfigError` where this machine cannot hold the parameters, on a CPU with gradients and Adam's moments.

    Only the encoder and its word table are counted, so what passes may still be too large.
    """
    parameters, machine = encoder.parameters + vocab_size * encoder.hidden, machine_memory()
    needed = parameters * (16 if device.type == "cpu" else 4)
    if machine is not None and needed > machine:
        raise ConfigError(
            f"encoder: about {parameters / 1e9:,.1f} billion parameters need {needed / 2**30:,.0f} GiB of memory, and "
            f"this machine has {machine / 2**30:,.0f}. Lower encoder.layers, encoder.hidden or the vocabulary."
        )


def peak_bytes(device: torch.device) -> int | None:
    """Most memory used so far: of the GPU by torch, or of the process with all its libraries; None where unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def held_bytes(device: torch.device) -> int | None:
    """Bytes torch holds on the GPU now; from here on `peak_bytes` counts anew. None on a CPU, which cannot tell."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)
