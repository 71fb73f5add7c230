"""The results of a run in sentences: which tasks are learned, and forgetting."""

from __future__ import annotations

from ernie2.formatting import decimal, integer, interval, join_words, number_word, signed
from ernie2.learned import LEARNED, TOO_FEW
from ernie2.reporting.progress import is_trained, last_step, stage_ends, stage_spans
from ernie2.reporting.records_reader import Records, Score
from ernie2.reporting.tables import final_rows, forgetting_matrix
from ernie2.training.run_record import TaskRecord


def headline(records: Records) -> str:
    """Return one or two sentences: how many tasks are learned or undecided, and the progress of an unfinished run."""
    verdicts = [word for _, result, word in final_rows(records) if result is not None]
    if not verdicts:
        return f"{_state(records)}No task has been evaluated on held-out documents yet."
    learned, few = verdicts.count(LEARNED), verdicts.count(TOO_FEW)
    noun = "task" if len(verdicts) == 1 else "tasks"
    if learned == len(verdicts):
        count = {1: "the one", 2: "both"}.get(learned, f"all {number_word(learned)}")
    else:
        count = f"{'none' if learned == 0 else number_word(learned)} of {number_word(len(verdicts))}"
    so_far = " trained so far" if len(verdicts) < len(records.run.tasks) else ""
    sentence = f"{count} {noun}{so_far} {'is' if learned <= 1 else 'are'} above every baseline on held-out documents."
    undecided = f" For {number_word(few)} there are too few held-out instances to tell." if few else ""
    return _state(records) + sentence[0].upper() + sentence[1:] + undecided


def _state(records: Records) -> str:
    if records.run.status == "done":
        return ""
    planned = stage_spans(records)[-1].end if records.run.stages else 0
    verb = "Still running" if records.run.status == "running" else "Stopped"
    return f"{verb}, at step {integer(last_step(records))} of {integer(planned)}. "


def tasks_with_verdict(records: Records, wanted: str) -> tuple[str, ...]:
    """Return "Title (accuracy [interval]; best baseline)" of every trained task with this verdict."""
    tasks = []
    for task, result, word in final_rows(records):
        if word != wanted or result is None:
            continue
        bounds = interval(result.low, result.high)
        accuracy = decimal(result.accuracy) + (f" [{bounds}]" if bounds else "")
        verdict = result.verdict
        reason = f"{verdict.baseline} {decimal(verdict.baseline_accuracy)}"
        if word == TOO_FEW:
            reason = f"{number_word(verdict.instances)} instances"
        tasks.append(f"{task.title} ({accuracy}; {reason})")
    return tuple(tasks)


def unevaluated_tasks(records: Records) -> tuple[str, ...]:
    """Return the titles of tasks without a held-out result since their training began."""
    return tuple(task.title for task, result, _ in final_rows(records) if result is None)


def remarks(records: Records) -> tuple[str, ...]:
    """Return sentences on the masked-token loss, forgetting, skipped steps and downstream scores, if there are any."""
    losses = [_vocabulary_loss(records, task) for task in records.run.tasks if task.labels is None]
    return tuple(filter(None, (*losses, _forgetting(records), _skipped(records), *map(_downstream, records.scores))))


def _skipped(records: Records) -> str:
    skipped = sum(step.skipped for step in records.steps)
    if not skipped:
        return ""
    steps = f"{integer(skipped)} step{' was' if skipped == 1 else 's were'}"
    return f"{steps} skipped because of a non-finite loss or gradient."


def _vocabulary_loss(records: Records, task: TaskRecord) -> str:
    ends = stage_ends(records)
    results = [
        ends[index].tasks[task.name]
        for index in sorted(ends)
        if task.name in ends[index].tasks and is_trained(records.run, task.name, ends[index])
    ]
    if not results or results[-1].loss is None:
        return ""
    losses = [decimal(result.loss, 2) for result in results]
    by_stage = f"; by stage: {' → '.join(losses)}" if len(losses) > 1 else ""
    baseline = results[-1].feature_baseline
    feature = f" ({baseline.feature})" if baseline.feature else ""
    against = "" if baseline.loss is None else f" against {decimal(baseline.loss, 2)} for the feature baseline{feature}"
    return f"{task.title} has a held-out loss of {losses[-1]} nats per token{against}{by_stage}."


def _forgetting(records: Records) -> str:
    rows = [row for row in forgetting_matrix(records) if row.forgetting is not None]
    if not rows:
        return ""
    lost = [f"{row.task.title} ({decimal(row.forgetting)})" for row in rows if row.clear]
    if lost:
        return f"Forgetting beyond the 95 % interval, compared with the best earlier stage: {join_words(lost)}."
    return "No task shows forgetting beyond its 95 % interval, compared with its best earlier stage."


def _downstream(score: Score) -> str:
    if score.margin is None:
        return ""
    bounds = f" ({score.margin_note})" if score.margin_note else ""
    if score.margin_low is not None:
        bounds = f" [{signed(score.margin_low)} to {signed(score.margin_high)}]"
    seeds = f"{number_word(len(score.seeds))} seed{'' if len(score.seeds) == 1 else 's'}"
    examples = "" if score.train is None else f" ({integer(score.train)} labelled examples, {seeds})"
    return (
        f"“{score.name}”{examples}: {score.metric} with the pre-trained encoder minus that with the untrained one is "
        f"{signed(score.margin)}{bounds}."
    )
