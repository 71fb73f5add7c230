"""Two processes at once on one folder: one works and the other is refused, or both end well; the result is whole."""

from __future__ import annotations

import time

import numpy as np

from faults.children import Child, command
from faults.kills import JOBS, Job, Reference, compared, difference
from faults.outcome import Outcome, judge
from faults.workbench import Workbench, inside

KIND = "two at once"


def two_at_once(bench: Workbench, reference: Reference, rng: np.random.Generator) -> Outcome:
    """Start one command twice."""
    job: Job = JOBS[int(rng.integers(len(JOBS)))]
    delay = float(rng.choice([0.0, 0.05, 0.3, 0.8]))
    label = f"{job.name} twice, {delay} s apart"
    folder = bench.case(*job.needs)
    children = []
    for number in range(2):
        log = folder.with_name(f"case-{number}.log")
        log.unlink(missing_ok=True)
        children.append(Child(inside(folder, command(*job.command)), log))
        time.sleep(delay)
    ended = [child.wait() for child in children]
    for one in ended:
        if (found := judge(KIND, label, one)) is not None:
            return found
    codes = sorted(one.code for one in ended)
    if codes not in ([0, 0], [0, 2]):
        return Outcome(KIND, label, "silent", f"exit codes {codes}: {ended[0].output[-300:]} {ended[1].output[-300:]}")
    if compared(folder / job.result, job) != reference.results[job.name]:
        return Outcome(KIND, label, "silent", f"exit codes {codes}: {difference(folder, job, reference)}")
    return Outcome(KIND, label, "passed")
