"""Run code as several ranks on this machine, as torchrun starts them, for tests."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from child_processes import child_processes

TESTS = Path(__file__).parent
LIMIT = 300


def environment(**more: str) -> dict[str, str]:
    """The environment of a process that finds ernie2 and these tests, with one thread."""
    paths = os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **more}


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_ranks(size: int, arguments: Sequence[str | Path], code: int = 0) -> list[str]:
    """Runs `python ARGUMENTS` as all ranks of a group, which all exit with `code`; returns what each printed."""
    codes, outputs = _run_ranks(size, arguments, free_port())
    if "EADDRINUSE" in "".join(outputs):  # another process took the port in between
        codes, outputs = _run_ranks(size, arguments, free_port())
    assert codes == [code] * size, f"exit codes {codes}\n" + "\n".join(outputs)
    return outputs


def _run_ranks(size: int, arguments: Sequence[str | Path], port: int) -> tuple[list[int], list[str]]:
    with child_processes() as start:
        processes = [
            start(
                [sys.executable, *arguments],
                env=_variables(rank, size, port),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(size)
        ]
        outputs = [process.communicate(timeout=LIMIT)[0] for process in processes]
        return [process.wait() for process in processes], outputs


def _variables(rank: int, size: int, port: int) -> dict[str, str]:
    return environment(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(size),
        LOCAL_WORLD_SIZE=str(size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )


def run_jobs(folder: Path, size: int, jobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What `rank_main.py` noted of `jobs`, one after the other, on `size` ranks."""
    file = folder / f"jobs-{size}-{len(list(folder.glob('jobs-*.json')))}.json"
    file.write_text(json.dumps(list(jobs), default=str))
    run_ranks(size, [TESTS / "rank_main.py", file])
    found: list[dict[str, Any]] = json.loads(file.with_suffix(".out").read_text())
    return found
