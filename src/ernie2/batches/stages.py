"""Stages: the iterations of each task in each stage, and the tasks of every step.

`assign` is the paper's automatic assignment (Table 7); `extend` adds a stage with a new task to finished ones.
`StagePlan` lays a stage out in steps. The tasks of step k are a pure function of (stage, k), the same in all packs and
on all ranks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from heapq import heappop, heappush
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ernie2.config.settings import MAX_ITERATIONS
from ernie2.errors import ConfigError

Array = NDArray[Any]

Order = Sequence[str | Sequence[str]]
"""Tasks in the order in which they enter; the tasks of an inner list enter in one stage."""
Level = Literal["token", "sentence"]


@dataclass(frozen=True, slots=True)
class Stage:
    """Iterations of each task in one stage, and the tasks that enter in it."""

    iterations: tuple[tuple[str, int], ...]
    introduced: tuple[str, ...] = ()

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks trained in this stage."""
        return tuple(name for name, _ in self.iterations)

    def iterations_of(self, task: str) -> int:
        """Return the iterations of `task` in this stage, 0 if it is not trained."""
        return dict(self.iterations).get(task, 0)


def assign(tasks: Order, steps: int | Mapping[str, int] = 50_000) -> list[Stage]:
    """Continual multi-task learning: N = `steps` iterations per task in total, divided over the stages.

    With S stages the unit of a task is u = N / (S + 1); a task that enters in stage s (0, 1, …) gets (s + 2) u there
    and u in each later stage. Four tasks of 50,000 give exactly Table 7 of the paper: 20/10/10/10, 30/10/10,
    40/10 and 50 thousand. If S + 1 does not divide N, largest remainders keep every total exact (ours).
    """
    by_stage = _tasks_by_stage(tasks)
    iterations: list[list[tuple[str, int]]] = [[] for _ in by_stage]
    for entered, entering in enumerate(by_stage):
        for task in entering:
            weights = [entered + 2] + [1] * (len(by_stage) - entered - 1)
            for stage, share in enumerate(_split(_iterations(steps, task), weights), start=entered):
                if share:
                    iterations[stage].append((task, share))
    return [Stage(tuple(entries), entering) for entries, entering in zip(iterations, by_stage, strict=True)]


def multitask(tasks: Order, steps: int | Mapping[str, int] = 50_000) -> list[Stage]:
    """Multi-task learning from scratch (Table 7): one stage, all tasks, `steps` iterations each."""
    names = tuple(name for entering in _tasks_by_stage(tasks) for name in entering)
    return [Stage(tuple((name, _iterations(steps, name)) for name in names), names)]


def continual(tasks: Order, steps: int | Mapping[str, int] = 50_000) -> list[Stage]:
    """Traditional continual learning (Table 7): one stage after the other, each with its new tasks only."""
    return [
        Stage(tuple((name, _iterations(steps, name)) for name in entering), entering)
        for entering in _tasks_by_stage(tasks)
    ]


def extend(stages: Sequence[Stage], task: str, steps: int, replay: int | None = None) -> list[Stage]:
    """Return the stages with one more, in which `task` enters with `steps` iterations and earlier tasks are replayed.

    `replay`: iterations of each earlier task in the new stage; 0 trains only `task`. The default is the task's unit
    under `assign`: N / (S + 1) for its N iterations over the S stages so far, rounded, at least 1. It is the same in
    later extensions. Stages of other methods use the same formula (ours).
    Raises `ConfigError` if `task` was trained before or a number is out of range.
    """
    known = list(dict.fromkeys(name for stage in stages for name in stage.tasks))
    if task in known:
        first = next(number for number, stage in enumerate(stages, 1) if stage.iterations_of(task))
        raise ConfigError(f"{task!r} was trained already, in stage {first}. A task can be introduced only once.")
    if steps < 1:
        raise ConfigError(f"the new task {task!r} needs at least one iteration, not {steps} (stages.steps).")
    if replay is not None and replay < 0:
        raise ConfigError(f"replay={replay} is negative. Give 0 or more iterations.")
    if (total := steps + (replay or 0) * len(known)) > MAX_ITERATIONS:
        raise ConfigError(
            f"stages.steps={steps} and a replay of {replay or 0} make {total:,} iterations; the limit is "
            f"{MAX_ITERATIONS:,}. Lower one of them."
        )
    trained = {name: sum(stage.iterations_of(name) for stage in stages) for name in known}
    units = {name: max(1, round(count / (len(stages) + 1))) for name, count in trained.items()}
    old = units if replay is None else dict.fromkeys(known, replay)
    entry = Stage((*((name, count) for name, count in old.items() if count), (task, steps)), (task,))
    return [*stages, entry]


METHODS = {"continual_multitask": assign, "multitask": multitask, "continual": continual}


