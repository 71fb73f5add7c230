"""A small run, small enough to check by hand: two tasks, two stages, forty steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from ernie2.reporting.records_reader import Records, read_records
from ernie2.storage.json_files import write_checked_json
from tiny_run import run_values

MASKING, CASE = "knowledge_masking", "capitalization_prediction"


def described(**changes: Any) -> dict[str, Any]:
    """run.json of the small run; parts given in `changes` may be partial."""
    values = {
        "name": "small",
        "about": "A run to look at.",
        "created": "2026-03-02T10:00:00+00:00",
        "finished": "2026-03-02T10:05:00+00:00",
        "status": "done",
        "seed": 7,
        "recipe": {"name": "small", "train": {"peak_lr": 0.001}},
        "versions": {"ernie2": "0.1.0", "torch": "2.13.0"},
        "git": "abc1234",
        "device": "cpu (2 threads)",
        "precision": "fp32",
        "parameters": 4123456,
        "data": {
            "shards": ["shards/small"],
            "fingerprint": "f00d",
            "vocab_size": 4000,
            "corpora": {
                "novels": {
                    "language": "en",
                    "licence": "public domain",
                    "documents": 312,
                    "heldout_documents": 31,
                    "tokens": 654321,
                    "dropped": {"duplicate": 12, "empty": 0},
                }
            },
            "usable": {MASKING: {"novels": {"usable": 156, "of": 312}}},
        },
        "tasks": [
            {
                "name": MASKING,
                "id": 0,
                "level": "token",
                "labels": None,
                "title": "Knowledge masking",
                "about": "Fill.",
            },
            {"name": CASE, "id": 1, "level": "token", "labels": ["no", "yes"]},
        ],
        "stages": [
            {"name": "1", "iterations": {MASKING: 20}, "steps": 20, "introduced": [MASKING]},
            {"name": "2", "iterations": {MASKING: 10, CASE: 30}, "steps": 20, "introduced": [CASE]},
        ],
        "batch_tokens": 4096,
        "initialised_from": None,
    } | changes
    values = run_values(**values)
    task = {"id": 0, "level": "token", "labels": None, "about": ""}
    stage: dict[str, Any] = {"name": "", "iterations": {}, "steps": 0, "introduced": []}
    values["data"] = run_values()["data"] | values["data"]
    values["tasks"] = [task | {"title": one["name"].replace("_", " ").capitalize()} | one for one in values["tasks"]]
    values["stages"] = [stage | one for one in values["stages"]]
    if values["extended_from"]:
        values["extended_from"] = {"data": "", "replay": None} | values["extended_from"]
    return values


def result(accuracy: float, half: float, cheap: float, loss: float = 1.0, **more: Any) -> dict[str, Any]:
    """One task's held-out result, `half` being half its interval."""
    return {
        "instances": 64,
        "scored": 1234,
        "loss": loss,
        "accuracy": accuracy,
        "low": accuracy - half,
        "high": accuracy + half,
        "macro_f1": None,
        "majority_baseline": {"accuracy": 0.031, "macro_f1": None},
        "constant_baseline": {"accuracy": 0.04, "macro_f1": None},
        "feature_baseline": {"feature": "unigram", "accuracy": cheap, "loss": 6.31, "macro_f1": None},
    } | more


def lines() -> list[dict[str, Any]]:
    """metrics.jsonl of the small run."""
    cheap = {MASKING: 0.05, CASE: 0.8}

    def heldout(step: int, stage: int, at: str, masking: float, case: float, loss: float) -> dict[str, Any]:
        tasks = {MASKING: result(masking, 0.02, cheap[MASKING], loss), CASE: result(case, 0.02, cheap[CASE])}
        return {"kind": "heldout", "step": step, "stage": stage, "at": at, "tasks": tasks}

    def step(number: int, stage: int, **loss: float) -> dict[str, Any]:
        speed = {"seconds": number * 1.5, "tokens": number * 4096, "tokens_per_second": 2730.5}
        values = {"lr": number / 1e4, "grad_norm": 0.5, **speed}
        counts = dict.fromkeys(loss, 9)
        return {"kind": "step", "step": number, "stage": stage, **values, "loss": loss, "count": counts}

    def event(name: str, stage: int, at: int, **more: Any) -> dict[str, Any]:
        return {"kind": "stage", "event": name, "stage": stage, "step": at, "time": "t", **more}

    return [
        heldout(0, 0, "start", 0.0, 0.5, 8.3),
        event("begin", 0, 0),
        step(10, 0, **{MASKING: 7.0}),
        step(20, 0, **{MASKING: 6.5}),
        heldout(20, 0, "stage_end", 0.2, 0.4, 6.0),
        event("end", 0, 20, peak_lr_reached=0.002, iterations={MASKING: 20}),
        event("begin", 1, 20),
        step(30, 1, **{MASKING: 6.2, CASE: 0.6}),
        step(40, 1, **{MASKING: 6.1, CASE: 0.5}),
        heldout(40, 1, "stage_end", 0.15, 0.81, 5.5),
        event("end", 1, 40, peak_lr_reached=0.004, iterations={MASKING: 10, CASE: 30}),
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Write a run folder: `folder(lines=..., **changes of run.json)`."""

    def write(records: Iterable[dict[str, Any]] | None = None, **changes: Any) -> Path:
        run = tmp_path / "run"
        run.mkdir(exist_ok=True)
        write_checked_json(run / "run.json", described(**changes))
        text = "".join(json.dumps(line) + "\n" for line in (lines() if records is None else records))
        (run / "metrics.jsonl").write_text(text, encoding="utf-8")
        return run

    return write


@pytest.fixture
def small(folder: Callable[..., Path]) -> Callable[..., Records]:
    """Read the run folder: `small(lines=..., **changes)`."""
    return lambda records=None, **changes: read_records(folder(records, **changes))


@pytest.fixture
def small_lines() -> list[dict[str, Any]]:
    """The lines of the small run, for changes."""
    return lines()


@pytest.fixture
def heldout_result() -> Callable[..., dict[str, Any]]:
    """`result(accuracy, half, cheap, loss=1.0, **more)`: a held-out result to put into a line."""
    return result
