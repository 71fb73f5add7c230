"""From a study's record to its figures: the same record gives the same digits, whatever the order of its runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ernie2.studies.analysis.comparisons import Comparison, compare, ratios
from ernie2.studies.analysis.figures import ArmResult, arm_results
from ernie2.studies.analysis.notes import notes
from ernie2.studies.analysis.reading import MAIN_RULE, SENSITIVITY_RULE, Record, read


@dataclass(frozen=True)
class Analysis:
    """Everything the tables and the page show.

    `arms` are under the main rule, `sensitivity` where the schedule never restarts as far as they were run, both in the
    order of the record. `ratios` of forgetting and `notes` are sentences that a reader needs beside the figures.
    """

    record: Record
    arms: tuple[ArmResult, ...]
    sensitivity: tuple[ArmResult, ...]
    comparisons: tuple[Comparison, ...]
    ratios: tuple[str, ...]
    notes: tuple[str, ...]


def analyse(record: Mapping[str, Any]) -> Analysis:
    """Return the figures of a study, finished or not; of an unfinished one `notes` say what is missing.

    Every comparison takes the pre-training seeds that both sides have. Raises DataError where the record is not a study
    of this format, where runs of a seed began with other parameters or trained a task for other numbers of iterations
    (as counted, not as planned), and where scores are of different data.
    """
    study = read(record)
    main, sensitivity = arm_results(study, MAIN_RULE), arm_results(study, SENSITIVITY_RULE)
    comparisons = compare(main, sensitivity)
    return Analysis(study, main, sensitivity, comparisons, ratios(main), notes(study, main, sensitivity, comparisons))
