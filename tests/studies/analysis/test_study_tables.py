from __future__ import annotations

import copy
import json

import pytest

from ernie2.reporting.study import render_markdown
from ernie2.studies.analysis.analyse import analyse
from ernie2.studies.analysis.figures import PAPER_DATASETS
from ernie2.studies.analysis.tables import PAPER_TABLE_7, summary_lines
from study_records import study_record


@pytest.fixture(scope="module")
def record():
    return study_record()


@pytest.fixture(scope="module")
def text(record):
    return written(record)


def written(record):
    return render_markdown(analyse(record))


def section(text, title):
    """What stands under a heading, up to the next."""
    return text.split(f"{title}\n\n")[1].split("\n\n#")[0]


def rows(text):
    """Cells of the last table in the text, heads and rule left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_same_record_gives_the_same_text(record, text):
    again = json.loads(json.dumps(record))
    again["runs"].reverse()
    assert written(again) == text


def test_what_was_run_on_what_stands_first(text):
    head = text.split("## What can be raised")[0]
    for words in (
        "4 layers × 256, 11,300,000 parameters",
        "9,000 documents, 90 held out, 4,000,000 tokens, CC BY-SA",
        "50 iterations for each of 4 tasks, 2,048 tokens per step",
        "3 per method; without restarts of the schedule: 2; fine-tuning runs per seed and dataset: 3",
        "a made-up processor, fp32, 2 cores",
    ):
        assert words in head


def test_it_says_that_nothing_is_corrected_for_many_comparisons(record, text):
    assert (
        "Verdicts are not corrected for multiple comparisons: if no methods differed, 1.1 of the 22 comparisons "
        "with an interval would still be expected to show a difference."
    ) in text
    assert "Verdicts are not corrected for multiple comparisons." in summary_lines(analyse(record))
    assert "“not distinguishable” does not mean equal" in text


def test_without_an_interval_none_is_counted():
    assert "multiple comparisons.\n" in written(study_record(seeds=(0,), sensitivity=()))


def test_every_comparison_has_its_verdict(record, text):
    cells = rows(section(text, "### continual multi-task minus multi-task"))
    assert [row[0] for row in cells] == [
        "mnli accuracy",
        "sst2 accuracy",
        "mrpc accuracy",
        "mean of the scores",
        "held-out accuracy, mean over tasks",
    ]
    found = [one for one in analyse(record).comparisons if one.second.name == "multitask"]
    assert [row[3] for row in cells] == [one.verdict for one in found]


def test_the_paper_s_scores_are_those_of_the_table():
    assert PAPER_DATASETS == ("mnli", "sst2", "mrpc")
    assert PAPER_TABLE_7 == {
        "continual learning": (77.3, 86.4, 82.5),
        "multi-task learning": (78.7, 87.5, 83.0),
        "continual multi-task learning": (79.0, 87.8, 84.0),
    }


def test_the_paper_s_rows_stand_beside_with_the_words_that_sizes_differ(text):
    found = section(text, "## Scores after fine-tuning, in percent")
    assert rows(found)[4:] == [
        ["the paper: continual learning", "77.3", "86.4", "82.5", "–"],
        ["the paper: multi-task learning", "78.7", "87.5", "83.0", "–"],
        ["the paper: continual multi-task learning", "79.0", "87.8", "84.0", "–"],
    ]
    assert "base-size model (12 layers × 768)" in found
    assert "If size or data differ, absolute scores are not comparable" in found


def test_each_table_of_tasks_has_every_task_and_their_mean(text):
    for title in ("## Final held-out accuracy", "## Forgetting", "## Backward transfer", "## Forward transfer"):
        names = [row[0] for row in rows(section(text, title))]
        assert names == [
            "Knowledge masking",
            "Capitalization",
            "Token-document relation",
            "Sentence reordering",
            "mean over tasks",
        ]


def test_the_best_baseline_stands_beside_the_held_out_accuracy(text):
    cells = rows(section(text, "## Final held-out accuracy"))
    assert [row[-2] for row in cells] == ["0.0500", "0.8800", "0.7700", "0.5300", "–"]


def test_forgetting_holds_the_ratios_in_words(record, text):
    for ratio in analyse(record).ratios:
        assert f"* {ratio}" in section(text, "## Forgetting")


def test_combining_shows_in_the_passes(text):
    assert [row[1] for row in rows(section(text, "## Cost of pre-training"))] == ["200", "200", "200", "170"]


def test_every_table_is_rectangular(text):
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1


def test_one_seed_is_said_in_every_cell_and_no_interval_is_shown():
    record = study_record(seeds=(0,), sensitivity=())
    text = written(record)
    assert "(one seed)" in text
    assert " to 0." not in text
    assert "95 % +" not in text
    assert "is higher" not in text
    assert "is lower" not in text


@pytest.mark.parametrize(
    ("methods", "runs", "message"),
    [
        (
            ["continual", "combined"],
            [("continual", 0), ("combined", 0)],
            "There are no comparisons: this study has none of the pairs of methods that are compared, ",
        ),
        (
            ["continual", "multitask", "combined"],
            [("continual", 0), ("combined", 0)],
            "There are no comparisons yet: no pair of methods has finished runs of both.",
        ),
        (
            ["continual", "multitask"],
            [("continual", 0), ("multitask", 1)],
            "There are no comparisons yet: no pair of methods shares a finished pre-training seed.",
        ),
    ],
)
def test_where_nothing_is_compared_the_text_says_why(methods, runs, message):
    record = study_record(methods=methods, seeds=(0, 1), sensitivity=())
    record["runs"] = [run for run in record["runs"] if (run["method"], run["seed"]) in runs]
    assert message in written(record)


def test_a_study_without_runs_has_a_text():
    record = study_record(seeds=(), sensitivity=()) | {"machine": {}, "encoder": {}, "data": {"share": 1.0}}
    record |= {"batch_tokens": None, "status": "running", "finished": None}
    text = written(record)
    assert "There are no comparisons yet: no pair of methods has finished runs of both." in text
    assert "* Not finished" in text
    assert "None" not in text


def test_a_part_of_the_seeds_is_named_in_its_cell(record):
    record = copy.deepcopy(record)
    run = next(run for run in record["runs"] if run["method"] == "continual" and run["seed"] == 2)
    run["scores"] = {}
    cells = rows(section(written(record), "## Scores after fine-tuning, in percent"))
    assert all(cell.endswith(", 2 seeds)") for cell in cells[0][1:])


def test_a_share_of_the_data_and_runs_side_by_side_are_said(record):
    record = copy.deepcopy(record)
    record["data"]["share"] = 0.1
    record["machine"]["parallel"] = 2
    record["steps"]["sentence_reordering"] = 51
    text = written(record)
    assert "(10 % of it used)" in text
    assert "2 runs in parallel" in text
    assert "seconds are longer than those of a single run" in text
    assert "Sentence reordering 51" in text


def test_the_spoken_lines_sum_up(record):
    lines = summary_lines(analyse(record))
    assert lines[0].startswith("continual (3 seeds): mean of the scores ")
    assert lines[0].endswith(" 200 encoder passes")
    assert any(line.startswith("continual multi-task minus continual, mean forgetting: −") for line in lines)
    assert not any("mnli accuracy" in line for line in lines)


def test_with_one_data_set_its_score_is_spoken(record):
    record = copy.deepcopy(record)
    for run in record["runs"]:
        run["scores"] = {"sst2": run["scores"]["sst2"]}
    assert any("multi-task minus continual, sst2 accuracy: +" in line for line in summary_lines(analyse(record)))
