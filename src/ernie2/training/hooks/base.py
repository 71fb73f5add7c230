"""The interface of hooks, and how a run calls them.

The trainer computes; a hook observes, records, reports or stops the run. Events carry all data; a hook never accesses
the trainer. Only the trainer and hooks that run on every rank make collective calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ernie2.console import log_warning
from ernie2.errors import USER_CODE_ERRORS, Ernie2Error, RunFailed, user_code_location
from ernie2.training.state import Position
from ernie2.training.step import StepResult
from ernie2.training.step_inputs import StepInputs


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that starts: its output folder, the steps done before (above 0 after a resume), and this rank."""

    folder: Path
    step: int = 0
    rank: int = 0


@dataclass(frozen=True, slots=True)
class StepDone:
    """A completed optimiser step.

    `step` counts from 1, `stage` from 0; `rate`: the learning rate. Tensors in `result` are on the device; reading one
    waits for the step.
    """

    step: int
    stage: int
    inputs: StepInputs
    rate: float
    result: StepResult


class Hook:
    """Receives training events. Every method does nothing by default; override those you need.

    Each run creates its own hooks, without arguments. A method must not change its arguments. Pre-training calls
    all methods; fine-tuning only those that say so.
    """

    required: ClassVar[bool] = False
    """Whether an exception of this hook ends the run. Otherwise it is reported once, the hook is removed, and the run
    continues; an `Ernie2Error` always ends it."""
    every_rank: ClassVar[bool] = False
    """Whether every rank of a distributed run has this hook, not only the first."""

    @property
    def name(self) -> str:
        """Name in messages."""
        return f"hook {type(self).__qualname__}"

    def open(self, run: OpenRun) -> None:
        """Called before the first step, and before held-out evaluation. Also in fine-tuning, for every run."""

    def on_phase(self, doing: str) -> None:
        """Called before an activity that may take long, such as "building the batch of step 12"."""

    def on_batch_error(self, error: Exception) -> None:
        """Called if a batch could not be built: raise a more specific error here."""

    def before_step(self, step: int) -> None:
        """Called before `step`, when its batch is ready. Also in fine-tuning."""

    def on_step(self, done: StepDone, at: Position) -> None:
        """Called after a step; on CUDA one step later, when its result is known without waiting.

        `at`: position of the run. Also in fine-tuning, not delayed, with one stage and no stream states.
        """

    def on_line(self, line: Mapping[str, Any]) -> None:
        """Called with every line of metrics.jsonl. In fine-tuning one per epoch, of kind "epoch"."""

    def on_evaluate(self, line: Mapping[str, Any]) -> None:
        """Called after a held-out evaluation, with its line (kind "heldout")."""

    def on_stage_end(self, line: Mapping[str, Any]) -> None:
        """Called at the end of a stage, with its line (kind "stage", event "end")."""

    def on_checkpoint(self, folder: Path) -> None:
        """Called with each complete checkpoint on disk, in the thread that wrote it, during training."""

    def stop_reason(self) -> str | None:
        """Return why the run should stop, such as "received SIGTERM", or None; called after every step.

        All ranks then save and stop after the same step. Also in fine-tuning, without saving.
        """
        return None

    def close(self) -> None:
        """Called at the end, also after an error. Also in fine-tuning."""


class Hooks:
    """The hooks of one training, called in their order and closed in reverse."""

    def __init__(self, hooks: Sequence[Hook] = ()) -> None:
        self._hooks = list(hooks)

    def each(self, call: Callable[[Hook], None]) -> None:
        """Call `call` with every hook, such as `lambda hook: hook.on_phase("evaluating")`."""
        for hook in list(self._hooks):
            self._call(hook, call)

    def _call(self, hook: Hook, call: Callable[[Hook], None]) -> None:
        """Do `call` unless the hook was removed; handle exceptions according to `required`."""
        if hook not in self._hooks:
            return
        try:
            call(hook)
        except USER_CODE_ERRORS as error:
            ours = type(hook).__module__.startswith("ernie2.")
            if isinstance(error, Ernie2Error) or (hook.required and ours):
                raise
            failure = f"{type(error).__name__}: {error}{user_code_location(error)}"
            if hook.required:
                raise RunFailed(
                    f"the {hook.name} failed ({failure}), and the run ends because the hook has required = True. "
                    "Fix or remove the hook."
                ) from error
            if isinstance(error, SystemExit) and not ours:
                raise RunFailed(
                    f"the {hook.name} called sys.exit ({failure}). To stop a run and save it, return a reason from "
                    "stop_reason()."
                ) from error
            self._hooks.remove(hook)
            log_warning(f"The {hook.name} failed and is removed ({failure}); the run continues.", every_rank=True)

    @contextmanager
    def opened(self, run: OpenRun, shared_errors: AbstractContextManager[None] | None = None) -> Iterator[None]:
        """Open all hooks, and close the opened ones at the end; in `shared_errors`, an error of one rank ends all."""
        with ExitStack() as opened:
            with shared_errors or nullcontext():
                for hook in list(self._hooks):
                    opened.callback(self._call, hook, lambda hook: hook.close())
                    self._call(hook, lambda hook: hook.open(run))
            yield

    def line(self, kind: str, **values: Any) -> None:
        """Pass one line of metrics.jsonl to all hooks."""
        line = {"kind": kind, **values}
        self.each(lambda hook: hook.on_line(line))
        if kind == "heldout":
            self.each(lambda hook: hook.on_evaluate(line))
        if kind == "stage" and values["event"] == "end":
            self.each(lambda hook: hook.on_stage_end(line))

    def before_step(self, step: int) -> None:
        self.each(lambda hook: hook.before_step(step))

    def step(self, done: StepDone, at: Position) -> None:
        self.each(lambda hook: hook.on_step(done, at))

    def phase(self, doing: str) -> None:
        self.each(lambda hook: hook.on_phase(doing))

    def checkpoint(self, folder: Path) -> None:
        self.each(lambda hook: hook.on_checkpoint(folder))

    def stop_reason(self) -> str | None:
        """Return the first reason to stop, or None."""
        reasons: list[str | None] = []
        self.each(lambda hook: reasons.append(hook.stop_reason()))
        return next((reason for reason in reasons if reason is not None), None)
