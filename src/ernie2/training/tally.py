"""What a step holds, counted before anything is computed, and summed over all ranks at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ernie2.batches.batch import PackedBatch
from ernie2.training.distributed import World


@dataclass(frozen=True, slots=True)
class Tally:
    """`tokens`: real tokens; `scored`: positions by task, only tasks that score any; `seen`: instances by the task
    under whose id they stand.
    """

    tokens: int
    scored: Mapping[str, int]
    seen: Mapping[str, int]

    @staticmethod
    def of(packs: Sequence[PackedBatch], names: Mapping[int, str]) -> Tally:
        """Counts `packs`; `names`: the tasks by their row of the task table."""
        scored: dict[str, int] = {}
        seen: dict[str, int] = {}
        for pack in packs:
            for name, targets in pack.targets.items():
                if targets.count:
                    scored[name] = scored.get(name, 0) + targets.count
            for row in pack.task_ids[pack.starts[:-1]].tolist():
                seen[names[row]] = seen.get(names[row], 0) + 1
        return Tally(sum(pack.real_tokens for pack in packs), scored, seen)

    def over(self, world: World, tasks: Sequence[str]) -> Tally:
        """The sum over all ranks, by one message between hosts; `tasks`: all there are, in the same order on all."""
        if world.size == 1:
            return self
        ours = [self.tokens, *(self.scored.get(name, 0) for name in tasks), *(self.seen.get(n, 0) for n in tasks)]
        tokens, *counts = world.total(torch.tensor(ours, dtype=torch.int64)).tolist()
        scored = {name: count for name, count in zip(tasks, counts, strict=False) if count}
        seen = {name: count for name, count in zip(tasks, counts[len(tasks) :], strict=True) if count}
        return Tally(tokens, scored, seen)
