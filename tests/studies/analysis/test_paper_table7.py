from __future__ import annotations

from ernie2.studies.analysis.paper_table7 import PAPER_TABLE_7, SETS


def test_the_scores_are_those_of_the_table():
    assert SETS == ("mnli", "sst2", "mrpc")
    assert PAPER_TABLE_7 == {
        "continual learning": (77.3, 86.4, 82.5),
        "multi-task learning": (78.7, 87.5, 83.0),
        "continual multi-task learning": (79.0, 87.8, 84.0),
    }
