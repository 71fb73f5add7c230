"""Kill a tiny run with SIGKILL many times, and compare its end bit by bit with an uninterrupted run.

    OMP_NUM_THREADS=1 python benchmarks/kill_test.py                          50 kills of one process
    OMP_NUM_THREADS=1 python benchmarks/kill_test.py --ranks 2 --kills 10     kills of single ranks under torchrun

A kill comes at a random time of one of four kinds: any time from the start of the process, after a few steps, while a
checkpoint is written, or at a change of stage. The run is then resumed with the usual command. If a run ends before
there were enough kills, another one starts.

One process: attempts are forked from a process with all imports done, so times exclude imports.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import ernie2
from comparisons.script import count, reported_errors
from ernie2.runs import start  # noqa: F401  import before forking
from ernie2.training import checkpoints
from ernie2.training.records import Records
from ernie2.training.trainer import Trainer

KINDS = ("at any time", "after some steps", "while saving", "at a change of stage")
SAME = ("hf/model.safetensors", "hf/task_heads.safetensors")
CLOCKS = ("seconds", "tokens_per_second", "time")


def write_corpus(file: Path, documents: int = 40, seed: int = 3) -> None:
    """Write sentences of random words, some capitalised, so that every task has instances."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list("abdeiklmnorstu"), size=rng.integers(2, 7))) for _ in range(200)]

    def sentence() -> str:
        chosen = [words[i] for i in rng.integers(200, size=rng.integers(4, 12))]
        return " ".join([chosen[0].title(), *(w.title() if rng.random() < 0.1 else w for w in chosen[1:])]) + "."

    def paragraph() -> str:
        return " ".join(sentence() for _ in range(rng.integers(2, 7)))

    text = "\n\n".join("\n".join(paragraph() for _ in range(rng.integers(3, 8))) for _ in range(documents))
    file.write_text(text + "\n", encoding="utf-8")


def write_recipe(folder: Path, run: str, steps: int) -> Path:
    """Four stages, two data streams, a checkpoint every seven steps and a line every step."""
    recipe = {
        "name": "killed",
        "run": str(folder / run),
        "corpora": {"words": {"path": str(folder / "words.txt")}},
        "tokenizer": {"train": 400},
        "shards": {"folder": str(folder / "shards"), "shard_tokens": 5000, "sentence_tokens": 58, "min_heldout": 6},
        "tasks": {
            "knowledge_masking": {},
            "capitalization_prediction": {},
            "token_document_relation": {},
            "sentence_reordering": {},
        },
        "stages": {"steps": steps, "max_epochs": 1000},
        "batch": {"batch_tokens": 512, "pack_tokens": 256, "sequence_tokens": 64},
        "encoder": {"layers": 1, "hidden": 32, "heads": 2, "position_rows": 64},
        "train": {"peak_lr": 1e-3, "precision": "fp32", "heldout_instances": 16, "checkpoint_every": 7, "log_every": 1},
    }
    file = folder / f"{run}.yaml"
    file.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return file


