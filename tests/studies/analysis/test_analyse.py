from __future__ import annotations

import copy
import json
import random

import pytest

from ernie2.errors import DataError
from ernie2.studies.analysis.analyse import analyse
from study_records import TASKS, study_record


@pytest.fixture(scope="module")
def whole():
    return study_record()


@pytest.fixture
def record(whole):
    return copy.deepcopy(whole)


def runs_of(record, method, restart="per_stage"):
    return {run["seed"]: run for run in record["runs"] if (run["method"], run["restart"]) == (method, restart)}


def score(record, dataset, methods, restart="per_stage"):
    """Gives the method's runs of each seed these fine-tuning values: method → one list a seed."""
    for method, seeds in methods.items():
        for seed, values in enumerate(seeds):
            target = runs_of(record, method, restart)[seed]["scores"][dataset]
            target["values"] = {str(index): value for index, value in enumerate(values)}


def comparison(analysis, first, second, what):
    return next(one for one in analysis.comparisons if (*one.pair, one.figure) == (first, second, what))


def method(analysis, name):
    return next(one for one in analysis.methods if one.name == name)


def test_twice_the_same_record_gives_the_same_digits(record):
    assert analyse(record) == analyse(json.loads(json.dumps(record)))


@pytest.mark.parametrize("shuffle", range(5))
def test_the_order_of_runs_in_the_record_changes_nothing(record, shuffle):
    before = analyse(record)
    chance = random.Random(shuffle)
    chance.shuffle(record["runs"])
    chance.shuffle(record["scratch"])
    for run in record["runs"]:
        run["scores"] = dict(chance.sample(sorted(run["scores"].items()), 3))
        run["heldout"].reverse()
    assert analyse(record) == before


def test_exchanging_two_methods_negates_their_differences_to_the_digit(record):
    before = analyse(record)
    other = {"continual_multitask": "continual", "continual": "continual_multitask"}
    for run in record["runs"]:
        run["method"] = other.get(run["method"], run["method"])
    after = analyse(record)
    for what in ("mnli accuracy", "mean of the scores", "held-out accuracy, mean over tasks", "mean forgetting"):
        one, swapped = (comparison(found, "continual_multitask", "continual", what) for found in (before, after))
        assert one.difference.mean == -swapped.difference.mean
        assert (one.difference.low, one.difference.high) == (-swapped.difference.high, -swapped.difference.low)
        assert one.difference.direction == -swapped.difference.direction


def test_a_score_is_the_mean_over_fine_tuning_runs_and_then_over_seeds(record):
    score(record, "mnli", {"continual": [[60.0, 62.0, 64.0], [66.0, 66.0], [70.0]]})
    result = method(analyse(record), "continual")
    found = result.scores["mnli"]
    facts = found.facts
    assert (facts.split, facts.metric, facts.train, facts.dev) == ("dev_matched", "accuracy", 3000, 1000)
    assert result.figure("score", "mnli").values == {0: 62.0, 1: 66.0, 2: 70.0}
    assert result.figure("score", "mnli").mean == 66.0
    assert (found.runs, found.diverged) == (6, 0)
    assert found.sd_finetuning == pytest.approx((8 / 3) ** 0.5)  # squares 8 + 0 + 0 over 6 values less 3 seeds


def test_a_difference_is_paired_by_seed_and_called_only_where_it_leaves_out_zero(record):
    score(record, "sst2", {"continual_multitask": [[80.0], [70.0], [60.0]], "multitask": [[79.0], [69.1], [58.9]]})
    found = comparison(analyse(record), "continual_multitask", "multitask", "sst2 accuracy")
    assert list(found.difference.values.values()) == pytest.approx([1.0, 0.9, 1.1])
    assert found.verdict == "continual multi-task is higher"  # seeds differ by 10, their differences by 0.2
    score(record, "sst2", {"continual_multitask": [[80.0], [70.0], [60.0]], "multitask": [[79.0], [72.0], [59.0]]})
    found = comparison(analyse(record), "continual_multitask", "multitask", "sst2 accuracy")
    assert found.verdict == "not distinguishable"


