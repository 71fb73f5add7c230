import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ernie2.train import signals
from ernie2.train.signals import SIGNALS, Stop

SOURCE = Path(__file__).parents[2] / "src"


def send(number):
    os.kill(os.getpid(), number)
    time.sleep(0.01)  # Python runs handlers between two of its instructions


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted_and_said(number, capfd):
    with Stop() as stop:
        assert not stop.agreed()
        send(number)
        assert stop.agreed()
        assert stop.name == number.name
    assert f"{number.name}: finishing the step and saving" in capfd.readouterr().err


def test_handlers_are_as_before_afterwards():
    before = [signal.getsignal(number) for number in SIGNALS]
    with Stop():
        assert signal.getsignal(signal.SIGTERM) is not before[0]
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_signal_that_comes_twice_at_once_is_one(capfd):
    with Stop() as stop:
        send(signal.SIGINT)
        send(signal.SIGTERM)
        assert stop.name == "SIGINT"
    assert capfd.readouterr().err.count("finishing") == 1


def test_a_second_ctrl_c_stops_at_once(monkeypatch):
    monkeypatch.setattr(signals, "SAME_SECONDS", 0.0)

    def twice():
        with Stop():
            send(signal.SIGINT)
            send(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        twice()


def test_a_second_sigterm_ends_the_process_as_sigterm_does():
    program = (
        "import os, signal, time\nfrom ernie2.train import signals\nsignals.SAME_SECONDS = 0.0\n"
        "with signals.Stop():\n    for _ in range(2):\n        os.kill(os.getpid(), signal.SIGTERM); time.sleep(0.01)\n"
        "    print('still here')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(SOURCE)}, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGTERM
    assert "still here" not in done.stdout


def test_a_signal_to_another_rank_stops_this_one():
    others = iter([False, True])
    stop = Stop(agree=lambda flag: flag or next(others))
    assert [stop.agreed(), stop.agreed()] == [False, True]
    assert not stop.asked


def test_waiting_for_a_signal_ends_when_it_comes():
    with Stop() as stop:
        assert not stop.soon(0.02)
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        assert stop.soon(5.0)


def test_in_another_thread_nothing_is_installed():
    seen = []

    def work():
        with Stop() as stop:
            seen.append(stop.asked)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
    assert signal.getsignal(signal.SIGTERM) is before
