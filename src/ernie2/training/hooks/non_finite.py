"""Report steps whose loss or gradient is not finite, and end the run after too many in a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ernie2.batches.batch import PackedBatch
from ernie2.batches.streams import StreamState
from ernie2.config.settings import Recipe
from ernie2.console import log_warning
from ernie2.errors import RunFailed
from ernie2.model.multitask import MultiTaskModel
from ernie2.training.distributed import ProcessGroup
from ernie2.training.hooks.base import Hook, StepDone
from ernie2.training.parallel import full_tensor
from ernie2.training.replay import write_bad_batch
from ernie2.training.state import Position

_MOST_STREAMS = 4
"""Data streams named in a message; batch.json holds all."""


class NonFiniteSteps(Hook):
    """Reports steps that changed nothing, and ends the run after `train.max_nonfinite_steps` of them in a row.

    The batch of the last one is saved in RUN/bad_batch. In fp16, overflowing gradients with finite losses are not bad
    steps as long as the loss scale can still shrink.
    """

    required = True
    every_rank = True  # packs and states are gathered from all ranks

    def __init__(
        self, model: MultiTaskModel, recipe: Recipe, weights: Mapping[str, float], precision: str, group: ProcessGroup
    ) -> None:
        self._model, self._recipe, self._weights, self._group = model, recipe, weights, group
        self._precision, self._run = precision, Path(recipe.run)

    def on_step(self, done: StepDone, at: Position) -> None:
        """Report a skipped step; raise `RunFailed` if it is one too many."""
        if not done.result.skipped or done.result.overflow:
            return
        bad = done.result.bad_losses
        problem = f"the loss of {', '.join(bad)} is not finite" if bad else "a gradient is not finite"
        if self._precision == "fp16" and not bad:
            self._fail(done, f"step {done.step:,}: gradients overflow in fp16 even without loss scaling.")
        log_warning(f"Step {done.step:,} changed nothing: {problem}.")
        if at.bad_steps >= self._recipe.train.max_nonfinite_steps:
            self._fail(
                done,
                f"{_where(done)}: {problem}, the last of {at.bad_steps} such steps in a row, none of which changed "
                "anything.",
            )

    def _fail(self, done: StepDone, why: str) -> None:
        folder = self._run / "bad_batch"
        packs: dict[int, PackedBatch] = {}
        states: dict[str, Any] = {}
        ours = {
            str(number): {main_task: asdict(cursor) for main_task, cursor in state.items()}
            for number, state in done.inputs.states.items()
        }
        for rank_packs, rank_states in self._group.all_gather((done.inputs.packs, ours)):
            packs |= rank_packs
            states |= rank_states
        parameters = {name: full_tensor(parameter.detach()) for name, parameter in self._model.named_parameters()}
        if self._group.is_first:
            write_bad_batch(folder, packs, self._model, parameters, {**self._facts(done), "streams": states})
        raise RunFailed(
            f"{why} Replay it with `python -m ernie2.training.replay {folder}`. The last checkpoint is complete: start "
            f"from it with a lower train.peak_lr or a longer train.warmup (`--init-from {self._run}`)."
        )

    def _facts(self, done: StepDone) -> Mapping[str, Any]:
        """Return the step as JSON values for the replay; numbers that may not be finite as text."""
        return {
            "step": done.step,
            "stage": done.stage,
            "tasks": list(done.inputs.active),
            "lr": done.rate,
            "grad_norm": str(float(done.result.grad_norm)),
            "losses": {name: str(float(loss)) for name, loss in done.result.losses.items()},
            "counts": dict(done.result.counts),
            "run": str(self._run),
            "weights": dict(self._weights),
            "max_grad_norm": self._recipe.train.max_grad_norm,
            "precision": self._precision,
            "dropout_key": [self._recipe.seed, "dropout", done.step],
            "loss_scale": done.result.loss_scale,
        }


def _where(done: StepDone) -> str:
    """Return step, stage, tasks and the position of each data stream."""
    states = sorted(done.inputs.states.items())
    shown = [f"data stream {number} {_position(state, done.inputs.main_task)}" for number, state in states]
    more = f" and {len(shown) - _MOST_STREAMS} more" if len(shown) > _MOST_STREAMS else ""
    read = ", ".join(shown[:_MOST_STREAMS]) + more
    return f"step {done.step:,} of stage {done.stage + 1} ({', '.join(done.inputs.active)}; {read})"


def _position(state: StreamState, main_task: str) -> str:
    """Return the position of the main task in a data stream: "at document 12 of text"."""
    cursor = state.get(main_task)
    at = [] if cursor is None else [f"document {document} of {name}" for name, (document, _) in cursor.corpora.items()]
    return "at " + ", ".join(at) if at else "at its start"
