"""The GLUE score, recomputed from the paper's Table 5 to the scores that it prints."""

from __future__ import annotations

import pytest

from ernie2.finetuning.paper import paper_rows
from ernie2.finetuning.scoring.results import GLUE_TASKS, glue_score


@pytest.mark.parametrize(
    ("model", "size", "score"),
    [("BERT", "base", 78.3), ("ERNIE 2.0", "base", 80.6), ("BERT", "large", 80.5), ("ERNIE 2.0", "large", 83.6)],
)
def test_the_score_of_table_5_follows_from_its_figures(model: str, size: str, score: float) -> None:
    results = {
        name: next(row.values for row in paper_rows(name, size, "test") if row.model == model)  # type: ignore[arg-type]
        for name in (*GLUE_TASKS, "ax")
    }
    assert round(glue_score(results), 1) == score


def test_two_values_of_a_task_are_averaged_and_ax_does_not_count() -> None:
    results = dict.fromkeys(GLUE_TASKS, (80.0,))
    assert glue_score(results) == 80.0
    assert glue_score({**results, "mnli": (90.0, 88.0), "ax": (0.0,)}) == pytest.approx(81.0)
    assert glue_score({**results, "wnli": (71.0,)}) == pytest.approx(79.0)


def test_fewer_tasks_give_no_score() -> None:
    with pytest.raises(KeyError, match="qnli"):
        glue_score({name: (80.0,) for name in GLUE_TASKS if name not in ("qnli", "rte")})
