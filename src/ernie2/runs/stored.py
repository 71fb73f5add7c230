"""A checkpoint of any kind as a `Stored`: a run by its newest whole checkpoint, all others by their layout.

Also what to say of a run that is not finished, and rows of heads by the names of their classes: on a warm start a label
keeps its row wherever it stands in the list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ernie2.config.settings import EncoderSettings
from ernie2.errors import CheckpointError, ShardError
from ernie2.model.formats.layouts import Piece
from ernie2.model.formats.opening import Stored, open_stored
from ernie2.model.heads import HeadSpec
from ernie2.model.multitask import MultiTaskModel
from ernie2.model.tensor_names import vocabulary_tensors
from ernie2.shards.wordpieces import WordPieces, load_wordpieces
from ernie2.storage.links import outside_target
from ernie2.storage.locks import owner_of
from ernie2.tasks.building import listed
from ernie2.training.checkpoints import newest
from ernie2.training.run_record import RunRecord, TaskRecord, is_run, read_run
from ernie2.training.state import Position

UNTRAINED = "ernie2_untrained_tasks"
"""Key of ours in what is converted from a run: the tasks whose training had not begun."""
_TOKENIZERS = ("tokenizer.json", "vocab.txt")
_COMPANIONS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def open_any(source: Path) -> Stored:
    """What a checkpoint of any kind holds: a run folder, or whatever `open_stored` reads.

    Raises `CheckpointError` where it is not a checkpoint or damaged.
    """
    return _open_run(source) if is_run(source) else open_stored(source)


def tokenizer_beside(source: Path) -> Path | None:
    """Return the tokeniser file that belongs to a checkpoint: in its folder, in RUN/hf, or in the shards of a run.

    Raises `ShardError` where those shards have another tokeniser now than the run was trained with, and
    `CheckpointError` where the file, or one that is read with it, is a link out of a checkpoint's folder: what it leads
    to would be written into folders that are published.
    """
    folders = [source] if source.is_dir() else [source.parent]
    if folders[0].name == "params":
        folders.append(folders[0].parent)
    if is_run(source):
        folders = [source / "hf", *map(Path, read_run(source).data.shards)]
    file = next((file for folder in folders for name in _TOKENIZERS if (file := folder / name).is_file()), None)
    if file is not None and not is_run(source):
        _check_links(file.parent)
    elif file is not None and file.parent != source / "hf":
        _check_tokenizer(source, file)
    return file


def _check_links(folder: Path) -> None:
    for name in (*_TOKENIZERS, *_COMPANIONS):
        if (target := outside_target(folder / name)) is not None:
            raise CheckpointError(
                f"{folder / name} is a link out of its folder, to {target}, and is not read: it would end up in what "
                "is written. Where you trust it, put a copy in its place."
            )


def _check_tokenizer(run: Path, file: Path) -> None:
    if load_wordpieces(file).fingerprint != read_run(run).data.tokenizer:
        raise ShardError(
            f"{file} is not the tokeniser {run} was trained with: its shards were replaced or changed. Prepare those "
            f"again from the same corpora and recipe, or finish the run (`ernie2 resume {run}`) where they still are."
        )


def wordpieces_beside(source: Path) -> WordPieces | None:
    """That tokeniser, read; `TokenizerError` where it is there and cannot be."""
    file = tokenizer_beside(source)
    return None if file is None else load_wordpieces(file)


def carried_keys(record: RunRecord, seen: Mapping[str, int]) -> dict[str, Any]:
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


def _open_run(run: Path) -> Stored:
    record, checkpoint = read_run(run), newest(run)
    parameters, vocab_size = checkpoint.parameters(), record.data.vocab_size
    specs = tuple(_spec(task, parameters) for task in record.tasks)
    per_word = vocabulary_tensors(specs)
    position = Position.of(checkpoint.state["position"])
    carried = carried_keys(record, position.seen)
    trained = position.trained([stage.iterations for stage in record.stages])
    if untrained := [task.name for task in record.tasks if task.name not in trained]:
        carried[UNTRAINED] = untrained
    return Stored(
        where=str(checkpoint.folder),
        layout="run of ernie2",
        settings=EncoderSettings.model_validate(record.recipe["encoder"]),
        vocab_size=vocab_size,
        specs=specs,
        pieces={
            name: Piece(tensor[:vocab_size] if name in per_word else tensor, (name,))
            for name, tensor in parameters.items()
        },
        task_ids=carried["ernie2_task_ids"],
        carried=carried,
        pad_id=pieces.pad_id if (pieces := wordpieces_beside(run)) else 0,
        tokenizer=record.data.tokenizer,
    )


def _spec(task: TaskRecord, parameters: Mapping[str, Tensor]) -> HeadSpec:
    """The head a run has for a task: as many classes as its linear has rows, the vocabulary where it has none."""
    linear = parameters.get(f"heads.{task.name}.linear.weight")
    return HeadSpec(task.name, task.level, None if linear is None else len(linear))


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
    if (owner := owner_of(source)) is not None:
        state, then = f"in use by {owner}, saved at step {step:,} of {planned:,}", "wait for it"
    else:
        state, then = f"stopped at step {step:,} of {planned:,}", f"`ernie2 resume {source}` finishes it"
    return f"Note: {source} is not finished ({state}): what follows is of its last checkpoint; {then}."


Labels = Sequence[str]


@dataclass(frozen=True, slots=True)
class Moved:
    """Heads filled by label: names of their tensors, and in words what was left out and what is new."""

    tensors: frozenset[str]
    left_out: tuple[str, ...]
    new: tuple[str, ...]


def other_labels(
    theirs: Mapping[str, Labels | None], ours: Mapping[str, Labels]
) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Task → (their classes, our classes), for tasks both sides have, whose classes or their order differ."""
    return {
        name: (tuple(known), tuple(labels))
        for name, labels in ours.items()
        if (known := theirs.get(name)) and tuple(known) != tuple(labels)
    }


def rows_by_label(
    theirs: Mapping[str, Tensor],
    model: MultiTaskModel,
    others: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]],
) -> Moved:
    """Copies rows of `theirs`, tensors by our names, into the heads of `model` whose classes are `others`.

    A class they do not have keeps the start it has in `model`, which follows from the seed and the task's name.
    """
    tensors, left_out, new = set(), [], []
    state = model.state_dict()
    for task, (known, wanted) in others.items():
        shared = [label for label in wanted if label in known]
        to = torch.tensor([wanted.index(label) for label in shared], dtype=torch.long)
        come_from = torch.tensor([known.index(label) for label in shared], dtype=torch.long)
        for part in ("weight", "bias"):
            name = f"heads.{task}.linear.{part}"
            if name in theirs:
                state[name][to] = theirs[name][come_from].to(state[name].dtype)
                tensors.add(name)
        if unknown := [label for label in wanted if label not in known]:
            new.append(f"heads.{task}, labels {listed(unknown)}")
        if dropped := [label for label in known if label not in wanted]:
            left_out.append(f"heads.{task}, labels {listed(dropped)}")
    return Moved(frozenset(tensors), tuple(left_out), tuple(new))
