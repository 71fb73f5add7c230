"""Checkpoints: parameters, the optimizer's state and the position, written whole or not at all, verified when read.

    RUN/checkpoints/step_00001200/  model.safetensors  optimizer.safetensors  state.json

A checkpoint is written atomically; `state.json` carries the checksums of the other two and of itself. A checkpoint that
is damaged in any way is passed over, and left as it is. No pickles anywhere. The files are the same whatever number of
ranks wrote them, sharded or not, and any number goes on from them (`full_state`); only rank 0 touches the disk.
`Saver` writes beside training: a step waits for a copy in memory, the disk is waited for by a thread.
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

FORMAT = 2
_FILES = ("model.safetensors", "optimizer.safetensors")
_NAME = re.compile(r"step_(\d{8})$")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder that was found whole; `state` is its state.json."""

    folder: Path
    state: Mapping[str, Any]

    def parameters(self) -> dict[str, Tensor]:
        """The model's tensors by name."""
        return _load(self.folder / "model.safetensors")

    def optimizer_state(self) -> dict[str, Tensor]:
        """The optimizer's tensors by "KIND/NAME", such as "exp_avg/NAME" for every parameter under AdamW."""
        return _load(self.folder / "optimizer.safetensors")

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer, group: ProcessGroup | None = None) -> None:
        """Puts parameters and the optimizer's state back exactly, on all ranks of `group`; the first reads the files.

        Raises `CheckpointError` where names or shapes differ, or the state is that of another optimizer.
        """
        group, full = group or ProcessGroup(), None
        with group.shared_errors():
            if group.is_first:
                full = FullState(self.parameters(), self.optimizer_state())
                check_parameters(model, full.parameters, self.folder)
                _fit_optimizer(model, optimizer, full.optimizer, self.folder)
        scatter(model, optimizer, full, group)


def save(run: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> Path:
    """Writes checkpoint `step` of `run`, which one process trains, and waits for the disk."""
    full = gather(model, optimizer, ProcessGroup())
    assert full is not None
    return write(run, step, full, state)


def write(run: Path, step: int, full: FullState, state: Mapping[str, Any]) -> Path:
    """Write checkpoint `step` of `run` atomically.

    Raises `StorageError`, with the checkpoint before it whole, and `LockLost` where another process has the run.
    """
    confirm_lock(run)
    folder = run / "checkpoints" / _folder_name(step)
    again = (
        f"`ernie2 resume {run}` goes on from the checkpoint before" if _folders(run) else "give the same command again"
    )
    _move_damaged_aside(folder)
    with staged_folder(folder, replace=True, advice=f"Free space, then {again}.") as staging:
        save_tensors(staging / "model.safetensors", full.parameters)
        save_tensors(staging / "optimizer.safetensors", full.optimizer)
        files = {name: checksum(staging / name) for name in _FILES}
        write_checked_json(staging / "state.json", {"format": FORMAT, **state, "step": step, "files": files})
    log_debug(f"saved {folder}")
    return folder


def is_started(run: Path) -> bool:
    """Whether `run` holds a run there is something of: one that is done, or has a checkpoint, whole or damaged.

    A run stopped before its first checkpoint is none; it starts again from nothing.
    """
    if not is_run(run):
        return False
    return read_run(run).status == "done" or bool(_folders(run))


def _folders(run: Path) -> list[Path]:
    """The checkpoints of a run, whole or damaged, the oldest first."""
    return sorted(folder for folder in (run / "checkpoints").glob("step_*") if _NAME.search(folder.name))


def newest(run: Path) -> Checkpoint:
    """The newest whole checkpoint of a run; damaged ones and those of other runs are passed over and reported.

    Raises `CheckpointError` where there is none, or run.json is damaged.
    """
    record = read_run(run) if is_run(run) else None
    damage: list[str] = []
    for folder in reversed(_folders(run)):
        try:
            checkpoint = open_checkpoint(folder)
        except CheckpointError as error:
            damage.append(str(error))
            log_warning(f"Passing over a damaged checkpoint: {error}")
            continue
        if record is None or checkpoint.state.get("run_id") == record.run_id:
            return checkpoint
        damage.append(_of_another_run(checkpoint, record))
        log_warning(f"Passing over a checkpoint: {damage[-1]}")
    told = "\n".join(damage) or "It was stopped before its first: `ernie2 pretrain` as before starts it again."
    raise CheckpointError(f"{run} has no whole checkpoint to go on from. {told}")


def open_checkpoint(folder: Path) -> Checkpoint:
    """Open one checkpoint folder. Raises `CheckpointError` unless every byte in it is as it was written."""
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
        "there. Put back what belongs together."
    )


