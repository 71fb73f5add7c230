"""The pre-training loop: stages and their steps, evaluation, checkpoints and hooks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from ernie2.batches.stages import StagePlan
from ernie2.batches.streams import DataStreams, StreamState
from ernie2.config.settings import Recipe
from ernie2.console import log_info, progress
from ernie2.errors import RunStopped
from ernie2.formatting import quantity
from ernie2.learned import verdict_of
from ernie2.model.multitask import MultiTaskModel
from ernie2.training.checkpoints import Checkpoint, Saver
from ernie2.training.distributed import ProcessGroup
from ernie2.training.evaluate import HeldOut
from ernie2.training.full_state import gather
from ernie2.training.hooks.base import Hook, Hooks, OpenRun, StepDone
from ernie2.training.memory import reuse_freed_memory
from ernie2.training.optimizers import build_optimizer
from ernie2.training.parallel import parallelize
from ernie2.training.records import Records
from ernie2.training.schedules import learning_rate, warmup_steps
from ernie2.training.state import Position
from ernie2.training.step import (
    DTYPES,
    Interval,
    LossScale,
    StepResult,
    StepSettings,
    choose_precision,
    should_compile,
    take_step,
)
from ernie2.training.step_inputs import StepInputReader, StepInputs


@dataclass(frozen=True)
class TrainingData:
    """The data of a run: data streams, the plan of each stage, and held-out instances.

    `max_iterations`: largest number of iterations of a task in the stages to train; the warm-up is a share of it.
    """

    streams: DataStreams
    plans: Sequence[StagePlan]
    heldout: HeldOut
    max_iterations: int


class Trainer:
    """Trains `model` by the stage plans of `data`, and calls `records` and `hooks`.

    Every rank of `group` has a trainer, which trains on the packs of its data streams; only the first rank writes.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: MultiTaskModel,
        data: TrainingData,
        records: Records,
        hooks: Sequence[Hook] = (),
        group: ProcessGroup | None = None,
    ) -> None:
        self.recipe, self.settings, self.records, self.group = recipe, recipe.train, records, group or ProcessGroup()
        self.streams, self.plans, self.heldout = data.streams, data.plans, data.heldout
        self.run = Path(recipe.run)
        self.run_id = uuid4().hex
        """Stored in run.json and in every checkpoint, so that checkpoints of another run are noticed."""
        settings, device = recipe.train, self.group.device
        self.precision = choose_precision(settings.precision, device)
        self.model = model.to(device)
        parallelism = parallelize(model, self.group, settings.parallel, DTYPES[self.precision])
        self.optimizer = build_optimizer(model, settings)  # after the parameters were sharded
        model.encoder.activation_checkpointing = settings.activation_checkpointing
        if should_compile(settings.compile, device):
            model.compile_parts()
        self._scale = LossScale() if self.precision == "fp16" else None
        weights = {name: task.options.loss_weight for name, task in data.streams.tasks.items()}
        self.step_settings = StepSettings(
            weights=weights,
            max_grad_norm=settings.max_grad_norm,
            precision=self.precision,
            device=device,
            scale=self._scale,
            parallelism=parallelism,
        )
        self._warmup = warmup_steps(settings, data.max_iterations)
        self.inputs = StepInputReader(data.streams, data.plans, settings.workers, recipe.seed, self.group)
        self.position = Position([StreamState() for _ in range(data.streams.count)])
        self._hooks = Hooks([records, *hooks])
        self._saver = Saver(self.run, settings.keep_checkpoints, self._hooks.checkpoint)
        self.freed_memory = reuse_freed_memory(device)
        self._interval, self._began, self._peak_lr = Interval(), time.monotonic(), 0.0
        self._unrecorded: StepDone | None = None
        self._restored, self._saved_step = False, -1

    def start_at(self, position: Position) -> None:
        """Start at `position` with the current parameters and moments, as an extended run does."""
        self.position = position
        self.inputs.start_at(position.stream_states)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from `checkpoint`; metrics written after it are cut off.

        Raises `CheckpointError` if the checkpoint does not fit, or if metrics written before it are damaged.
        """
        checkpoint.restore(self.model, self.optimizer, self.group)
        self.start_at(Position.of(checkpoint.state["position"]))
        self.run_id = checkpoint.state.get("run_id", self.run_id)
        self._peak_lr = float(checkpoint.state["peak_reached"])
        if self._scale is not None and (scale := checkpoint.state.get("loss_scale")) is not None:
            self._scale.restore(scale)
        with self.group.shared_errors():
            self.records.cut(checkpoint.state["metrics"])
        self._restored = True

    def train(self) -> Position:
        """Train to the end of the last stage and return the final position.

        Raises `RunStopped` if a hook stops the run, after saving a checkpoint, and errors that end it (see
        `Hook.required`).
        """
        position, plans = self.position, self.plans
        self.model.train()
        total = position.step - position.stage_step + sum(map(len, plans[position.stage :]))
        opened = self._hooks.opened(OpenRun(self.run, position.step, self.group.rank), self.group.shared_errors())
        with opened, self.inputs, self._saver, progress("Pre-training", total, "steps", done=position.step) as bar:
            self._began = time.monotonic() - position.seconds
            if not self._restored:
                log_info("Evaluating every task on held-out documents before the first step")
                self._evaluate("start")
                self._save()  # so that a run killed at any instant can be resumed
            for plan in plans[position.stage :]:
                if position.stage_step == 0:
                    self._begin_stage(plan)
                while not self._stage_is_done(plan):
                    inputs = self._next_inputs()
                    rate = self._count_step(inputs)
                    result = take_step(self.model, self.optimizer, inputs.batch, self.step_settings, rate)
                    self._after_step(plan, inputs, rate, result)
                    losses = f", losses: {self._interval.note}" if self._interval.note else ""
                    bar.advance(note=f"stage {position.stage + 1}/{len(plans)}{losses}")
                self._end_stage(plan)
            self._saver.finish()
        return position

    def _stage_is_done(self, plan: StagePlan) -> bool:
        """Return whether the stage ends here. Tasks without held-out documents are ignored for convergence."""
        position = self.position
        measured = [task for task in plan.tasks if task not in self.heldout.missing]
        converged = bool(measured) and position.convergence.has_converged(measured, self.recipe.stages.patience)
        return position.stage_step == len(plan) or converged

    def _next_inputs(self) -> StepInputs:
        step = self.position.step + 1
        self._hooks.phase(f"building the batch of step {step:,}")
        try:
            inputs = self.inputs.read(self.position)
        except Exception as error:
            problem = error  # Python unbinds `error` at the end of this clause
            self._hooks.each(lambda hook: hook.on_batch_error(problem))
            if self.group.size == 1:
                self._stop_if_asked()
            raise
        self._hooks.before_step(step)
        self._hooks.phase(f"in step {step:,}")
        return inputs

    def _count_step(self, inputs: StepInputs) -> float:
        """Count the step in the position, and return its learning rate."""
        position = self.position
        position.count_step(inputs.active, inputs.tokens, inputs.seen)
        rate = learning_rate(self.settings, self._warmup, position, self.plans, inputs.active)
        self._peak_lr = max(self._peak_lr, rate)
        return rate

    def _after_step(self, plan: StagePlan, inputs: StepInputs, rate: float, result: StepResult) -> None:
        """Record a step; log, evaluate, save and stop if due. `_end_stage` saves at the end of a stage."""
        position, settings = self.position, self.settings
        self._record_last_step()
        self._unrecorded = StepDone(position.step, position.stage, inputs, rate, result)
        at_limit = position.bad_steps + 1 >= settings.max_nonfinite_steps  # one more bad step ends the run
        if at_limit or result.finite.known:
            self._record_last_step()
        self.freed_memory.trim_if_grown()
        last = position.stage_step == len(plan)
        save = position.step % settings.checkpoint_every == 0
        if last or save or position.step % settings.log_every == 0:
            self._log()
        if settings.evaluate_every and position.step % settings.evaluate_every == 0 and not last:
            self._evaluate("during")
        if not self._stage_is_done(plan):
            if save:
                self._save()
            self._stop_if_asked()

    def _record_last_step(self) -> None:
        """Record the last step unless done already; deferred one step on CUDA to avoid a device sync."""
        done, self._unrecorded = self._unrecorded, None
        if done is not None:
            self._interval.add(done.result, done.rate, done.inputs.tokens)
            self.position.count_result(skipped=done.result.skipped, overflow=done.result.overflow)
            self._hooks.step(done, self.position)

    def _begin_stage(self, plan: StagePlan) -> None:
        self._stop_if_asked()
        position, self._peak_lr = self.position, 0.0
        self._hooks.line("stage", event="begin", stage=position.stage, step=position.step, time=time.time())
        tasks = ", ".join(f"{task} {count:,}" for task, count in plan.stage.iterations)
        log_info(f"Stage {position.stage + 1} of {len(self.plans)}: {quantity(len(plan), 'step')}; iterations: {tasks}")

    def _end_stage(self, plan: StagePlan) -> None:
        position = self.position
        done, planned = plan.iterations_before(position.stage_step), plan.iterations_before(len(plan))
        dropped_iterations = {name: planned[name] - done[name] for name in plan.tasks if planned[name] > done[name]}
        if dropped_iterations:
            self._log()
            log_info(
                f"Converged after {position.stage_step:,} of {quantity(len(plan), 'step')}; iterations dropped: "
                + ", ".join(f"{task} {count:,}" for task, count in dropped_iterations.items())
            )
        tasks = self._evaluate("stage_end")
        self._hooks.line(
            "stage",
            event="end",
            stage=position.stage,
            step=position.step,
            time=time.time(),
            peak_lr_reached=self._peak_lr,
            iterations=done,
            dropped_iterations=dropped_iterations,
        )
        for name, figures in tasks.items():
            accuracy, loss = figures["accuracy"], figures["loss"]
            log_info(f"  {name:<26} held-out accuracy {accuracy:.3f}, loss {loss:.3f}: {verdict_of(figures).reason}")
        position.end_stage()
        self._save(stage_end=True)

    def _evaluate(self, when: str) -> dict[str, dict[str, Any]]:
        position = self.position
        self._hooks.phase(f"evaluating after step {position.step:,}")
        trained = position.trained([dict(plan.stage.iterations) for plan in self.plans])
        tasks = self.heldout.evaluate(self.model, self.group.device, self.precision, self.group, trained)
        if when == "during":
            losses = {name: figures["loss"] for name, figures in tasks.items()}
            position.convergence.update(losses, self.recipe.stages.min_gain)
        self._hooks.line(
            "heldout",
            step=position.step,
            stage=position.stage,
            at=when,
            iterations=dict(position.task_steps),
            tasks=tasks,
        )
        return tasks

    def _log(self) -> None:
        position = self.position
        self._record_last_step()
        position.seconds = time.monotonic() - self._began
        if self._interval.steps:
            line = self._interval.line() | ({} if self._scale is None else {"loss_scale": self._scale.value})
            self._interval = Interval(note=self._interval.note)
            seconds = round(position.seconds, 3)
            self._hooks.line(
                "step", step=position.step, stage=position.stage, seconds=seconds, tokens=position.tokens, **line
            )

    def _save(self, *, stage_end: bool = False) -> None:
        position, self._saved_step = self.position, self.position.step
        self._record_last_step()
        self._hooks.phase(f"saving the checkpoint of step {position.step:,}")
        position.seconds = time.monotonic() - self._began
        self._saver.check()  # raises if writing an earlier checkpoint failed
        position.stream_states = self.inputs.states()
        full_state = gather(self.model, self.optimizer, self.group)
        if full_state is not None:  # the first rank writes
            state = {
                "run_id": self.run_id,
                "stage_end": stage_end,
                "position": position.state(),
                "peak_reached": self._peak_lr,
                "loss_scale": None if self._scale is None else self._scale.state(),
                "metrics": self.records.extent(),
            }
            self._saver.save(position.step, full_state, state)

    def _stop_if_asked(self) -> None:
        """Stop on all ranks, with a checkpoint, if a hook of any rank asks for it."""
        position, reason = self.position, self._hooks.stop_reason()
        if not self.group.any(reason is not None):
            return
        self._log()
        if self._saved_step != position.step:
            self._save()
        self._saver.finish()
        if not self.group.is_first:
            raise SystemExit(RunStopped.exit_code)
        why = "another rank received a signal" if reason is None else reason or "a hook stopped the run"
        raise RunStopped(f"{why}; step {position.step:,} is saved. `ernie2 resume {self.run}` continues from it.")
