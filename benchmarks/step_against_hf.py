"""Alternating training steps: ernie2 on packs, and `ErnieForMaskedLM` as its users run it, on padded batches.

    python benchmarks/step_against_hf.py [--json FILE] [--repeats 5] [--precision fp32 bf16] [--lengths 16-128 64-512]

A step is forward, backward, clipping to norm 1.0 and fused AdamW. All sides use the same sequences (lengths uniform in
the range), masked positions (15 %), weights, size, dropout and precision. Hugging Face gets one batch padded to its
longest sequence, or batches grouped by length (`--against hf-grouped`), scores the vocabulary everywhere, and runs in a
separate process. All sides warm up by the same rule, then steps alternate. Reported are medians and the range of the
ratios; padding is not counted as tokens. `bench_against_hf.py` compares on the real stream of a recipe, with all tasks.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from comparisons.hf_sides import HFSideSettings, hf_sides
from comparisons.hugging_face import SIDES
from comparisons.process_settings import restart_with_variables
from comparisons.script import count, output_file, reported_errors
from ernie2.batches.batch import PackedBatch, Targets
from ernie2.benchmarking.mix import MeasuredStep
from ernie2.benchmarking.warm_up import warm_up
from ernie2.config.settings import EncoderSettings, TrainSettings
from ernie2.model.heads import HeadSpec
from ernie2.model.multitask import MultiTaskModel
from ernie2.training.measuring import TaskSet
from ernie2.training.memory import reuse_freed_memory
from ernie2.training.optimizers import build_optimizer
from ernie2.training.step import LocalBatch, StepSettings, take_step

MASKED = "knowledge_masking"


CPU = torch.device("cpu")


@dataclass(frozen=True)
class Figures:
    """One comparison; rates in real tokens/s, medians over repetitions; `ratios`: smallest and largest."""

    precision: str
    lengths: str
    sequences: int
    tokens: int
    padded_tokens: int
    ours_tokens_per_second: float
    side: str | None
    hf_tokens_per_second: float | None
    ratio: float | None
    ratios: tuple[float, float] | None
    warm_up_steps: int


def make_batch(shortest: int, longest: int, tokens: int, vocabulary: int, seed: int) -> PackedBatch:
    """Return sequences with lengths uniform in [shortest, longest], about `tokens` in total, 15 % masked."""
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


class _Ours:
    """Our training step, as in the trainer."""

    name = "ernie2"

    def __init__(self, model: MultiTaskModel, optimizer: torch.optim.Optimizer, settings: StepSettings) -> None:
        self._model, self._optimizer, self._settings = model, optimizer, settings
        self._freed_memory = reuse_freed_memory(CPU)
        self._number = 0

    def step(self, packs: Sequence[PackedBatch]) -> MeasuredStep:
        """Train one optimiser step; operations are not counted."""
        self._number += 1
        began = time.perf_counter()
        take_step(self._model, self._optimizer, LocalBatch.of(packs, (0, self._number)), self._settings, 1e-4)
        self._freed_memory.trim_if_grown()
        seconds, tokens = time.perf_counter() - began, sum(pack.real_tokens for pack in packs)
        return MeasuredStep(seconds, tokens, 0, tokens)


def compare(
    settings: EncoderSettings,
    vocabulary: int,
    lengths: str,
    precision: str,
    tokens: int,
    repeats: int,
    sides: list[str],
) -> list[Figures]:
    """Time our step and those of `sides` alternately on the same batch; return one row per side, or one of ours."""
    shortest, longest = (int(part) for part in lengths.split("-"))
    batch = make_batch(shortest, longest, tokens, vocabulary, seed=0)
    train = TrainSettings()
    model = MultiTaskModel(settings, vocabulary, [HeadSpec(MASKED, "token", None)], seed=0).train()
    optimizer = build_optimizer(model, train)
    step_settings = StepSettings(weights={MASKED: 1.0}, max_grad_norm=1.0, precision=precision, device=CPU)

    ours = _Ours(model, optimizer, step_settings)
    setting = HFSideSettings(train, 0, precision, CPU, longest)
    seconds: dict[str | None, list[float]] = {name: [] for name in (None, *sides)}
    padded = {}
    with hf_sides(model, setting, sides) if sides else nullcontext() as theirs:
        all_sides = [ours, *(theirs.sides if theirs else [])]
        warm_up_steps = warm_up(all_sides, lambda _: [batch], [TaskSet(MASKED, (MASKED,))], compiled=False)
        for _ in range(repeats):
            for name, side in zip((None, *sides), all_sides, strict=True):
                measured = side.step([batch])
                seconds[name].append(measured.seconds)
                padded[name] = measured.with_padding
    count, sequences = len(batch.tokens), len(batch.starts) - 1
    rates = {name: count / statistics.median(each) for name, each in seconds.items()}
    rows = []
    for name in sides or [None]:
        ratios = [b / a for a, b in zip(seconds[None], seconds[name], strict=True)] if name else []
        rows.append(
            Figures(
                precision,
                lengths,
                sequences,
                count,
                padded.get(name, count),
                rates[None],
                SIDES[name] if name else None,
                rates[name] if name else None,
                rates[None] / rates[name] if name else None,
                (min(ratios), max(ratios)) if ratios else None,
                warm_up_steps,
            )
        )
    return rows


@reported_errors()
def main() -> None:
    """Run every combination and print a table."""
    parser = argparse.ArgumentParser(description="Compare training steps of ernie2 and transformers.")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--vocabulary", type=int, default=30_522)
    parser.add_argument("--tokens", type=int, default=4_096, help="real tokens per step")
    parser.add_argument("--lengths", nargs="+", default=["16-128", "64-512"])
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--repeats", type=count, default=5)
    parser.add_argument("--against", nargs="*", default=["hf-padded", "hf-grouped"], choices=list(SIDES))
    parser.add_argument("--json", type=output_file, help="also write the figures here")
    given = parser.parse_args()
    settings = EncoderSettings(layers=given.layers, hidden=given.hidden, heads=given.heads)
    figures = [
        row
        for lengths in given.lengths
        for precision in given.precision
        for row in compare(settings, given.vocabulary, lengths, precision, given.tokens, given.repeats, given.against)
    ]
    size = f"{given.layers} layers × {given.hidden}, vocabulary {given.vocabulary}"
    warm = sorted({row.warm_up_steps for row in figures})
    title = (
        f"training step on a CPU, {size}, {torch.get_num_threads()} threads, {warm[0]} to {warm[-1]} steps of warm-up"
    )
    table = Table(title=title)
    for column in (
        "lengths",
        "precision",
        "tokens",
        "ours tokens/s",
        "compared with",
        "padded",
        "tokens/s",
        "ratio (range)",
    ):
        table.add_column(column, justify="right")
    for row in figures:
        shown = ["–"] * 4
        if row.ratios is not None:
            ratio = f"{row.ratio:.2f} ({row.ratios[0]:.2f}–{row.ratios[1]:.2f})"
            shown = [str(row.side), f"{row.padded_tokens:,}", f"{row.hf_tokens_per_second:,.0f}", ratio]
        table.add_row(row.lengths, row.precision, f"{row.tokens:,}", f"{row.ours_tokens_per_second:,.0f}", *shown)
    Console().print(table)
    if given.json:
        machine = {"processor": platform.processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
        rows = [asdict(row) for row in figures]
        given.json.write_text(json.dumps({"size": size, **machine, "figures": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    restart_with_variables()
    main()
