"""Whole training steps side by side: ours on packs, and `ErnieForMaskedLM` as its users run it, on padded batches.

    python benchmarks/step_against_hf.py [--json FILE] [--repeats 5] [--precision fp32 bf16] [--lengths 16-128 64-512]

A step is forward, backward, clipping to norm 1.0 and fused AdamW. Both sides get the same sequences (lengths uniform
in the range), the same masked positions (15 %), the same weights, size, dropout and precision. Hugging Face gets a
dense batch padded to its longest sequence with labels of -100, and scores the vocabulary everywhere. Steps of the two
sides take turns, and medians are compared, so that a noisy machine disturbs both alike. Tokens are counted without
padding. `ernie2 bench RECIPE --against hf` compares on the real stream of a recipe, with all its tasks.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from ernie2.batches.batch import PackedBatch, Targets
from ernie2.benchmarking.hugging_face import HuggingFace, dense, unpack
from ernie2.model.heads import HeadSpec
from ernie2.model.inputs import Inputs
from ernie2.model.multitask import MultiTaskModel
from ernie2.settings import EncoderSettings, TrainSettings

MASKED = "knowledge_masking"


@dataclass(frozen=True)
class Figures:
    """One comparison; rates in real tokens a second, medians of `repeats` steps each."""

    precision: str
    lengths: str
    sequences: int
    tokens: int
    padded_tokens: int
    ours_tokens_per_second: float
    hf_tokens_per_second: float | None

    @property
    def ratio(self) -> float | None:
        """How many times faster ours is."""
        return self.ours_tokens_per_second / self.hf_tokens_per_second if self.hf_tokens_per_second else None


def make_batch(shortest: int, longest: int, tokens: int, vocabulary: int, seed: int) -> PackedBatch:
    """Sequences with lengths uniform in [shortest, longest], about `tokens` in all, 15 % of positions masked."""
    rng = np.random.default_rng(seed)
    lengths: list[int] = []
    while sum(lengths) < tokens:
        lengths.append(int(rng.integers(shortest, longest + 1)))
    total = sum(lengths)
    masked = np.sort(rng.permutation(total)[: round(0.15 * total)])
    ids = rng.integers(1, vocabulary, total)
    return PackedBatch(
        tokens=ids.astype(np.int32),
        positions=np.concatenate([np.arange(length) for length in lengths]).astype(np.int32),
        segments=np.zeros(total, dtype=np.int32),
        task_ids=np.zeros(total, dtype=np.int32),
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        longest=longest,
        targets={MASKED: Targets(masked.astype(np.int32), rng.integers(1, vocabulary, len(masked)), len(masked))},
    )


def stepper(
    model: torch.nn.Module,
    loss: Callable[[], torch.Tensor],
    precision: str,
    clock: Callable[[], float] = time.perf_counter,
) -> Callable[[], float]:
    """A function that trains one step and returns its seconds."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def context() -> AbstractContextManager[Any]:
        return torch.autocast("cpu", dtype=torch.bfloat16) if precision == "bf16" else nullcontext()

    def step() -> float:
        began = clock()
        with context():
            value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return clock() - began

    return step


def compare(
    settings: EncoderSettings,
    vocabulary: int,
    lengths: str,
    precision: str,
    tokens: int,
    repeats: int,
    alone: bool,
    clock: Callable[[], float],
) -> Figures:
    """Steps of both sides in turn, on the same batch; `alone` leaves Hugging Face out."""
    shortest, longest = (int(part) for part in lengths.split("-"))
    batch = make_batch(shortest, longest, tokens, vocabulary, seed=0)
    spec = HeadSpec(MASKED, "token", None)
    ours = MultiTaskModel(settings, vocabulary, [spec], seed=0).train()

    def our_loss() -> torch.Tensor:
        loss = ours(Inputs.of(batch, "cpu", static=False))[MASKED]
        return loss.sum / loss.count

    steps = {"ours": stepper(ours, our_loss, precision, clock)}
    sequences = unpack(batch, MASKED)
    padded = dense(sequences, max(map(len, sequences)), 0, with_task_ids=True)
    if not alone:
        theirs = HuggingFace(ours, TrainSettings(), 0, torch.device("cpu")).model
        steps["hf"] = stepper(theirs, lambda: theirs(**padded).loss, precision, clock)
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            seconds = step()
            if repeat:  # the first step allocates and warms up
                taken[name].append(seconds)
    count = len(batch.tokens)
    rates = {name: count / statistics.median(seconds) for name, seconds in taken.items()}
    computed = padded["input_ids"].numel()
    return Figures(precision, lengths, len(sequences), count, computed, rates["ours"], rates.get("hf"))


def main() -> None:
    """Reads the command line, runs every combination and prints a table."""
    parser = argparse.ArgumentParser(description="Training steps of ernie2 and transformers side by side.")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--vocabulary", type=int, default=30_522)
    parser.add_argument("--tokens", type=int, default=4_096, help="real tokens a step")
    parser.add_argument("--lengths", nargs="+", default=["16-128", "64-512"])
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--alone", action="store_true", help="time ours only")
    parser.add_argument("--cpu-time", action="store_true", help="one thread, CPU seconds: for a machine others use too")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    given = parser.parse_args()
    clock = time.perf_counter
    if given.cpu_time:
        torch.set_num_threads(1)
        clock = time.process_time
    settings = EncoderSettings(layers=given.layers, hidden=given.hidden, heads=given.heads)
    figures = [
        compare(settings, given.vocabulary, lengths, precision, given.tokens, given.repeats, given.alone, clock)
        for lengths in given.lengths
        for precision in given.precision
    ]
    size = f"{given.layers} layers × {given.hidden}, vocabulary {given.vocabulary}"
    table = Table(title=f"training step on a CPU, {size}, {torch.get_num_threads()} threads")
    for column in ("lengths", "precision", "tokens", "padded", "ours tokens/s", "HF tokens/s", "ratio"):
        table.add_column(column, justify="right")
    for row in figures:
        hf, ratio = row.hf_tokens_per_second, row.ratio
        shown = ("–", "–") if hf is None or ratio is None else (f"{hf:,.0f}", f"{ratio:.2f}")
        counts = (f"{row.tokens:,}", f"{row.padded_tokens:,}", f"{row.ours_tokens_per_second:,.0f}")
        table.add_row(row.lengths, row.precision, *counts, *shown)
    Console().print(table)
    if given.json:
        machine = {"processor": platform.processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
        rows = [asdict(row) | {"ratio": row.ratio} for row in figures]
        given.json.write_text(json.dumps({"size": size, **machine, "figures": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
