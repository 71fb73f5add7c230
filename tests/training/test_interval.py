import torch

from ernie2.training.step import Finite, Interval, StepResult


def result(losses, counts):
    correct = {name: torch.tensor(1) for name in losses}
    sums = {name: torch.tensor(value) for name, value in losses.items()}
    norm = torch.tensor(0.5)
    return StepResult(sums, correct, counts, norm, Finite(sums, norm))


def test_a_line_holds_means_over_everything_scored_in_the_interval():
    interval = Interval()
    interval.add(result({"knowledge_masking": 6.0}, {"knowledge_masking": 2}), 1e-3, 100)
    interval.add(result({"knowledge_masking": 3.0}, {"knowledge_masking": 1}), 2e-3, 50)
    line = interval.line()
    assert line["loss"] == {"knowledge_masking": 3.0}  # (6 + 3) / (2 + 1)
    assert line["accuracy"] == {"knowledge_masking": 2 / 3}
    assert line["lr"] == 2e-3
    assert line["grad_norm"] == 0.5


def test_the_note_names_every_task_in_full_whichever_others_there_are():
    for names, note in (
        (["sentence_reordering"], "sentence_reordering 1.00"),
        (["sentence_reordering", "sentence_distance"], "sentence_reordering 1.00 sentence_distance 1.00"),
    ):
        interval = Interval()
        interval.add(result(dict.fromkeys(names, 2.0), dict.fromkeys(names, 2)), 1e-3, 100)
        interval.line()
        assert interval.note == note


def test_a_step_that_was_skipped_counts_and_leaves_no_loss():
    interval = Interval()
    interval.add(result({"knowledge_masking": float("nan")}, {"knowledge_masking": 2}), 1e-3, 100)
    interval.add(result({"knowledge_masking": 4.0}, {"knowledge_masking": 2}), 1e-3, 100)
    assert (interval.skipped, interval.steps) == (1, 2)
    assert interval.line()["loss"] == {"knowledge_masking": 2.0}


def test_what_a_step_gave_stays_as_it_came_until_a_line_is_due():
    given = result({"knowledge_masking": 6.0}, {"knowledge_masking": 2})
    interval = Interval()
    interval.add(given, 1e-3, 100)
    assert interval._norm is given.grad_norm  # compared with a zero of the host, the host would wait for the card
    assert interval._losses["knowledge_masking"] is given.losses["knowledge_masking"]


def test_a_line_of_skipped_steps_only_has_no_norm():
    interval = Interval()
    interval.add(result({"knowledge_masking": float("inf")}, {"knowledge_masking": 2}), 1e-3, 100)
    assert interval.line()["grad_norm"] == 0.0