class Attempt:
    """A forked process that trains `recipe` and reports its steps, saves and stages."""

    def __init__(self, recipe: Path, run: Path) -> None:
        self.began = time.monotonic()
        self._read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._read)
            _train_in_child(recipe, run, write)
        os.close(write)

    def events(self, seconds: float) -> list[tuple[str, int, float]]:
        """Return the events within `seconds` (kind, step, seconds since its start); [("end", …)] after its end."""
        if not select.select([self._read], [], [], max(0.0, seconds))[0]:
            return []
        text = os.read(self._read, 1 << 16).decode()
        if not text:
            return [("end", 0, time.monotonic() - self.began)]
        events = [line.split() for line in text.splitlines() if line.count(" ") == 2]
        return [(kind, int(step), float(at) - self.began) for kind, step, at in events]

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Return the exit code, negative for a signal."""
        _, status = os.waitpid(self.pid, 0)
        os.close(self._read)
        return os.waitstatus_to_exitcode(status)


def _train_in_child(recipe: Path, run: Path, write: int) -> None:
    """Train in the forked process and report events."""
    log = os.open(run.with_suffix(".log"), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)

    def report(kind: str, step: int) -> None:
        os.write(write, f"{kind} {step} {time.monotonic()}\n".encode())

    def report_calls(kind: str, whose: Any, name: str, step: Callable[..., int], after: bool) -> None:
        function = getattr(whose, name)

        def wrapped(*given: Any, **named: Any) -> Any:
            if not after:
                report(kind, step(*given))
            result = function(*given, **named)
            if after:
                report(kind, step(*given))
            return result

        setattr(whose, name, wrapped)

    report_calls("step", Trainer, "_after_step", lambda trainer, *_: trainer.position.step, after=True)
    report_calls("stage", Trainer, "_end_stage", lambda trainer, *_: trainer.position.step, after=False)
    report_calls("save", checkpoints, "write", lambda _, step, *__: step, after=False)
    try:
        if checkpoints.is_started(run):
            ernie2.resume(run)
        else:
            ernie2.pretrain(str(recipe))
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


class Kills:
    """Kills one process `wanted` times, over several runs if needed."""

    def __init__(self, folder: Path, steps: int, wanted: int, seed: int) -> None:
        self.folder, self.steps, self.wanted, self.rng = folder, steps, wanted, random.Random(seed)
        self.kinds: Counter[str] = Counter()
        self.runs, self.first_steps = 0, list[tuple[int, float]]()
        self.saves_cut = self.before_first_step = 0

    def run(self) -> None:
        """Run until there were enough kills and the last run has ended; assert that all ends are equal."""
        reference = self.folder / "reference"
        attempt = Attempt(write_recipe(self.folder, "reference", self.steps), reference)
        assert attempt.wait() == 0, (self.folder / "reference.log").read_text()
        while sum(self.kinds.values()) < self.wanted:
            name = f"run{self.runs}"
            recipe, run = write_recipe(self.folder, name, self.steps), self.folder / name
            while not self._attempt(recipe, run):
                pass
            compare(reference, run)
            self.runs += 1
            print(f"{sum(self.kinds.values())} kills, {self.runs} runs at the same end", flush=True)

    def _attempt(self, recipe: Path, run: Path) -> bool:
        """Run a process until it is killed (False) or has ended (True)."""
        enough = sum(self.kinds.values()) >= self.wanted
        kind = "" if enough else KINDS[sum(self.kinds.values()) % len(KINDS)]
        at = self.rng.uniform(0.0, 2.0) if kind == KINDS[0] else None
        steps, skip = self.rng.randint(1, 25), self.rng.randint(0, 2)
        resumed = checkpoints.is_started(run)
        attempt, first = Attempt(recipe, run), True
        while True:
            left = 60.0 if at is None else at - (time.monotonic() - attempt.began)
            if at is not None and left <= 0:
                break
            for what, step, seconds in attempt.events(left):
                if what == "end":
                    code = attempt.wait()
                    assert code == 0, run.with_suffix(".log").read_text()[-3000:]
                    return True
                if what == "step" and first:
                    first = False
                    if resumed:
                        self.first_steps.append((step, seconds))
                steps -= what == "step"
                if at is None and kind == KINDS[1] and steps == 0:
                    at = seconds + self.rng.uniform(0.0, 0.05)
                if at is None and kind == KINDS[2] and what == "save":
                    skip -= 1
                    at = seconds + self.rng.uniform(0.0, 0.012) if skip < 0 else None
                if at is None and kind == KINDS[3] and what == "stage":
                    at = seconds + self.rng.uniform(0.0, 0.08)
        attempt.kill()
        if attempt.wait() == 0:
            return True
        self.kinds[kind] += 1
        self.before_first_step += first
        self.saves_cut += any((run / "checkpoints").glob("*.tmp"))
        return False

    def report(self) -> None:
        """Print counts and times, as in the docs."""
        print(f"\n{sum(self.kinds.values())} kills: " + ", ".join(f"{n} {kind}" for kind, n in self.kinds.items()))
        print(f"{self.saves_cut} left a checkpoint half-written, {self.before_first_step} came before the first step")
        print(f"{self.runs} runs, all bit-identical to the uninterrupted one")
        if not self.first_steps:
            return
        middle = statistics.median(step for step, _ in self.first_steps)
        for name, chosen in (
            ("all", self.first_steps),
            (f"up to step {middle:.0f}", [pair for pair in self.first_steps if pair[0] <= middle]),
            (f"beyond step {middle:.0f}", [pair for pair in self.first_steps if pair[0] > middle]),
        ):
            times = sorted(seconds for _, seconds in chosen) or [float("nan")]
            print(
                f"from the process's start, imports done, to the end of the first step, {name}: median "
                f"{statistics.median(times):.2f} s, longest {times[-1]:.2f} s ({len(chosen)} resumes)"
            )


def compare(reference: Path, run: Path) -> None:
    """Assert that two runs ended with the same parameters, and the same records except for times."""
    for file in SAME:
        assert (run / file).read_bytes() == (reference / file).read_bytes(), f"{run / file} differs"
    lines = [
        [{k: v for k, v in line.items() if k not in CLOCKS} for line in Records(r).read()] for r in (reference, run)
    ]
    assert lines[0] == lines[1], f"{run / 'metrics.jsonl'} differs"
    assert not list((run / "checkpoints").glob("*.tmp")), "a half-written checkpoint is left"
    assert not (run / "lock").exists()


def kill_ranks(folder: Path, steps: int, ranks: int, wanted: int, seed: int) -> None:
    """Kill single ranks of one run under torchrun, which restarts all ranks."""
    rng = random.Random(seed)
    reference, run = folder / "reference", folder / "run"
    assert _torchrun(write_recipe(folder, "reference", steps), ranks, 0).wait() == 0
    process = _torchrun(write_recipe(folder, "run", steps), ranks, wanted)
    killed, seen, times = 0, -1, []
    since = time.monotonic()
    while process.poll() is None:
        time.sleep(0.05)
        step = _last_step(run)
        if step > seen and killed < wanted and step >= 2:
            if killed:
                times.append(time.monotonic() - since)
            time.sleep(rng.uniform(0.0, 1.0))
            victims = [pid for pid in _children(process.pid) if process.poll() is None]
            if len(victims) < ranks:
                continue
            os.kill(rng.choice(victims), signal.SIGKILL)
            killed, since = killed + 1, time.monotonic()
            time.sleep(1.0)
            seen = _last_step(run)
            print(f"killed a rank after step {seen}", flush=True)
    assert process.returncode == 0, f"torchrun ended with {process.returncode}; see {folder}/run.log"
    compare(reference, run)
    print(f"\n{killed} kills of one of {ranks} ranks, all recovered; the end is bit-identical to an uninterrupted run")
    if times:
        print(f"from a kill to the next new step, imports included: median {statistics.median(times):.1f} s")


def _torchrun(recipe: Path, ranks: int, restarts: int) -> subprocess.Popen[bytes]:
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command += ["--max-restarts", str(restarts), "--monitor-interval", "0.2", "-m", "ernie2", "pretrain", str(recipe)]
    with recipe.with_suffix(".log").open("ab") as log:
        return subprocess.Popen([sys.executable, *command], stdout=log, stderr=subprocess.STDOUT)


def _children(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def _last_step(run: Path) -> int:
    try:
        lines = (run / "metrics.jsonl").read_bytes().splitlines()
        return max((int(json.loads(line).get("step", 0)) for line in lines[-3:]), default=-1)
    except (OSError, ValueError):
        return -1


@reported_errors()
def main() -> None:
    """Run the test."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=count, default=50)
    parser.add_argument("--ranks", type=count, default=1)
    parser.add_argument("--steps", type=count, default=60, help="iterations per task")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kill-test-"))
    write_corpus(folder / "words.txt")
    began = time.monotonic()
    if given.ranks > 1:
        kill_ranks(folder, given.steps, given.ranks, given.kills, given.seed)
    else:
        kills = Kills(folder, given.steps, given.kills, given.seed)
        kills.run()
        kills.report()
    print(f"total: {time.monotonic() - began:.0f} s")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
