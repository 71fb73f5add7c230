"""What feeds training: the share of the time in which a step waits for its packs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tiny_run
from ernie2.benchmarking.input_pipeline import measure_loader_wait
from ernie2.runs.build import build
from ernie2.shards.store import Shards
from ernie2.training.measuring import StepRunner, task_sets


def test_the_share_waited_is_that_of_making_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_run.write_shards(tmp_path / "shards")
    trainer = build(tiny_run.recipe(tmp_path), Shards(tmp_path / "shards")).trainer
    # a clock that only packs and training move: 1 s a pack (two states), 6 s a step
    now = [0.0]
    monkeypatch.setattr("ernie2.benchmarking.input_pipeline.time.perf_counter", lambda: now[0])
    monkeypatch.setattr("ernie2.batches.loader.time.monotonic", lambda: now[0])
    pack = trainer.streams.pack

    def slow_pack(*arguments: Any) -> Any:
        now[0] += 1.0
        return pack(*arguments)

    class SlowRunner(StepRunner):
        def train(self, packs: Any) -> float:
            now[0] += 6.0
            return 6.0

    monkeypatch.setattr(trainer.streams, "pack", slow_pack)
    made = measure_loader_wait(SlowRunner(trainer), list(task_sets(trainer.plans)), 0, 3)
    assert made["share"] == pytest.approx(2 / 8)
    assert (made["workers"], made["steps"]) == (0, 3)
