"""Load a checkpoint of any supported format as a model with its tasks, for evaluation or a warm start."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ernie2.config.overrides import check_list
from ernie2.config.settings import EncoderSettings, Recipe
from ernie2.console import log_warning
from ernie2.errors import CheckpointError, ConfigError, ShardError
from ernie2.model.formats.loading import LoadedModel, load_model
from ernie2.model.formats.stored_model import StoredModel
from ernie2.model.heads import HeadSpec
from ernie2.model.multitask import MultiTaskModel
from ernie2.model.tensor_names import TASK_TABLE
from ernie2.runs.build import head_specs
from ernie2.runs.recipes import load_recipe
from ernie2.runs.sources import UNTRAINED, changed_labels, copy_by_label, find_tokenizer_file, open_run_or_checkpoint
from ernie2.shards.shard_folders import load_shards_tokenizer
from ernie2.shards.store import Shards
from ernie2.shards.tokenizer import SubwordTokenizer, load_tokenizer
from ernie2.tasks.base import Task, Vocabulary
from ernie2.tasks.building import build_tasks, task_ids, vocabulary_of
from ernie2.training.checkpoints import check_parameters, newest
from ernie2.training.run_record import is_run, read_run
from ernie2.training.state import Position


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A model, the tasks of its heads and their task ids; `recipe` is None if it is not a run."""

    model: MultiTaskModel
    tasks: Sequence[Task]
    ids: dict[str, int]
    recipe: Recipe | None
    checkpoint: Path
    """The folder of the parameters; for a run, one of its checkpoints."""
    trained: frozenset[str]
    """Tasks that at least one step has trained."""


def load_checkpoint(source: Path, shards: Shards) -> LoadedCheckpoint:
    """Load the model at `source` with all tasks it has heads for, for use on `shards`.

    Raises `CheckpointError` if `source` is not a checkpoint, `ShardError` if the shards have another tokeniser.
    """
    tokenizer = load_shards_tokenizer(shards)
    vocabulary = vocabulary_of(tokenizer)
    if is_run(source):
        record = read_run(source)
        _check_same_tokenizer(source, record.data.tokenizer, shards, source / "hf" / "tokenizer.json")
        recipe = load_recipe(record.recipe)
        tasks = _build_tasks(recipe.tasks, vocabulary, shards)
        model = MultiTaskModel(recipe.encoder, vocabulary.size, head_specs(tasks), recipe.seed)
        checkpoint = newest(source)
        parameters = checkpoint.parameters()
        check_parameters(model, parameters, checkpoint.folder)
        model.load_state_dict(parameters)
        ids = task_ids(list(recipe.tasks), recipe.encoder.task_ids)
        position = Position.of(checkpoint.state["position"])
        trained = position.trained([stage.iterations for stage in record.stages])
        return LoadedCheckpoint(model, tasks, ids, recipe, checkpoint.folder, trained)
    loaded = load_model(open_run_or_checkpoint(source))
    stored = loaded.stored
    if not stored.specs or not stored.task_ids:
        raise CheckpointError(
            f"{source} ({stored.layout}) has no pre-training heads of ernie2, so it cannot be evaluated. Train heads "
            "with `ernie2 pretrain RECIPE --init-from CHECKPOINT`."
        )
    _check_same_vocabulary(source, stored, tokenizer, shards, ())
    options = stored.metadata.get("ernie2_task_options", {})
    tasks = _build_tasks({name: options.get(name) for name in loaded.model.specs}, vocabulary, shards)
    for spec, expected in zip(loaded.model.specs.values(), head_specs(tasks), strict=True):
        if spec != expected:
            raise CheckpointError(
                f"{source}: head {spec} does not match task {spec.name!r} with the options in config.json ({expected})."
            )
    trained = frozenset(loaded.model.specs) - set(stored.metadata.get(UNTRAINED, ()))
    return LoadedCheckpoint(loaded.model, tasks, dict(stored.task_ids), None, source, trained)


def check_warm_start(source: str | Path | None, recipe: Recipe, grow: Sequence[str] = ()) -> None:
    """Raise like `warm_start` if the encoder of `source`, if any, cannot initialise a run of `recipe`; needs no shards.

    This rejects a wrong checkpoint before corpora are prepared. It ignores heads, and compares only the size of the
    vocabulary, if the recipe sets `tokenizer.file`.
    """
    check_list(grow, "grow")
    if source is None:
        if grow:
            raise ConfigError("--grow adds rows to the tables of a checkpoint: name one with --init-from.")
        return
    tokenizer = recipe.tokenizer
    rows = None if tokenizer.file is None else load_tokenizer(tokenizer.file, tokenizer.lowercase).vocab_size
    load_model(open_run_or_checkpoint(Path(source)), (), recipe.seed, recipe.encoder, rows, grow)