def prune(run: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints and those written at a stage's end.

    Damaged ones do not count and stay where they are.
    """
    states = {}
    for folder in _folders(run):
        with suppress(CheckpointError):
            states[folder] = _read_state(folder)
    for folder in list(states)[:-keep]:
        if not states[folder].get("stage_end"):
            discard_folder(folder)


def _read_state(folder: Path) -> dict[str, Any]:
    """state.json of a checkpoint. Raises `CheckpointError` where it is damaged or does not belong to this folder."""
    try:
        state = read_checked_json(folder / "state.json")
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{folder} is not a checkpoint (no state.json).") from None
    except DamagedFile as error:
        raise CheckpointError(str(error)) from error
    if state.get("format") != FORMAT:
        raise CheckpointError(f"{folder} has format {state.get('format')!r}; this version reads {FORMAT}.")
    if folder.name != _folder_name(state["step"]):
        raise CheckpointError(f"{folder} holds step {state['step']!r}: it was renamed, or its state.json is another's.")
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
    """Raises `CheckpointError` unless `parameters` are exactly those of `model`, by name and shape."""
    _compare(model.state_dict(), parameters, f"{where} does not fit this model")


def _fit_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, found: Mapping[str, Tensor], where: Path
) -> None:
    """Raises `CheckpointError` unless `found` is the state `optimizer` holds of `model`, by name and shape."""
    wanted = dict(optimizer_tensors(model, optimizer))
    ours, theirs = ({key.partition("/")[0] for key in tensors} for tensors in (wanted, found))
    if ours != theirs:
        raise CheckpointError(
            f"{where} holds the state of another optimizer: {_listed(theirs)} of each parameter, where this one has "
            f"{_listed(ours)}. Set train.optimizer, and train.momentum, as the run had them."
        )
    _compare(wanted, found, f"The optimizer's state in {where} does not fit this model")


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def _compare(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], message: str) -> None:
    missing, unknown = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    wrong = [
        f"{name} {tuple(found[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in found and found[name].shape != tensor.shape
    ]
    said = [
        f"{what}: {', '.join(names[:5])}"
        for what, names in (("missing", missing), ("not in the model", unknown), ("of another shape", wrong))
        if names
    ]
    if said:
        raise CheckpointError(f"{message}; {'; '.join(said)}.")


def _load(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}.") from error


class Saver:
    """Writes the checkpoints of `run` one after the other, and deletes all but the newest `keep` and the ends of
    stages.

    A context manager: leaving it waits for what is being written. What goes wrong is raised by whichever method is
    called next, as the `StorageError` it is. `then` is called in the thread with every checkpoint that is whole.
    """

    def __init__(self, run: Path, keep: int, then: Callable[[Path], None] | None = None) -> None:
        self._run, self._keep, self._then = run, keep, then
        self._thread = ThreadPoolExecutor(1, "ernie2-checkpoint")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def save(self, step: int, full: FullState, state: Mapping[str, Any]) -> None:
        """Begins to write checkpoint `step`, once the one before is written; `full` must not change any more."""
        self.finish()
        self._writing = self._thread.submit(self._write, step, full, deepcopy(state))  # training goes on and changes it

    def check(self) -> None:
        """Raises what went wrong so far; waits for nothing."""
        if self._writing is not None and self._writing.done():
            self.finish()

    def finish(self) -> None:
        """Waits until all is on the disk."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, step: int, full: FullState, state: Mapping[str, Any]) -> None:
        folder = write(self._run, step, full, state)
        prune(self._run, self._keep)
        if self._then is not None:
            self._then(folder)
