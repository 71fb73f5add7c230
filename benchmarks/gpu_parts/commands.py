"""Parts that run commands: the tests marked gpu, a study of Table 7, and the pre-training of a small encoder."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ernie2.config.overrides import as_override
from gpu_parts.driver import STOPPED
from gpu_parts.job import Job

ROOT = Path(__file__).resolve().parents[2]
_TO_SAVE = 20.0
"""Seconds before its end in which a part asks a command to stop, so that what was trained is saved."""


def run_tests(job: Job) -> None:
    """The test files that hold a test marked gpu, with only these tests chosen."""
    files = sorted(
        str(file.relative_to(ROOT))
        for file in (ROOT / "tests").rglob("test_*.py")
        if "pytest.mark.gpu" in file.read_text(encoding="utf-8")
    )
    command = [sys.executable, "-m", "pytest", "-rs", "-m", "gpu", "-p", "no:cacheprovider", "-p", "no:xdist"]
    ran = _run(job, [*command, *files])
    job.note("tests", files=files, **_ended(ran))
    _end_as(ran)


def run_study(job: Job) -> None:
    """Learning methods side by side on one device, eager: a compiler would take longer than they train."""
    preset, *overrides = job.scale.study
    folder = job.out / f"study-{job.results.call}"
    values = [
        *overrides,
        as_override("folder", folder),
        as_override("recipe.shards.folder", job.shards),
        *_study_corpus(job),
    ]
    command = [sys.executable, "-m", "ernie2", "study", "table7", "--preset", preset, *values]
    ran = _run(job, [*command, "--parallel", "7" if job.device.type == "cuda" else "1"])
    tables = folder / "study.md"
    table = tables.read_text(encoding="utf-8") if tables.exists() else ""
    job.note("study", preset=preset, overrides=overrides, folder=str(folder), table=table, **_ended(ran))
    _end_as(ran)


def _study_corpus(job: Job) -> list[str]:
    """A corpus called as in the shards, where that is not the preset's `wiki`; its text is not needed."""
    names = json.loads((job.shards / "shards.json").read_bytes())["corpora"]
    places = {name: {"path": "not-needed.jsonl"} for name in names}
    return [] if "wiki" in names else [f"recipe.corpora={json.dumps(places)}"]


def run_mini(job: Job) -> None:
    """Pre-train the small encoder of the recipe given by --mini, for as long as there is time; or say there is none."""
    if job.mini is None:
        job.note("skipped", why="no recipe was named: give --mini RECIPE")
        return
    folder = job.out / f"mini-{job.results.call}"
    command = [sys.executable, "-m", "ernie2", "pretrain", str(job.mini), as_override("run", folder)]
    ran = _run(job, command)
    metrics = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_bytes().splitlines()] if metrics.exists() else []
    job.note("mini", recipe=str(job.mini), folder=str(folder), last=lines[-3:], **_ended(ran))
    _end_as(ran)


@dataclass(frozen=True)
class Ran:
    """How a command ended; `stopped`: it was asked to, since its time was over."""

    exit_code: int
    stopped: bool
    said: list[str]


def _ended(ran: Ran) -> dict[str, Any]:
    return {"exit_code": ran.exit_code, "stopped": ran.stopped, "said": ran.said[-8:]}


def _end_as(ran: Ran) -> None:
    """End this part as its command ended: as cut off where it was stopped, as failed where it failed by itself."""
    if ran.stopped:
        sys.exit(STOPPED)
    if ran.exit_code:
        print("\n".join(ran.said[-30:]))
        sys.exit(1)


def _run(job: Job, command: Sequence[str]) -> Ran:
    """Run `command` at the root of the project; what it says also goes to a log file.

    Shortly before this part's time is over it gets SIGTERM, which makes `ernie2` save what it trained.
    """
    log, stopped = job.out / f"{job.part}.command.log", False
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        try:
            code = process.wait(max(1.0, job.left - _TO_SAVE))
        except subprocess.TimeoutExpired:
            stopped = True
            process.send_signal(signal.SIGTERM)
            code = process.wait()
    return Ran(code, stopped, log.read_text(encoding="utf-8", errors="replace").splitlines())
