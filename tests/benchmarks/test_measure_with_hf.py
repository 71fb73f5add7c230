"""Both sides of a comparison train on the same instances, after a warm-up by the same rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_run
from comparisons.hf_sides import measure_with_hf
from ernie2.benchmarking import bench as bench_module
from ernie2.benchmarking.bench import Bench
from ernie2.benchmarking.flops import Peak

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("beside")
    tiny_run.write_shards(folder / "shards")
    return folder


def test_both_sides_train_on_the_same_instances(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr(bench_module, "device_peak", lambda *_: Peak(1e9, "made up"))
    noted: list[Any] = []
    bench = Bench(tiny_run.recipe(folder), bench_module.Shards(folder / "shards"), CPU, 4)
    bench.note = lambda what, facts: noted.append((what, facts["side"], facts["seconds"]))
    made = measure_with_hf(bench, ["hf-padded", "hf-grouped"])
    steps = sorted(side for what, side, _ in noted if what == "step")
    assert steps == sorted(["ernie2", "padded", "grouped by length"] * 4)
    assert all(what in ("warm_up", "step") and seconds > 0 for what, _, seconds in noted)
    padded, grouped = made["against"]["sides"]
    for side in (padded, grouped):
        assert side["steps"] == 4
        assert side["warm_up_steps"] >= 24
        assert side["ratio"] == pytest.approx(made["step"]["tokens_per_second"] / side["tokens_per_second"])
        assert side["ratio_where_masked"] > 0
        assert 1 <= side["sequences_at_once"] <= 16
    assert padded["real_share"] <= grouped["real_share"] <= 1
    assert "ErnieForMaskedLM" in made["against"]["library"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_both_sides_report_their_memory_and_nothing_is_recompiled(folder: Path) -> None:
    """Theirs is not compiled here: that takes minutes of a card, and shows nothing about our code."""
    pytest.importorskip("transformers")
    bench = Bench(tiny_run.recipe(folder), bench_module.Shards(folder / "shards"), torch.device("cuda"), 8)
    made = measure_with_hf(bench, ["hf-padded", "hf-grouped"])
    assert made["step"]["memory_bytes"] > 12 * sum(p.numel() for p in bench.trainer.model.parameters())
    assert made["step"]["recompilations"] in (0, None)
    assert all(side["memory_bytes"] > 0 for side in made["against"]["sides"])
