"""The protocol of hooks, and how a training calls them.

The trainer computes; a hook observes, keeps, reports, or asks for the end. A hook is handed what happened and never
reaches into the trainer. Collective calls stay in the trainer and in hooks that run on every rank.
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
    """The training that begins: its output folder, the steps done before (above 0 after a resume), and its rank."""

    folder: Path
    step: int = 0
    rank: int = 0


@dataclass(frozen=True, slots=True)
class StepDone:
    """An optimizer step that was taken.

    `step` counts from 1, `stage` from 0; `rate`: the learning rate. Figures in `result` lie on the device: reading one
    makes the host wait for it.
    """

    step: int
    stage: int
    inputs: StepInputs
    rate: float
    result: StepResult


class Hook:
    """What a training does beside its steps. Every method does nothing by default; override those you need.

    A hook is made anew for every training, without arguments where it is named on the command line. It must not change
    what it is given. Pre-training calls all methods; fine-tuning those that say so.
    """

    required: ClassVar[bool] = False
    """Whether an exception of this hook ends the run. Otherwise it is reported once, the hook is left out from there
    on, and the run goes on; an `Ernie2Error` always ends it."""
    every_rank: ClassVar[bool] = False
    """Whether each process of a distributed run has one, and not the first alone."""

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"hook {type(self).__qualname__}"

    def open(self, run: OpenRun) -> None:
        """Called before the first step, and before held-out evaluation. Also in fine-tuning, for every run."""

    def on_phase(self, doing: str) -> None:
        """Called when the run begins something that may take long, such as "making the batch of step 12"."""

    def on_batch_error(self, error: Exception) -> None:
        """Called where no batch could be made: raise here what explains it better."""

    def before_step(self, step: int) -> None:
        """Called when the batch of `step` is there, before it is trained. Also in fine-tuning."""

    def on_step(self, done: StepDone, at: Position) -> None:
        """Called after a step; on CUDA one step later, when its result is known without waiting.

        `at`: where the run stands. Also in fine-tuning, at once, with one stage and no stream states.
        """

    def on_line(self, line: Mapping[str, Any]) -> None:
        """Called with every line of metrics.jsonl. In fine-tuning with one an epoch, of kind "epoch"."""

    def on_evaluate(self, line: Mapping[str, Any]) -> None:
        """Called after a held-out evaluation, with its line (kind "heldout")."""

    def on_stage_end(self, line: Mapping[str, Any]) -> None:
        """Called at the end of a stage, with its line (kind "stage", event "end")."""

    def on_checkpoint(self, folder: Path) -> None:
        """Called with each checkpoint once it is whole on the disk, in the thread that wrote it, beside training."""

    def stop_reason(self) -> str | None:
        """Return why the run is to stop now, such as "SIGTERM came", or None; asked after every step.

        All ranks then save and stop after the same step. Also in fine-tuning, where such a run is not
        saved.
        """
        return None

    def close(self) -> None:
        """Called at the end, whatever it was. Also in fine-tuning."""


class Hooks:
    """The hooks of one training, called in their order and closed in reverse."""

    def __init__(self, hooks: Sequence[Hook] = ()) -> None:
        self._hooks = list(hooks)

    def each(self, call: Callable[[Hook], None]) -> None:
        """Pass every hook to `call`, such as `lambda hook: hook.on_phase("evaluating")`."""
        for hook in list(self._hooks):
            self._call(hook, call)

    def _call(self, hook: Hook, call: Callable[[Hook], None]) -> None:
        """Do `call` unless the hook was left out; handle what it raises as its `required` says."""
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
                    f"the {hook.name} failed ({failure}), and the run ends because its class says required = True. "
                    "Mend the hook or leave it out."
                ) from error
            if isinstance(error, SystemExit) and not ours:
                raise RunFailed(
                    f"the {hook.name} asked Python to exit ({failure}). To stop a run, and save it, a hook returns why "
                    "from stop_reason()."
                ) from error
            self._hooks.remove(hook)
            log_warning(
                f"The {hook.name} failed and is left out from here on ({failure}); the run goes on.", every_rank=True
            )

    @contextmanager
    def opened(self, run: OpenRun, shared_errors: AbstractContextManager[None] | None = None) -> Iterator[None]:
        """Open all hooks, and close those that were opened; inside `shared_errors` all ranks open theirs or none."""
        with ExitStack() as opened:
            with shared_errors or nullcontext():
                for hook in list(self._hooks):
                    opened.callback(self._call, hook, lambda hook: hook.close())
                    self._call(hook, lambda hook: hook.open(run))
            yield

    def line(self, kind: str, **values: Any) -> None:
        """Hand out one line of metrics.jsonl."""
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
        """Return the first reason there is to stop, if any."""
        reasons: list[str | None] = []
        self.each(lambda hook: reasons.append(hook.stop_reason()))
        return next((reason for reason in reasons if reason is not None), None)
