from __future__ import annotations

from ernie2.reporting import progress

MASKING, CASE = "knowledge_masking", "capitalization_prediction"


def test_stages_lie_where_their_events_say(small):
    assert [(span.begin, span.end, span.state) for span in progress.stage_spans(small())] == [
        (0, 20, "done"),
        (20, 40, "done"),
    ]


def test_a_stage_that_has_not_ended_lies_where_it_is_planned(small, small_lines):
    spans = progress.stage_spans(small(small_lines[:4], status="running"))
    assert [(span.begin, span.end, span.state) for span in spans] == [(0, 20, "running"), (20, 40, "planned")]


def test_a_stage_that_a_stopped_run_left_is_stopped(small, small_lines):
    spans = progress.stage_spans(small(small_lines[:5], status="stopped"))
    assert [span.state for span in spans] == ["stopped", "planned"]


def test_a_stage_ended_early_moves_those_after_it(small, small_lines):
    ended = [small_lines[1], small_lines[5] | {"step": 12}]
    assert [(span.begin, span.end) for span in progress.stage_spans(small(ended))] == [(0, 12), (12, 32)]


def test_a_task_counts_as_trained_after_the_start_of_its_first_stage(small):
    records = small()
    assert [progress.is_trained(records.run, CASE, each) for each in records.heldout] == [False, False, True]
    assert [progress.is_trained(records.run, MASKING, each) for each in records.heldout] == [False, True, True]


def test_where_no_stage_introduces_a_task_its_first_iterations_do(small):
    stages = [{"iterations": {MASKING: 5}}, {"iterations": {MASKING: 5, CASE: 5}}]
    run = small(stages=stages).run
    assert [progress.introduction_stage(run, task) for task in (MASKING, CASE, "unheard_of")] == [0, 1, None]


def test_the_final_result_is_the_last_one_since_training_began(small, small_lines):
    assert progress.final_result(small(), CASE).accuracy == 0.81
    assert progress.final_result(small(small_lines[:5]), CASE) is None


def test_the_run_has_reached_the_last_step_recorded(small, small_lines):
    assert [progress.last_step(small(small_lines[:n])) for n in (0, 3, 11)] == [0, 10, 40]