def test_equal_differences_at_every_seed_tell_nothing_and_are_noted(record):
    score(record, "sst2", {"continual_multitask": [[80.0], [70.0], [60.0]], "multitask": [[79.0], [69.0], [59.0]]})
    analysis = analyse(record)
    found = comparison(analysis, "continual_multitask", "multitask", "sst2 accuracy")
    assert found.verdict == "all 3 seeds agree: no verdict"
    assert any(
        "continual multi-task minus multi-task, sst2 accuracy: the same difference" in note for note in analysis.notes
    )


def test_dependence_is_the_difference_of_differences(record):
    main = {"continual_multitask": [[80.0], [70.0], [60.0]], "continual": [[75.0], [65.1], [54.9]]}
    score(record, "mrpc", main)
    score(record, "mrpc", {"continual_multitask": [[80.0], [70.0]], "continual": [[79.0], [68.9]]}, "never")
    found = comparison(analyse(record), "continual_multitask", "continual", "mrpc accuracy")
    assert list(found.without_restart.values.values()) == pytest.approx([1.0, 1.1])
    # 5.0 − 1.0 and 4.9 − 1.1: 3.9 ± 12.706 · 0.1
    assert found.dependence == "restarts change it by +3.90 (95 % +2.63 to +5.17)"
    score(record, "mrpc", {"continual_multitask": [[80.0], [70.0]], "continual": [[79.0], [63.0]]}, "never")
    found = comparison(analyse(record), "continual_multitask", "continual", "mrpc accuracy")
    assert found.dependence.startswith("no measurable effect: +0.95 (95 % ")


def test_one_seed_without_restarts_cannot_tell_dependence_and_none_measures_none():
    found = comparison(analyse(study_record(sensitivity=(0,))), "multitask", "continual", "mnli accuracy")
    assert found.without_restart.low is None
    assert found.dependence == "one seed: no verdict"
    found = comparison(analyse(study_record(sensitivity=())), "multitask", "continual", "mnli accuracy")
    assert found.without_restart is None
    assert found.dependence == "not measured"


def test_one_seed_tells_nothing():
    analysis = analyse(study_record(seeds=(3,), sensitivity=()))
    assert {one.verdict for one in analysis.comparisons} == {"one seed: no verdict"}
    assert not any(one.difference.direction for one in analysis.comparisons)
    one = analysis.methods[0]
    assert all(one.figure("score", name).low is score.sd_pretraining is None for name, score in one.scores.items())
    assert len(analysis.ratios) == 2
    assert all(ratio.endswith("; one seed: no verdict") for ratio in analysis.ratios)
    assert "there is no interval and no verdict" in analysis.notes[0]


def test_the_figures_of_a_task_come_from_its_evaluations(record):
    found = method(analyse(record), "continual")
    runs = runs_of(record, "continual")
    last = {seed: run["heldout"][-1]["tasks"]["knowledge_masking"]["accuracy"] for seed, run in runs.items()}
    own = {seed: run["heldout"][10]["tasks"]["knowledge_masking"]["accuracy"] for seed, run in runs.items()}
    assert found.figure("final", "knowledge_masking").values == last
    assert found.figure("forgetting", "knowledge_masking").values == {seed: own[seed] - last[seed] for seed in runs}
    assert found.figure("backward", "knowledge_masking").values == {seed: last[seed] - own[seed] for seed in runs}
    assert found.baselines["knowledge_masking"] == pytest.approx(0.05)
    assert found.figure("forward", "knowledge_masking") is None  # the first task is not trained from scratch
    assert found.figure("forgetting", "sentence_reordering") is found.figure("backward", "sentence_reordering") is None
    alone = {one["seed"]: one["heldout"][-1] for one in record["scratch"] if one["task"] == "sentence_reordering"}
    early = {seed: run["heldout"][31] for seed, run in runs.items()}
    assert {one["iterations"]["sentence_reordering"] for one in (*alone.values(), *early.values())} == {5}
    assert found.figure("forward", "sentence_reordering").values == {
        seed: early[seed]["tasks"]["sentence_reordering"]["accuracy"]
        - alone[seed]["tasks"]["sentence_reordering"]["accuracy"]
        for seed in runs
    }


