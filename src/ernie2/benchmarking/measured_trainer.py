"""Training steps of the trainer, with their kernels, memory and compiled graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch._dynamo.utils import counters

from ernie2.batches.batch import PackedBatch
from ernie2.benchmarking.flops import step_flops
from ernie2.benchmarking.mix import MeasuredStep
from ernie2.model.inputs import Inputs
from ernie2.model.norm import compute_dtype
from ernie2.training.measuring import StepRunner
from ernie2.training.memory import peak_bytes, reset_peak_bytes
from ernie2.training.step import autocast
from ernie2.training.trainer import Trainer


@dataclass
class KernelUse:
    """Packs of one attention kernel: their number, fewest and most sequences per pack, longest sequence."""

    packs: int = 0
    fewest: int = 0
    most: int = 0
    longest: int = 0

    def add(self, lengths: Sequence[int]) -> None:
        """Count a pack with sequences of these lengths; with static shapes they include those of the padding tail."""
        count = len(lengths)
        self.fewest = min(self.fewest, count) if self.packs else count
        self.most, self.longest = max(self.most, count), max(self.longest, *lengths)
        self.packs += 1


class MeasuredTrainer:
    """The ernie2 side of a comparison; `step` trains on packs.

    `memory`: peak bytes of a step, of this side on a GPU, of the process on a CPU. `graphs`: number of compiled graphs,
    None if not compiled.
    """

    name = "ernie2"

    def __init__(self, trainer: Trainer, precision: str, device: torch.device) -> None:
        self.kernels: dict[str, KernelUse] = {}
        self.memory: int | None = None
        self.graphs: int | None = 0 if trainer.model.static_shapes else None
        self._trainer, self._precision, self._device = trainer, precision, device
        self._static = device.type == "cuda" or trainer.model.static_shapes
        self.runner = StepRunner(trainer)

    def step(self, packs: Sequence[PackedBatch]) -> MeasuredStep:
        """Train one step, then free the gradients, so that other sides have the memory."""
        model, optimizer = self._trainer.model, self._trainer.optimizer
        before, graphs = reset_peak_bytes(self._device), counters["stats"]["unique_graphs"]
        seconds = self.runner.train(packs)
        if self.graphs is not None:
            self.graphs += counters["stats"]["unique_graphs"] - graphs
        own = own_bytes(model, optimizer)
        optimizer.zero_grad(set_to_none=True)
        if before is not None:
            self.memory = max(self.memory or 0, (peak_bytes(self._device) or 0) - before + own)
        else:
            self.memory = peak_bytes(self._device)
        real = sum(pack.real_tokens for pack in packs)
        computed = sum(len(pack.tokens) for pack in packs) if self._static else real
        return MeasuredStep(seconds, real, step_flops(model.settings, model.vocab_size, model.specs, packs), computed)

    def record_kernels(self, packs: Sequence[PackedBatch]) -> None:
        """Record the attention kernel of each of these packs."""
        encoder = self._trainer.model.encoder
        for pack in packs:
            inputs = Inputs.from_batch(pack, self._device, static=self._static)
            with autocast(self._precision, self._device):
                plan = encoder.plan(inputs, compute_dtype(encoder.embeddings.token.weight))
            self.kernels.setdefault(getattr(plan, "kernel", "recurrence"), KernelUse()).add(inputs.lengths)


def own_bytes(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes of parameters and optimiser state."""
    states = [
        value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)
    ]
    return sum(tensor.numel() * tensor.element_size() for tensor in [*model.parameters(), *states])