def warm_start(
    source: Path,
    settings: EncoderSettings,
    specs: Sequence[HeadSpec],
    seed: int,
    shards: Shards,
    labels: Mapping[str, Sequence[str]] | None = None,
    grow: Collection[str] = (),
) -> LoadedModel:
    """Return a new model with `settings` and the parameters of `source`, for a new run (a warm start).

    The report lists every tensor used, left out or newly initialised. Rows of the task embedding are matched by
    task name, whatever the order in either recipe; the row of a task that `source` lacks copies row 0. `labels`:
    task → classes, for tasks with classes from the data; rows of these heads are matched by class name. `grow`:
    tables that may get new rows (`model.formats.loading.GROWABLE`). The vocabulary is that of the shards; rows
    beyond it are left out. Raises like `load_checkpoint`.
    """
    ids = task_ids([spec.name for spec in specs], settings.task_ids)
    tokenizer = load_shards_tokenizer(shards)
    stored = open_run_or_checkpoint(source)
    _check_same_vocabulary(source, stored, tokenizer, shards, grow)
    options = stored.metadata.get("ernie2_task_options") or {}
    others = changed_labels({name: (given or {}).get("labels") for name, given in options.items()}, labels or {})
    # a head with other classes is loaded as it is, then its rows are copied by class name
    requested = [replace(spec, classes=len(others[spec.name][0])) if spec.name in others else spec for spec in specs]
    loaded = load_model(stored, requested, seed, settings, tokenizer.vocab_size, grow)
    if others:
        model = MultiTaskModel(settings, loaded.model.vocab_size, specs, seed)
        left_out, new = copy_by_label(loaded.model.state_dict(), model, others)
        report = replace(loaded.report, left_out=loaded.report.left_out + left_out, new=loaded.report.new + new)
        loaded = replace(loaded, model=model, report=report)
    if stored.task_ids:
        _reorder_task_rows(loaded.model, stored.task_ids, ids)
    return loaded


def _build_tasks(options: Mapping[str, Mapping[str, Any] | None], vocabulary: Vocabulary, shards: Shards) -> list[Task]:
    """Build the tasks of a checkpoint for evaluation on `shards`, which can differ from those of training.

    If the shards have none of the corpora that a task names, the task reads the ones it can use, with a warning; of
    labelled pairs, those without unknown labels.
    """
    here = {}
    for name, given in options.items():
        here[name] = dict(given or {})
        named, known = here[name].get("corpora"), here[name].get("labels")
        if not named or not set(named).isdisjoint(shards.corpora):
            continue
        fitting = [c.name for c in shards.corpora.values() if known and c.labels and set(c.labels) <= set(known)]
        here[name]["corpora"] = fitting or None
        log_warning(
            f"{name} was trained on {', '.join(named)}, which {shards.folder} does not have; reading "
            f"{', '.join(fitting) or 'all corpora it can use'} instead"
        )
    return build_tasks(here, vocabulary, shards.corpora)


def _reorder_task_rows(model: MultiTaskModel, old_ids: Mapping[str, int], new_ids: Mapping[str, int]) -> None:
    """Move the rows of the task embedding from `old_ids` to `new_ids`; a task without an old id copies row 0."""
    if TASK_TABLE not in (state := model.state_dict()):
        return
    table, before = state[TASK_TABLE], state[TASK_TABLE].clone()
    for name, row in new_ids.items():
        old_row = old_ids.get(name, 0)
        table[row] = before[old_row if old_row < len(before) else 0]


def _check_same_tokenizer(source: Path, fingerprint: str, shards: Shards, file: Path) -> None:
    if fingerprint != shards.tokenizer_fingerprint:
        raise ShardError(
            f"{shards.folder} was prepared with another tokeniser ({shards.tokenizer_fingerprint[:12]}) than {source} "
            f"({fingerprint[:12]}), so its ids mean other tokens. Prepare shards with "
            f"tokenizer.train=null tokenizer.file={file}."
        )


def _check_same_vocabulary(
    source: Path, stored: StoredModel, tokenizer: SubwordTokenizer, shards: Shards, grow: Collection[str]
) -> None:
    """Raise `ShardError` if ids of the shards mean other tokens than ids of the checkpoint.

    Checkpoints of ernie2 must have the same tokeniser; for others, the tokens are compared if there is a vocabulary
    file.
    """
    growing = "vocabulary" in grow
    file = find_tokenizer_file(source)
    if stored.tokenizer and not growing:
        _check_same_tokenizer(source, stored.tokenizer, shards, file or source / "hf" / "tokenizer.json")
    if file is not None:
        source_tokenizer = load_tokenizer(file)
        _warn_tokenizer_differences(file, source_tokenizer, shards, tokenizer)
        if stored.task_ids and not growing:
            _check_same_tokenizer(source, source_tokenizer.fingerprint, shards, file)
        shared = min(source_tokenizer.vocab_size, tokenizer.vocab_size)
        other = next((i for i in range(shared) if source_tokenizer.tokens[i] != tokenizer.tokens[i]), None)
        if other is not None:
            raise ShardError(
                f"{shards.folder} was prepared with another vocabulary than {source}: id {other} is "
                f"{tokenizer.tokens[other]!r} here and {source_tokenizer.tokens[other]!r} there. Prepare shards with "
                f"tokenizer.file={file}."
            )
    rows = stored.vocab_size if file is None else min(source_tokenizer.vocab_size, stored.vocab_size)
    if rows < tokenizer.vocab_size and not growing:
        raise ShardError(
            f"{source} has {rows} tokens, but the tokeniser of {shards.folder} has {tokenizer.vocab_size}. Prepare "
            "shards with the checkpoint's vocabulary (tokenizer.file), or add new rows with --grow vocabulary."
        )


def _warn_tokenizer_differences(file: Path, theirs: SubwordTokenizer, shards: Shards, ours: SubwordTokenizer) -> None:
    """Log guesses about the checkpoint's tokeniser, and warn if the shards' tokeniser normalises text differently."""
    for note in theirs.notes:
        log_warning(note)
    if theirs.normalizer != ours.normalizer:
        log_warning(
            f"warning: {shards.folder} was tokenised with {_rules(ours)}, the checkpoint's tokeniser with "
            f"{_rules(theirs)} ({file}). Prepare shards with tokenizer.file={file} unless this is intended."
        )


def _rules(tokenizer: SubwordTokenizer) -> str:
    rules = [f"{key}={json.dumps(value)}" for key, value in tokenizer.normalizer.items()]
    return " ".join(rules) or "rules other than BERT's"
