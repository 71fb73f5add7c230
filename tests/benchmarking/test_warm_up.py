"""A warm-up continues while steps get faster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ernie2.benchmarking import warm_up as module
from ernie2.benchmarking.mix import MeasuredStep
from ernie2.benchmarking.warm_up import warm_up
from ernie2.training.measuring import TaskSet

SETS = [TaskSet(name, (name,)) for name in "abcdef"]


class Timed:
    """A side whose steps take what `seconds` says of their number, from 0 on."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self.name, self.trained, self._seconds = "timed", [], seconds

    def step(self, packs: Sequence[Any]) -> MeasuredStep:
        self.trained.append(packs)
        return MeasuredStep(self._seconds(len(self.trained) - 1), 10, 0, 10)


def steps_of(*sides: Timed, compiled: bool = False) -> int:
    return warm_up(sides, lambda chosen: chosen, SETS, compiled=compiled)  # type: ignore[arg-type, return-value]


def test_steady_steps_take_the_least_number() -> None:
    assert steps_of(Timed(lambda _: 1.0)) == 24


def test_steps_that_get_faster_are_waited_for_on_every_side() -> None:
    falling = Timed(lambda number: max(1.0, 2.0 - number / 40))
    steady = Timed(lambda _: 1.0)
    assert steps_of(steady, falling) == 48  # steps 0 to 39 fall; the window after 40 to 43 is no faster
    assert steady.trained == falling.trained


def test_a_compiled_model_meets_every_set_once_and_need_not_take_more_than_two_windows() -> None:
    side = Timed(lambda number: 30.0 if number < len(SETS) else 1.0)
    assert steps_of(side, compiled=True) == len(SETS) + 2 * 4
    assert side.trained[: len(SETS)] == SETS


def test_it_ends_though_steps_get_ever_faster_or_take_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert steps_of(Timed(lambda number: 0.9**number)) == 64
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    def slow(_: int) -> float:
        now[0] += 70.0
        return 70.0

    assert steps_of(Timed(slow)) == 4
