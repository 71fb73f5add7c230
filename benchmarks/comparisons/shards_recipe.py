"""A recipe for measurements on a folder of shards, without its corpus and recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ernie2.config.settings import Recipe
from ernie2.runs.recipes import load_recipe
from ernie2.shards.store import Shards

FOUR_TASKS = ("knowledge_masking", "capitalization_prediction", "token_document_relation", "sentence_reordering")
FIVE_TASKS = (*FOUR_TASKS, "sentence_distance")


def recipe_of_shards(folder: str | Path, overrides: Sequence[str] = (), tasks: Sequence[str] = FOUR_TASKS) -> Recipe:
    """Return a recipe of `tasks` on the documents in the shards of `folder`, without labelled pairs.

    Sizes are the recipe defaults (base model of the paper, 393,216 tokens per step, sequences up to 512), changed by
    `overrides` as on the command line. Raises `ShardError` or `StorageError` if `folder` has no shards, `ConfigError`
    for invalid overrides.
    """
    shards = Shards(folder)
    documents = [name for name, corpus in shards.corpora.items() if not corpus.labels]
    return load_recipe(
        {
            "name": "measured",
            "run": "runs/measured",
            "corpora": {name: {"path": "not-needed.jsonl"} for name in documents},
            "tokenizer": {"train": int(shards.facts.get("vocab_size", 30_522))},
            "shards": {"folder": str(folder)},
            "tasks": {name: {} for name in tasks},
            "stages": {"steps": 100, "max_epochs": 10_000},
            "train": {"heldout_instances": 16},
        },
        overrides,
    )
