import threading
import time

from ernie2.training.watchdog import Watchdog


def a_stream_that_is_stuck(capsys):
    """Returns what the watchdog says, once it does."""
    end = time.monotonic() + 5.0
    told = ""
    while not told and time.monotonic() < end:
        time.sleep(0.01)
        told = capsys.readouterr().err
    return told


def test_it_says_what_a_run_has_been_doing_and_where_in_the_code(capsys):
    with Watchdog(0.1) as watchdog:
        watchdog.phase("making the batch of step 12")
        told = a_stream_that_is_stuck(capsys)
    assert told.startswith("No step has ended for 0 s: the run has been making the batch of step 12 for 0 s.")
    assert "in a_stream_that_is_stuck" in told


def test_among_several_ranks_it_says_which():
    watchdog = Watchdog(600.0, rank=3, world=4)
    watchdog.phase("in step 7")
    now = time.monotonic() + 700
    assert watchdog.told(now).startswith("No step has ended for 700 s: rank 3 of 4 has been in step 7 for 700 s.")


def test_it_is_silent_while_steps_end(capsys):
    with Watchdog(0.4) as watchdog:
        for _ in range(20):
            time.sleep(0.03)
            watchdog.step_done()
    assert capsys.readouterr().err == ""


def test_it_repeats_itself_as_often_as_it_waits(capsys):
    with Watchdog(0.1):
        time.sleep(0.5)
    assert 2 <= capsys.readouterr().err.count("No step has ended") <= 5


def test_zero_turns_it_off(capsys):
    before = threading.active_count()
    with Watchdog(0):
        assert threading.active_count() == before
    assert capsys.readouterr().err == ""
