from __future__ import annotations

import pytest

from ernie2.studies.analysis.paper_table7 import ITERATIONS, PAPER_TABLE_7, SETS, TASKS, paper_score


def test_the_scores_are_those_of_the_table():
    printed = {row.arm: tuple(row.scores[name] for name in SETS) for row in PAPER_TABLE_7}
    assert printed == {
        "continual": (77.3, 86.4, 82.5),
        "multitask": (78.7, 87.5, 83.0),
        "continual_multitask": (79.0, 87.8, 84.0),
    }
    assert paper_score("multitask", "sst2") == 87.5
    assert paper_score("combined", "sst2") is paper_score("multitask", "cola") is None


@pytest.mark.parametrize("row", PAPER_TABLE_7, ids=lambda row: row.arm)
def test_every_task_has_its_50k_iterations_however_the_stages_split_them(row):
    assert {task: sum(stage.get(task, 0) for stage in row.stages) for task in TASKS} == dict.fromkeys(TASKS, ITERATIONS)


def test_continual_multi_task_learning_assigns_iterations_as_printed():
    assert PAPER_TABLE_7[2].stages[2] == {
        "knowledge_masking": 10_000,
        "capitalization_prediction": 10_000,
        "token_document_relation": 40_000,
    }
