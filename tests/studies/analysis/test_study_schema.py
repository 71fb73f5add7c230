from __future__ import annotations

import copy

import pytest

from ernie2.errors import DataError
from ernie2.studies.analysis.schema import parse_record
from study_records import study_record


@pytest.fixture(scope="module")
def whole():
    return study_record()


@pytest.fixture
def record(whole):
    return copy.deepcopy(whole)


def run_of(record, method, seed, restart="per_stage"):
    return next(
        run for run in record["runs"] if (run["method"], run["seed"], run["restart"]) == (method, seed, restart)
    )


def test_a_record_is_read_with_its_runs_in_order(record):
    record["runs"].reverse()
    made = parse_record(record)
    keys = [(run.method, run.restart, run.seed) for run in made.runs]
    assert keys == sorted(keys)
    assert len(keys) == 4 * 3 + 4 * 2
    assert made.finished_runs("continual", "never")[1].seed == 1


@pytest.mark.parametrize("key", ["kind", "study"])
def test_what_is_no_study_is_refused(record, key):
    with pytest.raises(DataError, match="not a Table 7 study record"):
        parse_record(record | {key: "run"})
    with pytest.raises(DataError, match="not a Table 7 study record"):
        parse_record({})


def test_another_format_is_refused_by_its_number(record):
    with pytest.raises(DataError, match="has format 1; this version reads format 2"):
        parse_record(record | {"format": 1})


def test_damage_is_told_by_its_place(record):
    del record["runs"][3]["iterations"]
    with pytest.raises(DataError, match=r"damaged at 'runs\.3\.iterations'"):
        parse_record(record)


def test_iterations_that_differ_between_methods_of_a_seed_are_named(record):
    run_of(record, "multitask", 1)["iterations"]["token_document_relation"] = 48
    with pytest.raises(DataError, match=r"seed 1: method 'multitask' .*'token_document_relation' for 48 .*for 50"):
        parse_record(record)


def test_a_seed_that_began_with_the_parameters_of_another_is_refused_as_a_copy(record):
    for one in [*record["runs"], *record["scratch"]]:
        if one["seed"] == 2:
            one["initial"] = run_of(record, "continual", 0)["initial"]
    with pytest.raises(DataError, match=r"seed 2: .* has the initial parameters of seed 0 .* one is a copy"):
        parse_record(record)


def test_a_task_that_an_method_never_trained_counts_as_no_iterations(record):
    del run_of(record, "combined", 2)["iterations"]["sentence_reordering"]
    with pytest.raises(DataError, match=r"seed 2: .*'sentence_reordering'"):
        parse_record(record)


def test_iterations_must_be_equal_under_both_rules(record):
    run_of(record, "continual", 0, "never")["iterations"]["knowledge_masking"] = 51
    with pytest.raises(DataError, match=r"seed 0: .*\(never\)"):
        parse_record(record)


def test_seeds_may_differ_in_iterations_as_long_as_their_methods_agree(record):
    for run in record["runs"]:
        if run["seed"] == 2:
            run["iterations"]["knowledge_masking"] = 40
    assert parse_record(record)


@pytest.mark.parametrize("left_out", [1, 10])
def test_a_run_that_is_not_at_its_end_may_have_fewer_iterations(record, left_out):
    run = run_of(record, "continual", 2)
    run["heldout"] = run["heldout"][:-left_out]  # up to the last evaluation, or up to the end of the stage before
    run["iterations"]["sentence_reordering"] = 45
    assert [one.seed for one in parse_record(record).finished_runs("continual", "per_stage")] == [0, 1]


def test_other_initial_parameters_are_named(record):
    run_of(record, "multitask", 2)["initial"] = "ff" * 32
    with pytest.raises(DataError, match=r"seed 2: method 'multitask' .*other initial parameters than method"):
        parse_record(record)


def test_a_task_from_scratch_must_begin_with_its_seed_s_parameters(record):
    record["scratch"][0]["initial"] = "ff" * 32
    with pytest.raises(DataError, match="seed 0: 'capitalization_prediction' from scratch has other"):
        parse_record(record)


def test_two_runs_of_one_method_rule_and_seed_are_refused(record):
    record["runs"].append(copy.deepcopy(run_of(record, "combined", 1)))
    with pytest.raises(DataError, match="two runs of method 'combined', per_stage, seed 1"):
        parse_record(record)


def test_names_that_the_record_does_not_list_are_refused(record):
    run_of(record, "combined", 1)["method"] = "combinde"
    with pytest.raises(DataError, match="'combinde' in its runs"):
        parse_record(record)


@pytest.mark.parametrize(("key", "value"), [("train", 9), ("dev", 9), ("split", "test"), ("provenance", "official")])
def test_scores_of_different_data_are_not_compared(record, key, value):
    run_of(record, "multitask", 0)["scores"]["sst2"][key] = value
    with pytest.raises(DataError, match="sst2: the "):
        parse_record(record)


def test_where_every_fine_tuning_run_diverged_no_metric_is_asked_for(record):
    score = run_of(record, "multitask", 0)["scores"]["sst2"]
    score["metric"], score["values"] = "", dict.fromkeys("012")
    assert parse_record(record)


def test_what_is_not_finite_is_not_known(record):
    run = run_of(record, "continual", 0)
    run["heldout"][-1]["tasks"]["knowledge_masking"]["loss"] = float("nan")
    result = parse_record(record).finished_runs("continual", "per_stage")[0].heldout[-1].tasks["knowledge_masking"]
    assert result.loss is None
    assert result.accuracy is not None
