"""The loop: stages in order, steps of a stage in order, and what happens every so often."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

import torch

from ernie2.batches.batch import PackedBatch
from ernie2.batches.loader import Loader, default_workers, hosts_of
from ernie2.batches.packing import pack_of_nothing
from ernie2.batches.stages import Plan
from ernie2.batches.stream import Lane, Stream
from ernie2.config.settings import TrainSettings
from ernie2.console import progress, say
from ernie2.errors import RunFailed, RunStopped
from ernie2.learned import verdict_of
from ernie2.model.multitask import MultiTaskModel
from ernie2.processes import cores
from ernie2.training import checkpoints
from ernie2.training.bad_batch import keep
from ernie2.training.bad_steps import Taken, judge
from ernie2.training.checkpoints import Saver
from ernie2.training.data_check import DataCheck
from ernie2.training.distributed import World
from ernie2.training.evaluate import HeldOut
from ernie2.training.full_state import gather
from ernie2.training.interval import Interval
from ernie2.training.memory import reuse_freed_memory
from ernie2.training.mirror import Mirror
from ernie2.training.optimizers import build_optimizer
from ernie2.training.parallel import spread
from ernie2.training.records import NoRecords, Records
from ernie2.training.schedules import learning_rate, warmup_steps
from ernie2.training.signals import SAME_SECONDS, Stop
from ernie2.training.state import Convergence, Position
from ernie2.training.step import DTYPES, GlobalBatch, LossScale, StepSettings, Tally, choose_compiling, take_step
from ernie2.training.watchdog import Watchdog


class Trainer:
    """Trains `model` through `plans`, writing records and checkpoints into the run folder.

    Every rank of `world` has a trainer of its own, which makes and computes the packs of its lanes; the first writes.
    """

    def __init__(
        self,
        settings: TrainSettings,
        model: MultiTaskModel,
        stream: Stream,
        plans: Sequence[Plan],
        heldout: HeldOut,
        run: Path,
        *,
        seed: int,
        task_steps: int,
        loss_weights: Mapping[str, float],
        precision: str,
        device: torch.device,
        patience: int | None = None,
        least_gain: float = 0.0,
        world: World | None = None,
    ) -> None:
        self.settings, self.model, self.stream, self.plans = settings, model.to(device), stream, plans
        self.world = world or World(device=device)
        self.heldout, self.run = heldout, run
        self.records = Records(run) if self.world.first else NoRecords(run)
        self._numbers = self.world.lanes(stream.lanes)
        workers = loader_workers(settings.workers, device, len(self._numbers), plans, self.world.local_size)
        self.loader = Loader(stream, plans, workers, self._numbers)
        parallel = spread(model, self.world, settings.parallel, DTYPES[precision])
        self.optimizer = build_optimizer(model, settings)  # after the parameters were sharded
        self._seed = seed
        self._warmup = warmup_steps(settings, task_steps)
        self._precision, self._device = precision, device
        self._scale = LossScale() if precision == "fp16" else None
        self._step_settings = StepSettings(
            weights=loss_weights,
            clip=settings.clip,
            precision=precision,
            device=device,
            scale=self._scale,
            ranks=parallel,
        )
        self.model.encoder.recompute = settings.recompute
        if choose_compiling(settings.compile, device):
            self.model.compile_parts()
        self._patience, self._least_gain = patience, least_gain
        self.begin_at(Position([Lane() for _ in range(stream.lanes)]))
        self._turns = self.world.turns(stream.lanes)
        self._names = {row: name for name, row in stream.ids.items()}
        self._interval = Interval()
        self._freed_memory = reuse_freed_memory(device)
        mirror = Mirror(run, settings.mirror).send if settings.mirror and self.world.first else None
        self._saver = Saver(run, settings.keep_checkpoints, mirror)
        self.run_id = uuid4().hex
        """What run.json and every checkpoint of this run carry, so that those of another run are noticed."""
        self._peak_reached = 0.0
        self._restored = False
        self._taken: Taken | None = None
        self._saved = -1
        self._stop = Stop(self.world.any)
        self._watchdog = Watchdog(settings.watchdog_seconds, self.world.rank, self.world.size)
        self.data_check: DataCheck | None = None
        """What compares the shards beside the steps, where something does."""

    def restore(self, checkpoint: checkpoints.Checkpoint) -> None:
        """Take up exactly where `checkpoint` stands; metrics written after it are cut off.

        Raises `CheckpointError` where the checkpoint does not fit, or metrics written before it are damaged.
        """
        checkpoint.restore(self.model, self.optimizer, self.world)
        self.begin_at(Position.of(checkpoint.state["position"]))
        self.run_id = checkpoint.state.get("run_id", self.run_id)
        self._peak_reached = float(checkpoint.state["peak_reached"])
        if self._scale is not None and (scale := checkpoint.state.get("loss_scale")) is not None:
            self._scale.restore(scale)
        with self.world.together():
            self.records.cut(checkpoint.state["metrics"])
        self._restored = True

    def begin_at(self, position: Position) -> None:
        """Starts at `position` with the parameters and moments there are: what an extension does, once."""
        self._position = position
        self._lanes = [position.lanes[number] for number in self._numbers]

    @property
    def step(self) -> int:
        """Steps done so far."""
        return self._position.step

    def train(self) -> Position:
        """Runs to the end of the last stage; returns the final position.

        Raises `RunStopped` where a signal asks for it, with a checkpoint of the last step, and `RunFailed` where
        `max_bad_steps` in a row were not finite.
        """
        with self._stop, self._watchdog:
            return self._train()

    def _train(self) -> Position:
        at = self._position
        self._clock = time.monotonic() - at.seconds
        total = at.step - at.stage_step + sum(map(len, self.plans[at.stage :]))
        self.model.train()
        with self.loader, self._saver, progress("Pre-training", total, "steps", done=at.step) as bar:
            if not self._restored:
                say("Evaluating every task on held-out documents before the first step")
                self._evaluate("start")
                self._save(stage_end=False)  # so that a run killed at any instant can be resumed
            while at.stage < len(self.plans):
                plan = self.plans[at.stage]
                if at.stage_step == 0:
                    self._stop_if_asked()
                    self._begin_stage(plan)
                while at.stage_step < len(plan) and not self._converged(plan):
                    self._step(plan)
                    self._now_and_then(plan)
                    bar.advance(note=f"stage {at.stage + 1}/{len(self.plans)} {self._interval.note}")
                    if at.stage_step < len(plan) and not self._converged(plan):  # else the stage's end saves
                        self._stop_if_asked()
                self._end_stage(plan)
            self._saver.finish()
        return at

    def _converged(self, plan: Plan) -> bool:
        """Whether the stage may end: tasks without held-out documents cannot tell, so the others decide."""
        measured = [task for task in plan.tasks if task not in self.heldout.missing]
        return bool(measured) and self._position.convergence.reached(measured, self._patience)

    def _step(self, plan: Plan) -> None:
        at = self._position
        active, host, before = plan.at(at.stage_step), plan.host_at(at.stage_step), self._lanes
        packs, self._lanes = self._take_packs()
        tally = Tally.of(packs, self._names).over(self.world, list(self.stream.tasks))
        at.step, at.stage_step = at.step + 1, at.stage_step + 1
        for task in active:
            at.task_steps[task] = at.task_steps.get(task, 0) + 1
        rate = learning_rate(self.settings, self._warmup, at, self.plans, active)
        batch = GlobalBatch(
            packs=self._filled_up(packs),
            dropout_key=(self._seed, "dropout", at.step),
            counts=tally.scored,
            numbers=[self.world.rank + turn * self.world.size for turn in range(self._turns)],
        )
        result = take_step(self.model, self.optimizer, batch, self._step_settings, rate)
        at.tokens += tally.tokens
        for name, count in tally.seen.items():
            at.seen[name] = at.seen.get(name, 0) + count
        self._peak_reached = max(self._peak_reached, rate)
        self._settle()
        ours, lanes = dict(zip(self._numbers, packs, strict=True)), dict(zip(self._numbers, before, strict=True))
        self._taken = Taken(at.step, at.stage, host, active, ours, lanes, tally.tokens, rate, result)
        if result.finite.known or at.bad_steps + 1 >= self.settings.max_bad_steps:
            self._settle()
        self._freed_memory.trim_if_grown()
        self._watchdog.step_done()

    def _take_packs(self) -> tuple[list[PackedBatch], list[Lane]]:
        """The packs of the step that is due, those of this rank's lanes, and the lanes after it."""
        at = self._position
        self._watchdog.phase(f"making the batch of step {at.step + 1:,}")
        try:
            taken = self.loader.take(at.stage, at.stage_step, self._lanes)
        except Exception:
            if self.data_check is not None:
                self.data_check.finish()  # damaged shards are the first thing to tell
            if self.world.size == 1 and self._stop.soon(SAME_SECONDS):  # a signal to all processes ended a maker's too
                self._stop_if_asked()
            raise
        if self.data_check is not None:
            self.data_check.raise_damage()
        self._watchdog.phase(f"in step {at.step + 1:,}")
        return taken

    def _settle(self) -> None:
        """Takes in how the last step went; on CUDA one step later, when the answer is there, so that nothing waits.

        Not so where it may be the one bad step too many: after that none is taken.
        """
        taken, self._taken = self._taken, None
        if taken is None:
            return
        self._interval.add(taken.result, taken.rate, taken.tokens)
        if (why := judge(taken, self._position, self._scale, self.settings.max_bad_steps)) is None:
            return
        facts = {
            "run": str(self.run),
            "weights": dict(self._step_settings.weights),
            "clip": self.settings.clip,
            "precision": self._precision,
            "dropout_key": [self._seed, "dropout", taken.step],
            "loss_scale": 1.0 if self._scale is None else self._scale.value,
        }
        folder = keep(self.run / "bad_batch", taken, self.model, facts, self.world)
        raise RunFailed(
            f"{why} `python -m ernie2.training.replay {folder}` computes it again. The last checkpoint is whole; go on "
            f"from it with a lower train.peak_lr or a longer train.warmup (`--init-from {self.run}`)."
        )

    def _stop_if_asked(self) -> None:
        at = self._position
        if not self._stop.agreed():
            return
        self._log()
        if self._saved != at.step:
            self._save(stage_end=False)
        self._saver.finish()
        if not self.world.first:
            raise SystemExit(RunStopped.exit_code)
        raise RunStopped(
            f"{self._stop.name or 'a signal to another rank'} came; step {at.step:,} is done and saved. "
            f"`ernie2 resume {self.run}` goes on from there."
        )

    def _filled_up(self, packs: Sequence[PackedBatch]) -> list[PackedBatch]:
        """`packs`, and packs of nothing that make them as many as any other rank has."""
        vocabulary = self.stream.vocabulary
        nothing = pack_of_nothing(self.stream.caps, vocabulary.cls, vocabulary.sep)
        return [*packs, *[nothing] * (self._turns - len(packs))]

    def _now_and_then(self, plan: Plan) -> None:
        at, settings = self._position, self.settings
        last = at.stage_step == len(plan)
        save = at.step % settings.checkpoint_every == 0 and not last
        if last or save or at.step % settings.log_every == 0:
            self._log()
        if settings.evaluate_every and at.step % settings.evaluate_every == 0 and not last:
            self._evaluate("during")
        if save and not at.convergence.reached(plan.tasks, self._patience):  # else this step is the stage's end
            self._save(stage_end=False)

    def _begin_stage(self, plan: Plan) -> None:
        at = self._position
        self._peak_reached = 0.0
        self.records.write("stage", event="begin", stage=at.stage, step=at.step, time=time.time())
        said = ", ".join(f"{task} {count:,}" for task, count in plan.stage.iterations)
        say(f"Stage {at.stage + 1} of {len(self.plans)}: {said} ({len(plan):,} steps)")

    def _end_stage(self, plan: Plan) -> None:
        at = self._position
        done, planned = plan.done(at.stage_step), plan.done(len(plan))
        forfeited = {name: planned[name] - done[name] for name in plan.tasks if planned[name] > done[name]}
        if forfeited:
            self._log()
            say(f"Converged after {at.stage_step:,} of {len(plan):,} steps; forfeited: {forfeited}")
        self._evaluate("stage_end")
        self.records.write(
            "stage",
            event="end",
            stage=at.stage,
            step=at.step,
            time=time.time(),
            peak_lr_reached=self._peak_reached,
            iterations=done,
            forfeited=forfeited,
        )
        at.stage, at.stage_step, at.convergence = at.stage + 1, 0, Convergence()
        self._save(stage_end=True)

    def _evaluate(self, when: str) -> None:
        at = self._position
        self._watchdog.phase(f"evaluating after step {at.step:,}")
        trained = at.trained([dict(plan.stage.iterations) for plan in self.plans])
        tasks = self.heldout.evaluate(self.model, self._device, self._precision, self.world, trained)
        if when == "during":
            at.convergence.see({name: figures["loss"] for name, figures in tasks.items()}, self._least_gain)
        self._watchdog.step_done()
        self.records.write(
            "heldout", step=at.step, stage=at.stage, at=when, iterations=dict(at.task_steps), tasks=tasks
        )
        if when == "stage_end":
            for name, figures in tasks.items():
                say(
                    f"  {name:<26} held-out accuracy {figures['accuracy']:.3f}, "
                    f"loss {figures['loss']:.3f}: {verdict_of(figures).reason}"
                )

    def _log(self) -> None:
        at = self._position
        self._settle()
        at.seconds = time.monotonic() - self._clock
        if not self._interval.steps:
            return
        line = self._interval.line()
        if self._scale is not None:
            line["loss_scale"] = self._scale.value
        self._interval = Interval(note=self._interval.note)
        self.records.write("step", step=at.step, stage=at.stage, seconds=round(at.seconds, 3), tokens=at.tokens, **line)

    def _save(self, stage_end: bool) -> None:
        at, self._saved = self._position, self._position.step
        self._settle()
        self._watchdog.phase(f"saving the checkpoint of step {at.step:,}")
        at.seconds = time.monotonic() - self._clock
        self._saver.check()
        for rank, lanes in enumerate(self.world.gather([lane.state() for lane in self._lanes])):
            at.lanes[rank :: self.world.size] = map(Lane.of, lanes)
        full = gather(self.model, self.optimizer, self.world)
        if full is None:  # the first rank writes
            return
        state = {
            "run_id": self.run_id,
            "stage_end": stage_end,
            "position": at.state(),
            "peak_reached": self._peak_reached,
            "loss_scale": None if self._scale is None else self._scale.state(),
            "metrics": self.records.extent(),
        }
        self._saver.save(at.step, full, state)
        self._watchdog.step_done()


def loader_workers(wanted: int | None, device: torch.device, lanes: int, plans: Sequence[Plan], ranks: int = 1) -> int:
    """Processes that make batches for a rank of `lanes` lanes: as many as are `wanted`, by default none on a CPU.

    Beside a GPU `loader.default_workers` decides; `ranks` of a machine share its cores, and each trains with one.
    """
    if wanted is not None:
        return wanted
    return default_workers(lanes, len(hosts_of(plans)), cores() // ranks - 1) if device.type == "cuda" else 0
