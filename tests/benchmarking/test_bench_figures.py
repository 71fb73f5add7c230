"""One small run, measured in every part: its figures are those of the packs it really trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_run
from ernie2.benchmarking import bench as bench_module
from ernie2.benchmarking.bench import Bench
from ernie2.benchmarking.flops import Peak, step_flops
from ernie2.benchmarking.measured_trainer import MeasuredTrainer
from ernie2.benchmarking.mix import MeasuredStep, MeasuredSteps
from ernie2.model.multitask import MultiTaskModel
from ernie2.shards.store import Shards

CPU = torch.device("cpu")
NO_PEAK = Peak(1e9, "made up")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    tiny_run.write_shards(folder / "shards")
    return folder


def bench_of(folder: Path, steps: int, **changes: Any) -> Bench:
    recipe = tiny_run.recipe(folder, **changes)
    return Bench(recipe, Shards(folder / "shards"), CPU, steps)


def test_tokens_and_operations_are_those_of_the_packs_trained_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of(folder, 5)
    monkeypatch.setattr(bench_module, "device_peak", lambda *_: NO_PEAK)
    trained, step = [], MeasuredTrainer.step

    def noted(side: MeasuredTrainer, packs: Any) -> Any:
        trained.append((packs, step(side, packs)))
        return trained[-1][1]

    monkeypatch.setattr(MeasuredTrainer, "step", noted)
    figures = bench.measure_steps()["step"]
    assert len(trained) == figures["steps"] == 5
    model = bench.trainer.model
    for packs, made in trained:
        assert made.tokens == sum(int(pack.starts[-1]) for pack in packs) == made.with_padding
        assert made.flops == step_flops(model.settings, model.vocab_size, model.specs, packs)
    assert figures["kernels"]["padded"]["packs"] == sum(len(packs) for packs, _ in trained)
    assert figures["kernels"]["padded"]["longest"] <= 64
    assert (figures["compiled"], figures["graphs"], figures["recompilations"]) == (False, None, None)
    assert figures["real_share"] == 1
    assert figures["measured_sets"] == figures["task_sets"] == len(bench.counts)


def test_mfu_is_the_share_of_the_peak_that_is_needed_for_real_tokens(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, taken = bench_of(folder, 1), MeasuredSteps()
    monkeypatch.setattr(bench_module, "device_peak", lambda *_: NO_PEAK)
    taken.add(bench.sets[0], MeasuredStep(seconds=2.0, tokens=100, flops=300_000_000, with_padding=120))
    assert bench.summarise(taken)["mfu"] == pytest.approx(0.15)  # 3e8 in 2 s, of 1e9 a second


def test_compiled_graphs_are_counted_and_none_is_compiled_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    monkeypatch.setattr(bench_module, "device_peak", lambda *_: NO_PEAK)
    monkeypatch.setattr("ernie2.training.trainer.should_compile", lambda *_: True)
    compile_parts = MultiTaskModel.compile_parts
    monkeypatch.setattr(
        "ernie2.model.multitask.MultiTaskModel.compile_parts", lambda model: compile_parts(model, backend="eager")
    )
    figures = bench_of(folder, 8).measure_steps()["step"]
    assert figures["compiled"]
    assert figures["graphs"] > 0
    assert figures["recompilations"] == 0
    assert 0 < figures["real_share"] < 1  # static shapes: the tail of a pack is computed too
