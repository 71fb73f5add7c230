"""A checkpoint of any kind as a `StoredModel`: a run by its newest whole checkpoint, all others by their layout.

Also what to say of a run that is not finished, and rows of heads by the names of their classes: on a warm start a label
keeps its row wherever it stands in the list.
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
"""Key of ours in what is converted from a run: the tasks whose training had not begun."""
_TOKENIZERS = ("tokenizer.json", "vocab.txt")
_COMPANIONS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def open_run_or_checkpoint(source: Path) -> StoredModel:
    """What a checkpoint of any kind holds: a run folder, or whatever `open_stored_model` reads.

    Raises `CheckpointError` where it is not a checkpoint or damaged.
    """
    return _open_run(source) if is_run(source) else open_stored_model(source)


def find_tokenizer_file(source: Path) -> Path | None:
    """Return the tokeniser file that belongs to a checkpoint: in its folder, in RUN/hf, or in the shards of a run.

    Raises `ShardError` where those shards have another tokeniser now than the run was trained with, and
    `CheckpointError` where the file, or one that is read with it, is a link out of a checkpoint's folder: what it leads
    to would be written into folders that are published.
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
                    f"{one} is a link out of its folder, to {target}, and is not read: it would end up in what is "
                    "written. Where you trust it, put a copy in its place."
                )
    elif file is not None and file.parent != source / "hf" and load_tokenizer(file).fingerprint != recorded:
        raise ShardError(
            f"{file} is not the tokeniser {source} was trained with: its shards were replaced or changed. Prepare "
            f"those again from the same corpora and recipe, or finish the run (`ernie2 resume {source}`) where they "
            "still are."
        )
    return file


def load_checkpoint_tokenizer(source: Path) -> SubwordTokenizer | None:
    """That tokeniser, read; `TokenizerError` where it is there and cannot be."""
    file = find_tokenizer_file(source)
    return None if file is None else load_tokenizer(file)


def ernie2_config_keys(record: RunRecord, seen: Mapping[str, int]) -> dict[str, Any]:
    """Our keys of a Hugging Face configuration, from its record and the instances trained under each task id.

    `ernie2_task_ids`: task → row of the task table; `ernie2_task_instances`: instances trained under it;
    `ernie2_task_options`: its options, with the labels of tasks that have them from their data.
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
    specs = tuple(  # as many classes as a head's linear has rows, the vocabulary where it has none
        HeadSpec(task.name, task.level, rows.get(f"heads.{task.name}.linear.weight")) for task in record.tasks
    )
    per_word = vocabulary_tensors(specs)
    position = Position.of(checkpoint.state["position"])
    carried = ernie2_config_keys(record, position.seen)
    trained = position.trained([stage.iterations for stage in record.stages])
    if untrained := [task.name for task in record.tasks if task.name not in trained]:
        carried[UNTRAINED] = untrained
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
        task_ids=carried["ernie2_task_ids"],
        metadata=carried,
        pad_id=pieces.pad_id if (pieces := load_checkpoint_tokenizer(run)) else 0,
        tokenizer=record.data.tokenizer,
    )


def recipe_of(record: RunRecord, run: Path) -> Recipe:
    """The recipe in run.json, for `run` where it lies now, in the precision it began in on whatever machine."""
    train = {**record.recipe["train"], "precision": record.precision}
    return load_recipe({**record.recipe, "run": str(run), "train": train})


def stages_of(record: RunRecord) -> list[Stage]:
    """The stages in run.json as values."""
    return [Stage(tuple(stage.iterations.items()), stage.introduced) for stage in record.stages]


def shards_of_run(run: Path, record: RunRecord) -> Shards:
    """Return the shards a run was trained on, of one folder or several. Raises `ShardError` for others."""
    shards = Shards(*record.data.shards)
    if shards.fingerprint != record.data.fingerprint:
        raise ShardError(
            f"{shards.folder} holds other shards than those {run} was trained on: they were replaced. Prepare those "
            "again from the same corpora and recipe; or give shards to evaluate on with --data, or start a new run "
            "from this one with --init-from."
        )
    return shards


def unfinished_note(source: Path, checkpoint: str | Path) -> str | None:
    """Return the note on a run that is not finished; None for a finished run and for whatever is no run.

    `checkpoint` is the folder in RUN/checkpoints that was read.
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
        state, then = f"stopped at step {step:,} of {planned:,}", f"`ernie2 resume {source}` finishes it"
    return f"Note: {source} is not finished ({state}): what follows is of its last checkpoint; {then}."


Labels = Sequence[str]


def changed_labels(
    theirs: Mapping[str, Labels | None], ours: Mapping[str, Labels]
) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Task → (their classes, our classes), for tasks both sides have, whose classes or their order differ."""
    return {
        name: (tuple(known), tuple(labels))
        for name, labels in ours.items()
        if (known := theirs.get(name)) and tuple(known) != tuple(labels)
    }


def copy_by_label(
    theirs: Mapping[str, Tensor],
    model: MultiTaskModel,
    others: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Copy `theirs`, tensors by our names, into `model`: of heads whose classes are `others`, rows by their labels.

    A class they do not have keeps the start it has in `model`, which follows from the seed and the task's name. Returns
    in words which labels were left out and which are new.
    """
    rows: dict[str, tuple[Tensor, Tensor]] = {}
    left_out, new = [], []
    for task, (known, wanted) in others.items():
        shared = [label for label in wanted if label in known]
        to, come_from = (torch.tensor([labels.index(one) for one in shared]).long() for labels in (wanted, known))
        rows |= {f"heads.{task}.linear.{part}": (to, come_from) for part in ("weight", "bias")}
        if unknown := [label for label in wanted if label not in known]:
            new.append(f"heads.{task}, labels {quote_names(unknown)}")
        if dropped := [label for label in known if label not in wanted]:
            left_out.append(f"heads.{task}, labels {quote_names(dropped)}")
    for name, ours in model.state_dict().items():
        if name in rows and name in theirs:
            to, come_from = rows[name]
            ours[to] = theirs[name][come_from].to(ours.dtype)
        elif name in theirs:
            ours.copy_(theirs[name])
    return tuple(left_out), tuple(new)
