"""Measure the input pipeline on short synthetic labelled pairs, its most demanding case.

    python benchmarks/pairs_input.py [RECIPE] [OVERRIDES …] [--steps 10]

A token costs the loader most in short instances; a query with a title has about 50 tokens. Sizes, encoder and tokeniser
are those of RECIPE (demo-en); the tokens of the pairs are random. Prints the rate of one loader worker, and how long
training waits for packs, in the format of `ernie2 bench`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from comparisons.process_settings import restart_with_variables
from comparisons.script import count, reported_errors
from ernie2.benchmarking.input_pipeline import measure_input_pipeline
from ernie2.benchmarking.measured_trainer import MeasuredTrainer
from ernie2.benchmarking.warm_up import warm_up
from ernie2.cli.measuring import show_input
from ernie2.config.settings import Recipe
from ernie2.console import terminal_output
from ernie2.runs.build import build
from ernie2.runs.prepare import prepare_shards
from ernie2.runs.recipes import load_recipe
from ernie2.shards.shard_folders import TOKENIZER_FILES
from ernie2.shards.store import CASED, FORMAT, WORD_START, Shards, token_dtype, write_shard
from ernie2.storage.atomic import write_bytes
from ernie2.storage.json_files import write_checked_json
from ernie2.tasks.base import Vocabulary
from ernie2.training.measuring import task_sets

TASK, CORPUS = "ir_relevance", "pairs"
_LABELS = ("0", "1", "2")
_SPECIAL = 3
"""[CLS], and [SEP] after each text."""


@reported_errors()
def main() -> None:
    """Measure and print the input pipeline."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="?", default="demo-en", help="recipe file, or name of a shipped recipe")
    parser.add_argument("overrides", nargs="*", help="recipe values, such as train.precision=bf16")
    parser.add_argument("--steps", type=count, default=10, help="steps to measure for each number of workers")
    given = parser.parse_intermixed_args()
    with terminal_output(), tempfile.TemporaryDirectory(prefix="ernie2-pairs-") as aside:
        recipe = load_recipe(given.recipe, given.overrides)
        show_input(measure(recipe, prepare_shards(recipe, None), Path(aside), given.steps))


def measure(recipe: Recipe, shards: Shards, folder: Path, steps: int, pairs: int = 20_000) -> dict[str, Any]:
    """Measure the input pipeline on `pairs` synthetic pairs in `folder`, with the sizes of `recipe` and `shards`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    vocabulary = build(recipe, shards).trainer.streams.vocabulary
    made = build(pairs_recipe(recipe, folder), write_pairs(folder / "shards", shards, vocabulary, pairs=pairs))
    side, sets = MeasuredTrainer(made.trainer, made.record.precision, device), list(task_sets(made.trainer.plans))
    warm_up([side], side.runner.packs, sets, compiled=made.trainer.model.static_shapes)
    return measure_input_pipeline(side.runner, sets, steps)


def pairs_recipe(recipe: Recipe, folder: Path) -> Recipe:
    """Return the recipe with labelled pairs as the only corpus, with shards and run in `folder`.

    Sizes, encoder and optimiser are unchanged, except for at least two segment types and two task ids.
    """
    values = recipe.model_dump(mode="json")
    values |= {
        "corpora": {CORPUS: {"path": str(folder / "made-up.tsv"), "pairs": {}}},
        "tasks": {TASK: {}},
        "stages": {"method": "multitask", "steps": 1_000},
        "run": str(folder / "run"),
    }
    values["shards"]["folder"] = str(folder / "shards")
    encoder = values["encoder"]
    encoder["segment_types"] = max(2, encoder["segment_types"])
    encoder["task_ids"] = max(2, encoder["task_ids"]) if encoder["task_ids"] else 0
    return load_recipe(values)


def write_pairs(
    folder: Path, like: Shards, vocabulary: Vocabulary, tokens: int = 50, pairs: int = 20_000, seed: int = 0
) -> Shards:
    """Write shards of `pairs` pairs with an average of `tokens` tokens per instance, ± one fifth.

    The tokeniser is that of `like`. Raises `StorageError` if they cannot be written.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(tokens - tokens // 5, tokens + tokens // 5 + 1, pairs) - _SPECIAL
    first = np.maximum(1, lengths // 4)  # a query and a title
    sentences = np.concatenate([[0], np.cumsum(np.stack([first, lengths - first], axis=1).reshape(-1))])
    total = int(sentences[-1])
    columns = {
        "tokens": rng.choice(vocabulary.ordinary, total).astype(token_dtype(vocabulary.size)),
        "flags": np.full(total, WORD_START | CASED, np.uint8),
        "document_count": np.ones(total, np.uint16),
        "sentences": sentences,
        "paragraphs": np.arange(2 * pairs + 1),
        "documents": 2 * np.arange(pairs + 1),
        "split": (np.arange(pairs) % 100 == 0).astype(np.uint8),
        "group": np.arange(pairs, dtype=np.uint64),
        "label": (np.arange(pairs) % len(_LABELS)).astype(np.uint16),
    }
    shard = "pairs-00000"
    facts = {"tokenizer": like.tokenizer_fingerprint, "corpus": CORPUS, "labels": list(_LABELS)}
    write_shard(folder / CORPUS / shard, columns, [str(number) for number in range(pairs)], facts)
    counts = {label: int((columns["label"] == number).sum()) for number, label in enumerate(_LABELS)}
    corpus = {"language": "en", "licence": "made up", "shards": [shard], "labels": _LABELS, "label_counts": counts}
    whole = {"format": FORMAT, "tokenizer": like.tokenizer_fingerprint, "fingerprint": "made up"}
    advice = "Free space there, or set TMPDIR to another folder."
    for name in TOKENIZER_FILES:
        if (like.folder / name).exists():
            write_bytes(folder / name, (like.folder / name).read_bytes(), advice=advice)
    write_checked_json(folder / "shards.json", {**whole, "corpora": {CORPUS: corpus}}, advice=advice)
    return Shards(folder)


if __name__ == "__main__":
    restart_with_variables()
    main()
