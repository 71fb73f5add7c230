from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import f1_score

import tiny
import tiny_run
from ernie2.batches.packing import Caps
from ernie2.config.settings import BatchSettings, EncoderSettings
from ernie2.model.multitask import MultiTaskModel
from ernie2.model.transfer import to_host
from ernie2.runs.build import head_specs, open_stream
from ernie2.tasks.building import task_ids
from ernie2.training import evaluate
from ernie2.training.evaluate import (
    SMOOTHING,
    FeatureBaseline,
    HeldOut,
    accuracy_interval,
    baseline_figures,
    macro_f1,
    read_instances,
    wilson,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def heldout(tmp_path_factory):
    shards = tiny_run.write_shards(tmp_path_factory.mktemp("held") / "shards")
    tasks = [tiny.task(name) for name in tiny.FOUR]
    ids = task_ids(list(tiny.FOUR), 16)
    batch = BatchSettings(batch_tokens=256, pack_tokens=256, sequence_tokens=64)
    streams, feeds, _ = open_stream(shards, tasks, ids, batch, seed=0)
    model = MultiTaskModel(
        EncoderSettings(layers=1, hidden=16, heads=2, position_rows=64), 1000, head_specs(tasks), seed=0
    )
    return HeldOut(streams, feeds, tasks, 6, seed=0), model


def test_every_task_is_scored_alone_under_its_own_id_with_a_fixed_number_of_instances(heldout):
    exams, _ = heldout
    for name, row in task_ids(list(tiny.FOUR), 16).items():
        exam = exams._sets[name]
        assert exam.instances == 6 == sum(len(pack.starts) - 1 for pack in exam.packs)
        for pack in exam.packs:
            assert set(pack.targets) == {name}
            assert set(pack.task_ids[: pack.real_tokens]) == {row}


def test_only_masking_hides_tokens(heldout):
    exams, _ = heldout
    masked = {name: any((pack.tokens == tiny.MASK).any() for pack in exam.packs) for name, exam in exams._sets.items()}
    assert masked == {name: name == "knowledge_masking" for name in tiny.FOUR}


def test_figures_are_those_of_a_plain_recount(heldout):
    exams, model = heldout
    figures = exams.evaluate(model, CPU, "fp32")
    assert set(figures) == set(tiny.FOUR)
    from sklearn.metrics import accuracy_score, f1_score

    from ernie2.model.inputs import Inputs

    exam = exams._sets["capitalization_prediction"]
    predicted, losses = [], []
    for pack in exam.packs:
        loss, classes = model.predictions(Inputs.from_batch(pack, CPU, static=False))["capitalization_prediction"]
        predicted += classes.tolist()
        losses += loss.tolist()
    found = figures["capitalization_prediction"]
    assert found["accuracy"] == pytest.approx(accuracy_score(exam.labels, predicted))
    assert found["macro_f1"] == pytest.approx(f1_score(exam.labels, predicted, average="macro"))
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert found["scored"] == len(exam.labels)
    assert figures["knowledge_masking"]["macro_f1"] is None


def test_evaluating_twice_gives_the_same_figures_and_leaves_training_mode_on(heldout):
    exams, model = heldout
    model.train()
    assert exams.evaluate(model, CPU, "fp32") == exams.evaluate(model, CPU, "fp32")
    assert model.training


def test_predictions_of_all_packs_and_tasks_are_read_from_the_device_together(heldout, monkeypatch):
    exams, model = heldout
    figures, reads = exams.evaluate(model, CPU, "fp32"), []

    def read(tensors):
        reads.append(len(tensors))
        return to_host(tensors)

    monkeypatch.setattr(evaluate, "to_host", read)
    assert exams.evaluate(model, CPU, "fp32") == figures
    assert reads == [2 * sum(len(exam.packs) for exam in exams._sets.values())]


def test_caps_leave_room_for_one_complete_sequence(heldout):
    exams, _ = heldout
    caps = Caps.of(256, 64, [tiny.task(name) for name in tiny.FOUR])
    assert all(len(pack.tokens) == caps.tokens for exam in exams._sets.values() for pack in exam.packs)


def test_a_task_that_can_use_no_held_out_document_is_missing_and_does_not_stop_the_others(tmp_path):
    rng = np.random.default_rng(0)
    documents = [tiny.random_document(rng, name=f"d{i}", group=i) for i in range(10)]
    documents += [tiny.document([[[5, 6, 7]]], name=f"short{i}", group=20 + i) for i in range(2)]
    shards = tiny_run.write_shards(tmp_path / "shards", documents, heldout=2)
    tasks = [tiny.task(name) for name in tiny.FOUR]
    batch = BatchSettings(batch_tokens=256, pack_tokens=256, sequence_tokens=64)
    streams, feeds, _ = open_stream(shards, tasks, task_ids(list(tiny.FOUR), 16), batch, seed=0)
    assert "token_document_relation" in HeldOut(streams, feeds, tasks, 4, seed=0).missing


def corpus(name, documents, sentences=1):
    """Documents of so many sentences, each with a word of its own."""
    made = ([[[100 + number, 100 + number]] * sentences] for number in range(documents))
    return [tiny.document(text, name=f"{name}{i}", group=i) for i, text in enumerate(made)]


def walked(folder, corpora, instances, task="capitalization_prediction", limit=16, weights=None):
    """Numbers of the documents that the instances of one pass begin with, in the order found."""
    shards = tiny.write_corpora(folder, corpora, weights=weights)
    made = [tiny.task(task)]
    batch = BatchSettings(batch_tokens=64, pack_tokens=32, sequence_tokens=limit)
    streams, feeds, _ = open_stream(shards, made, {task: 0}, batch, seed=0)
    found = read_instances(streams, feeds[task], made[0], instances, 0, "train")
    return [int(instance.sequence.tokens[1]) - 100 for instance in found]


def test_a_pass_continues_with_the_large_corpus_after_the_small_one(tmp_path):
    large, small = corpus("large", 40), corpus("small", 3)
    shards = {"large": large, "small": small}
    everything = walked(tmp_path / "all", shards, 1_000, weights={"large": 1, "small": 1})
    assert sorted(everything) == sorted([*range(40), *range(3)])
    some = walked(tmp_path / "some", shards, 20, weights={"large": 1, "small": 1})
    assert some == everything[:20], "the same ones, as many as were asked for"


def test_every_document_is_read_once_for_any_shares(tmp_path):
    shards = {"rare": corpus("rare", 5), "common": corpus("common", 9)}
    found = walked(tmp_path, shards, 1_000, weights={"rare": 1, "common": 1000})
    assert sorted(found) == sorted([*range(5), *range(9)])


def test_no_instance_of_a_second_pass_is_counted(tmp_path):
    """The last documents of a pass show no label, so the next instance is of the pass after it."""
    for usable in range(1, 6):
        texts = [
            tiny.document([[[100 + i, 5]]], name=f"d{i}", caseless={0, 1} if i >= usable else ()) for i in range(6)
        ]
        found = walked(tmp_path / str(usable), {"mixed": texts}, 1_000)
        assert sorted(found) == list(range(usable))


def test_documents_of_several_instances_are_read_to_their_end(tmp_path):
    found = walked(tmp_path, {"long": corpus("long", 3, sentences=10), "short": corpus("short", 2)}, 1_000, limit=16)
    assert Counter(found) == {0: 2 + 1, 1: 2 + 1, 2: 2}  # 14 tokens are 7 sentences of 10: two instances a document


class Answers:
    """A model that gives these classes, pack after pack."""

    def __init__(self, classes):
        self.classes = list(classes)

    def predictions(self, inputs):
        (name,) = inputs.targets
        made = [self.classes.pop(0) for _ in range(inputs.targets[name].count)]
        return {name: (torch.zeros(len(made)), torch.tensor(made))}


def test_baselines_come_from_train_and_the_best_constant_from_the_held_out_instances(tmp_path):
    """Every word is a capital one in train and none in the held-out documents."""
    words = [[list(range(10, 20))] * 3]
    documents = [tiny.document(words, capitals=range(30), name=f"train{i}", group=i) for i in range(6)]
    documents += [tiny.document(words, name=f"held{i}", group=10 + i) for i in range(4)]
    shards = tiny_run.write_shards(tmp_path / "shards", documents, heldout=4)
    task = tiny.task("capitalization_prediction")
    batch = BatchSettings(batch_tokens=64, pack_tokens=64, sequence_tokens=64)
    streams, feeds, _ = open_stream(shards, [task], {task.name: 0}, batch, seed=0)
    exams = HeldOut(streams, feeds, [task], 100, seed=0)

    def figures(classes):
        return exams.evaluate(Answers(classes), CPU, "fp32")[task.name]

    none_right = figures([1] * 120)
    assert (none_right["instances"], none_right["scored"]) == (4, 120), "one pass over four documents, no more"
    assert none_right["accuracy"] == 0.0
    assert none_right["majority_baseline"]["accuracy"] == none_right["feature_baseline"]["accuracy"] == 0.0
    assert none_right["constant_baseline"]["accuracy"] == 1.0, "no held-out word has a capital"
    all_right = figures([0] * 120)
    assert (all_right["accuracy"], all_right["high"]) == (1.0, 1.0)
    assert all_right["low"] == pytest.approx(0.5101, abs=1e-4), "Wilson of 4 of 4 instances, not 1"
    assert all_right["verdict"] == "too few instances to tell"


def test_the_classes_of_a_drawn_task_come_equally_often(tmp_path):
    rng = np.random.default_rng(0)
    documents = [tiny.random_document(rng, name=f"d{i}", group=i) for i in range(60)]
    shards = tiny_run.write_shards(tmp_path / "shards", documents, heldout=30)
    task = tiny.task("sentence_distance")
    batch = BatchSettings(batch_tokens=256, pack_tokens=256, sequence_tokens=64)
    streams, feeds, _ = open_stream(shards, [task], {task.name: 0}, batch, seed=0)
    exam = HeldOut(streams, feeds, [task], 33, seed=0)._sets[task.name]
    assert np.bincount(exam.labels).tolist() == [11, 11, 11]
    assert exam.labels[:12].tolist() != sorted(exam.labels[:12].tolist()), "in random order"


def test_wilson_keeps_its_width_if_all_or_none_are_right():
    assert wilson(1.0, 16) == (pytest.approx(0.8064, abs=1e-4), 1.0)  # 16 / (16 + 1.96²)
    assert wilson(0.0, 16) == (0.0, pytest.approx(0.1936, abs=1e-4))


@given(st.integers(1, 500), st.data())
def test_wilson_is_that_of_scipy(trials, data):
    right = data.draw(st.integers(0, trials))
    expected = binomtest(right, trials).proportion_ci(method="wilson")
    assert wilson(right / trials, trials) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_independent_instances_have_the_plain_wilson_interval():
    right = np.array([True] * 70 + [False] * 58)
    accuracy, low, high = accuracy_interval(right, np.arange(128))
    assert (accuracy, low, high) == pytest.approx((0.546875, 0.4605, 0.6305), abs=1e-4)


@given(st.integers(2, 40), st.integers(1, 9), st.integers(0, 5))
def test_repeating_positions_inside_an_instance_does_not_narrow_the_interval(instances, copies, seed):
    right = np.random.default_rng(seed).random(instances) < 0.5
    once = accuracy_interval(right, np.arange(instances))
    often = accuracy_interval(np.repeat(right, copies), np.repeat(np.arange(instances), copies))
    assert often == pytest.approx(once)


def test_correlated_positions_count_as_few():
    """Four sequences of ten tokens, two wholly right: as good as two of four, not twenty of forty."""
    right = np.repeat([True, True, False, False], 10)
    assert accuracy_interval(right, np.repeat(np.arange(4), 10)) == pytest.approx((0.5, *wilson(0.5, 4)))


def test_positions_that_are_all_right_count_as_their_instances():
    assert accuracy_interval(np.ones(400, bool), np.repeat(np.arange(40), 10)) == (1.0, *wilson(1.0, 40))


def test_positions_right_alike_in_every_instance_count_each():
    right = np.tile([True, False], 20)
    assert accuracy_interval(right, np.repeat(np.arange(20), 2)) == pytest.approx((0.5, *wilson(0.5, 40)))


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Sequences whose own accuracy varies: 95 % intervals of 400 samples hold the mean in 92 to 98 %."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        own = np.repeat(rng.beta(4, 1, 60), 20)
        _, low, high = accuracy_interval(rng.random(1200) < own, np.repeat(np.arange(60), 20))
        held += low <= 0.8 <= high
    assert 0.92 <= held / 400 <= 0.98


CLASSES = 6
pairs = st.lists(st.tuples(st.sampled_from([-3, 0, 7, 8, 40]), st.integers(0, CLASSES - 1)), min_size=1, max_size=40)


def test_the_feature_baseline_answers_the_commonest_label_of_a_feature_and_the_majority_for_new_ones():
    rule = FeatureBaseline.fit(np.array([7, 7, 7, 8]), np.array([1, 1, 0, 0]), classes=2)
    assert rule.predict(np.array([7, 8, 9])).tolist() == [1, 0, rule.majority]


def test_the_loss_of_the_feature_baseline_is_that_of_smoothed_frequencies():
    rule = FeatureBaseline.fit(np.array([7, 7, 7]), np.array([1, 1, 0]), classes=2)
    expected = [-math.log((2 + SMOOTHING) / (3 + 2 * SMOOTHING)), -math.log((1 + SMOOTHING) / (3 + 2 * SMOOTHING))]
    assert rule.losses(np.array([7, 7]), np.array([1, 0])) == pytest.approx(expected)


def test_the_entropy_of_one_feature_is_the_unigram_entropy():
    rule = FeatureBaseline.fit(np.zeros(4, int), np.array([5, 5, 6, 7]), classes=10)
    assert rule.entropy == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(4))


