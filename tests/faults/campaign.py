"""The fault campaign: `python -m faults.campaign --seed 1 --minutes 5` (or `make faults SEED=1 MINUTES=5`).

Draws cases from a seed until the time is over or `--cases` are done, on all cores, and prints tried and passed by kind,
then every case that was silent, showed a traceback, hung, or left something behind; such a case is done a second time.
Exit 1 where there is one that failed both times.
The same seed gives the same cases in the same order; case N of a seed is repeated by `--only N`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from faults import checkpoints, damage, inputs, recipes, together
from faults.injection import Control, restart_with_injection
from faults.kills import JOBS, Reference, disturb
from faults.outcome import Outcome
from faults.workbench import Workbench, warm_up

SHARES = {
    "kill": 0.18,
    "full disk": 0.06,
    "EIO": 0.06,
    "damage": 0.22,
    "recipe": 0.18,
    "checkpoint": 0.12,
    "corpus": 0.08,
    "table": 0.07,
    "two at once": 0.03,
}
"""How often each kind is drawn."""


def kind_of(seed: int, number: int) -> str:
    """The kind of case `number`."""
    rng = np.random.default_rng([seed, number, 0])
    return str(rng.choice(list(SHARES), p=list(SHARES.values())))


def carry_out(bench: Workbench, reference: Reference, undamaged: damage.Undamaged, seed: int, number: int) -> Outcome:
    """Carry out case `number` of `seed`."""
    rng, kind = np.random.default_rng([seed, number, 1]), kind_of(seed, number)
    if kind in ("kill", "full disk", "EIO"):
        return disturb(bench, reference, rng, kind, JOBS[int(rng.integers(len(JOBS)))])
    if kind == "damage":
        return damage.damage(bench, undamaged, rng, damage.READERS[int(rng.integers(len(damage.READERS)))])
    if kind == "two at once":
        return together.two_at_once(bench, reference, rng)
    simple = {
        "recipe": recipes.mutate,
        "checkpoint": checkpoints.attack,
        "corpus": inputs.odd_corpus,
        "table": inputs.odd_table,
    }
    return simple[kind](bench, rng)


def work(folder: Path, seed: int, numbers: list[int], minutes: float) -> None:
    """Carry out cases one after the other; print one JSON line each."""
    until = time.monotonic() + 60 * minutes
    warm_up()
    bench = Workbench(folder, Control())
    bench.prepare_templates()
    reference, undamaged = Reference(bench), damage.Undamaged(bench)
    for number in numbers:
        if time.monotonic() > until:
            break
        outcome = carry_out(bench, reference, undamaged, seed, number)
        again = outcome.verdict == "passed" or carry_out(bench, reference, undamaged, seed, number).verdict != "passed"
        print(json.dumps({"number": number, "steady": again, **asdict(outcome)}), flush=True)


def main() -> int:
    """Run the campaign; return the exit code."""
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="ernie2-faults-")) if options.folder is None else options.folder
    if options.worker is not None:
        restart_with_injection(folder)
        numbers = [options.only] if options.only is not None else range(options.worker, options.cases, options.jobs)
        work(folder / "bench", options.seed, list(numbers), options.minutes)
        return 0
    try:
        outcomes, failed = _gather(options, folder)
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    return _report(outcomes, options.seed) or failed


def _gather(options: argparse.Namespace, folder: Path) -> tuple[list[dict[str, Any]], int]:
    """Start the workers, show each case as it ends, and return all of them and whether a worker failed."""
    jobs = 1 if options.only is not None else options.jobs
    arguments = [a for a in sys.argv[1:] if not a.startswith("--folder")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "faults.campaign", *arguments, "--worker", str(n), "--folder", str(folder / str(n))],
            stdout=(folder / f"{n}.jsonl").open("w"),
            env=environment,
        )
        for n in range(jobs)
    ]
    began, said = time.monotonic(), time.monotonic()
    while any(worker.poll() is None for worker in workers):
        time.sleep(0.2)
        if time.monotonic() - said > 15:
            said = time.monotonic()
            done, seconds = _read(folder, jobs), said - began
            faults = sum(one["verdict"] != "passed" for one in done)
            left = max(0.0, 60 * options.minutes - seconds)
            print(
                f"{len(done)} cases, {faults} faults, {60 * len(done) / seconds:.0f} a minute, {left:.0f} s left",
                flush=True,
            )
    return _read(folder, jobs), int(any(worker.returncode for worker in workers))


def _read(folder: Path, jobs: int) -> list[dict[str, Any]]:
    """The cases that ended so far."""
    lines = [line for n in range(jobs) for line in (folder / f"{n}.jsonl").read_text().splitlines(keepends=True)]
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _report(outcomes: list[dict[str, Any]], seed: int) -> int:
    tried, passed = (
        Counter(o["kind"] for o in outcomes),
        Counter(o["kind"] for o in outcomes if o["verdict"] == "passed"),
    )
    print(f"seed {seed}\n{'kind':<14}{'tried':>7}{'passed':>8}")
    for kind in tried:
        print(f"{kind:<14}{tried[kind]:>7}{passed[kind]:>8}")
    print(f"{'all':<14}{sum(tried.values()):>7}{sum(passed.values()):>8}")
    faults = [o for o in outcomes if o["verdict"] != "passed"]
    for one in faults:
        times = "" if one["steady"] else ", not when it was done again"
        print(
            f"\ncase {one['number']}, {one['kind']}, {one['verdict']}{times}: {one['label']}\n  {one['detail']!r}"[
                :1200
            ]
        )
    return int(any(one["steady"] for one in faults) or not outcomes)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Break ernie2 on purpose, and see whether it says so.")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="which cases (default: new ones)")
    parser.add_argument("--minutes", type=float, default=5.0, help="no new case after this long")
    parser.add_argument("--cases", type=int, default=100_000, help="no more cases than this")
    parser.add_argument("--only", type=int, help="carry out this case alone")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="cases at a time")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if "--seed" not in " ".join(sys.argv):
        sys.argv += ["--seed", str(options.seed)]
    return options


if __name__ == "__main__":
    sys.exit(main())
