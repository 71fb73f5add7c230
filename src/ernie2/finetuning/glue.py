"""The GLUE score: the mean over nine tasks, as the benchmark and the paper's Table 5 count them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ernie2.errors import DataError, did_you_mean

SCORED = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli")
"""The tasks that count; AX is diagnostic only."""


def glue_score(results: Mapping[str, float | Sequence[float]]) -> float:
    """Mean over the nine tasks, in percent, of task -> figure or figures (two metrics, or MNLI matched and mismatched).

    A task with several figures enters with their mean, WNLI counts, AX may be given and does not. Raises `DataError`
    naming tasks that are missing, unknown or without a finite figure: a mean over fewer tasks is not a GLUE score.
    """
    if unknown := [name for name in results if name not in (*SCORED, "ax")]:
        raise DataError(
            f"{unknown[0]!r} is not a GLUE task.{did_you_mean(unknown[0], SCORED)} Known: {', '.join(SCORED)}."
        )
    if missing := [name for name in SCORED if name not in results]:
        raise DataError(
            f"no GLUE score without {', '.join(missing)}: it is the mean over all nine tasks. "
            "Report the tasks one by one."
        )
    means = {name: _mean(results[name]) for name in SCORED}
    if collapsed := [name for name, mean in means.items() if not math.isfinite(mean)]:
        raise DataError(f"no GLUE score: {', '.join(collapsed)} has no finite figure. Report the tasks one by one.")
    return sum(means.values()) / len(SCORED)


def _mean(figures: float | Sequence[float]) -> float:
    if isinstance(figures, int | float):
        return float(figures)
    return sum(figures) / len(figures)
