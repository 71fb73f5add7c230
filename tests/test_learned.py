from __future__ import annotations

import pytest

from ernie2.learned import MIN_INSTANCES, verdict, verdict_of


def figures(low, majority, constant, cheap, instances=128):
    accuracies = {"majority_baseline": majority, "constant_baseline": constant, "feature_baseline": cheap}
    return {"instances": instances, "low": low, **{key: {"accuracy": value} for key, value in accuracies.items()}}


def test_a_balanced_yes_or_no_task_at_chance_is_not_learned_above_the_rarer_majority_of_training():
    """Accuracy 0.547 (0.460 to 0.633): the commonest training label makes up 0.453 of the held-out ones."""
    found = verdict_of(figures(0.460, 0.453, 0.547, 0.453))
    assert found.word == "not learned"
    assert found.reason == "not learned: the 95 % interval is not above the best baseline (constant baseline, 0.547)"


def test_sixteen_instances_are_too_few_to_tell_whatever_they_show():
    found = verdict_of(figures(0.81, 0.3, 0.4, 0.4, instances=16))
    assert found.reason == "too few instances to tell (16; at least 30 are needed)"


@pytest.mark.parametrize(("instances", "word"), [(29, "too few instances to tell"), (30, "learned")])
def test_the_stated_number_of_instances_is_enough(instances, word):
    assert MIN_INSTANCES == 30
    assert verdict_of(figures(0.6, 0.4, 0.5, 0.5, instances)).word == word


@pytest.mark.parametrize("highest", ["majority_baseline", "constant_baseline", "feature_baseline"])
def test_a_task_is_learned_above_all_three_baselines_alone(highest):
    accuracies = {"majority_baseline": 0.3, "constant_baseline": 0.3, "feature_baseline": 0.3, highest: 0.5}
    assert verdict(100, 0.501, accuracies).word == "learned"
    assert verdict(100, 0.5, accuracies).word == "not learned"
    assert verdict(100, 0.5, accuracies).baseline_accuracy == 0.5


def test_without_all_baselines_no_task_is_learned():
    accuracies = {"majority_baseline": 0.3, "constant_baseline": None, "feature_baseline": 0.3}
    assert verdict(100, 0.9, accuracies).word == "not learned"
    assert verdict(100, 0.9, {}).word == "not learned"
    assert verdict(100, None, accuracies | {"constant_baseline": 0.3}).word == "not learned"


def test_a_task_that_no_step_trained_yet_is_neither_learned_nor_not_learned():
    found = verdict_of({**figures(0.1, 0.4, 0.5, 0.5), "trained": False})
    assert found.word == "not trained yet"
    assert found.reason == "not trained yet: no step has trained this task so far"
    assert verdict_of({**figures(0.9, 0.4, 0.5, 0.5, instances=3), "trained": False}).word == "not trained yet"
    assert verdict_of({**figures(0.6, 0.4, 0.5, 0.5), "trained": True}).word == "learned"
