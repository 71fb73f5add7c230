"""The recipes of the released models: the paper's settings and task sets, value by value, and Table 1."""

from __future__ import annotations

import pytest

from ernie2.config.settings import Recipe
from ernie2.model.encoder import padded_rows
from ernie2.runs.recipes import load_recipe

BIG = ("english-base", "english-large", "chinese-base", "chinese-large")
TEXT = {"english": ("encyclopedia", "books", "dialog"), "chinese": ("encyclopedia", "news", "dialog")}
TASKS = {
    "english": (
        "knowledge_masking",
        "capitalization_prediction",
        "token_document_relation",
        "sentence_reordering",
        "discourse_relation",
    ),
    "chinese": (
        "knowledge_masking",
        "sentence_reordering",
        "sentence_distance",
        "discourse_relation",
        "ir_relevance",
    ),
}


@pytest.fixture(params=BIG)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return load_recipe(request.param)


def test_a_step_is_393216_tokens_in_6_packs_and_a_task_gets_50000_of_them(recipe: Recipe) -> None:
    batch = recipe.batch
    assert (batch.batch_tokens, batch.pack_tokens, batch.packs, batch.sequence_tokens) == (393_216, 65_536, 6, 512)
    assert (recipe.stages.steps, recipe.stages.method) == (50_000, "continual_multitask")


def test_the_rate_peaks_after_4000_steps_at_the_paper_s_rate_for_the_language(recipe: Recipe) -> None:
    assert recipe.train.warmup == 4_000
    assert recipe.train.peak_lr == (5e-5 if recipe.name.startswith("english") else 1.28e-4)


def test_the_encoder_is_that_of_the_released_model(recipe: Recipe) -> None:
    encoder, (language, size) = recipe.encoder, recipe.name.split("-")
    assert (encoder.layers, encoder.hidden, encoder.heads) == {"base": (12, 768, 12), "large": (24, 1024, 16)}[size]
    assert encoder.activation == {"english": "gelu", "chinese": "relu"}[language]
    assert encoder.position_rows == (513 if recipe.name == "chinese-base" else 512)
    assert (encoder.segment_types, encoder.task_ids, encoder.norm_eps, encoder.dropout) == (4, 16, 1e-5, 0.1)
    rows = {"english-base": 30_522, "english-large": 30_522, "chinese-base": 18_000, "chinese-large": 12_800}
    assert recipe.tokenizer.train == rows[recipe.name]
    assert padded_rows(rows[recipe.name]) >= rows[recipe.name]


def test_the_tasks_are_the_released_model_s_and_read_what_table_1_gives_them(recipe: Recipe) -> None:
    language = recipe.name.split("-")[0]
    assert tuple(recipe.tasks) == TASKS[language]
    own = {"discourse_relation": ("discourse",), "ir_relevance": ("relevance",)}
    for task, options in recipe.tasks.items():
        assert tuple(options["corpora"]) == own.get(task, TEXT[language])
    pairs = {name for name, corpus in recipe.corpora.items() if corpus.pairs is not None}
    assert pairs == ({"discourse"} if language == "english" else {"discourse", "relevance"})
    assert {corpus.language for corpus in recipe.corpora.values()} == {"en" if language == "english" else "zh"}


def test_the_bound_on_epochs_admits_what_the_paper_s_own_figures_imply() -> None:
    # 50,000 steps of 393,216 tokens over the 171 M tokens of Table 2
    implied = 50_000 * 393_216 / 171e6
    assert (
        110 < implied < load_recipe("english-base").stages.max_epochs == load_recipe("english-large").stages.max_epochs
    )
    assert 50_000 * 393_216 / 1110e6 < load_recipe("chinese-base").stages.max_epochs == 40


def test_all_seven_contains_all_seven_tasks_of_the_paper() -> None:
    assert set(load_recipe("all-seven").tasks) == {*TASKS["english"], *TASKS["chinese"]}
    assert len(load_recipe("all-seven").tasks) == 7
