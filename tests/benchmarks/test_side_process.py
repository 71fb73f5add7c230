"""The process of a side starts with its variables and always ends with the script."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from child_processes import is_running, wait_until
from comparisons.process_settings import VARIABLES
from comparisons.side_process import side_process

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.parametrize("wanted", [{}, VARIABLES], ids=["none", "those of the command"])
def test_it_starts_with_the_variables_given_and_no_other_of_ours(
    wanted: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "1")
    with side_process(wanted) as process:
        assert all(process.submit(os.getenv, name).result() == wanted.get(name) for name in VARIABLES)
        assert all(os.environ[name] == "1" for name in VARIABLES)


SCRIPT = f"""
import os, subprocess, sys, tempfile, time
from pathlib import Path
sys.path[:0] = [{str(BENCHMARKS)!r}]
from comparisons.script import reported_errors
from comparisons.side_process import side_process

@reported_errors()
def main():
    place = Path(sys.argv[1])
    with tempfile.TemporaryDirectory(dir=place / "temporary"), side_process({{}}) as process:
        at_work = process.submit(time.sleep, 600)
        child = subprocess.Popen(["sleep", "600"])
        (place / "pid").write_text("%d %d" % (next(iter(process._processes)), child.pid))
        at_work.result()

if __name__ == "__main__":
    main()
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_it_ends_with_the_script_though_at_work(
    tmp_path: Path, name: str, start_process: Callable[..., subprocess.Popen[bytes]]
) -> None:
    (tmp_path / "temporary").mkdir()
    (tmp_path / "script.py").write_text(SCRIPT)
    pid = tmp_path / "pid"
    script = start_process([sys.executable, tmp_path / "script.py", tmp_path])
    wait_until(lambda: pid.exists() and pid.read_text())
    script.send_signal(signal.Signals[name])
    theirs, child = map(int, pid.read_text().split())
    wait_until(lambda: script.poll() is not None and not is_running(theirs))
    if name == "SIGTERM":
        assert script.wait() == 143
        wait_until(lambda: not is_running(child))
        assert not list((tmp_path / "temporary").iterdir())
