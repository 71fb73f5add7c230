"""The inputs of each step on this rank: the packs of its data streams, with counts over all ranks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from ernie2.batches.batch import PackedBatch
from ernie2.batches.loader import Loader, default_workers, main_tasks_of
from ernie2.batches.packing import empty_pack
from ernie2.batches.stages import StagePlan
from ernie2.batches.streams import DataStreams, StreamState
from ernie2.processes import cores
from ernie2.training.distributed import ProcessGroup
from ernie2.training.state import Position
from ernie2.training.step import LocalBatch


@dataclass(frozen=True, slots=True)
class StepInputs:
    """The tasks and the batch of one step.

    `main_task`: the task whose data is read; `active`: all tasks that are trained, with the main task; `states`: the
    data streams of this rank before the step, by number; `tokens`: real tokens; `seen`: instances by the task whose
    id they have. `tokens` and `seen` count over all ranks.
    """

    main_task: str
    active: Sequence[str]
    batch: LocalBatch = field(repr=False)
    states: Mapping[int, StreamState] = field(repr=False)
    tokens: int
    seen: Mapping[str, int]

    @property
    def packs(self) -> dict[int, PackedBatch]:
        """The packs of this rank's data streams by their number in the step."""
        pairs = zip(self.batch.numbers, self.batch.packs, strict=True)
        return {number: pack for number, pack in pairs if number in self.states}


class StepInputReader:
    """Reads the inputs of step after step, with packs that `workers` processes build ahead, or this one.

    A context manager: leaving it ends the workers.
    """

    def __init__(
        self, streams: DataStreams, plans: Sequence[StagePlan], workers: int | None, seed: int, group: ProcessGroup
    ) -> None:
        self._streams, self._plans, self._seed, self._group = streams, plans, seed, group
        self.numbers = group.own_streams(streams.count)
        packs, vocabulary = group.max_per_rank(streams.count), streams.vocabulary
        self._all_numbers = [group.rank + i * group.size for i in range(packs)]
        empty = empty_pack(streams.caps, vocabulary.cls, vocabulary.sep)
        self._padding = [empty] * (packs - len(self.numbers))  # as many packs as any other rank has
        count = loader_workers(workers, group.device, len(self.numbers), plans, group.local_size)
        self.loader = Loader(streams, plans, count, self.numbers)
        self._states = [StreamState() for _ in self.numbers]

    def __enter__(self) -> StepInputReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.loader.close()

    def start_at(self, states: Sequence[StreamState]) -> None:
        """Start from these states, those of the data streams of all ranks."""
        self._states = [states[number] for number in self.numbers]

    def states(self) -> list[StreamState]:
        """Return the current states of the data streams of all ranks; a collective call."""
        all_states: list[StreamState] = [{}] * self._streams.count
        for rank, states in enumerate(self._group.all_gather(self._states)):
            all_states[rank :: self._group.size] = states
        return all_states

    def read(self, at: Position) -> StepInputs:
        """Return the inputs of the step after `at`. Raises what the loader raises."""
        plan, before = self._plans[at.stage], dict(zip(self.numbers, self._states, strict=True))
        packs, self._states = self.loader.load(at.stage, at.stage_step, self._states)
        tokens, scored, seen = self._counts(packs)
        batch = LocalBatch(
            packs=[*packs, *self._padding],
            dropout_key=(self._seed, "dropout", at.step + 1),
            counts=scored,
            numbers=self._all_numbers,
        )
        step = at.stage_step
        return StepInputs(plan.main_task(step), plan.active_tasks(step), batch, before, tokens, seen)

    def _counts(self, packs: Sequence[PackedBatch]) -> tuple[int, dict[str, int], dict[str, int]]:
        """Return real tokens, scored positions by task and instances by task, summed over ranks in one message.

        Tasks with a count of 0 are left out.
        """
        names = {row: name for name, row in self._streams.ids.items()}
        scored: Counter[str] = Counter()
        for pack in packs:
            scored.update({name: targets.count for name, targets in pack.targets.items()})
        seen = Counter(names[row] for pack in packs for row in pack.task_ids[pack.starts[:-1]].tolist())
        tasks = list(self._streams.tasks)
        ours = [sum(pack.real_tokens for pack in packs), *(scored[n] for n in tasks), *(seen[n] for n in tasks)]
        tokens, *counts = ours if self._group.size == 1 else self._group.all_reduce(torch.tensor(ours)).tolist()
        scored_by_task, seen_by_task = (
            {name: count for name, count in zip(tasks, part, strict=True) if count}
            for part in (counts[: len(tasks)], counts[len(tasks) :])
        )
        return tokens, scored_by_task, seen_by_task


def loader_workers(
    configured: int | None, device: torch.device, streams: int, plans: Sequence[StagePlan], local_ranks: int = 1
) -> int:
    """Return the number of loader workers for a rank of `streams` data streams.

    That is `configured` if set, else 0 on a CPU, else `loader.default_workers`; `local_ranks` ranks share the cores of
    the machine, and each trains with one.
    """
    if configured is not None:
        return configured
    spare_cores = cores() // local_ranks - 1
    return default_workers(streams, len(main_tasks_of(plans)), spare_cores) if device.type == "cuda" else 0
