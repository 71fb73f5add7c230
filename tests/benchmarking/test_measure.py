"""One small run, measured in every part: its figures are those of the packs it really trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_run
from ernie2.benchmarking import measure
from ernie2.benchmarking.flops import step_flops
from ernie2.benchmarking.measure import Bench
from ernie2.benchmarking.ours import Ours
from ernie2.benchmarking.pairs import pairs_recipe, write_pairs
from ernie2.benchmarking.peaks import Peak
from ernie2.benchmarking.waiting import loader_rate, waiting
from ernie2.runs.build import build
from ernie2.training.measuring import Taker, task_sets

CPU = torch.device("cpu")
NO_PEAK = Peak(1e9, "made up")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    tiny_run.write_shards(folder / "shards")
    return folder


def bench_of(folder: Path, steps: int, **changes: Any) -> Bench:
    recipe = tiny_run.recipe(folder, **changes)
    return Bench(recipe, measure.Shards(folder / "shards"), CPU, steps)


def test_tokens_and_operations_are_those_of_the_packs_trained_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of(folder, 5)
    monkeypatch.setattr(measure, "peak_of", lambda *_: NO_PEAK)
    trained, step = [], Ours.step

    def noted(side: Ours, packs: Any) -> Any:
        trained.append((packs, step(side, packs)))
        return trained[-1][1]

    monkeypatch.setattr(Ours, "step", noted)
    figures = bench.steps()["step"]
    assert len(trained) == figures["steps"] == 5
    model = bench.trainer.model
    for packs, made in trained:
        assert made.tokens == sum(int(pack.starts[-1]) for pack in packs) == made.with_padding
        assert made.flops == step_flops(model.settings, model.vocab_size, model.specs, packs)
    assert figures["kernels"]["padded"]["packs"] == sum(len(packs) for packs, _ in trained)
    assert figures["kernels"]["padded"]["longest"] <= 64
    assert figures["mfu"] > 0
    assert (figures["compiled"], figures["graphs"], figures["recompilations"]) == (False, None, None)
    assert figures["real_share"] == 1
    assert figures["measured_sets"] == figures["task_sets"] == len(bench.counts)


def test_compiled_graphs_are_counted_and_none_is_compiled_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    monkeypatch.setattr(measure, "peak_of", lambda *_: NO_PEAK)
    monkeypatch.setattr("ernie2.training.trainer.choose_compiling", lambda *_: True)
    compile_parts = measure.Trainer.__init__.__globals__["MultiTaskModel"].compile_parts
    monkeypatch.setattr(
        "ernie2.model.multitask.MultiTaskModel.compile_parts", lambda model: compile_parts(model, backend="eager")
    )
    figures = bench_of(folder, 8).steps()["step"]
    assert figures["compiled"]
    assert figures["graphs"] > 0
    assert figures["recompilations"] == 0
    assert 0 < figures["real_share"] < 1  # static shapes: the tail of a pack is computed too


def test_both_sides_train_on_the_same_instances(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr(measure, "peak_of", lambda *_: NO_PEAK)
    noted: list[Any] = []
    bench = bench_of(folder, 4)
    bench.note = lambda what, facts: noted.append((what, facts["side"], facts["seconds"]))
    made = bench.steps(["hf-padded", "hf-grouped"])
    assert sorted(side for _, side, _ in noted) == sorted(["ernie2", "padded", "grouped by length"] * 4)
    assert all(what == "step" and seconds > 0 for what, _, seconds in noted)
    padded, grouped = made["against"]["sides"]
    for side in (padded, grouped):
        assert side["steps"] == 4
        assert side["ratio"] == pytest.approx(made["step"]["tokens_per_second"] / side["tokens_per_second"])
        assert side["ratio_where_masked"] > 0
        assert 1 <= side["sequences_at_once"] <= 16
    assert padded["real_share"] <= grouped["real_share"] <= 1
    assert "ErnieForMaskedLM" in made["against"]["library"]


def test_pairs_have_fifty_tokens_on_average_and_a_loader_makes_them(folder: Path, tmp_path: Path) -> None:
    recipe = pairs_recipe(tiny_run.recipe(folder), tmp_path)
    shards = measure.Shards(folder / "shards")
    trainer = build(tiny_run.recipe(folder), shards).trainer
    pairs = write_pairs(tmp_path / "shards", shards, trainer.stream.vocabulary, pairs=300)
    fed = build(recipe, pairs).trainer
    assert list(fed.stream.tasks) == ["ir_relevance"]
    assert fed.model.settings == trainer.model.settings
    sets = list(task_sets(fed.plans))
    lengths = [
        length
        for _ in range(20)
        for pack in Taker(fed, "fp32", CPU).packs(sets[0])
        for length in (pack.starts[1:] - pack.starts[:-1]).tolist()
    ]
    assert 40 <= min(lengths) <= max(lengths) <= 60
    rate = loader_rate(fed.stream, sets, seconds=0.05)
    assert rate.instance_tokens == pytest.approx(50, abs=5)
    assert rate.tokens_per_second == pytest.approx(rate.instances_per_second * rate.instance_tokens)


@pytest.mark.parametrize(("given", "needed"), [((1, 1), (2, 2)), ((4, 0), (4, 0)), ((2, 16), (2, 16))])
def test_pairs_get_the_segment_types_and_task_ids_they_need(
    folder: Path, given: tuple[int, int], needed: tuple[int, int]
) -> None:
    encoder = dict(zip(("segment_types", "task_ids"), given, strict=True))
    recipe = pairs_recipe(tiny_run.recipe(folder, tasks={"knowledge_masking": {}}, encoder=encoder), folder)
    assert (recipe.encoder.segment_types, recipe.encoder.task_ids) == needed
    assert recipe.batch == tiny_run.recipe(folder).batch


def test_the_share_waited_is_that_of_making_packs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = build(tiny_run.recipe(folder), measure.Shards(folder / "shards")).trainer
    # a clock that only packs and training move: 1 s a pack (two lanes), 6 s a step
    now = [0.0]
    monkeypatch.setattr("ernie2.benchmarking.waiting.time.perf_counter", lambda: now[0])
    monkeypatch.setattr("ernie2.batches.loader.time.monotonic", lambda: now[0])
    pack = trainer.stream.pack

    def slow_pack(*arguments: Any) -> Any:
        now[0] += 1.0
        return pack(*arguments)

    class SlowTaker:
        def train(self, packs: Any) -> float:
            now[0] += 6.0
            return 6.0

    monkeypatch.setattr(trainer.stream, "pack", slow_pack)
    made = waiting(SlowTaker(), trainer.stream, list(task_sets(trainer.plans)), 0, 3)  # type: ignore[arg-type]
    assert made.share == pytest.approx(2 / 8)
    assert (made.workers, made.steps) == (0, 3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_card_both_sides_tell_their_own_memory_and_nothing_is_compiled_again(folder: Path) -> None:
    """Theirs is not compiled here: that takes minutes of a card, and shows nothing about our code."""
    pytest.importorskip("transformers")
    bench = Bench(tiny_run.recipe(folder), measure.Shards(folder / "shards"), torch.device("cuda"), 8)
    made = bench.steps(["hf-padded", "hf-grouped"])
    assert made["step"]["memory_bytes"] > 12 * sum(p.numel() for p in bench.trainer.model.parameters())
    assert made["step"]["recompilations"] in (0, None)
    assert all(side["memory_bytes"] > 0 for side in made["against"]["sides"])
