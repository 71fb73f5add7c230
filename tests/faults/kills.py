"""Kills and failing disks: a command is stopped at one file operation, and run again as a user would.

Whatever the moment, the second run must end well and leave what an undisturbed run leaves: the same shards, the same
parameters, no process, no temporary file.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from faults.children import Ended
from faults.injection import Fault
from faults.outcome import Outcome, judge
from faults.workbench import FINETUNE, Workbench, digest

TEMPORARY = ("**/*.tmp", "**/.*.tmp", "**/.prepare*", "**/lock.*")


@dataclass(frozen=True)
class Job:
    """A command to disturb."""

    name: str
    needs: tuple[str, ...]
    command: tuple[object, ...]
    result: str
    """The folder it makes."""
    compared: tuple[str, ...]
    """Files of that folder that must come out the same."""


JOBS = (
    Job("prepare", (), ("prepare", "recipe.yaml", "--workers", 2), "shards", ("**/*",)),
    Job("prepare-1", (), ("prepare", "recipe.yaml", "--workers", 1), "shards", ("**/*",)),
    Job("pretrain", ("shards",), ("pretrain", "recipe.yaml"), "run", ("hf/*", "report.html")),
    Job("resume", ("shards", "stopped"), ("resume", "run"), "run", ("hf/*", "report.html")),
    Job("finetune", ("shards", "done"), FINETUNE, "tuned", ("**/model.safetensors", "**/results.*", "**/vocab.txt")),
)
_DIFFERS = ("report.html", "results.html", "results.md", "README.md")
"""Files that hold times: that they are there is compared, not what they say."""


class Reference:
    """What each job leaves when nothing disturbs it, and how many file operations that takes."""

    def __init__(self, bench: Workbench) -> None:
        self.operations: dict[str, int] = {}
        self.results: dict[str, dict[str, str]] = {}
        for job in JOBS:
            folder = bench.case(*job.needs)
            ended, self.operations[job.name], _ = bench.ernie2(folder, *job.command)
            if ended.code or ended.left:
                raise RuntimeError(f"undisturbed, {job.name} ended with {ended.code}: {ended.output} {ended.left}")
            self.results[job.name] = compared(folder / job.result, job)


def compared(folder: Path, job: Job) -> dict[str, str]:
    """What must be the same after a disturbed run: file → digest, without locks, logs and remembered hashes."""
    return {
        name: "there" if Path(name).name in _DIFFERS else value
        for name, value in digest(
            folder, job.compared, ignore=("**/logs/**", "**/*.lock", "**/.*.lock", "**/lock", "**/input-files.json")
        ).items()
    }


def disturb(bench: Workbench, reference: Reference, rng: np.random.Generator, kind: str, job: Job) -> Outcome:
    """Disturb `job` once; `kind` is "kill", "full disk" or "EIO"."""
    at = int(rng.integers(1, reference.operations[job.name] + 1))
    fault = {"kill": Fault(at), "full disk": Fault(at, errno.ENOSPC, True), "EIO": Fault(at, errno.EIO)}[kind]
    label = f"{kind} of {job.name} at operation {at} of {reference.operations[job.name]}"
    folder = bench.case(*job.needs)
    first, _, fired = bench.ernie2(folder, *job.command, fault=fault)
    fault_found = judge(kind, label, first if kind != "kill" or first.code >= 0 else _killed(first))
    if fault_found:
        return fault_found
    if (
        first.code == 0
        and fired
        and kind != "kill"
        and "cannot be removed" not in first.output
        and compared(folder / job.result, job) != reference.results[job.name]
    ):
        return Outcome(kind, label, "silent", "exit 0 though the disk refused: " + difference(folder, job, reference))
    return _again(bench, reference, kind, label, folder, job)


def _again(bench: Workbench, reference: Reference, kind: str, label: str, folder: Path, job: Job) -> Outcome:
    command = _second_command(folder, job)
    second, _, _ = bench.ernie2(folder, *command)
    if second.code == 2 and command[0] == "resume":  # stopped before its first checkpoint, it starts again
        second, _, _ = bench.ernie2(folder, "pretrain", "recipe.yaml")
    if (found := judge(kind, f"{label}, run again", second)) is not None:
        return found
    if second.code:
        return Outcome(kind, label, "silent", f"run again: exit {second.code}: {second.output[-600:]}")
    if compared(folder / job.result, job) != reference.results[job.name]:
        return Outcome(kind, label, "silent", "run again: " + difference(folder, job, reference))
    if left := _temporary(folder):
        return Outcome(kind, label, "left behind", ", ".join(left))
    return Outcome(kind, label, "passed")


def _second_command(folder: Path, job: Job) -> Sequence[object]:
    """What a user gives next: resume where there is a run, else the same command."""
    return ("resume", "run") if job.result == "run" and (folder / "run" / "run.json").exists() else job.command


def _killed(ended: Ended) -> Ended:
    """A killed command says nothing wrong by what its workers print while they die."""
    return Ended(ended.code, "", ended.hung, ended.left)


def difference(folder: Path, job: Job, reference: Reference) -> str:
    """What differs from the undisturbed result."""
    wanted, got = reference.results[job.name], compared(folder / job.result, job)
    missing, more = sorted(wanted.keys() - got.keys()), sorted(got.keys() - wanted.keys())
    other = sorted(name for name in wanted.keys() & got.keys() if wanted[name] != got[name])
    return f"missing {missing}, too many {more}, other content {other}"


def _temporary(folder: Path) -> list[str]:
    return sorted(os.fspath(path.relative_to(folder)) for pattern in TEMPORARY for path in folder.glob(pattern))
