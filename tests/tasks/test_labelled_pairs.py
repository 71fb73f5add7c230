"""The label of a pair is its class, also after truncation; the classes are those of the options."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ernie2.errors import ConfigError, TaskError
from ernie2.tasks.base import Arrangement, Segment, Source, find_task, known_tasks
from ernie2.tasks.building import build_task
from ernie2.tasks.instances import arrange, build_instance, lay_out
from ernie2.tasks.labelled_pairs import DiscourseRelation, IRRelevance, LabelledPairs, LabelledPairsOptions
from tiny import CLS, SEP, VOCABULARY, document, task

LABELS = ("however", "because", "[no-conn]")
#               0   1   2    3   4    5   6
PAIR = document([[[10, 11, 900], [12]], [[13, 900, 10]]], label="because", name="pair")


def discourse(**options):
    return task("discourse_relation", **{"labels": LABELS, **options})


def instance(pair, limit=64, **options):
    tested_task = discourse(**options)
    rng = np.random.default_rng(0)
    arranged = arrange(tested_task, Source(pair, 0), None, limit, rng)
    return None if arranged is None else build_instance(arranged, tested_task, [], VOCABULARY, rng)


def test_a_pair_has_two_segments_and_the_class_of_its_label():
    result = instance(PAIR)
    assert result.inputs.tolist() == [CLS, 10, 11, 900, 12, SEP, 13, 900, 10, SEP]
    assert result.segment.tolist() == [0] * 6 + [1] * 4
    assert result.labels["discourse_relation"].positions.tolist() == [0]
    assert result.labels["discourse_relation"].targets.tolist() == [1]


@pytest.mark.parametrize(("label", "number"), [("however", 0), ("because", 1), ("[no-conn]", 2)])
def test_classes_count_in_the_order_of_the_options(label, number):
    pair = document([[[10]], [[11]]], label=label)
    assert instance(pair).labels["discourse_relation"].targets.tolist() == [number]
    assert instance(pair, labels=LABELS[::-1]).labels["discourse_relation"].targets.tolist() == [2 - number]


def test_relevance_has_query_and_title_and_the_three_classes_of_the_paper():
    relevance = task("ir_relevance", labels=(0, 1, 2))
    pair = document([[[20, 21]], [[22, 23, 24]]], label="2")
    arrangement = relevance.arrange(Source(pair, 0), None, 61, np.random.default_rng(0))
    assert arrangement == Arrangement((Segment(pair, 0, 2), Segment(pair, 2, 5)), 2)
    assert relevance.labels == ("0", "1", "2")


def test_one_instance_a_pair():
    assert discourse().arrange(Source(PAIR, 0), None, 61, np.random.default_rng(0)).next_sentence is None
    assert not discourse().balanced


@pytest.mark.parametrize("text", [document([[[10]], [[11]]]), document([[[10]], []], label="because")])
def test_a_document_that_is_no_labelled_pair_is_not_usable(text):
    assert not discourse().can_use(text)
    assert instance(text) is None


def test_a_label_that_is_none_of_the_classes_is_an_error_that_names_the_document():
    stranger = document([[[10]], [[11]]], label="meanwhile", name="p17")
    assert not discourse().can_use(stranger)
    with pytest.raises(TaskError, match=r"'discourse_relation', document 'p17': its label 'meanwhile' is none of"):
        instance(stranger)


@given(st.integers(1, 30), st.integers(1, 30), st.sampled_from(LABELS), st.integers(16, 40))
def test_whatever_is_cut_the_sequence_fits_and_the_label_stays(first, second, label, limit):
    pair = document([[list(range(10, 10 + first))], [list(range(100, 100 + second))]], label=label)
    result = instance(pair, limit)
    assert len(result) == min(limit, first + second + 3)
    assert result.labels["discourse_relation"].targets.tolist() == [LABELS.index(label)]
    shown = result.sequence
    assert shown.tokens[shown.document >= 0].tolist() == [
        *range(10, 10 + (shown.segment == 0).sum() - 2),
        *range(100, 100 + (shown.segment == 1).sum() - 1),
    ]


@pytest.mark.parametrize(("second", "tenths"), [([20, 21], 0), ([10, 21], 5), ([10, 10, 11, 12], 10)])
def test_the_baseline_feature_is_the_share_of_common_tokens(second, tenths):
    pair = document([[[10, 11]], [second]], label="however")
    sequence = lay_out(Arrangement((Segment(pair, 0, 2), Segment(pair, 2, len(pair))), 0), VOCABULARY)
    assert discourse().baseline_feature(sequence, np.zeros(1, np.int64)).tolist() == [tenths]


def test_token_tasks_label_pairs_only_if_the_recipe_allows_it():
    assert not discourse().allows_attached_tasks
    assert discourse(allows_attached_tasks=True).allows_attached_tasks
    with pytest.raises(ConfigError, match="hosts_riders: this key is now allows_attached_tasks"):
        build_task("discourse_relation", {"hosts_riders": True}, VOCABULARY)


@pytest.mark.parametrize(
    ("labels", "message"), [(["a"], "at least 2"), (["a", "b", "a"], "'a' is listed twice"), ([True, False], "string")]
)
def test_wrong_lists_of_labels_are_refused(labels, message):
    with pytest.raises(ValidationError, match=message):
        LabelledPairs.Options(labels=labels)


def test_both_tasks_are_known_and_the_family_itself_is_not():
    names = {name: find_task(name) for name in known_tasks()}
    assert names["discourse_relation"] is DiscourseRelation
    assert names["ir_relevance"] is IRRelevance
    assert LabelledPairs not in names.values()


def test_a_task_of_your_own_takes_three_lines():
    class Paraphrase(LabelledPairs):
        name, title, about = "paraphrase", "Paraphrase", "Do the two sentences say the same?"

    tested_task = Paraphrase(Paraphrase.Options(labels=("no", "yes")), VOCABULARY)
    pair = document([[[10]], [[10]]], label="yes")
    assert tested_task.arrange(Source(pair, 0), None, 61, np.random.default_rng(0)).label == 1


# ---- the rule bent: the literals above notice


def swapped(arranged):
    return Arrangement(arranged.segments[::-1], arranged.label)


def next_class(arranged):
    return Arrangement(arranged.segments, (arranged.label + 1) % len(LABELS))


def faithful(arranged, pair):
    """Whether what is shown is the pair, in its order, under its label; without asking the task."""
    first = len(pair.tokens[: pair.sentences[pair.paragraphs[1]]])
    return [(s.start, s.end) for s in arranged.segments] == [(0, first), (first, len(pair))] and LABELS[
        arranged.label
    ] == pair.label


@pytest.mark.parametrize("bend", [swapped, next_class])
def test_a_bent_rule_is_noticed(bend):
    straight = discourse().arrange(Source(PAIR, 0), None, 61, np.random.default_rng(0))
    assert faithful(straight, PAIR)
    assert not faithful(bend(straight), PAIR)


def test_labels_of_the_recipe_are_written_as_those_of_the_data():
    assert LabelledPairsOptions(labels=(" yes", "1.0", 2)).labels == ("yes", "1", "2")
    for twice in (("yes", "yes "), ("1", "1.0"), ("yes", " ")):
        with pytest.raises(ValueError, match=r"is listed twice|is empty"):
            LabelledPairsOptions(labels=twice)