class StagePlan:
    """The steps of one stage. `tasks` in recipe order; `active` (steps, tasks) bool; `main_tasks` (steps,) task index.

    `combine=False`: one task per step, as Table 7 counts. `combine=True`: the main tasks are the sentence-level tasks
    of the stage or, without any, the token-level task with the most iterations. Iterations of every other token-level
    task are attached evenly to steps of main tasks, except `token_only_share` of them, which become token-only steps.
    Iterations beyond the steps they can be attached to become token-only steps, too. A token-level main task keeps the
    same share of its steps free of attached tasks. After any number of steps, each task has been the main task in its
    share of them, to within one step; a task is attached as evenly to the steps that can carry it.

    `without_attached`: main tasks that take no attached tasks. `disjoint`: pairs (main task, token-level task) without
    a common corpus.
    """

    def __init__(
        self,
        stage: Stage,
        levels: Mapping[str, Level],
        combine: bool = True,
        token_only_share: float = 0.1,
        without_attached: frozenset[str] = frozenset(),
        disjoint: frozenset[tuple[str, str]] = frozenset(),
    ) -> None:
        self.stage = stage
        self.tasks = stage.tasks
        self.active, self.main_tasks = _lay_out_steps(
            stage, tuple(levels[t] for t in self.tasks), combine, token_only_share, without_attached, disjoint
        )
        self._before = np.concatenate([np.zeros((1, len(self.tasks)), np.int64), np.cumsum(self.active, axis=0)])

    def __len__(self) -> int:
        return len(self.main_tasks)

    def active_tasks(self, step: int) -> tuple[str, ...]:
        """Return the tasks trained in step `step`, in recipe order."""
        return tuple(name for name, active in zip(self.tasks, self.active[step], strict=True) if active)

    def main_task(self, step: int) -> str:
        """Return the task whose data step `step` reads."""
        return self.tasks[int(self.main_tasks[step])]

    def iterations_before(self, step: int) -> dict[str, int]:
        """Return the iterations of each task in the first `step` steps."""
        return {name: int(count) for name, count in zip(self.tasks, self._before[step], strict=True)}


@lru_cache(maxsize=64)
def _lay_out_steps(
    stage: Stage,
    levels: tuple[Level, ...],
    combine: bool,
    token_only_share: float,
    without_attached: frozenset[str],
    disjoint: frozenset[tuple[str, str]],
) -> tuple[Array, Array]:
    names, counts = stage.tasks, [count for _, count in stage.iterations]
    indices = range(len(names))
    main = [i for i in indices if levels[i] == "sentence"] or [max(indices, key=lambda i: counts[i])]
    attached = [i for i in indices if levels[i] == "token" and i not in main] if combine else []
    # open: takes attached tasks. Of a token-level main task, a share of the steps is reserved (takes none)
    open_tasks = [i for i in main if names[i] not in without_attached]
    reserved = {i: math.ceil(token_only_share * counts[i]) if levels[i] == "token" else 0 for i in open_tasks}
    carriers = {i: [j for j in open_tasks if (names[j], names[i]) not in disjoint] for i in attached}
    combined = {
        i: min(counts[i] - math.ceil(token_only_share * counts[i]), sum(counts[j] - reserved[j] for j in carriers[i]))
        for i in attached
    }
    main_tasks = interleave([counts[i] - combined.get(i, 0) for i in indices])  # (steps,)
    active = np.zeros((len(main_tasks), len(names)), bool)
    active[np.arange(len(main_tasks)), main_tasks] = True
    is_open = np.zeros(len(main_tasks), bool)
    for i in open_tasks:
        steps = np.flatnonzero(main_tasks == i)
        is_open[steps[~_evenly_spaced(reserved[i], len(steps))]] = True
    for i, count in combined.items():
        steps = np.flatnonzero(is_open & np.isin(main_tasks, carriers[i]))
        active[steps[_evenly_spaced(count, len(steps))], i] = True
    return active, main_tasks


def interleave(counts: Sequence[int]) -> Array:
    """Interleave `counts[i]` steps of each i so that after any number of steps each has its share, to within one.

    Earliest deadline first among released steps: of L steps, the j-th of c may be placed from floor(j L / c) to
    ceil((j + 1) L / c) - 1, for which this order is known to be feasible. The rarer task wins ties.
    [2, 1] → [0, 1, 0].
    """
    total = sum(counts)
    released: list[tuple[int, int, int, int]] = []  # (deadline, steps of the task, task, number)
    releases: list[list[tuple[int, int]]] = [[] for _ in range(total)]
    for task, count in enumerate(counts):
        if count:
            releases[0].append((task, 0))
    order = np.zeros(total, np.int64)
    for place in range(total):
        for task, number in releases[place]:
            heappush(released, (-(-(number + 1) * total // counts[task]), counts[task], task, number))
        _, _, task, number = heappop(released)
        order[place] = task
        if number + 1 < counts[task]:
            releases[max(place + 1, (number + 1) * total // counts[task])].append((task, number + 1))
    return order


def _evenly_spaced(count: int, places: int) -> Array:
    steps = np.arange(places + 1) * count // max(places, 1)
    return np.diff(steps) > 0


def _split(total: int, weights: Sequence[int]) -> list[int]:
    """Split `total` in proportion to `weights`; largest remainders first, so that the parts sum to it."""
    weight_sum = sum(weights)
    parts = [total * weight // weight_sum for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % weight_sum), i))
    for i in by_remainder[: total - sum(parts)]:
        parts[i] += 1
    return parts


def _iterations(steps: int | Mapping[str, int], task: str) -> int:
    return steps if isinstance(steps, int) else steps[task]


def _tasks_by_stage(tasks: Order) -> list[tuple[str, ...]]:
    by_stage = [(entry,) if isinstance(entry, str) else tuple(entry) for entry in tasks]
    names = [name for entering in by_stage for name in entering]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"the order of stages names {name!r} twice. A task can be introduced only once.")
    return by_stage