def test_multi_task_learning_has_one_stage_and_so_no_forgetting(record):
    found = method(analyse(record), "multitask")
    assert found.figure("forgetting") is found.figure("backward") is None
    assert found.figure("forward") is not None
    whats = {one.figure for one in analyse(record).comparisons if one.second.name == "multitask"}
    assert "mean forgetting" not in whats


def test_means_over_tasks_are_taken_within_a_seed(record):
    found = method(analyse(record), "continual_multitask")
    for seed, mean in found.figure("final").values.items():
        assert mean == pytest.approx(sum(found.figure("final", task).values[seed] for task in TASKS) / 4)
    assert set(found.figure("forgetting").values) == {0, 1, 2}


def test_a_mean_over_tasks_is_not_taken_over_fewer_of_them(record):
    for run in runs_of(record, "continual").values():
        for evaluation in run["heldout"]:
            evaluation["tasks"]["capitalization_prediction"]["accuracy"] = None
    analysis = analyse(record)
    found = method(analysis, "continual")
    assert found.figure("final") is found.figure("forgetting") is None
    assert [task for task in TASKS if found.figure("final", task)] == [TASKS[0], TASKS[2], TASKS[3]]
    assert "continual has no held-out accuracy of Capitalization for seeds 0, 1 and 2." in analysis.notes


def test_the_ratio_of_forgetting_is_fieller_s(record):
    # forgetting of one task 1, 2, 3 against 10, 12, 11 hundredths, the others' none
    made = {"continual_multitask": (0.01, 0.02, 0.03), "continual": (0.10, 0.12, 0.11)}
    for name, amounts in made.items():
        for seed, amount in enumerate(amounts):
            for evaluation in runs_of(record, name)[seed]["heldout"]:
                for task in evaluation["tasks"].values():
                    task["accuracy"] = 0.5
                if evaluation["at"] == "stage_end" and evaluation["stage"] == 0:
                    evaluation["tasks"]["knowledge_masking"]["accuracy"] = 0.5 + 3 * amount
    # 2 / 11, and from -0.049846 to 0.379284
    assert analyse(record).ratios[0] == (
        "continual multi-task forgets 0.182 times as much as continual (95 % −0.050 to 0.379, 3 seeds)"
    )


def test_a_ratio_to_a_forgetting_not_told_from_zero_has_no_interval(record):
    for seed, amount in enumerate((0.0, 0.3, 0.0)):
        for evaluation in runs_of(record, "continual")[seed]["heldout"]:
            for task in evaluation["tasks"].values():
                task["accuracy"] = 0.5
            if evaluation["at"] == "stage_end" and evaluation["stage"] == 0:
                evaluation["tasks"]["knowledge_masking"]["accuracy"] = 0.5 + amount
    assert analyse(record).ratios[0].endswith("the interval is unbounded, as the forgetting of continual may be 0")


@pytest.mark.parametrize(
    ("method_name", "words"),
    [
        ("continual", "continual forgot nothing with any seed, so the ratio is undefined"),
        ("continual_multitask", "continual multi-task forgot nothing with any seed: the ratio is 0"),
    ],
)
def test_no_forgetting_at_any_seed_is_said_in_words(record, method_name, words):
    for run in runs_of(record, method_name).values():
        for evaluation in run["heldout"]:
            for task in evaluation["tasks"].values():
                task["accuracy"] = 0.5
    assert analyse(record).ratios[0].startswith(words)


def test_an_unfinished_study_is_analysed_as_far_as_it_goes(record):
    record["status"] = "running"
    record["scratch"] = []
    record["runs"] = [
        run
        for run in record["runs"]
        if run["restart"] == "per_stage" and run["method"] != "combined" and run["seed"] < 2
    ]
    del record["runs"][-1]  # continual_multitask, seed 1
    runs_of(record, "multitask")[1]["scores"] = {}
    analysis = analyse(record)
    assert [one.seeds for one in analysis.methods] == [(0, 1), (0, 1), (0,)]
    assert analysis.sensitivity == ()
    assert {one.pair for one in analysis.comparisons} == {
        ("continual_multitask", "multitask"),
        ("continual_multitask", "continual"),
        ("multitask", "continual"),
    }
    assert comparison(analysis, "multitask", "continual", "mnli accuracy").difference.values.keys() == {0}
    heldout = comparison(analysis, "multitask", "continual", "held-out accuracy, mean over tasks")
    assert heldout.difference.values.keys() == {0, 1}
    message = "\n".join(analysis.notes)
    for words in (
        "The study is not finished",
        "continual multi-task, combined has no finished run yet",
        "different pre-training seeds (continual 0, 1; multi-task 0, 1; continual multi-task 0)",
        "multi-task has no mnli, sst2 and mrpc score for seed 1.",
        "forward transfer is not measured",
        "There are no runs without restarts",
    ):
        assert words in message


