"""The campaign's own tools: faults happen where they are set, and each verdict is given where it is due."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from faults import campaign, damage
from faults.children import Ended
from faults.injection import compiler
from faults.outcome import judge

TOOLS = Path(__file__).parents[1]
needs_compiler = pytest.mark.skipif(compiler() is None, reason="the preloaded library needs a C compiler")

SCRIPT = """
import sys
from pathlib import Path
from faults.injection import Control, Fault, restart_with_injection
from faults.children import run
folder = Path(sys.argv[1])
restart_with_injection(folder / "library")
control = Control()
(folder / "root").mkdir()

def write():
    (folder / "outside").write_text("x")
    for name in "abc":
        with open(folder / "root" / name, "w") as file:  # two operations: open, write
            file.write(name)

control.arm(folder / "root", Fault(int(sys.argv[2]), int(sys.argv[3])))
ended = run(write, folder / "log")
print(ended.code, *control.disarm(), *sorted(path.name for path in (folder / "root").iterdir()))
"""


def disturbed(folder: Path, at: int, error: int) -> list[str]:
    """(exit code, operations, whether the fault happened, files) of the script above."""
    command = [sys.executable, "-c", SCRIPT, str(folder), str(at), str(error)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(TOOLS)}, check=True
    )
    return done.stdout.split()


@needs_compiler
def test_a_process_is_killed_before_the_operation_that_is_named(tmp_path: Path) -> None:
    assert disturbed(tmp_path, 3, 0) == ["-9", "3", "True", "a"]


@needs_compiler
def test_an_operation_fails_with_the_error_that_is_named(tmp_path: Path) -> None:
    assert disturbed(tmp_path, 5, errno.EIO)[:3] == ["70", "5", "True"]
    assert "Input/output error" in (tmp_path / "log").read_text()


@needs_compiler
def test_nothing_happens_without_a_fault(tmp_path: Path) -> None:
    assert disturbed(tmp_path, 0, 0) == ["0", "6", "False", "a", "b", "c"]


@pytest.mark.parametrize(
    ("ended", "verdict"),
    [
        (Ended(0, "fine", False, ()), None),
        (Ended(2, "error: x", False, ()), None),
        (Ended(1, "Traceback (most recent call last)\nKeyError: 1", False, ()), "traceback"),
        (Ended(-24, "", True, ()), "hang"),
        (Ended(0, "", False, ("python worker",)), "left behind"),
    ],
)
def test_how_a_command_ended_decides_the_verdict(ended: Ended, verdict: str | None) -> None:
    found = judge("kind", "label", ended)
    assert (found and found.verdict) == verdict


def test_a_hurt_file_is_never_what_it_was(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        file = tmp_path / "a.json"
        file.write_text('{"some": "content", "to": ["hurt", 1, 2, 3]}')
        damage.hurt(file, rng)
        assert not file.exists() or file.read_text(errors="replace") != '{"some": "content", "to": ["hurt", 1, 2, 3]}'


def test_a_seed_gives_the_same_cases_and_every_kind() -> None:
    kinds = [campaign.kind_of(7, number) for number in range(400)]
    assert kinds == [campaign.kind_of(7, number) for number in range(400)]
    assert set(kinds) == set(campaign.SHARES)
    assert sum(campaign.SHARES.values()) == pytest.approx(1)
