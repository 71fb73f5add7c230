"""Parts that run commands: tests marked gpu, a study of Table 7, and the pre-training of a small encoder."""

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
_SAVE_SECONDS = 20.0
"""Seconds before its time limit at which a part stops its command, so that training progress is saved."""


def run_tests(job: Job) -> None:
    """Run the tests marked gpu."""
    files = sorted(
        str(file.relative_to(ROOT))
        for file in (ROOT / "tests").rglob("test_*.py")
        if "pytest.mark.gpu" in file.read_text(encoding="utf-8")
    )
    command = [sys.executable, "-m", "pytest", "-rs", "-m", "gpu", "-p", "no:cacheprovider", "-p", "no:xdist"]
    result = _run(job, [*command, *files])
    job.note("tests", files=files, **_result_facts(result))
    _exit_like(result)


def run_study(job: Job) -> None:
    """Run a study of learning methods on one device, not compiled: compiling would take longer than training."""
    preset, *overrides = job.scale.study
    folder = job.out / f"study-{job.results.call}"
    values = [
        *overrides,
        as_override("folder", folder),
        as_override("recipe.shards.folder", job.shards),
        *_study_corpus(job),
    ]
    command = [sys.executable, "-m", "ernie2", "study", "table7", "--preset", preset, *values]
    result = _run(job, [*command, "--parallel", "7" if job.device.type == "cuda" else "1"])
    tables = folder / "study.md"
    table = tables.read_text(encoding="utf-8") if tables.exists() else ""
    job.note("study", preset=preset, overrides=overrides, folder=str(folder), table=table, **_result_facts(result))
    _exit_like(result)


def _study_corpus(job: Job) -> list[str]:
    """Return an override for the corpus name of the shards if it is not the preset's `wiki`; the text is not needed."""
    names = json.loads((job.shards / "shards.json").read_bytes())["corpora"]
    places = {name: {"path": "not-needed.jsonl"} for name in names}
    return [] if "wiki" in names else [f"recipe.corpora={json.dumps(places)}"]


def run_mini(job: Job) -> None:
    """Pre-train the recipe given by --mini until the time limit; record "skipped" without one."""
    if job.mini is None:
        job.note("skipped", why="no recipe given; use --mini RECIPE")
        return
    folder = job.out / f"mini-{job.results.call}"
    command = [sys.executable, "-m", "ernie2", "pretrain", str(job.mini), as_override("run", folder)]
    result = _run(job, command)
    metrics = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_bytes().splitlines()] if metrics.exists() else []
    job.note("mini", recipe=str(job.mini), folder=str(folder), last=lines[-3:], **_result_facts(result))
    _exit_like(result)


@dataclass(frozen=True)
class CommandResult:
    """Result of a command; `stopped`: it was stopped at the time limit; `said`: lines of its output."""

    exit_code: int
    stopped: bool
    said: list[str]


def _result_facts(result: CommandResult) -> dict[str, Any]:
    return {"exit_code": result.exit_code, "stopped": result.stopped, "said": result.said[-8:]}


def _exit_like(result: CommandResult) -> None:
    """Exit like the command: with `STOPPED` if it was stopped, with 1 if it failed."""
    if result.stopped:
        sys.exit(STOPPED)
    if result.exit_code:
        print("\n".join(result.said[-30:]))
        sys.exit(1)


def _run(job: Job, command: Sequence[str]) -> CommandResult:
    """Run `command` at the root of the project, with its output in a log file.

    It gets SIGTERM shortly before the time limit of this part, so that `ernie2` saves its progress.
    """
    log, stopped = job.out / f"{job.part}.command.log", False
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        try:
            code = process.wait(max(1.0, job.left - _SAVE_SECONDS))
        except subprocess.TimeoutExpired:
            stopped = True
            process.send_signal(signal.SIGTERM)
            code = process.wait()
    return CommandResult(code, stopped, log.read_text(encoding="utf-8", errors="replace").splitlines())
