import os
import pty
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from ernie2.training.hooks import signals
from ernie2.training.hooks.base import OpenRun
from ernie2.training.hooks.signals import SIGNALS, Signals

SOURCE = Path(__file__).parents[3] / "src"


def send(number):
    os.kill(os.getpid(), number)
    time.sleep(0.01)  # Python runs handlers between two of its instructions


@contextmanager
def opened():
    """Signals as a run opens and closes them."""
    noted = Signals()
    noted.open(OpenRun(Path()))
    try:
        yield noted
    finally:
        noted.close()


@pytest.fixture(autouse=True)
def no_handlers_of_this_session():
    """The tests may run under nohup, which ignores SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_recorded_and_reported(number, capfd):
    with opened() as stop:
        assert stop.stop_reason() is None
        send(number)
        assert stop.stop_reason() == f"received {number.name}"
    again = {
        signal.SIGINT: "; press Ctrl-C again to stop immediately",
        signal.SIGTERM: "; send SIGTERM again to stop immediately",
        signal.SIGHUP: "",
    }
    assert f"{number.name}: finishing the step and saving a checkpoint{again[number]}.\n" in capfd.readouterr().err


def test_handlers_are_as_before_afterwards():
    before = [signal.getsignal(number) for number in SIGNALS]
    with opened():
        assert signal.getsignal(signal.SIGTERM) is not before[0]
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_signal_that_comes_twice_at_once_is_one(capfd):
    with opened() as stop:
        send(signal.SIGINT)
        send(signal.SIGTERM)
        assert stop.caught == "SIGINT"
    assert capfd.readouterr().err.count("finishing") == 1


def test_a_terminal_that_goes_away_may_say_so_many_times(monkeypatch):
    monkeypatch.setattr(signals, "SAME_SECONDS", 0.0)
    with opened() as stop:
        for _ in range(3):
            send(signal.SIGHUP)
        assert stop.caught == "SIGHUP"


def test_a_run_under_nohup_does_not_hear_of_its_terminal():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with opened() as stop:
        send(signal.SIGHUP)
        assert stop.caught is None
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_run_without_its_terminal_can_print_and_ends_normally(tmp_path):
    """The program's controlling terminal hangs up: every write to it fails with EIO."""
    program = (
        "import sys\nfrom pathlib import Path\nfrom ernie2.training.hooks.signals import Signals\n"
        "stop = Signals()\nstop.open(None)\nprint('ready', flush=True)\nstop.wait(30)\nprint('saving', flush=True)\n"
        "Path(sys.argv[1]).write_text(str(stop.caught))\nsys.exit(75)\n"
    )
    pid, terminal = pty.fork()
    if not pid:
        os.execve(
            sys.executable,
            [sys.executable, "-c", program, str(tmp_path / "saved")],
            {**os.environ, "PYTHONPATH": str(SOURCE)},
        )
    told = b""
    while b"ready" not in told:
        told += os.read(terminal, 1_000)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 75
    assert (tmp_path / "saved").read_text() == "SIGHUP"


def test_a_second_ctrl_c_stops_at_once(monkeypatch):
    monkeypatch.setattr(signals, "SAME_SECONDS", 0.0)

    def twice():
        with opened():
            send(signal.SIGINT)
            send(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        twice()


def test_a_second_sigterm_ends_the_process_as_sigterm_does():
    program = (
        "import os, signal, time\nfrom ernie2.training.hooks import signals\nsignals.SAME_SECONDS = 0.0\n"
        "signals.Signals().open(None)\nfor _ in range(2):\n    os.kill(os.getpid(), signal.SIGTERM); time.sleep(0.01)\n"
        "print('still here')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(SOURCE)}, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGTERM
    assert "still here" not in done.stdout


def test_waiting_for_a_signal_ends_when_it_comes():
    with opened() as stop:
        assert not stop.wait(0.02)
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        assert stop.wait(5.0)


def test_in_another_thread_nothing_is_installed():
    seen = []

    def work():
        with opened() as stop:
            seen.append(stop.caught)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]
    assert signal.getsignal(signal.SIGTERM) is before
