"""A checkpoint of any kind we read → a model with its tasks: a run folder, or a Hugging Face folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ernie2.annotate.shards import Shards
from ernie2.annotate.wordpieces import WordPieces, load_wordpieces
from ernie2.errors import CheckpointError, ShardError
from ernie2.model.heads import HeadSpec
from ernie2.model.hf import LoadedHf, load_hf
from ernie2.model.hf_names import TASK_TABLE
from ernie2.model.multitask import MultiTaskModel
from ernie2.progress import say
from ernie2.recipe_files import load_recipe
from ernie2.settings import EncoderSettings, Recipe
from ernie2.tasks.base import Task, Vocabulary
from ernie2.tasks.building import build_tasks
from ernie2.tasks.vocabulary import vocabulary_of
from ernie2.train.checkpoints import fit, newest
from ernie2.train.label_rows import Moved, other_labels, rows_by_label
from ernie2.train.pretraining import head_specs, task_ids
from ernie2.train.records import read_run


@dataclass(frozen=True)
class Loaded:
    """A model, the tasks its heads belong to and their ids; `recipe` where it comes from a run."""

    model: MultiTaskModel
    tasks: Sequence[Task]
    ids: dict[str, int]
    recipe: Recipe | None


@dataclass(frozen=True)
class WarmStart:
    """A model with parameters from elsewhere; `left_out`: theirs that found no place, `new`: ours they do not have."""

    model: MultiTaskModel
    left_out: tuple[str, ...]
    new: tuple[str, ...]


def load(source: Path, shards: Shards) -> Loaded:
    """The model at `source` with every task it has a head for, to be used on `shards`.

    Raises `CheckpointError` where `source` is no checkpoint, `ShardError` where the shards speak another tokeniser.
    """
    wordpieces = load_wordpieces(shards.folder / "tokenizer.json", lowercase=True)
    vocabulary = vocabulary_of(wordpieces)
    if (source / "run.json").exists():
        facts = read_run(source)
        _same_tokenizer(source, str(facts["data"]["tokenizer"]), shards, source / "hf" / "tokenizer.json")
        recipe = load_recipe(facts["recipe"])
        tasks = _tasks_here(recipe.tasks, vocabulary, shards)
        model = MultiTaskModel(recipe.encoder, vocabulary.size, head_specs(tasks), recipe.seed)
        checkpoint = newest(source)
        parameters = checkpoint.parameters()
        fit(model, parameters, checkpoint.folder)
        model.load_state_dict(parameters)
        return Loaded(model, tasks, task_ids(list(recipe.tasks), recipe.encoder.task_ids), recipe)
    loaded = load_hf(_folder(source))
    _same_vocabulary(source, loaded, wordpieces, shards)
    if not loaded.model.specs or not loaded.config.get("ernie2_task_ids"):
        raise CheckpointError(f"{source} has no pre-training heads of ernie2, so there is nothing to evaluate.")
    options = loaded.config.get("ernie2_task_options", {})
    tasks = _tasks_here({name: options.get(name) for name in loaded.model.specs}, vocabulary, shards)
    for spec, expected in zip(loaded.model.specs.values(), head_specs(tasks), strict=True):
        if spec != expected:
            raise CheckpointError(
                f"{source}: its head {spec} is not the one task {spec.name!r} has with the options in config.json "
                f"({expected})."
            )
    return Loaded(loaded.model, tasks, dict(loaded.config["ernie2_task_ids"]), None)


def warm_start(
    source: Path,
    settings: EncoderSettings,
    specs: Sequence[HeadSpec],
    seed: int,
    shards: Shards,
    labels: Mapping[str, Sequence[str]] | None = None,
) -> WarmStart:
    """A new model of `settings` with the parameters of `source`: a new run, not the old one resumed.

    Every tensor left out or newly initialised is named. Rows of the task table follow their tasks by name, whatever
    the order of either recipe; the row of a task `source` does not know copies row 0. `labels`: classes by task, of
    tasks whose classes are those of their data; the rows of such a head follow the names of the classes. Raises like
    `load`.
    """
    ids = task_ids([spec.name for spec in specs], settings.task_ids)
    wordpieces = load_wordpieces(shards.folder / "tokenizer.json", lowercase=True)
    if not (source / "run.json").exists():
        return _from_hf(_folder(source), settings, specs, seed, shards, wordpieces, ids, labels or {})
    facts = read_run(source)
    _same_tokenizer(source, str(facts["data"]["tokenizer"]), shards, source / "hf" / "tokenizer.json")
    model = MultiTaskModel(settings, wordpieces.vocab_size, specs, seed)
    theirs, ours = newest(source).parameters(), model.state_dict()
    others = other_labels({task["name"]: task["labels"] for task in facts["tasks"]}, labels or {})
    moved = rows_by_label(theirs, model, others)
    for name in (theirs.keys() & ours.keys()) - moved.tensors:
        if theirs[name].shape != ours[name].shape:
            raise CheckpointError(
                f"{source}: {name} has shape {tuple(theirs[name].shape)}, this recipe wants {tuple(ours[name].shape)}. "
                f"Give the recipe the encoder settings and task options of {source / 'run.json'}."
            )
        with torch.no_grad():
            ours[name].copy_(theirs[name])
    _rows_by_name(model, {task["name"]: task["id"] for task in facts["tasks"]}, ids)
    left_out, new = theirs.keys() - ours.keys(), ours.keys() - theirs.keys()
    return WarmStart(model, (*sorted(left_out), *moved.left_out), (*sorted(new), *moved.new))


def _from_hf(
    source: Path,
    settings: EncoderSettings,
    specs: Sequence[HeadSpec],
    seed: int,
    shards: Shards,
    wordpieces: WordPieces,
    ids: Mapping[str, int],
    labels: Mapping[str, Sequence[str]],
) -> WarmStart:
    """`warm_start` from a Hugging Face folder; a head with other classes is read with its own, then moved by name."""
    others = other_labels(_stored_labels(source), labels)
    asked = [replace(spec, classes=len(others[spec.name][0])) if spec.name in others else spec for spec in specs]
    loaded = load_hf(source, specs=asked, seed=seed, settings=settings)
    _same_vocabulary(source, loaded, wordpieces, shards)
    model, moved = loaded.model, Moved(frozenset(), (), ())
    if others:
        theirs, model = loaded.model.state_dict(), MultiTaskModel(settings, loaded.model.vocab_size, specs, seed)
        moved = rows_by_label(theirs, model, others)
        model.load_state_dict({**theirs, **{name: model.state_dict()[name] for name in moved.tensors}})
    if rows := loaded.config.get("ernie2_task_ids"):
        _rows_by_name(model, rows, ids)
    return WarmStart(model, (*loaded.left_out, *moved.left_out), (*loaded.new, *moved.new))


def _stored_labels(folder: Path) -> dict[str, list[str] | None]:
    """Task → names of its classes in a Hugging Face folder of ours; nothing in others, of which `load_hf` tells."""
    with suppress(OSError, ValueError, AttributeError):
        options = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("ernie2_task_options", {})
        return {name: given.get("labels") for name, given in options.items()}
    return {}


def _tasks_here(options: Mapping[str, Mapping[str, Any] | None], vocabulary: Vocabulary, shards: Shards) -> list[Task]:
    """The tasks of a checkpoint, to be measured on `shards`, which need not be those it was trained on.

    A task that was trained on named corpora of which these shards have none reads those it can instead, and says so;
    of labelled pairs, those that have no label it does not know.
    """
    here = {}
    for name, given in options.items():
        here[name] = dict(given or {})
        named, known = here[name].get("corpora"), here[name].get("labels")
        if not named or not set(named).isdisjoint(shards.corpora):
            continue
        fitting = [c.name for c in shards.corpora.values() if known and c.labels and set(c.labels) <= set(known)]
        here[name]["corpora"] = fitting or None
        say(
            f"{name} was trained on {', '.join(named)}, which {shards.folder} does not have; reading "
            f"{', '.join(fitting) or 'what it can use'} instead"
        )
    return build_tasks(here, vocabulary, shards.corpora)


def _rows_by_name(model: MultiTaskModel, theirs: Mapping[str, int], ours: Mapping[str, int]) -> None:
    """Moves rows of a task table filled in the order `theirs` to where `ours` wants them."""
    if TASK_TABLE not in (state := model.state_dict()):
        return
    table, before = state[TASK_TABLE], state[TASK_TABLE].clone()
    for name, row in ours.items():
        known = theirs.get(name, 0)
        table[row] = before[known if known < len(before) else 0]


def _folder(source: Path) -> Path:
    if (source / "config.json").exists():
        return source
    state = "holds neither run.json (a run) nor config.json (Hugging Face)" if source.exists() else "does not exist"
    raise CheckpointError(f"{source} is no checkpoint: it {state}.")


def _same_tokenizer(source: Path, theirs: str, shards: Shards, file: Path) -> None:
    if theirs != shards.tokenizer_fingerprint:
        raise ShardError(
            f"{shards.folder} was made with another tokeniser ({shards.tokenizer_fingerprint[:12]}) than {source} "
            f"({theirs[:12]}): its ids mean other tokens. Prepare shards with tokenizer.file={file}."
        )


def _same_vocabulary(source: Path, loaded: LoadedHf, wordpieces: WordPieces, shards: Shards) -> None:
    file = source / "tokenizer.json"
    if file.exists() and loaded.config.get("ernie2_task_ids"):
        _same_tokenizer(source, load_wordpieces(file, lowercase=True).fingerprint, shards, file)
    if loaded.model.vocab_size < wordpieces.vocab_size:
        raise ShardError(
            f"{source} has {loaded.model.vocab_size} token rows, the tokeniser of {shards.folder} "
            f"{wordpieces.vocab_size} tokens. Prepare shards with the checkpoint's own vocabulary (tokenizer.file)."
        )
