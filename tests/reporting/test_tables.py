from __future__ import annotations

import pytest

from ernie2.reporting import tables

MASKING, CASE = "knowledge_masking", "capitalization_prediction"


def test_forgetting_is_the_best_stage_end_minus_the_last(small):
    masking, case = tables.forgetting_matrix(small())
    assert masking.forgetting == pytest.approx(0.05)
    assert masking.clear  # 0.20 lies above 0.15 + 0.02
    assert case.forgetting is None  # one stage end since it was introduced


def test_what_a_task_scored_before_its_first_stage_is_no_best_to_fall_from(small, small_lines, heldout_result):
    small_lines[4]["tasks"][CASE] = heldout_result(0.99, 0.01, 0.8)
    case = tables.forgetting_matrix(small(small_lines))[1]
    assert case.forgetting is None
    assert [cell.zero_shot for cell in case.cells] == [True, False]


def test_cells_are_above_below_or_level_with_the_best_baseline_by_their_interval(small):
    masking, case = tables.forgetting_matrix(small())
    assert [cell.side for cell in masking.cells] == ["above", "above"]
    assert [cell.side for cell in case.cells] == ["below", "level"]  # 0.81 ± 0.02 holds 0.80
    assert [cell.shade for cell in masking.cells] == pytest.approx([1.0, 0.10 / 0.15])
    assert case.cells[0].shade == 0.0


def test_a_stage_not_evaluated_yet_is_an_empty_cell(small, small_lines):
    masking, _ = tables.forgetting_matrix(small(small_lines[:6]))
    assert masking.cells[1] is None
    assert masking.forgetting is None


def test_a_drop_smaller_than_the_interval_is_not_clear(small, small_lines, heldout_result):
    small_lines[9]["tasks"][MASKING] = heldout_result(0.19, 0.02, 0.05)
    masking, _ = tables.forgetting_matrix(small(small_lines))
    assert masking.forgetting == pytest.approx(0.01)
    assert not masking.clear


def test_the_final_rows_say_learned_not_learned_or_not_trained_yet(small, small_lines):
    assert [row[2] for row in tables.final_rows(small())] == ["learned", "not learned"]
    assert [row[2] for row in tables.final_rows(small(small_lines[:5]))] == ["learned", "not trained yet"]


def test_a_task_is_not_learned_below_the_best_constant_answer(small, small_lines):
    small_lines[9]["tasks"][MASKING]["constant_baseline"]["accuracy"] = 0.14  # the interval begins at 0.13
    assert [row[2] for row in tables.final_rows(small(small_lines))] == ["not learned", "not learned"]


def test_a_task_with_too_few_instances_is_level_with_its_baselines(small, small_lines):
    small_lines[9]["tasks"][MASKING]["instances"] = 16
    assert tables.final_rows(small(small_lines))[0][2] == "too few instances to tell"
    assert tables.forgetting_matrix(small(small_lines))[0].cells[1].side == "level"


def test_usable_documents_are_given_per_task_and_corpus(small):
    ((task, by_corpus),) = tables.usable_rows(small())
    assert (task, by_corpus["novels"].usable, by_corpus["novels"].of) == ("Knowledge masking", 156, 312)
