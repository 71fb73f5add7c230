"""Parts that train: what they compare is trained on the same packs."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
import tiny_run
from comparisons.ablation import ablation_variants
from ernie2.benchmarking import bench as bench_module
from ernie2.benchmarking.bench import Bench
from ernie2.benchmarking.flops import Peak
from gpu_parts import training
from gpu_parts.job import SCALES, Job
from gpu_parts.results import Results


def test_variants_train_on_the_same_packs_however_long_each_warms_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    documents = [tiny.random_document(rng, sentences=60, name=f"doc{i}", group=i) for i in range(8)]
    tiny_run.write_shards(tmp_path / "shards", documents, heldout=3)
    lengths = iter([1, 4])

    def warm_up(bench: Bench, _: Sequence[Any]) -> int:
        return len([bench.ours.runner.packs(bench.sets[0]) for _ in range(next(lengths))])

    monkeypatch.setattr(Bench, "warm_up", warm_up)
    monkeypatch.setattr(bench_module, "device_peak", lambda *_: Peak(1e9, "made up"))
    monkeypatch.setattr(training, "ablation_variants", lambda names: ablation_variants(names[:1]))
    results = Results(tmp_path, "c1")
    training.measure_ablation(
        Job("ablation", results, tmp_path / "shards", SCALES["tiny"], 300.0, None, time.monotonic())
    )
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_bytes().splitlines()]
    tokens: dict[str, list[int]] = {}
    for line in lines:
        if line["what"] == "step":
            tokens.setdefault(line["form"], []).append(line["tokens"])
    first, second = tokens.values()
    assert first == second
