"""The GLUE score: the mean over nine tasks, as the benchmark and the paper's Table 5 count them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SCORED = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli")
"""The tasks that count; AX is diagnostic only."""


def glue_score(results: Mapping[str, Sequence[float]]) -> float:
    """Return the mean over the nine tasks, in percent; `results` has the figures of each (two metrics, or both MNLI).

    A task with several figures enters with their mean, WNLI counts, and AX may be given and does not. Raises `KeyError`
    where a task is missing: a mean over fewer tasks is not a GLUE score.
    """
    return sum(sum(results[name]) / len(results[name]) for name in SCORED) / len(SCORED)
