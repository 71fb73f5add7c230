"""Work in worker processes: each item once, errors are raised here, killed processes are detected."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ernie2.errors import DataError, RunFailed
from ernie2.processes import run_in_processes


def begin(number: int) -> None:
    os.environ["BEGUN"] = "yes"


def work(item: object) -> None:
    assert os.environ["BEGUN"] == "yes"
    if item == "wrong":
        raise DataError("a.txt, line 1: wrong")
    if item == "unforeseen":
        raise ZeroDivisionError
    if item == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "slow":
        time.sleep(600)


def test_every_item_is_done_once() -> None:
    assert sorted(run_in_processes(work, list(range(7)), 2, begin=begin, advice="Again.")) == list(range(7))
    assert list(run_in_processes(work, [], 2, begin=begin, advice="Again.")) == []


@pytest.mark.parametrize("others", [[], ["slow"]])
def test_what_a_call_raises_is_raised_here_and_the_other_processes_end(others: list[str]) -> None:
    with pytest.raises(DataError, match="line 1: wrong"):
        list(run_in_processes(work, [*others, "wrong"], 2, begin=begin, advice="Again."))


def test_an_error_nobody_foresaw_keeps_the_place_in_the_code() -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        list(run_in_processes(work, ["unforeseen"], 1, begin=begin, advice="Again."))
    assert "raise ZeroDivisionError" in raised.value.__notes__[0]


@pytest.mark.parametrize("items", [["killed"], ["slow", "killed"], [1, 2, "killed", 3]])
def test_a_process_that_is_killed_ends_the_work(items: list[object]) -> None:
    with pytest.raises(RunFailed, match=r"killed by the system, most likely because memory ran out\. Again."):
        list(run_in_processes(work, items, 2, begin=begin, advice="Again."))


def saving(item: Path) -> None:
    """Fail where there is no file; else wait for the request to stop, and take some time to leave a note."""
    if not item.exists():
        while not item.with_name("ready").exists():
            time.sleep(0.01)
        raise DataError("wrong")
    subprocess.run([sys.executable, "-c", ""], check=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        item.with_name("ready").touch()
        time.sleep(600)
    finally:
        time.sleep(0.2)
        item.with_name("saved").touch()


def test_processes_that_may_save_are_asked_to_stop_and_waited_for(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    with pytest.raises(DataError, match="wrong"):
        list(run_in_processes(saving, [tmp_path / "there", tmp_path / "gone"], 2, advice="", graceful=True))
    assert (tmp_path / "saved").exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_processes_end_with_the_one_that_started_them_whatever_they_are_doing(tmp_path: Path) -> None:
    code = (
        "import os, sys, test_processes as t; from ernie2.processes import run_in_processes\n"
        "if __name__ == '__main__':\n"
        "    results = run_in_processes(t.work, [1, 'slow', 'slow'], 2, begin=t.begin, advice='')\n"
        "    print(next(results), flush=True)\n"
        "    next(results)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        process.kill()
    deadline = time.monotonic() + 60
    while (left := of_session(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def of_session(session: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, number = stat.read_text(errors="replace").rpartition(")")[2].split()[:4]
            if int(number) == session and state not in "ZX":
                found.append(int(stat.parent.name))
    return found