def test_a_run_that_is_not_at_its_end_is_left_out_and_named(record):
    run = runs_of(record, "continual")[1]
    run["heldout"] = run["heldout"][:-1]
    analysis = analyse(record)
    assert method(analysis, "continual").seeds == (0, 2)
    assert "continual (per_stage), seed 1 has not finished its last stage and is excluded." in analysis.notes


def test_a_study_without_any_run_has_notes_only():
    analysis = analyse(study_record(seeds=(), sensitivity=()) | {"status": "running"})
    assert analysis.methods == analysis.sensitivity == analysis.comparisons == analysis.ratios == ()
    assert len(analysis.notes) == 1 + 4 + 3


def test_no_mean_leaves_out_a_fine_tuning_run_that_diverged(record):
    score(record, "mnli", {"continual": [[60.0, 62.0], [66.0, None], [70.0, 71.0]]})
    analysis = analyse(record)
    found = method(analysis, "continual")
    assert found.figure("score", "mnli") is found.scores["mnli"].sd_finetuning is found.figure("score") is None
    assert any("of the fine-tuning runs, 1 of 6 on mnli diverged. No mean is given" in one for one in analysis.notes)
    assert not any("has no mnli score" in one for one in analysis.notes)


def test_where_every_fine_tuning_run_diverged_there_is_no_estimate(record):
    score(record, "mnli", {"continual": [[None, None]] * 3})
    analysis = analyse(record)
    assert method(analysis, "continual").figure("score", "mnli") is None
    found = method(analysis, "continual").scores["mnli"]
    assert (found.facts.metric, found.runs, found.diverged) == ("accuracy", 6, 6)
    assert method(analysis, "continual").figure("score") is None
    assert any("of the fine-tuning runs, 6 of 6 on mnli diverged" in note for note in analysis.notes)


def test_iterations_other_than_planned_are_noted_where_all_methods_agree(record):
    for run in record["runs"]:
        if run["seed"] == 1:
            run["iterations"]["knowledge_masking"] = 40
    message = [note for note in analyse(record).notes if "planned" in note]
    assert message == ["Seed 1: every method trained knowledge_masking for 40 iterations instead of the planned 50."]


def test_methods_of_unequal_iterations_are_not_compared(record):
    runs_of(record, "combined")[0]["iterations"]["knowledge_masking"] = 49
    with pytest.raises(DataError, match="equal iterations only"):
        analyse(record)


def test_runs_that_gave_one_answer_to_all_are_counted_apart_from_those_given_up() -> None:
    record = study_record(seeds=(0, 1), sensitivity=(0,), methods=("continual", "multitask"))
    for run in record["runs"]:
        if run["method"] == "continual":
            run["scores"]["mrpc"]["diverged"] = {"1": "one answer"}
            if run["restart"] == "per_stage" and run["seed"] == 0:
                run["scores"]["mrpc"]["values"]["2"] = None
                run["scores"]["mrpc"]["diverged"]["2"] = "no finite loss"
    message = [note for note in analyse(record).notes if "mrpc" in note]
    assert message == [
        "mrpc is not the full official dataset (subset): 3,000 training examples, 1,000 evaluation examples.",
        "continual: of the fine-tuning runs, 1 of 6 on mrpc diverged. No mean is given, because a mean over the other "
        "runs would favour the method.",
        "continual: of the fine-tuning runs, 2 of 6 on mrpc gave the same answer for every example. They are "
        "included in the means.",
    ]
