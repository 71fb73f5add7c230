"""Checkpoints: parameters, optimizer state and position, written atomically and verified when read.

    RUN/checkpoints/step_00001200/  model.safetensors  optimizer.safetensors  state.json

`state.json` contains the checksums of all three files. A damaged checkpoint is skipped and not changed. There are no
pickles. The files do not depend on the number of ranks or on sharding, and any number of ranks can resume from them
(`full_state`). Only rank 0 accesses the disk. `Saver` writes in a thread: a step waits only for a copy in memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ernie2.console import log_debug, log_warning
from ernie2.errors import CheckpointError, DamagedFile
from ernie2.storage.arrays import save_tensors
from ernie2.storage.atomic import checksum, move_aside, staged_folder
from ernie2.storage.json_files import read_checked_json, write_checked_json
from ernie2.storage.locks import confirm_lock
from ernie2.storage.removing import discard_folder
from ernie2.training.distributed import ProcessGroup
from ernie2.training.full_state import FullState, gather, optimizer_tensors, scatter
from ernie2.training.run_record import RunRecord, is_run, read_run

FORMAT = 3
_FILES = ("model.safetensors", "optimizer.safetensors")
_NAME = re.compile(r"step_(\d{8})$")


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint; `state` is its state.json."""

    folder: Path
    state: Mapping[str, Any]

    def parameters(self) -> dict[str, Tensor]:
        """Load the model's tensors, by name."""
        return _load(self.folder / "model.safetensors")

    def optimizer_state(self) -> dict[str, Tensor]:
        """Load the optimizer's tensors, by "KIND/NAME", such as "exp_avg/NAME" for AdamW."""
        return _load(self.folder / "optimizer.safetensors")

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer, group: ProcessGroup | None = None) -> None:
        """Restore parameters and optimizer state on all ranks of `group`; the first rank reads the files.

        Raises `CheckpointError` if names or shapes differ, or if the state is of another optimizer.
        """
        group, full = group or ProcessGroup(), None
        with group.shared_errors():
            if group.is_first:
                full = FullState(self.parameters(), self.optimizer_state())
                check_parameters(model, full.parameters, self.folder)
                _fit_optimizer(model, optimizer, full.optimizer, self.folder)
        scatter(model, optimizer, full, group)


