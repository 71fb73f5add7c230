"""Memory of training steps: estimate, measure, and on a CPU reuse from step to step."""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from typing import Any

import torch

from ernie2.config.settings import EncoderSettings
from ernie2.errors import ConfigError
from ernie2.model.encoders import ENCODERS
from ernie2.training.environment import machine_memory


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a training step by kind; `total` excludes the program and its libraries."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.parameters + self.gradients + self.optimizer + self.activations


def estimate(
    encoder: EncoderSettings,
    parameters: int,
    pack_tokens: int,
    precision: str,
    activation_checkpointing: bool,
    weights_tokens: int = 0,
    state_numbers: int = 2,
) -> Memory:
    """Estimate the memory of a step; parameters, gradients and optimizer state are fp32.

    Layers say what they keep (`activation_bytes`); with `activation_checkpointing` a layer keeps
    its input only. Heads and embeddings are small and left out (ours).
    `weights_tokens`: longest sequence if attention weights are stored, as on a CPU (one number per head and pair of
    tokens), else 0. `state_numbers`: numbers per parameter in the optimizer state; 2 for Adam.
    """
    layer = ENCODERS[encoder.kind].layer.activation_bytes(encoder, 4 if precision == "fp32" else 2, weights_tokens)
    per_token = encoder.layers * 4 * encoder.hidden + layer if activation_checkpointing else encoder.layers * layer
    return Memory(4 * parameters, 4 * parameters, 4 * state_numbers * parameters, pack_tokens * per_token)


def check_memory(encoder: EncoderSettings, vocab_size: int, device: torch.device, state_numbers: int = 2) -> None:
    """Raise `ConfigError` if this machine's memory is too small for the parameters, on a CPU with gradients and state.

    Only the encoder and its word embedding are counted, so a larger model may pass.
    """
    parameters, machine = encoder.parameters + vocab_size * encoder.hidden, machine_memory()
    needed = 4 * parameters * (2 + state_numbers if device.type == "cpu" else 1)
    if machine is not None and needed > machine:
        raise ConfigError(
            f"encoder: about {parameters / 1e9:,.1f} billion parameters need {needed / 2**30:,.0f} GiB of memory, and "
            f"this machine has {machine / 2**30:,.0f}. Lower encoder.layers, encoder.hidden or the vocabulary."
        )


def peak_bytes(device: torch.device) -> int | None:
    """Return the peak memory so far: of torch on the GPU, or of the process with its libraries; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak_bytes(device: torch.device) -> int | None:
    """Reset the peak of `peak_bytes` and return the bytes torch has allocated on the GPU; None on a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""M_TRIM_THRESHOLD and M_MMAP_MAX of glibc's malloc.h."""
_PRIMITIVES = "128"
"""Kernels that oneDNN caches, instead of 1,024. It builds about 34 for the shapes of a pack and cannot reuse them in
the next step, whose packs have other shapes. Cached, they take 270 MB and fragment the heap."""
SETTLING_STEPS = 8
"""Steps after a trim whose largest memory is the need of a step."""
MAX_GROWTH = 1.25
"""Memory of the process after a step, relative to the need of a step, above which freed memory is released."""


class FreedMemory:
    """Freed memory that glibc retains for the next step; `libc` is None if it does not.

    Changing shapes fragment the heap, so the retained memory grows. `trim_if_grown` bounds it: after a step the process
    has at most `MAX_GROWTH` times what any `SETTLING_STEPS` steps after a trim held.
    """

    def __init__(self, libc: Any = None) -> None:
        self._libc = libc
        self._steps = 0
        self._needed = 0

    def trim_if_grown(self) -> None:
        """Return freed memory to the kernel if it has grown by a quarter; call after every step."""
        if self._libc is None:
            return
        self._steps += 1
        resident = _resident_bytes()
        if self._steps <= SETTLING_STEPS:
            self._needed = max(self._needed, resident)
        elif resident > MAX_GROWTH * self._needed:
            self._libc.malloc_trim(0)
            self._steps = 0


def reuse_freed_memory(device: torch.device) -> FreedMemory:
    """Make glibc retain freed memory for the next allocation, for the rest of this process.

    By default glibc returns large freed tensors to the kernel, and the next step waits for new zeroed pages: 150,000
    page faults and a fifth of the time of a step of 6 layers × 384. Also limits the kernels that oneDNN caches, unless
    it has run already. Only for a CPU `device`; settings of the user (`MALLOC_…_`, `GLIBC_TUNABLES`,
    `ONEDNN_PRIMITIVE_CACHE_CAPACITY`) take precedence.
    """
    if device.type != "cpu":
        return FreedMemory()
    if "DNNL_PRIMITIVE_CACHE_CAPACITY" not in os.environ:  # its older name
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", _PRIMITIVES)
    if not sys.platform.startswith("linux") or _set_by_user():
        return FreedMemory()
    libc = ctypes.CDLL(None)
    if not (hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim")):  # other C libraries lack them
        return FreedMemory()
    retained = libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1) and libc.mallopt(_MMAP_MAX, 0)
    return FreedMemory(libc if retained else None)


def _set_by_user() -> bool:
    return any(name.startswith("MALLOC_") for name in os.environ) or "glibc.malloc." in os.getenv("GLIBC_TUNABLES", "")


def _resident_bytes() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
