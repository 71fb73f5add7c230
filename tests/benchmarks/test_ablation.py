"""Ablation: every variant trains on the same packs with its optimisations off; slowdowns equal values by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_run
from comparisons.ablation import ALL, NONE, Variant, VariantTimes, ablation_variants, slowdown, time_variants
from comparisons.shards_recipe import recipe_of_shards
from ernie2.benchmarking.measured_trainer import MeasuredTrainer
from ernie2.benchmarking.mix import MeasuredStep
from ernie2.benchmarking.warm_up import MIN_STEPS
from ernie2.model import optimizations
from ernie2.shards.store import Shards
from ernie2.training.measuring import TaskSet

CPU = torch.device("cpu")
A, B = TaskSet("a", ("a",)), TaskSet("b", ("b",))


@pytest.fixture
def two_optimizations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizations, "OPTIMIZATIONS", {"rows": "fewer rows", "sums": "fewer sums"})


@pytest.mark.usefixtures("two_optimizations")
def test_each_optimization_is_off_by_itself_and_several_together() -> None:
    assert ablation_variants(["rows", "sums"]) == [
        Variant(ALL),
        Variant("without rows", ("rows",)),
        Variant("without sums", ("sums",)),
        Variant(NONE, ("rows", "sums")),
    ]
    assert ablation_variants(["sums"]) == [Variant(ALL), Variant("without sums", ("sums",))]
    assert ablation_variants([]) == [Variant(ALL)]


@pytest.mark.usefixtures("two_optimizations")
def test_variants_train_on_the_same_packs_with_their_optimizations_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_run.write_shards(tmp_path / "shards")
    trained: list[tuple[int, tuple[bool, bool]]] = []

    def noted(side: MeasuredTrainer, packs: Any) -> MeasuredStep:
        trained.append((id(packs), (optimizations.is_enabled("rows"), optimizations.is_enabled("sums"))))
        kept.append(packs)
        return MeasuredStep(1.0, 10, 1, 10)

    kept: list[Any] = []
    monkeypatch.setattr(MeasuredTrainer, "step", noted)
    measured, seen = ablation_variants(["rows", "sums"]), []
    recipe, shards = tiny_run.recipe(tmp_path), Shards(tmp_path / "shards")
    shown: list[str] = []
    ended: list[int] = []
    times, counts = time_variants(
        recipe,
        shards,
        CPU,
        measured,
        steps=2,
        rounds=3,
        note=lambda form, *_: seen.append(form.name),
        advance=shown.append,
        after_round=lambda times, _: ended.append(len(times[-1].rounds[-1])),
    )
    assert shown[0] == "warm-up of every variant, step 1 of 24 to 64"
    assert shown[-1] == "every variant, round 3 of 3, task set 2 of 2"
    assert (len(shown), ended) == (MIN_STEPS + 3 * 2, [2, 2, 2])
    turns = [trained[at : at + 4] for at in range(0, len(trained), 4)]
    assert len(turns) == MIN_STEPS + 3 * 2
    for turn in turns:
        assert len({packs for packs, _ in turn}) == 1
        assert {on for _, on in turn} == {(True, True), (False, True), (True, False), (False, False)}
    assert [turn[0][1] for turn in turns[MIN_STEPS:][:3]] == [
        (True, True),
        (False, True),
        (False, True),
    ]  # another goes first
    assert sorted(seen) == sorted(form.name for form in measured for _ in range(6))
    assert [len(each.rounds) for each in times] == [3] * 4
    assert all(set(done) <= set(counts) and len(done) == 2 for each in times for done in each.rounds)


def test_a_gain_is_the_ratio_of_weighed_seconds_in_each_round() -> None:
    with_all = VariantTimes(Variant(ALL), rounds=[{A: 1.0, B: 2.0}, {A: 1.0, B: 2.0}, {A: 2.0, B: 2.0}])
    other = VariantTimes(Variant("without x", ("x",)), rounds=[{A: 2.0, B: 2.0}, {A: 1.0, B: 2.0}, {A: 4.0, B: 6.0}])
    # weights 3 and 1: (6 + 2) / (3 + 2), 1, (12 + 6) / (6 + 2)
    made = slowdown(with_all, other, {A: 3, B: 1})
    assert (made.median, made.least, made.most) == pytest.approx((1.6, 1.0, 2.25))
    only = slowdown(with_all, other, {A: 3, B: 1}, B)
    assert (only.median, only.least, only.most) == pytest.approx((1.0, 1.0, 3.0))


def test_a_folder_of_shards_is_recipe_enough(tmp_path: Path) -> None:
    tiny_run.write_shards(tmp_path / "shards")
    sizes = ["encoder.layers=1", "encoder.hidden=16", "encoder.heads=2", "batch.batch_tokens=256"]
    sizes += ["batch.pack_tokens=128", "batch.sequence_tokens=64", "train.precision=fp32"]
    recipe = recipe_of_shards(tmp_path / "shards", sizes)
    times, counts = time_variants(recipe, Shards(tmp_path / "shards"), CPU, [Variant(ALL)], steps=1, rounds=2)
    assert slowdown(times[0], times[0], counts).median == 1.0
    assert all(seconds > 0 for done in times[0].rounds for seconds in done.values())
