"""Run all GPU measurements with one command; results survive an interruption.

    python benchmarks/gpu_run.py --shards SHARDS --out OUT [--limit 470] [--only base,large] [--mini RECIPE]

SHARDS is a folder written by `ernie2 prepare`. Parts run one after another in separate processes, the most important
first, each with a time limit. Every measurement is synced at once as a line of OUT/results.jsonl. A part that fails or
is cut off is reported there and does not stop the others. The output of a part is in OUT/PART.log; its last line is
printed every 15 seconds. `read_gpu_run.py OUT/results.jsonl` prints tables.

--scale tiny runs every part at the smallest size, also on a CPU, with one thread unless OMP_NUM_THREADS is set: about
150 seconds of processor time. It is a functional test.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import secrets
import sys
import time
import tomllib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpu_parts.results import Results

BEGAN = time.monotonic()
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "benchmarks")]

PARTS = {
    "machine": 60,
    "base": 150,
    "attention": 70,
    "tests": 90,
    "ablation": 240,
    "against": 180,
    "large": 120,
    "input": 90,
    "study": 150,
    "mini": 3600,
}
"""Parts with their time limits in seconds at real size, in default order."""

OF_PARTS = ("transformers", "pytest", "hypothesis", "scikit-learn")
"""Packages that parts need besides the project's dependencies."""


def main() -> int:
    """Run the chosen parts, or one of them; return 1 if a part failed or was cut off, 2 for a wrong argument."""
    try:
        return _main()
    except OSError as error:
        if "--part" in sys.argv:  # the error belongs in the log of the part
            raise
        print(f"cannot use {error.filename}: {error.strerror}. Choose another folder or file.", file=sys.stderr)
        return 2


def seconds(text: str) -> float:
    """Parse a positive number of seconds; raise `ValueError` for anything else."""
    number = float(text)
    if not 0 < number < math.inf:
        raise ValueError
    return number


def lacking_packages() -> list[str]:
    """Return the missing packages of those that the project and the parts need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lacking = []
    for name in [*(re.split("[^A-Za-z0-9_.-]", each)[0] for each in project["dependencies"]), *OF_PARTS]:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            lacking.append(name)
    return lacking


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=Path, required=True, help="a folder written by `ernie2 prepare`")
    parser.add_argument("--out", type=Path, required=True, help="folder for results.jsonl and logs")
    parser.add_argument(
        "--limit", type=seconds, default=470, help="seconds for all parts together; default: %(default)s"
    )
    parser.add_argument("--only", action="append", help=f"parts to run, in this order: {','.join(PARTS)}")
    scale = "tiny: every part at its smallest size, on a CPU too; default: %(default)s"
    parser.add_argument("--scale", choices=["real", "tiny"], default="real", help=scale)
    parser.add_argument("--mini", type=Path, help="recipe of the small encoder for the last part")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=600, help=argparse.SUPPRESS)
    parser.add_argument("--call", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not (given.shards / "shards.json").is_file():
        parser.error(f"{given.shards} has no shards; run `ernie2 prepare` or give another folder")
    chosen = list(PARTS) if given.only is None else [name.strip() for name in ",".join(given.only).split(",")]
    if unknown := [name for name in chosen if name not in PARTS]:
        parser.error(f"--only: unknown part {', '.join(map(repr, unknown))}; choose from {', '.join(PARTS)}")
    if given.mini and not given.mini.is_file():
        parser.error(f"--mini {given.mini}: no such file")
    if lacking := lacking_packages():
        install = 'install the project: pip install -c constraints.txt -e ".[dev]"'
        parser.error(f"{sys.executable} lacks {', '.join(lacking)}; {install}")
    if given.scale == "tiny":
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # at these sizes threads mostly wait for each other
    given.out.mkdir(parents=True, exist_ok=True)
    for name in ("results.jsonl", *(f"{part}.log" for part in chosen)):
        with (given.out / name).open("ab"):
            pass
    from gpu_parts.driver import end_with_driver, run_parts
    from gpu_parts.results import Results

    if given.part:
        end_with_driver()
        _run_part(given, Results(given.out, given.call))
        return 0
    results = Results(given.out, secrets.token_hex(4))

    def command(name: str, seconds: float) -> list[str]:
        places = ["--shards", str(given.shards.resolve()), "--out", str(given.out.resolve())]
        mini = ["--mini", str(given.mini.resolve())] if given.mini else []
        options = ["--scale", given.scale, "--part", name, "--seconds", str(seconds), "--call", results.call]
        return [sys.executable, str(Path(__file__).resolve()), *places, *options, *mini]

    limits = {name: PARTS[name] if given.scale == "real" else given.limit for name in chosen}
    failed = run_parts(limits, command, results, given.limit - (time.monotonic() - BEGAN))
    print(f"results: {given.out / 'results.jsonl'}" + (f"; failed or cut off: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def _run_part(given: argparse.Namespace, results: Results) -> None:
    """Run one part in this process."""
    import torch

    from ernie2.training.environment import environment, git_state
    from gpu_parts import against, attention, commands, machine, training
    from gpu_parts.job import SCALES, Job

    part = {
        "machine": machine.measure,
        "base": training.measure_base,
        "attention": attention.measure,
        "tests": commands.run_tests,
        "ablation": training.measure_ablation,
        "against": against.measure,
        "large": training.measure_large,
        "input": training.measure_input,
        "study": commands.run_study,
        "mini": commands.run_mini,
    }[given.part]
    job = Job(given.part, results, given.shards, SCALES[given.scale], given.seconds, given.mini, BEGAN)
    about = environment()
    job.note(
        "settings",
        scale=given.scale,
        commit=os.environ.get("ERNIE2_COMMIT") or git_state(ROOT),
        device=torch.cuda.get_device_name() if job.device.type == "cuda" else f"{about['cpu']}, {about['cores']} cores",
        load=os.getloadavg()[0],
    )
    part(job)


if __name__ == "__main__":
    sys.exit(main())