def test_the_majority_is_that_of_training_and_the_constant_that_of_the_held_out_labels():
    trained = FeatureBaseline.fit(np.array([7, 7, 8]), np.array([0, 0, 1]), classes=2)
    held = np.array([1] * 5 + [0] * 3)
    figures = baseline_figures(trained, np.array([8] * 8), held, "a word", with_f1=True)
    assert figures["majority_baseline"]["accuracy"] == 3 / 8
    assert figures["constant_baseline"]["accuracy"] == 5 / 8
    assert figures["feature_baseline"]["accuracy"] == 5 / 8
    # F1 of class 1 is 10/13, of class 0 it is 0
    assert figures["constant_baseline"]["macro_f1"] == pytest.approx(5 / 13)
    assert figures["feature_baseline"]["feature"] == "a word"


def test_a_vocabulary_has_no_macro_f1():
    trained = FeatureBaseline.fit(np.array([0]), np.array([3]), classes=10)
    figures = baseline_figures(trained, np.array([0]), np.array([3]), "unigram", with_f1=False)
    keys = ("majority_baseline", "constant_baseline", "feature_baseline")
    assert [figures[key]["macro_f1"] for key in keys] == [None] * 3


@given(pairs, pairs)
def test_the_feature_baseline_answers_and_weighs_as_a_plain_count_of_labels_does(train, held):
    """Of labels that are equally common, it answers the one seen first."""
    rule = FeatureBaseline.fit(*np.array(train).T, classes=CLASSES)
    every = Counter(label for _, label in train)
    counted = {f: Counter(label for feature, label in train if feature == f) for f, _ in held}
    counted = {f: counts or every for f, counts in counted.items()}
    features, labels = np.array(held).T
    assert rule.predict(features).tolist() == [counted[f].most_common(1)[0][0] for f, _ in held]
    assert rule.majority == every.most_common(1)[0][0]
    odds = [(counted[f][y] + SMOOTHING) / (counted[f].total() + SMOOTHING * CLASSES) for f, y in held]
    assert rule.losses(features, labels) == pytest.approx(-np.log(odds))


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=60))
def test_macro_f1_is_that_of_scikit_learn(pairs):
    labels, predicted = np.array(pairs).T
    assert macro_f1(labels, predicted) == pytest.approx(f1_score(labels, predicted, average="macro"), abs=1e-12)
