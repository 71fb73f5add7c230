"""What happened between two lines of metrics.jsonl."""

from __future__ import annotations

import time
from typing import Any

import torch

from ernie2.training.step import StepResult


class Interval:
    """Sums between two lines of metrics.jsonl; read from the device only when a line is due."""

    def __init__(self, note: str = "") -> None:
        self.note = note
        self._losses: dict[str, torch.Tensor] = {}
        self._correct: dict[str, torch.Tensor] = {}
        self._counts: dict[str, int] = {}
        self._norm: torch.Tensor | None = None
        self._rate, self._tokens, self.steps, self.skipped = 0.0, 0, 0, 0
        self._began = time.monotonic()

    def add(self, result: StepResult, rate: float, tokens: int) -> None:
        """Add a step; what it gave stays on its device, since a value that comes from the host would be waited for."""
        self._rate, self._tokens, self.steps = rate, self._tokens + tokens, self.steps + 1
        if result.skipped:  # its losses may be as little finite as its gradients
            self.skipped += 1
            return
        for name, loss in result.losses.items():
            correct = result.correct[name]
            self._losses[name] = self._losses[name] + loss if name in self._losses else loss
            self._correct[name] = self._correct[name] + correct if name in self._correct else correct
            self._counts[name] = self._counts.get(name, 0) + result.counts[name]
        norm = result.grad_norm
        self._norm = norm if self._norm is None else torch.maximum(self._norm, norm)

    def line(self) -> dict[str, Any]:
        """Means over the interval; `grad_norm` is the largest in it, before clipping."""
        loss = {name: float(total) / self._counts[name] for name, total in self._losses.items()}
        self.note = " ".join(f"{name} {value:.2f}" for name, value in loss.items())
        return {
            "lr": self._rate,
            "grad_norm": 0.0 if self._norm is None else float(self._norm),
            "tokens_per_second": round(self._tokens / max(time.monotonic() - self._began, 1e-9), 1),
            "loss": loss,
            "accuracy": {name: int(total) / self._counts[name] for name, total in self._correct.items()},
            "count": dict(self._counts),
            "skipped": self.skipped,
        }
