from __future__ import annotations

from ernie2.reporting import verdict

CASE = "capitalization_prediction"
SCORE = {
    "kind": "score", "name": "Which book?", "metric": "accuracy", "train": 64, "test": 100, "seeds": [0, 1, 2],
    "pretrained": [0.8, 0.8, 0.8], "untrained": [0.6, 0.6, 0.6], "margin": 0.2, "margin_low": 0.1, "margin_high": 0.3,
}  # fmt: skip


def test_the_headline_counts_the_tasks_above_the_cheap_rule(small):
    assert verdict.headline(small()) == "One of two tasks stands above the cheap rule on held-out text."


def test_both_all_and_none_are_said_so(small, small_lines, heldout_result):
    small_lines[9]["tasks"][CASE] = heldout_result(0.95, 0.02, 0.8)
    assert verdict.headline(small(small_lines)) == "Both tasks stand above the cheap rule on held-out text."
    for task in small_lines[9]["tasks"]:
        small_lines[9]["tasks"][task] = heldout_result(0.01, 0.005, 0.8)
    assert verdict.headline(small(small_lines)) == "None of two tasks stand above the cheap rule on held-out text."


def test_a_run_still_going_says_how_far_it_is(small, small_lines):
    said = verdict.headline(small(small_lines[:5], status="running", finished=None))
    assert said == (
        "Still running, at step 20 of 40. The one task trained so far stands above the cheap rule on held-out text."
    )


def test_without_any_evaluation_nothing_is_claimed(small):
    assert verdict.headline(small([], status="stopped")) == (
        "Stopped, at step 0 of 40. No task has been evaluated on held-out text yet."
    )


def test_tasks_are_named_with_accuracy_interval_and_rule(small, small_lines):
    assert verdict.learned_tasks(small()) == ("Knowledge masking (0.150 [0.130–0.170] against 0.050)",)
    assert verdict.unlearned_tasks(small()) == ("Capitalization prediction (0.810 [0.790–0.830] against 0.800)",)
    assert verdict.waiting_tasks(small(small_lines[:5])) == ("Capitalization prediction",)


def test_remarks_tell_the_masked_loss_the_forgetting_and_the_margin(small, small_lines):
    loss, forgetting, margin = verdict.remarks(small([*small_lines, SCORE]))
    assert loss.endswith("loss of 5.50 nats a token against 6.31 for the unigram rule, stage by stage 6.00 → 5.50.")
    assert forgetting == "Clearly below its own best at an earlier stage’s end: Knowledge masking (0.050)."
    assert margin == (
        "“Which book?” (64 labelled examples, three seeds): the pre-trained encoder’s accuracy less the untrained "
        "one’s is +0.200 [+0.100 to +0.300]."
    )


def test_skipped_steps_are_added_up_and_told(small, small_lines):
    steps = [line for line in small_lines if line["kind"] == "step"]
    steps[0]["skipped"], steps[1]["skipped"] = 2, 1
    assert "3 steps were skipped, for a loss or gradient that was not finite" in " ".join(
        verdict.remarks(small(small_lines))
    )
    assert "skipped" not in " ".join(verdict.remarks(small()))
