"""Stages: which task gets how many iterations when, as values anyone can print, and the task set of every step.

`assign` is the paper's automatic assignment (Table 7); `extend` adds a stage for a task that arrives when all of them
are done. `Plan` turns a stage into steps: a step is a set of tasks, and
step k's set is a pure function of (stage, k), the same in all packs and on all ranks.
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
"""Tasks in the order in which they enter; a list inside the list enters in one stage."""
Level = Literal["token", "sentence"]


@dataclass(frozen=True, slots=True)
class Stage:
    """Iterations of each task in one stage, and which of them are new."""

    iterations: tuple[tuple[str, int], ...]
    introduced: tuple[str, ...] = ()

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks trained in this stage."""
        return tuple(name for name, _ in self.iterations)

    def of(self, task: str) -> int:
        """Iterations of `task` here; 0 where it does not take part."""
        return dict(self.iterations).get(task, 0)


def assign(tasks: Order, steps: int | Mapping[str, int] = 50_000) -> list[Stage]:
    """Continual multi-task learning: `steps` iterations per task in total, split over the stages.

    With S stages the unit of a task is u = N / (S + 1); a task that enters in stage s (0, 1, …) gets (s + 2) u there
    and u in each later stage. Four tasks of 50,000 give Table 7 of the paper to the letter: 20/10/10/10, 30/10/10,
    40/10 and 50 thousand. Where S + 1 does not divide N, largest remainders keep every total exact (ours).
    """
    groups = _groups(tasks)
    iterations: list[list[tuple[str, int]]] = [[] for _ in groups]
    for entered, group in enumerate(groups):
        for task in group:
            weights = [entered + 2] + [1] * (len(groups) - entered - 1)
            for stage, share in enumerate(_split(_steps(steps, task), weights), start=entered):
                if share:
                    iterations[stage].append((task, share))
    return [Stage(tuple(entries), group) for entries, group in zip(iterations, groups, strict=True)]


def multitask(tasks: Order, steps: int | Mapping[str, int] = 50_000) -> list[Stage]:
    """Multi-task learning from scratch (Table 7): one stage, all tasks, N iterations each."""
    names = tuple(name for group in _groups(tasks) for name in group)
    return [Stage(tuple((name, _steps(steps, name)) for name in names), names)]


def continual(tasks: Order, steps: int | Mapping[str, int] = 50_000) -> list[Stage]:
    """Traditional continual learning (Table 7): one stage after the other, each with its new tasks alone."""
    return [Stage(tuple((name, _steps(steps, name)) for name in group), group) for group in _groups(tasks)]


def extend(stages: Sequence[Stage], task: str, steps: int, replay: int | None = None) -> list[Stage]:
    """The stages so far and one more, in which `task` enters with `steps` iterations beside a replay of all before it.

    `replay`: iterations of each earlier task in the new stage. By default a task's unit under `assign`: N / (S + 1) for
    its N iterations over the S stages so far, rounded, at least 1; what it would get as an old task, and the same again
    in every extension. Stages of other methods have no unit, and the same fraction stands in for it (ours). 0 trains
    `task` alone. Raises `ConfigError` where `task` has been trained before or a number makes no sense.
    """
    known = list(dict.fromkeys(name for stage in stages for name in stage.tasks))
    if task in known:
        first = next(number for number, stage in enumerate(stages, 1) if stage.of(task))
        raise ConfigError(f"{task!r} was trained already, in stage {first}; a task enters once.")
    if steps < 1:
        raise ConfigError(f"the new task {task!r} needs at least one iteration, not {steps} (stages.steps).")
    if replay is not None and replay < 0:
        raise ConfigError(f"replay={replay}: earlier tasks get 0 iterations or more.")
    if (total := steps + (replay or 0) * len(known)) > MAX_ITERATIONS:
        raise ConfigError(
            f"stages.steps={steps} and a replay of {replay or 0} make {total:,} iterations; {MAX_ITERATIONS:,} is the "
            "most."
        )
    trained = {name: sum(stage.of(name) for stage in stages) for name in known}
    units = {name: max(1, round(count / (len(stages) + 1))) for name, count in trained.items()}
    old = units if replay is None else dict.fromkeys(known, replay)
    entry = Stage((*((name, count) for name, count in old.items() if count), (task, steps)), (task,))
    return [*stages, entry]


METHODS = {"continual_multitask": assign, "multitask": multitask, "continual": continual}


