"""What is said beside a study's figures of fine-tuning runs that are not those of trained models."""

from __future__ import annotations

from ernie2.studies.analysis.analyse import analyse
from study_records import study_record


def test_runs_that_gave_one_answer_to_all_are_counted_apart_from_those_given_up() -> None:
    record = study_record(seeds=(0, 1), sensitivity=(0,), arms=("continual", "multitask"))
    for run in record["runs"]:
        if run["arm"] == "continual":
            run["scores"]["mrpc"]["diverged"] = {"1": "one answer"}
            if run["restart"] == "per_stage" and run["seed"] == 0:
                run["scores"]["mrpc"]["values"]["2"] = None
                run["scores"]["mrpc"]["diverged"]["2"] = "no finite loss"
    said = [note for note in analyse(record).notes if "mrpc" in note]
    assert said == [
        "mrpc is not the whole official set (subset): 3,000 examples to train on, 1,000 to measure on.",
        "continual: of the fine-tuning runs 1 of 6 on mrpc diverged, so no mean is given there; one over the other "
        "runs would flatter the arm.",
        "continual: of the fine-tuning runs 2 of 6 on mrpc gave every example the same answer and are in the means.",
    ]
