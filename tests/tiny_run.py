"""A whole run in a second: tiny shards with a real tokeniser file, and a recipe for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tiny
from ernie2.config.settings import Recipe
from ernie2.runs.recipes import load_recipe
from ernie2.shards.store import AnnotatedDocument, Shards
from ernie2.shards.tokenizer import load_tokenizer
from ernie2.storage.json_files import read_checked_json, write_checked_json
from ernie2.training.run_record import FORMAT, fingerprint


def write_shards(
    folder: Path,
    documents: Sequence[AnnotatedDocument] | None = None,
    heldout: int = 4,
    seed: int = 7,
    pairs: Mapping[str, Sequence[AnnotatedDocument]] | None = None,
) -> Shards:
    """Twenty random documents, or those given, the last `heldout` held out; a vocabulary of 1,000 made-up words.

    `pairs`: further corpora, of labelled pairs, the last `heldout` of each held out.
    """
    rng = np.random.default_rng(seed)
    made = documents or [tiny.random_document(rng, name=f"doc{i}", group=i) for i in range(20)]
    corpora = {"text": made, **(pairs or {})}
    kept = [document.name for corpus in corpora.values() for document in corpus[-heldout:]]
    tiny.write_corpora(folder, corpora, heldout=kept)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + [f"w{i}" for i in range(5, 900)]
    vocabulary += [f"##w{i}" for i in range(900, 1000)]
    file = folder / "vocab.txt"
    file.write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    tiny.give_tokenizer(folder, load_tokenizer(file, lowercase=True))
    return Shards(folder)


def recipe(folder: Path, **changes: Any) -> Recipe:
    """Four tasks, two iterations of four packs each, a one-layer encoder with dropout."""
    values: dict[str, Any] = {
        "name": "tiny",
        "run": str(folder / "run"),
        "corpora": {"text": {"path": "nowhere.txt"}},
        "tokenizer": {"train": 1000},
        "shards": {"folder": str(folder / "shards")},
        "tasks": {name: {} for name in tiny.FOUR},
        "stages": {"steps": 5},
        "batch": {"batch_tokens": 256, "pack_tokens": 128, "sequence_tokens": 64},
        "encoder": {"layers": 1, "hidden": 16, "heads": 2, "position_rows": 64},
        "train": {"peak_lr": 1e-2, "precision": "fp32", "heldout_instances": 8, "checkpoint_every": 3, "log_every": 2},
    }
    for key, value in changes.items():
        values[key] = {**values[key], **value} if isinstance(value, dict) else value
    return load_recipe(values)


def write_run_json(run: Path, **facts: Any) -> None:
    """A run.json as `pretrain` writes it, of an empty recipe unless `facts` hold one; facts in one that is there stay
    but for those given."""
    file = run / "run.json"
    before = read_checked_json(file) if file.exists() else run_values()
    whole = {**before, **facts}
    run.mkdir(parents=True, exist_ok=True)
    write_checked_json(file, {**whole, "recipe_fingerprint": fingerprint(whole["recipe"])})


def run_values(**facts: Any) -> dict[str, Any]:
    """What run.json holds of a run of an empty recipe that reads no corpus and learns no task."""
    recipe = facts.get("recipe", {})
    data = {"shards": [], "fingerprint": "f", "tokenizer": "t", "vocab_size": 9, "corpora": {}, "usable": {}}
    return {
        "format": FORMAT,
        "name": "tiny",
        "about": "",
        "created": "2026-01-31T12:00:00+00:00",
        "finished": None,
        "status": "running",
        "seed": 0,
        "recipe": recipe,
        "recipe_fingerprint": fingerprint(recipe),
        "versions": {"ernie2": "0.2.0"},
        "environment": {},
        "job": None,
        "git": None,
        "device": "cpu",
        "precision": "fp32",
        "run_id": None,
        "parameters": 100,
        "initial_parameters": "abc",
        "data": data,
        "tasks": [],
        "stages": [],
        "batch_tokens": 256,
        "initialised_from": None,
        "extended_from": None,
        **facts,
    }


def around_steps(trainer, before=lambda step: None, after=lambda step: None):
    """Lets `before` and `after` be called around every step of a trainer, with its number."""
    next_inputs, after_step = trainer._next_inputs, trainer._after_step

    def reading():
        before(trainer.position.step + 1)
        return next_inputs()

    def taken(*step):
        after(trainer.position.step)
        after_step(*step)

    trainer._next_inputs, trainer._after_step = reading, taken
