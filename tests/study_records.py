"""A made-up record of a small Table 7 study: four methods, three seeds, four tasks, three datasets.

Values come from a toy model of learning: the accuracy of a trained task approaches its ceiling, that of others falls.
They are plausible and deterministic, but not measured.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

TASKS = ("knowledge_masking", "capitalization_prediction", "token_document_relation", "sentence_reordering")
TITLES = ("Knowledge masking", "Capitalization", "Token-document relation", "Sentence reordering")
CHEAP = dict(zip(TASKS, (0.05, 0.88, 0.77, 0.53), strict=True))
CEILING = dict(zip(TASKS, (0.30, 0.97, 0.84, 0.58), strict=True))
METHODS = {
    "continual": "continual",
    "multitask": "multi-task",
    "continual_multitask": "continual multi-task",
    "combined": "continual multi-task, combined",
}
PAPER_DATASETS = {"mnli": ("dev_matched", 62.0), "sst2": ("dev", 81.0), "mrpc": ("dev", 70.0)}
LIFT = {"continual": -2.0, "multitask": 0.0, "continual_multitask": 1.0, "combined": 0.8}
STEPS = 50
"""Iterations of each task."""
_REPLAY = ((20, 0, 0, 0), (10, 30, 0, 0), (10, 10, 40, 0), (10, 10, 10, 50))
_PLANS = {
    "continual": ((50, 0, 0, 0), (0, 50, 0, 0), (0, 0, 50, 0), (0, 0, 0, 50)),
    "multitask": ((50, 50, 50, 50),),
    "continual_multitask": _REPLAY,
    "combined": _REPLAY,
}
_CHUNKS = 10
"""Evaluations in a stage."""


def study_record(
    *,
    seeds: Sequence[int] = (0, 1, 2),
    sensitivity: Sequence[int] = (0, 1),
    methods: Sequence[str] = tuple(METHODS),
    scores: bool = True,
    scratch: bool = True,
    finetuning_seeds: int = 3,
) -> dict[str, Any]:
    """FOLDER/study.json as a dict. `sensitivity` are the seeds run once more without restarts."""
    runs = [_run(method, "per_stage", seed, scores, finetuning_seeds) for seed in seeds for method in methods]
    for seed in sensitivity:
        for method in methods:
            same = method == "multitask"
            rule = "per_stage" if same else "never"
            beside = _run(method, rule, seed, scores, finetuning_seeds)
            runs.append(beside | {"restart": "never", "same_run": same})
    return {
        "format": 2,
        "kind": "study",
        "study": "table7",
        "preset": "laptop",
        "status": "done",
        "created": "2026-01-02T03:04:05+00:00",
        "finished": "2026-01-02T09:04:05+00:00",
        "settings": {"batch_tokens": 2048, "seeds": len(seeds)},
        "machine": {
            "device": "cpu",
            "cpu": "a made-up processor",
            "cores": 2,
            "precision": "fp32",
            "versions": {"ernie2": "0.1.0", "torch": "2.13.0"},
            "parallel": 1,
        },
        "data": {
            "corpora": {
                "made_up": {"documents": 9000, "heldout_documents": 90, "tokens": 4_000_000, "licence": "CC BY-SA"}
            },
            "share": 1.0,
            "fingerprint": "ab12" * 16,
        },
        "encoder": {"kind": "transformer", "layers": 4, "hidden": 256, "parameters": 11_300_000},
        "steps": dict.fromkeys(TASKS, STEPS),
        "batch_tokens": 2048,
        "forward_transfer_at": 0.1,
        "tasks": [
            {"name": name, "title": title, "level": "sentence" if name == TASKS[-1] else "token"}
            for name, title in zip(TASKS, TITLES, strict=True)
        ],
        "methods": [
            {
                "name": name,
                "title": METHODS[name],
                "method": "continual_multitask" if name == "combined" else name,
                "combine": name == "combined",
            }
            for name in methods
        ],
        "runs": runs,
        "scratch": [_scratch(task, seed) for seed in seeds for task in TASKS[1:]] if scratch else [],
    }


def _initial(seed: int) -> str:
    return f"{seed:064x}"


def _run(method: str, restart: str, seed: int, scores: bool, finetuning_seeds: int) -> dict[str, Any]:
    chance = random.Random(f"{method} {restart} {seed}")
    heldout, stages, step = [], [], 0
    skill, done = dict.fromkeys(TASKS, 0.0), dict.fromkeys(TASKS, 0)
    heldout.append(_evaluation(0, 0, "start", done, skill, chance))
    for index, row in enumerate(_PLANS[method]):
        plan = {task: count for task, count in zip(TASKS, row, strict=True) if count}
        steps = max(sum(row[:3]), row[3]) if method == "combined" else sum(row)
        entering = [task for task in plan if not done[task]]
        begin = step
        for chunk in range(1, _CHUNKS + 1):
            _train({task: count // _CHUNKS for task, count in plan.items()}, done, skill)
            step = begin + steps * chunk // _CHUNKS
            at = "stage_end" if chunk == _CHUNKS else "during"
            heldout.append(_evaluation(step, index, at, done, skill, chance))
        stages.append({"begin": begin, "end": step, "tasks": plan, "introduced": entering})
    return {
        "method": method,
        "restart": restart,
        "seed": seed,
        "same_run": False,
        "initial": _initial(seed),
        "iterations": done,
        "steps": step,
        "passes": step,
        "tokens": step * 2048,
        "seconds": 2.5 * step + chance.random(),
        "stages": stages,
        "heldout": heldout,
        "scores": _scores(method, chance, finetuning_seeds) if scores else {},
    }


def _train(counts: dict[str, int], done: dict[str, int], skill: dict[str, float]) -> None:
    """Skills run from 0 to 1: a step closes a tenth of the gap, an idle task falls by a hundredth for every other's."""
    for task in TASKS:
        if task in counts:
            done[task] += counts[task]
            skill[task] = 1 - (1 - skill[task]) * 0.9 ** counts[task]
        else:
            skill[task] *= 0.99 ** sum(counts.values())