def save(run: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> Path:
    """Write checkpoint `step` of the single-process run `run` and wait for the disk."""
    full = gather(model, optimizer, ProcessGroup())
    assert full is not None
    return write(run, step, full, state)


def write(run: Path, step: int, full: FullState, state: Mapping[str, Any]) -> Path:
    """Write checkpoint `step` of `run` atomically.

    Raises `StorageError`, after which the previous checkpoint is still complete, and `LockLost` if another process has
    the run.
    """
    confirm_lock(run)
    folder = run / "checkpoints" / _folder_name(step)
    resume = f"resume from the previous checkpoint with `ernie2 resume {run}`"
    retry = resume if _folders(run) else "run the same command again"
    _move_damaged_aside(folder)
    with staged_folder(folder, replace=True, advice=f"Free space, then {retry}.") as staging:
        save_tensors(staging / "model.safetensors", full.parameters)
        save_tensors(staging / "optimizer.safetensors", full.optimizer)
        files = {name: checksum(staging / name) for name in _FILES}
        write_checked_json(staging / "state.json", {"format": FORMAT, **state, "step": step, "files": files})
    log_debug(f"saved {folder}")
    return folder


def is_started(run: Path) -> bool:
    """Return whether `run` contains a run that is done or has a checkpoint, complete or damaged.

    A run stopped before its first checkpoint counts as not started.
    """
    if not is_run(run):
        return False
    return read_run(run).status == "done" or bool(_folders(run))


def _folders(run: Path) -> list[Path]:
    """Return the checkpoint folders of a run, complete or damaged, the oldest first."""
    return sorted(folder for folder in (run / "checkpoints").glob("step_*") if _NAME.search(folder.name))


def newest(run: Path) -> Checkpoint:
    """Return the newest complete checkpoint of a run; damaged ones and those of other runs are skipped and reported.

    Raises `CheckpointError` if there is none, or if run.json is damaged.
    """
    record = read_run(run) if is_run(run) else None
    damage: list[str] = []
    for folder in reversed(_folders(run)):
        try:
            checkpoint = open_checkpoint(folder)
        except CheckpointError as error:
            damage.append(str(error))
            log_warning(f"Skipping a damaged checkpoint: {error}")
            continue
        if record is None or checkpoint.state.get("run_id") == record.run_id:
            return checkpoint
        damage.append(_of_another_run(checkpoint, record))
        log_warning(f"Skipping a checkpoint: {damage[-1]}")
    why = "\n".join(damage) or "It was stopped before its first: start it again with the same `ernie2 pretrain`."
    raise CheckpointError(f"{run} has no complete checkpoint to continue from. {why}")


def open_checkpoint(folder: Path) -> Checkpoint:
    """Open one checkpoint folder. Raises `CheckpointError` if any file has changed or is missing."""
    state = _read_state(folder)
    try:
        differing = [name for name in _FILES if checksum(folder / name) != state["files"][name]]
    except OSError as error:
        raise CheckpointError(f"{error.filename} cannot be read: {error.strerror}.") from error
    if differing:
        raise CheckpointError(f"{folder / differing[0]} does not match its checksum: the checkpoint is damaged.")
    return Checkpoint(folder, state)


def _of_another_run(checkpoint: Checkpoint, record: RunRecord) -> str:
    theirs, ours = (str(identity)[:8] for identity in (checkpoint.state.get("run_id"), record.run_id))
    return (
        f"{checkpoint.folder} is of another run than run.json (run_id {theirs}… and {ours}…): one of them was copied "
        "there. Restore the files of one run."
    )


def prune(run: Path, keep: int) -> None:
    """Delete all except the newest `keep` checkpoints and those of stage ends; damaged ones are neither counted nor
    deleted.
    """
    states = {}
    for folder in _folders(run):
        with suppress(CheckpointError):
            states[folder] = _read_state(folder)
    for folder in list(states)[:-keep]:
        if not states[folder].get("stage_end"):
            discard_folder(folder)


def _read_state(folder: Path) -> dict[str, Any]:
    """Read state.json. Raises `CheckpointError` if it is damaged or of another folder."""
    try:
        state = read_checked_json(folder / "state.json")
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{folder} is not a checkpoint (no state.json).") from None
    except DamagedFile as error:
        raise CheckpointError(str(error)) from error
    if state.get("format") != FORMAT:
        raise CheckpointError(f"{folder} has format {state.get('format')!r}; this version reads {FORMAT}.")
    if folder.name != _folder_name(state["step"]):
        raise CheckpointError(f"{folder} holds step {state['step']!r}: it was renamed, or its state.json was copied.")
    if sorted(state["files"]) != sorted(_FILES):
        raise CheckpointError(f"{folder / 'state.json'} does not name exactly {' and '.join(_FILES)}.")
    return state


def _move_damaged_aside(folder: Path) -> None:
    if folder.exists():
        try:
            open_checkpoint(folder)
        except CheckpointError:
            move_aside(folder, ".damaged")


def _folder_name(step: int) -> str:
    return f"step_{step:08d}"


def check_parameters(model: nn.Module, parameters: Mapping[str, Tensor], where: Path) -> None:
    """Raise `CheckpointError` unless names and shapes of `parameters` are those of `model`."""
    _compare(model.state_dict(), parameters, f"{where} does not fit this model")


def _fit_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor], where: Path
) -> None:
    """Raise `CheckpointError` unless names and shapes of `state` are those of `optimizer`."""
    expected = dict(optimizer_tensors(model, optimizer))
    ours, theirs = ({key.partition("/")[0] for key in tensors} for tensors in (expected, state))
    if ours != theirs:
        raise CheckpointError(
            f"{where} holds the state of another optimizer: {_listed(theirs)} of each parameter, but this one has "
            f"{_listed(ours)}. Set train.optimizer and train.momentum as in the run."
        )
    _compare(expected, state, f"The optimizer's state in {where} does not fit this model")


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def _compare(expected: Mapping[str, Tensor], loaded: Mapping[str, Tensor], message: str) -> None:
    missing, unknown = sorted(expected.keys() - loaded.keys()), sorted(loaded.keys() - expected.keys())
    wrong = [
        f"{name} {tuple(loaded[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in loaded and loaded[name].shape != tensor.shape
    ]
    problems = [
        f"{what}: {', '.join(names[:5])}"
        for what, names in (("missing", missing), ("not in the model", unknown), ("of another shape", wrong))
        if names
    ]
    if problems:
        raise CheckpointError(f"{message}; {'; '.join(problems)}.")


def _load(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}.") from error


class Saver:
    """Writes the checkpoints of `run` in a thread, and deletes old ones except the newest `keep` and stage ends.

    A context manager: leaving it waits for the thread. Errors of the thread are raised by the next method called.
    `on_written` is called in the thread with every complete checkpoint.
    """

    def __init__(self, run: Path, keep: int, on_written: Callable[[Path], None] | None = None) -> None:
        self._run, self._keep, self._on_written = run, keep, on_written
        self._thread = ThreadPoolExecutor(1, "ernie2-checkpoint")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def save(self, step: int, full: FullState, state: Mapping[str, Any]) -> None:
        """Start to write checkpoint `step` after the previous one; `full` must not change any more."""
        self.finish()
        self._writing = self._thread.submit(self._write, step, full, deepcopy(state))  # training changes it

    def check(self) -> None:
        """Raise an error of the thread, without waiting."""
        if self._writing is not None and self._writing.done():
            self.finish()

    def finish(self) -> None:
        """Wait until everything is on disk."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, step: int, full: FullState, state: Mapping[str, Any]) -> None:
        folder = write(self._run, step, full, state)
        prune(self._run, self._keep)
        if self._on_written is not None:
            self._on_written(folder)
