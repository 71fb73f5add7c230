"""Open the source of a model as a `StoredModel`: the newest intact checkpoint of a run, or any other checkpoint.

Also the note about an unfinished run, and copying of head rows by class name for a warm start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ernie2.batches.stages import Stage
from ernie2.config.settings import EncoderSettings, Recipe
from ernie2.errors import CheckpointError, ShardError
from ernie2.model.formats.layouts import StoredTensor
from ernie2.model.formats.stored_model import StoredModel, open_stored_model
from ernie2.model.heads import HeadSpec
from ernie2.model.multitask import MultiTaskModel
from ernie2.model.tensor_names import vocabulary_tensors
from ernie2.runs.recipes import load_recipe
from ernie2.shards.store import Shards
from ernie2.shards.tokenizer import SubwordTokenizer, load_tokenizer
from ernie2.storage.links import external_link_target
from ernie2.storage.locks import lock_owner
from ernie2.tasks.building import quote_names
from ernie2.training.checkpoints import newest
from ernie2.training.run_record import RunRecord, is_run, read_run
from ernie2.training.state import Position

UNTRAINED = "ernie2_untrained_tasks"
"""Configuration key in checkpoints converted from a run: the tasks that no step has trained."""
_TOKENIZERS = ("tokenizer.json", "vocab.txt")
_COMPANIONS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def open_run_or_checkpoint(source: Path) -> StoredModel:
    """Open a run folder, or any checkpoint that `open_stored_model` reads.

    Raises `CheckpointError` if it is not a checkpoint or is damaged.
    """
    return _open_run(source) if is_run(source) else open_stored_model(source)


def find_tokenizer_file(source: Path) -> Path | None:
    """Return the tokeniser file of a checkpoint: in its folder, in RUN/hf, or in the shards of a run.

    Raises `ShardError` if these shards now have another tokeniser than in training, and `CheckpointError` if the file,
    or one read with it, is a link to outside the checkpoint's folder: its target would be copied to folders that are
    published.
    """
    folders = [source] if source.is_dir() else [source.parent]
    if folders[0].name == "params":
        folders.append(folders[0].parent)
    if is_run(source):
        data = read_run(source).data
        folders, recorded = [source / "hf", *map(Path, data.shards)], data.tokenizer
    file = next((file for folder in folders for name in _TOKENIZERS if (file := folder / name).is_file()), None)
    if file is not None and not is_run(source):
        for one in (file.with_name(name) for name in (*_TOKENIZERS, *_COMPANIONS)):
            if (target := external_link_target(one)) is not None:
                raise CheckpointError(
                    f"{one} is a link to a file outside its folder, {target}, which would be copied to the output. If "
                    "you trust it, replace the link by a copy."
                )
    elif file is not None and file.parent != source / "hf" and load_tokenizer(file).fingerprint != recorded:
        raise ShardError(
            f"{file} is not the tokeniser {source} was trained with: its shards were replaced or changed. Prepare them "
            f"again from the same corpora and recipe, or finish the run (`ernie2 resume {source}`) where the original "
            "shards are."
        )
    return file


def load_checkpoint_tokenizer(source: Path) -> SubwordTokenizer | None:
    """Load the tokeniser of a checkpoint, None if it has none. Raises `TokenizerError` if the file is invalid."""
    file = find_tokenizer_file(source)
    return None if file is None else load_tokenizer(file)


def ernie2_config_keys(record: RunRecord, seen: Mapping[str, int]) -> dict[str, Any]:
    """Return the keys of ernie2 in a Hugging Face configuration. `seen`: instances trained with each task id.

    `ernie2_task_ids`: task → row of the task embedding; `ernie2_task_instances`: task → instances trained with it;
    `ernie2_task_options`: task → options, including labels from the data.
    """
    ids = {task.name: task.id for task in record.tasks}
    return {
        "ernie2_task_ids": ids,
        "ernie2_task_instances": {name: seen.get(name, 0) for name in ids},
        "ernie2_task_options": dict(record.recipe["tasks"]),
    }


def _open_run(run: Path) -> StoredModel:
    record, checkpoint = read_run(run), newest(run)
    parameters, vocab_size = checkpoint.parameters(), record.data.vocab_size
    rows = {name: len(tensor) for name, tensor in parameters.items()}
    specs = tuple(  # classes: rows of the head's linear layer; None, the vocabulary, if it has no such layer
        HeadSpec(task.name, task.level, rows.get(f"heads.{task.name}.linear.weight")) for task in record.tasks
    )
    per_word = vocabulary_tensors(specs)
    position = Position.of(checkpoint.state["position"])
    metadata = ernie2_config_keys(record, position.seen)
    trained = position.trained([stage.iterations for stage in record.stages])
    if untrained := [task.name for task in record.tasks if task.name not in trained]:
        metadata[UNTRAINED] = untrained
    return StoredModel(
        where=str(checkpoint.folder),
        layout="run of ernie2",
        settings=EncoderSettings.model_validate(record.recipe["encoder"]),
        vocab_size=vocab_size,
        specs=specs,
        tensors={
            name: StoredTensor(tensor[:vocab_size] if name in per_word else tensor, (name,))
            for name, tensor in parameters.items()
        },
        task_ids=metadata["ernie2_task_ids"],
        metadata=metadata,
        pad_id=tokenizer.pad_id if (tokenizer := load_checkpoint_tokenizer(run)) else 0,
        tokenizer=record.data.tokenizer,
    )


def recipe_of(record: RunRecord, run: Path) -> Recipe:
    """Return the recipe in run.json with the current path of `run` and the precision the run started with."""
    train = {**record.recipe["train"], "precision": record.precision}
    return load_recipe({**record.recipe, "run": str(run), "train": train})


def stages_of(record: RunRecord) -> list[Stage]:
    """Return the stages in run.json."""
    return [Stage(tuple(stage.iterations.items()), stage.introduced) for stage in record.stages]


def shards_of_run(run: Path, record: RunRecord) -> Shards:
    """Return the shards a run was trained on. Raises `ShardError` if they were replaced."""
    shards = Shards(*record.data.shards)
    if shards.fingerprint != record.data.fingerprint:
        raise ShardError(
            f"{shards.folder} contains other shards than those {run} was trained on. Prepare them again from the same "
            "corpora and recipe, name the shards for evaluation with --data, or start a new run from this one with "
            "--init-from."
        )
    return shards


def unfinished_note(source: Path, checkpoint: str | Path) -> str | None:
    """Return a note about an unfinished run; None for a finished run or another kind of checkpoint.

    `checkpoint`: the folder in RUN/checkpoints that was read.
    """
    if not is_run(source):
        return None
    record = read_run(source)
    if record.status == "done":
        return None
    step, planned = int(Path(checkpoint).name.removeprefix("step_")), sum(stage.steps for stage in record.stages)
    if (owner := lock_owner(source)) is not None:
        state, then = f"in use by {owner}, saved at step {step:,} of {planned:,}", "wait for it"
    else:
        state, then = f"stopped at step {step:,} of {planned:,}", f"finish it with `ernie2 resume {source}`"
    return f"Note: {source} is not finished ({state}). Using its last checkpoint; {then}."


Labels = Sequence[str]


def changed_labels(
    theirs: Mapping[str, Labels | None], ours: Mapping[str, Labels]
) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Return task → (their classes, our classes) for tasks on both sides with other classes or another order."""
    return {
        name: (tuple(known), tuple(labels))
        for name, labels in ours.items()
        if (known := theirs.get(name)) and tuple(known) != tuple(labels)
    }


def copy_by_label(
    tensors: Mapping[str, Tensor],
    model: MultiTaskModel,
    others: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Copy `tensors`, under our names, to `model`; rows of heads in `others` are matched by label.

    A label that `tensors` lacks keeps its initial values from the seed and the task's name. Returns descriptions of the
    labels left out and of the new ones.
    """
    rows: dict[str, tuple[Tensor, Tensor]] = {}
    left_out, new = [], []
    for task, (old, labels) in others.items():
        shared = [label for label in labels if label in old]
        to, source = (torch.tensor([names.index(one) for one in shared]).long() for names in (labels, old))
        rows |= {f"heads.{task}.linear.{part}": (to, source) for part in ("weight", "bias")}
        if unknown := [label for label in labels if label not in old]:
            new.append(f"heads.{task}, labels {quote_names(unknown)}")
        if dropped := [label for label in old if label not in labels]:
            left_out.append(f"heads.{task}, labels {quote_names(dropped)}")
    for name, target in model.state_dict().items():
        if name in rows and name in tensors:
            to, source = rows[name]
            target[to] = tensors[name][source].to(target.dtype)
        elif name in tensors:
            target.copy_(tensors[name])
    return tuple(left_out), tuple(new)
