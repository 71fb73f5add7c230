"""Made-up pairs are short, the model has what they need, and the input side is measured on them."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_run
from ernie2.batches.loader import Loader
from ernie2.benchmarking import input_pipeline
from ernie2.benchmarking.input_pipeline import loader_rate
from ernie2.runs.build import build
from ernie2.shards.store import Shards
from ernie2.training.measuring import StepRunner, task_sets
from pairs_input import measure, pairs_recipe, write_pairs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    tiny_run.write_shards(folder / "shards")
    return folder


def test_pairs_have_fifty_tokens_on_average_and_a_loader_makes_them(folder: Path, tmp_path: Path) -> None:
    recipe = pairs_recipe(tiny_run.recipe(folder), tmp_path)
    shards = Shards(folder / "shards")
    trainer = build(tiny_run.recipe(folder), shards).trainer
    pairs = write_pairs(tmp_path / "shards", shards, trainer.streams.vocabulary, pairs=300)
    fed = build(recipe, pairs).trainer
    assert list(fed.streams.tasks) == ["ir_relevance"]
    assert fed.model.settings == trainer.model.settings
    sets = list(task_sets(fed.plans))
    lengths = [
        length
        for _ in range(20)
        for pack in StepRunner(fed).packs(sets[0])
        for length in (pack.starts[1:] - pack.starts[:-1]).tolist()
    ]
    assert 40 <= min(lengths) <= max(lengths) <= 60
    rate = loader_rate(fed.streams, sets, seconds=0.05)
    assert rate["instance_tokens"] == pytest.approx(50, abs=5)
    assert rate["tokens_per_second"] == pytest.approx(rate["instances_per_second"] * rate["instance_tokens"])


@pytest.mark.parametrize(("given", "needed"), [((1, 1), (2, 2)), ((4, 0), (4, 0)), ((2, 16), (2, 16))])
def test_pairs_get_the_segment_types_and_task_ids_they_need(
    folder: Path, given: tuple[int, int], needed: tuple[int, int]
) -> None:
    encoder = dict(zip(("segment_types", "task_ids"), given, strict=True))
    recipe = pairs_recipe(tiny_run.recipe(folder, tasks={"knowledge_masking": {}}, encoder=encoder), folder)
    assert (recipe.encoder.segment_types, recipe.encoder.task_ids) == needed
    assert recipe.batch == tiny_run.recipe(folder).batch


def test_the_input_side_of_pairs_has_every_figure(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_pipeline, "Loader", lambda streams, plans, workers: Loader(streams, plans, 0))
    monkeypatch.setattr(
        "pairs_input.measure_input_pipeline", lambda *given: input_pipeline.measure_input_pipeline(*given, seconds=0.01)
    )
    side = measure(tiny_run.recipe(folder), Shards(folder / "shards"), tmp_path, steps=2, pairs=300)
    assert [fed["workers"] for fed in side["waiting"]] == [0, 1]
    assert side["one_process"]["instance_tokens"] == pytest.approx(50, abs=5)