class Plan:
    """The steps of one stage. `active` (steps, tasks) bool; `tasks` in recipe order; `host` (steps,) the leading task.

    `combine=False`: one task a step, as Table 7 counts. `combine=True`: the stage's hosts are its sentence tasks, or,
    where it has none, the token task with the most iterations. Every other token task rides: its iterations are spread
    evenly over the hosts' steps, less the `token_only_share` of steps of its own, and what exceeds the hosts' steps
    becomes plain steps too. A token task that hosts keeps the same share of its steps free of riders. Every prefix of
    the stage is within one iteration of proportional for every task's hosting and plain steps, and every prefix of the
    steps a rider may ride on is within one of proportional for its rides.

    `closed_hosts` take no riders at all; `apart` holds pairs (host, rider) that share no corpus.
    """

    def __init__(
        self,
        stage: Stage,
        levels: Mapping[str, Level],
        combine: bool = True,
        token_only_share: float = 0.1,
        closed_hosts: frozenset[str] = frozenset(),
        apart: frozenset[tuple[str, str]] = frozenset(),
    ) -> None:
        self.stage = stage
        self.tasks = stage.tasks
        self.active, self.host = _lay_steps(
            stage, tuple(levels[t] for t in self.tasks), combine, token_only_share, closed_hosts, apart
        )
        self._done = np.concatenate([np.zeros((1, len(self.tasks)), np.int64), np.cumsum(self.active, axis=0)])

    def __len__(self) -> int:
        return len(self.host)

    def at(self, step: int) -> tuple[str, ...]:
        """The task set of step `step`, in recipe order."""
        return tuple(name for name, active in zip(self.tasks, self.active[step], strict=True) if active)

    def host_at(self, step: int) -> str:
        """The task whose data step `step` walks."""
        return self.tasks[int(self.host[step])]

    def done(self, step: int) -> dict[str, int]:
        """Iterations of each task in the first `step` steps."""
        return {name: int(count) for name, count in zip(self.tasks, self._done[step], strict=True)}


@lru_cache(maxsize=64)
def _lay_steps(
    stage: Stage,
    levels: tuple[Level, ...],
    combine: bool,
    token_only_share: float,
    closed_hosts: frozenset[str],
    apart: frozenset[tuple[str, str]],
) -> tuple[Array, Array]:
    names, counts = stage.tasks, [count for _, count in stage.iterations]
    everyone = range(len(names))
    hosts = [i for i in everyone if levels[i] == "sentence"] or [max(everyone, key=lambda i: counts[i])]
    riders = [i for i in everyone if levels[i] == "token" and i not in hosts] if combine else []
    # steps that take riders: those of open sentence hosts, or all but the plain share of a token host
    open_hosts = [i for i in hosts if names[i] not in closed_hosts]
    reserved = {i: math.ceil(token_only_share * counts[i]) if levels[i] == "token" else 0 for i in open_hosts}
    carries = {i: [host for host in open_hosts if (names[host], names[i]) not in apart] for i in riders}
    rides = {
        i: min(
            counts[i] - math.ceil(token_only_share * counts[i]),
            sum(counts[host] - reserved[host] for host in carries[i]),
        )
        for i in riders
    }
    leads = spread([counts[i] - rides.get(i, 0) for i in everyone])  # (steps,) leading task of each step
    active = np.zeros((len(leads), len(names)), bool)
    active[np.arange(len(leads)), leads] = True
    takes_riders = np.zeros(len(leads), bool)
    for i in open_hosts:
        steps = np.flatnonzero(leads == i)
        takes_riders[steps[~_evenly(reserved[i], len(steps))]] = True
    for i, count in rides.items():
        steps = np.flatnonzero(takes_riders & np.isin(leads, carries[i]))
        active[steps[_evenly(count, len(steps))], i] = True
    return active, leads


def spread(counts: Sequence[int]) -> Array:
    """Interleaves `counts[i]` steps of each i so that every prefix is within one step of proportional.

    Earliest deadline first among the steps already released: the j-th of c steps in a row of L may take places
    floor(j L / c) … ceil((j + 1) L / c) - 1, for which this order is known to be feasible; among equals the rarer task
    goes first. [2, 1] → [0, 1, 0].
    """
    total = sum(counts)
    waiting: list[tuple[int, int, int, int]] = []  # (deadline, steps of the task, task, number) of released steps
    releases: list[list[tuple[int, int]]] = [[] for _ in range(total)]
    for task, count in enumerate(counts):
        if count:
            releases[0].append((task, 0))
    laid = np.zeros(total, np.int64)
    for place in range(total):
        for task, number in releases[place]:
            heappush(waiting, (-(-(number + 1) * total // counts[task]), counts[task], task, number))
        _, _, task, number = heappop(waiting)
        laid[place] = task
        if number + 1 < counts[task]:
            releases[max(place + 1, (number + 1) * total // counts[task])].append((task, number + 1))
    return laid


def _evenly(count: int, places: int) -> Array:
    steps = np.arange(places + 1) * count // max(places, 1)
    return np.diff(steps) > 0


def _split(total: int, weights: Sequence[int]) -> list[int]:
    """Splits `total` in proportion to `weights`; largest remainders first, so that the parts add up exactly."""
    whole = sum(weights)
    parts = [total * weight // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for i in by_remainder[: total - sum(parts)]:
        parts[i] += 1
    return parts


def _steps(steps: int | Mapping[str, int], task: str) -> int:
    return steps if isinstance(steps, int) else steps[task]


def _groups(tasks: Order) -> list[tuple[str, ...]]:
    groups = [(entry,) if isinstance(entry, str) else tuple(entry) for entry in tasks]
    names = [name for group in groups for name in group]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"the order of stages names {name!r} twice; a task enters once.")
    return groups
