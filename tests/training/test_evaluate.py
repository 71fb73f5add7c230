from collections import Counter

import numpy as np
import pytest
import torch

import tiny
import tiny_run
from ernie2.batches.packing import Caps
from ernie2.config.settings import BatchSettings, EncoderSettings
from ernie2.model.multitask import MultiTaskModel
from ernie2.model.transfer import to_host
from ernie2.training import evaluate
from ernie2.training.evaluate import HeldOut, walk_once
from ernie2.training.pretraining import head_specs, open_stream, task_ids

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def heldout(tmp_path_factory):
    shards = tiny_run.write_shards(tmp_path_factory.mktemp("held") / "shards")
    tasks = [tiny.task(name) for name in tiny.FOUR]
    ids = task_ids(list(tiny.FOUR), 16)
    batch = BatchSettings(batch_tokens=256, pack_tokens=256, sequence_tokens=64)
    stream, feeds, _ = open_stream(shards, tasks, ids, batch, seed=0)
    model = MultiTaskModel(
        EncoderSettings(layers=1, hidden=16, heads=2, position_rows=64), 1000, head_specs(tasks), seed=0
    )
    return HeldOut(stream, feeds, tasks, 6, seed=0), model


def test_every_task_is_scored_alone_under_its_own_id_with_a_fixed_number_of_instances(heldout):
    exams, _ = heldout
    for name, row in task_ids(list(tiny.FOUR), 16).items():
        exam = exams._exams[name]
        assert exam.instances == 6 == sum(len(pack.starts) - 1 for pack in exam.packs)
        for pack in exam.packs:
            assert set(pack.targets) == {name}
            assert set(pack.task_ids[: pack.real_tokens]) == {row}


def test_only_masking_hides_tokens(heldout):
    exams, _ = heldout
    masked = {name: any((pack.tokens == tiny.MASK).any() for pack in exam.packs) for name, exam in exams._exams.items()}
    assert masked == {name: name == "knowledge_masking" for name in tiny.FOUR}


def test_figures_are_those_of_a_plain_recount(heldout):
    exams, model = heldout
    figures = exams.evaluate(model, CPU, "fp32")
    assert set(figures) == set(tiny.FOUR)
    from sklearn.metrics import accuracy_score, f1_score

    from ernie2.model.inputs import Inputs

    exam = exams._exams["capitalization_prediction"]
    predicted, losses = [], []
    for pack in exam.packs:
        loss, classes = model.predictions(Inputs.of(pack, CPU, static=False))["capitalization_prediction"]
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
    assert reads == [2 * sum(len(exam.packs) for exam in exams._exams.values())]


def test_caps_leave_room_for_one_whole_sequence(heldout):
    exams, _ = heldout
    caps = Caps.of(256, 64, [tiny.task(name) for name in tiny.FOUR])
    assert all(len(pack.tokens) == caps.tokens for exam in exams._exams.values() for pack in exam.packs)


def test_a_task_that_can_use_no_held_out_document_is_missing_and_does_not_stop_the_others(tmp_path):
    rng = np.random.default_rng(0)
    documents = [tiny.random_document(rng, name=f"d{i}", group=i) for i in range(10)]
    documents += [tiny.document([[[5, 6, 7]]], name=f"short{i}", group=20 + i) for i in range(2)]
    shards = tiny_run.write_shards(tmp_path / "shards", documents, heldout=2)
    tasks = [tiny.task(name) for name in tiny.FOUR]
    batch = BatchSettings(batch_tokens=256, pack_tokens=256, sequence_tokens=64)
    stream, feeds, _ = open_stream(shards, tasks, task_ids(list(tiny.FOUR), 16), batch, seed=0)
    assert "token_document_relation" in HeldOut(stream, feeds, tasks, 4, seed=0).missing


def corpus(name, documents, sentences=1):
    """Documents of so many sentences, each with a word of its own."""
    made = ([[[100 + number, 100 + number]] * sentences] for number in range(documents))
    return [tiny.document(text, name=f"{name}{i}", group=i) for i, text in enumerate(made)]


def walked(folder, corpora, instances, task="capitalization_prediction", limit=16, weights=None):
    """Numbers of the documents that the instances of one pass begin with, in the order found."""
    shards = tiny.write_corpora(folder, corpora, weights=weights)
    made = [tiny.task(task)]
    batch = BatchSettings(batch_tokens=64, pack_tokens=32, sequence_tokens=limit)
    stream, feeds, _ = open_stream(shards, made, {task: 0}, batch, seed=0)
    found = walk_once(stream, feeds[task], made[0], instances, 0, "train")
    return [int(instance.sequence.tokens[1]) - 100 for instance in found]


def test_a_pass_goes_on_with_the_large_corpus_when_the_small_one_is_walked_through(tmp_path):
    large, small = corpus("large", 40), corpus("small", 3)
    shards = {"large": large, "small": small}
    everything = walked(tmp_path / "all", shards, 1_000, weights={"large": 1, "small": 1})
    assert sorted(everything) == sorted([*range(40), *range(3)])
    some = walked(tmp_path / "some", shards, 20, weights={"large": 1, "small": 1})
    assert some == everything[:20], "the same ones, as many as were asked for"


def test_every_document_is_walked_once_whatever_the_shares(tmp_path):
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


def test_documents_of_several_instances_are_walked_to_their_end(tmp_path):
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
    stream, feeds, _ = open_stream(shards, [task], {task.name: 0}, batch, seed=0)
    exams = HeldOut(stream, feeds, [task], 100, seed=0)

    def figures(classes):
        return exams.evaluate(Answers(classes), CPU, "fp32")[task.name]

    none_right = figures([1] * 120)
    assert (none_right["instances"], none_right["scored"]) == (4, 120), "one pass over four documents, no more"
    assert none_right["majority"]["accuracy"] == none_right["cheap"]["accuracy"] == none_right["accuracy"] == 0.0
    assert none_right["constant"]["accuracy"] == 1.0, "no held-out word has a capital"
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
    stream, feeds, _ = open_stream(shards, [task], {task.name: 0}, batch, seed=0)
    exam = HeldOut(stream, feeds, [task], 33, seed=0)._exams[task.name]
    assert np.bincount(exam.labels).tolist() == [11, 11, 11]
    assert exam.labels[:12].tolist() != sorted(exam.labels[:12].tolist()), "in random order"
