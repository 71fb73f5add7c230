"""What goes into each step on this rank: the packs of its data streams, counted over all ranks before they are used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from ernie2.batches.batch import PackedBatch
from ernie2.batches.loader import Loader, default_workers, hosts_of
from ernie2.batches.packing import pack_of_nothing
from ernie2.batches.stages import Plan
from ernie2.batches.stream import Lane, Stream
from ernie2.processes import cores
from ernie2.training.distributed import ProcessGroup
from ernie2.training.state import Position
from ernie2.training.step import GlobalBatch


@dataclass(frozen=True, slots=True)
class StepInputs:
    """A step that is due: the tasks trained in it and its batch.

    `host`: the task whose data is read; `active`: all that are labelled, the host among them; `lanes`: by number, the
    data streams of this rank as they stood before; `tokens`: real tokens, and `seen`: instances by the task under whose
    id they stand, both over all ranks.
    """

    host: str
    active: Sequence[str]
    batch: GlobalBatch = field(repr=False)
    lanes: Mapping[int, Lane] = field(repr=False)
    tokens: int
    seen: Mapping[str, int]

    @property
    def packs(self) -> dict[int, PackedBatch]:
        """The packs of this rank's data streams by their number in the step."""
        pairs = zip(self.batch.numbers, self.batch.packs, strict=True)
        return {number: pack for number, pack in pairs if number in self.lanes}


class StepInputReader:
    """Reads the inputs of one step after the other, of packs that `workers` processes make ahead, or this one itself.

    A context manager: leaving it ends the workers.
    """

    def __init__(
        self, stream: Stream, plans: Sequence[Plan], workers: int | None, seed: int, group: ProcessGroup
    ) -> None:
        self._stream, self._plans, self._seed, self._group = stream, plans, seed, group
        self.numbers = group.own_streams(stream.lanes)
        turns, vocabulary = group.max_per_rank(stream.lanes), stream.vocabulary
        self._all_numbers = [group.rank + turn * group.size for turn in range(turns)]
        nothing = pack_of_nothing(stream.caps, vocabulary.cls, vocabulary.sep)
        self._filler = [nothing] * (turns - len(self.numbers))  # as many packs as any other rank has
        count = loader_workers(workers, group.device, len(self.numbers), plans, group.local_size)
        self.loader = Loader(stream, plans, count, self.numbers)
        self._lanes = [Lane() for _ in self.numbers]

    def __enter__(self) -> StepInputReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.loader.close()

    def begin_at(self, lanes: Sequence[Lane]) -> None:
        """Start from these data streams, those of all ranks."""
        self._lanes = [lanes[number] for number in self.numbers]

    def lanes(self) -> list[Lane]:
        """Return the data streams of all ranks as they stand now; all ranks call it together."""
        found: list[Lane] = [{}] * self._stream.lanes
        for rank, lanes in enumerate(self._group.all_gather(self._lanes)):
            found[rank :: self._group.size] = lanes
        return found

    def read(self, at: Position) -> StepInputs:
        """Return the inputs of the step after `at`; raise what the loader raises."""
        plan, before = self._plans[at.stage], dict(zip(self.numbers, self._lanes, strict=True))
        packs, self._lanes = self.loader.take(at.stage, at.stage_step, self._lanes)
        tokens, scored, seen = self._counts(packs)
        batch = GlobalBatch(
            packs=[*packs, *self._filler],
            dropout_key=(self._seed, "dropout", at.step + 1),
            counts=scored,
            numbers=self._all_numbers,
        )
        return StepInputs(plan.host_at(at.stage_step), plan.at(at.stage_step), batch, before, tokens, seen)

    def _counts(self, packs: Sequence[PackedBatch]) -> tuple[int, dict[str, int], dict[str, int]]:
        """Real tokens; scored positions by task; instances by task: sums over all ranks, by one message between hosts.

        Only tasks that score or show something are named.
        """
        names = {row: name for name, row in self._stream.ids.items()}
        scored: Counter[str] = Counter()
        for pack in packs:
            scored.update({name: targets.count for name, targets in pack.targets.items()})
        seen = Counter(names[row] for pack in packs for row in pack.task_ids[pack.starts[:-1]].tolist())
        tasks = list(self._stream.tasks)
        ours = [sum(pack.real_tokens for pack in packs), *(scored[n] for n in tasks), *(seen[n] for n in tasks)]
        tokens, *counts = ours if self._group.size == 1 else self._group.all_reduce(torch.tensor(ours)).tolist()
        scored_by_task, seen_by_task = (
            {name: count for name, count in zip(tasks, part, strict=True) if count}
            for part in (counts[: len(tasks)], counts[len(tasks) :])
        )
        return tokens, scored_by_task, seen_by_task


def loader_workers(wanted: int | None, device: torch.device, lanes: int, plans: Sequence[Plan], ranks: int = 1) -> int:
    """Processes that make batches for a rank of `lanes` lanes: as many as are `wanted`, by default none on a CPU.

    Beside a GPU `loader.default_workers` decides; `ranks` of a machine share its cores, and each trains with one.
    """
    if wanted is not None:
        return wanted
    return default_workers(lanes, len(hosts_of(plans)), cores() // ranks - 1) if device.type == "cuda" else 0