def _evaluation(
    step: int, stage: int, at: str, done: dict[str, int], skill: dict[str, float], chance: random.Random
) -> dict[str, Any]:
    tasks = {}
    for task in TASKS:
        floor = CHEAP[task] * 0.9
        accuracy = floor + skill[task] * (CEILING[task] - floor) + chance.gauss(0, 0.002)
        tasks[task] = {
            "accuracy": accuracy,
            "loss": 5.0 * (1 - accuracy),
            "low": accuracy - 0.01,
            "high": accuracy + 0.01,
            "feature_baseline": CHEAP[task],
            "majority_baseline": CHEAP[task] - 0.02,
            "constant_baseline": CHEAP[task] - 0.01,
            "instances": 200,
        }
    return {"step": step, "stage": stage, "at": at, "iterations": dict(done), "tasks": tasks}


def _scores(method: str, chance: random.Random, finetuning_seeds: int) -> dict[str, Any]:
    made = {}
    for name, (split, base) in PAPER_DATASETS.items():
        seed_effect = chance.gauss(0, 0.4)
        made[name] = {
            "metric": "accuracy",
            "split": split,
            "provenance": "subset",
            "train": 3000,
            "dev": 1000,
            "values": {
                str(one): round(base + LIFT[method] + seed_effect + chance.gauss(0, 0.6), 1)
                for one in range(finetuning_seeds)
            },
        }
    return made


def _scratch(task: str, seed: int) -> dict[str, Any]:
    chance = random.Random(f"scratch {task} {seed}")
    skill, done = dict.fromkeys(TASKS, 0.0), dict.fromkeys(TASKS, 0)
    heldout = [_evaluation(0, 0, "start", done, skill, chance)]
    _train({task: STEPS // 10}, done, skill)
    heldout.append(_evaluation(STEPS // 10, 0, "stage_end", done, skill, chance))
    return {
        "task": task,
        "restart": "per_stage",
        "seed": seed,
        "iterations": STEPS // 10,
        "initial": _initial(seed),
        "heldout": heldout,
    }
