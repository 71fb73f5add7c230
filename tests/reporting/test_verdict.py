from __future__ import annotations

from ernie2.reporting import verdict

CASE = "capitalization_prediction"
SCORE = {
    "kind": "score", "name": "Which book?", "metric": "accuracy", "train": 64, "test": 100, "seeds": [0, 1, 2],
    "pretrained": [0.8, 0.8, 0.8], "untrained": [0.6, 0.6, 0.6], "margin": 0.2, "margin_low": 0.1, "margin_high": 0.3,
}  # fmt: skip


def test_the_headline_counts_the_learned_tasks(small):
    assert verdict.headline(small()) == "One of two tasks is above every baseline on held-out documents."


def test_the_headline_says_both_all_or_none(small, small_lines, heldout_result):
    small_lines[9]["tasks"][CASE] = heldout_result(0.95, 0.02, 0.8)
    message = "Both tasks are above every baseline on held-out documents."
    assert verdict.headline(small(small_lines)) == message
    for task in small_lines[9]["tasks"]:
        small_lines[9]["tasks"][task] = heldout_result(0.01, 0.005, 0.8)
    message = "None of two tasks is above every baseline on held-out documents."
    assert verdict.headline(small(small_lines)) == message


def test_a_task_with_too_few_instances_is_neither_learned_nor_unlearned(small, small_lines, heldout_result):
    small_lines[9]["tasks"][CASE] = heldout_result(0.95, 0.02, 0.8, instances=16)
    records = small(small_lines)
    assert verdict.headline(records).endswith(" For one there are too few held-out instances to tell.")
    message = ("Capitalization prediction (0.950 [0.930–0.970]; 16 instances)",)
    assert verdict.tasks_with_verdict(records, "too few instances to tell") == message
    assert verdict.tasks_with_verdict(records, "not learned") == ()


def test_a_run_still_going_says_how_far_it_is(small, small_lines):
    message = verdict.headline(small(small_lines[:5], status="running", finished=None))
    assert message == (
        "Still running, at step 20 of 40. The one task trained so far is above every baseline on held-out documents."
    )


def test_without_any_evaluation_nothing_is_claimed(small):
    assert verdict.headline(small([], status="stopped")) == (
        "Stopped, at step 0 of 40. No task has been evaluated on held-out documents yet."
    )


def test_tasks_are_named_with_accuracy_interval_and_baseline(small, small_lines):
    learned = ("Knowledge masking (0.150 [0.130–0.170]; feature baseline 0.050)",)
    unlearned = ("Capitalization prediction (0.810 [0.790–0.830]; feature baseline 0.800)",)
    assert verdict.tasks_with_verdict(small(), "learned") == learned
    assert verdict.tasks_with_verdict(small(), "not learned") == unlearned
    assert verdict.unevaluated_tasks(small(small_lines[:5])) == ("Capitalization prediction",)


def test_remarks_tell_the_masked_loss_the_forgetting_and_the_margin(small, small_lines):
    loss, forgetting, margin = verdict.remarks(small([*small_lines, SCORE]))
    assert loss.endswith(
        "loss of 5.50 nats per token against 6.31 for the feature baseline (unigram); by stage: 6.00 → 5.50."
    )
    assert (
        forgetting
        == "Forgetting beyond the 95 % interval, compared with the best earlier stage: Knowledge masking (0.050)."
    )
    assert margin == (
        "“Which book?” (64 labelled examples, three seeds): accuracy with the pre-trained encoder minus that with "
        "the untrained one is +0.200 [+0.100 to +0.300]."
    )


def test_skipped_steps_are_added_up(small, small_lines):
    steps = [line for line in small_lines if line["kind"] == "step"]
    steps[0]["skipped"], steps[1]["skipped"] = 2, 1
    assert "3 steps were skipped because of a non-finite loss or gradient" in " ".join(
        verdict.remarks(small(small_lines))
    )
    assert "skipped" not in " ".join(verdict.remarks(small()))
