"""What was run and on what, in lines for people, from a study's record. What a record does not say is left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ernie2.plurals import counted
from ernie2.studies.analysis.results import Analysis
from ernie2.studies.analysis.wording import listing


def facts(record: Mapping[str, Any], analysis: Analysis) -> list[str]:
    """One line each for the state, the model, the data, the training, the seeds and the machine."""
    lines = (_state(record), model(record), _data(record), _training(record), _seeds(analysis), _machine(record))
    return [line for line in lines if line]


def model(record: Mapping[str, Any]) -> str:
    """ "Encoder: transformer, 4 layers × 256, 11,300,000 parameters"."""
    found = record.get("encoder") or {}
    size = f"{found['layers']} layers × {found['hidden']}" if {"layers", "hidden"} <= set(found) else ""
    parameters = f"{found['parameters']:,} parameters" if found.get("parameters") else ""
    words = ", ".join(filter(None, (found.get("kind", ""), size, parameters)))
    return f"Encoder: {words}" if words else ""


def _state(record: Mapping[str, Any]) -> str:
    if record.get("status") == "done":
        return f"Finished {record['finished']}" if record.get("finished") else "Finished"
    return "Not finished"


def _data(record: Mapping[str, Any]) -> str:
    found = record.get("data") or {}
    corpora = [
        f"{name}: {one.get('documents', 0):,} documents, {one.get('heldout_documents', 0):,} held out, "
        f"{one.get('tokens', 0):,} tokens" + (f", {one['licence']}" if one.get("licence") else "")
        for name, one in sorted((found.get("corpora") or {}).items())
    ]
    if not corpora:
        return ""
    share = f" ({100 * found['share']:g} % of it used)" if found.get("share") not in (None, 1) else ""
    return f"Data: {'; '.join(corpora)}{share}"


def _training(record: Mapping[str, Any]) -> str:
    steps = record.get("steps") or {}
    titles = {task["name"]: task.get("title") or task["name"] for task in record.get("tasks") or []}
    if len(set(steps.values())) == 1:
        words = f"{next(iter(steps.values())):,} iterations of each of {counted(len(steps), 'task')}"
    else:
        words = "iterations: " + ", ".join(f"{titles.get(task, task)} {count:,}" for task, count in steps.items())
    batch = f", {record['batch_tokens']:,} tokens a step" if record.get("batch_tokens") else ""
    return f"Training: {words}{batch}"


def _seeds(analysis: Analysis) -> str:
    if not analysis.arms:
        return "Pre-training seeds: none finished yet"
    per_arm = {one.arm.seeds for one in analysis.arms}
    if len(per_arm) == 1:
        words = f"{len(next(iter(per_arm)))} in every arm"
    else:
        words = listing([f"{len(one.arm.seeds)} of {one.arm.title}" for one in analysis.arms])
    tried = [score for one in analysis.arms for score in one.scores if score.estimate is not None]
    runs = sorted({score.runs // len(score.estimate.values) for score in tried if score.estimate is not None})
    tuned = f"; fine-tuning runs for each: {listing([str(count) for count in runs])}" if runs else ""
    beside = {len(one.arm.seeds) for one in analysis.sensitivity}
    never = f"; without restarts of the schedule: {max(beside)}" if beside else ""
    return f"Pre-training seeds: {words}{never}{tuned}"


def _machine(record: Mapping[str, Any]) -> str:
    found = record.get("machine") or {}
    parts = [str(found[key]) for key in ("device", "cpu", "precision") if found.get(key)]
    if found.get("cores"):
        parts.append(counted(found["cores"], "core"))
    if found.get("parallel", 1) > 1:
        parts.append(f"{found['parallel']} runs side by side")
    parts += [f"{name} {version}" for name, version in sorted((found.get("versions") or {}).items())]
    return f"Machine: {', '.join(parts)}" if parts else ""
