"""What was run and on what, in lines for people, from a study's record. What a record does not say is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ernie2.studies.analysis.analyse import Analysis
from ernie2.studies.analysis.figures import SCORE
from ernie2.studies.analysis.reading import Record
from ernie2.wording import counted, listing


def facts(analysis: Analysis) -> Iterator[str]:
    """Yield one line each for the state, the model, the data, the training, the seeds and the machine."""
    record = analysis.record
    yield f"Finished {record.finished or ''}".rstrip() if record.status == "done" else "Not finished"
    if size := model(record):
        yield size
    if corpora := record.data.get("corpora"):
        share = f" ({100 * record.data['share']:g} % of it used)" if record.data.get("share") not in (None, 1) else ""
        yield f"Data: {'; '.join(_corpus(name, one) for name, one in sorted(corpora.items()))}{share}"
    yield _training(record)
    yield f"Pre-training seeds: {_seeds(analysis)}"
    if machine := record.machine:
        parts = [str(machine[key]) for key in ("device", "cpu", "precision") if machine.get(key)]
        parts += [counted(machine["cores"], "core")] if machine.get("cores") else []
        parts += [f"{machine['parallel']} runs side by side"] if machine.get("parallel", 1) > 1 else []
        parts += [f"{name} {version}" for name, version in sorted((machine.get("versions") or {}).items())]
        yield f"Machine: {', '.join(parts)}"


def model(record: Record) -> str:
    """ "Encoder: transformer, 4 layers × 256, 11,300,000 parameters"."""
    encoder = record.encoder
    size = f"{encoder['layers']} layers × {encoder['hidden']}" if {"layers", "hidden"} <= set(encoder) else ""
    parameters = f"{encoder['parameters']:,} parameters" if encoder.get("parameters") else ""
    words = ", ".join(filter(None, (encoder.get("kind", ""), size, parameters)))
    return f"Encoder: {words}" if words else ""


def _corpus(name: str, one: Mapping[str, Any]) -> str:
    licence = f", {one['licence']}" if one.get("licence") else ""
    return (
        f"{name}: {one.get('documents', 0):,} documents, {one.get('heldout_documents', 0):,} held out, "
        f"{one.get('tokens', 0):,} tokens{licence}"
    )


def _training(record: Record) -> str:
    titles, steps = {task.name: task.title for task in record.tasks}, record.steps
    if len(set(steps.values())) == 1:
        words = f"{next(iter(steps.values())):,} iterations of each of {counted(len(steps), 'task')}"
    else:
        words = "iterations: " + ", ".join(f"{titles.get(task, task)} {count:,}" for task, count in steps.items())
    batch = f", {record.batch_tokens:,} tokens a step" if record.batch_tokens else ""
    return f"Training: {words}{batch}"


def _seeds(analysis: Analysis) -> str:
    arms, sensitivity = analysis.arms, analysis.sensitivity
    if not arms:
        return "none finished yet"
    same = len({one.seeds for one in arms}) == 1
    words = f"{len(arms[0].seeds)} in every arm" if same else listing([f"{len(a.seeds)} of {a.title}" for a in arms])
    never = f"; without restarts of the schedule: {max(len(one.seeds) for one in sensitivity)}" if sensitivity else ""
    scored = [(score, one.figure(SCORE, name)) for one in arms for name, score in one.scores.items()]
    runs = sorted({score.runs // len(figure.values) for score, figure in scored if figure is not None})
    tuned = f"; fine-tuning runs for each: {listing([str(count) for count in runs])}" if runs else ""
    return f"{words}{never}{tuned}"
