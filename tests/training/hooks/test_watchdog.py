import re
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from child_processes import wait_until
from ernie2.training.hooks import watchdog as watchdog_module
from ernie2.training.hooks.base import OpenRun
from ernie2.training.hooks.watchdog import Watchdog


@contextmanager
def opened(seconds):
    watchdog = Watchdog(seconds)
    watchdog.open(OpenRun(Path()))
    try:
        yield watchdog
    finally:
        watchdog.close()


def a_stream_that_is_stuck(capsys):
    """Returns what the watchdog says, once it does."""
    told = []
    wait_until(lambda: told.append(capsys.readouterr().err) or told[-1])
    return told[-1]


def test_the_warning_has_the_phase_and_the_place_in_the_code(capsys):
    with opened(0.1) as watchdog:
        watchdog.on_phase("building the batch of step 12")
        told = a_stream_that_is_stuck(capsys)
    assert re.match(r"No progress: the run has been building the batch of step 12 for \d+ s\. It is at\n", told)
    assert "in a_stream_that_is_stuck" in told


def test_among_several_ranks_it_says_which():
    watchdog = Watchdog(600.0, rank=3, ranks=4)
    watchdog.on_phase("in step 7")
    now = time.monotonic() + 700
    assert watchdog.message(now).startswith("No progress: rank 3 of 4 has been in step 7 for 700 s.")


@pytest.fixture
def looks(monkeypatch):
    """Let a watchdog's thread look at given times, in seconds: `looks(watchdog, times, steps)`, without waiting."""
    now = [0.0]
    monkeypatch.setattr(watchdog_module.time, "monotonic", lambda: now[0])

    def look(watchdog, times, steps=()):
        left = iter(times)

        class Clock:
            def wait(self, seconds):
                assert seconds == watchdog._seconds / watchdog_module.CHECKS_PER_LIMIT
                now[0] = next(left, -1.0)
                if now[0] in steps:
                    watchdog.on_phase("in a step")
                return now[0] < 0

        watchdog._closing = Clock()
        watchdog._watch()

    return look


def test_it_is_silent_while_steps_end(capsys, looks):
    looks(Watchdog(4.0), range(1, 21), steps=range(3, 21, 3))
    assert capsys.readouterr().err == ""


def test_it_repeats_itself_as_often_as_it_waits(capsys, looks):
    looks(Watchdog(4.0), range(1, 21))
    assert capsys.readouterr().err.count("No progress") == 5


def test_zero_turns_it_off(capsys):
    before = threading.active_count()
    with opened(0):
        assert threading.active_count() == before
    assert capsys.readouterr().err == ""
