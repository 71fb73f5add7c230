"""`inspect` on shards small enough to count by hand."""

from __future__ import annotations

import pytest

from ernie2.errors import ConfigError, ShardError, UnknownTask
from ernie2.inspecting.inspection import inspect
from ernie2.inspecting.text import render
from ernie2.shards.tokenizer import load_tokenizer
from ernie2.storage.json_files import read_checked_json
from ernie2.tasks import base
from ernie2.tasks.base import TokenTask, known_tasks
from tiny import FOUR, change, document, give_tokenizer, write_corpora

#         0      1      2      3      4       5    6      7      8       9        10     11
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "new", "york", "sleeps", "##less", "berta", "snores"]


def folder(tmp_path, corpora, words=WORDS):
    """Shards of these documents with a tokeniser of these words."""
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(words), encoding="utf-8")
    shards = write_corpora(tmp_path / "shards", corpora).folder
    give_tokenizer(shards, load_tokenizer(vocabulary))
    return shards


def city(name="city"):
    """New York sleeps. Berta snores. | New Berta sleeps. Berta: entities New York and New Berta."""
    paragraphs = [[[6, 7, 8, 5], [10, 11, 5]], [[6, 10, 8, 5], [10]]]
    return document(
        paragraphs, capitals={0, 1, 4, 7, 8, 11}, caseless={3, 6, 10}, spans={"entity": [(0, 2), (7, 9)]}, name=name
    )


@pytest.fixture
def shards(tmp_path):
    return folder(tmp_path, {"cities": [city(str(i)) for i in range(4)]})


def test_corpus_figures_are_counted(shards):
    (figures,) = inspect(shards, FOUR[0], 0).corpora
    assert (figures.documents, figures.heldout_documents, figures.tokens) == (4, 0, 48)
    assert figures.cased_share == 9 / 12
    assert figures.capital_share == 6 / 9
    assert (figures.tokens_a_sentence, figures.sentences_a_paragraph) == (3.0, 2.0)
    assert figures.spans == {"entity": 8}


def test_dropped_documents_are_listed_by_reason(shards):
    corpora = read_checked_json(shards / "shards.json")["corpora"]
    corpora["cities"]["dropped"] = {"duplicate": 3, "empty": 1}
    change(shards / "shards.json", corpora=corpora)
    assert "dropped documents: 3 duplicate, 1 empty" in render(inspect(shards, FOUR[0], 0))


def test_labelled_pairs_are_counted_by_label_and_the_most_frequent_listed(tmp_path):
    def pair(number: int, label: int):
        return document([[[6, 7]], [[8, 5]]], name=str(number), label=str(label))

    # labels 1 … 12, each as often as its number says
    many = [pair(number, label) for number, label in enumerate(n for n in range(1, 13) for _ in range(n))]
    shards = folder(tmp_path, {"many": many, "few": [pair(0, 1), pair(1, 0), pair(2, 1)], "cities": [city()]})
    inspection = inspect(shards, FOUR[0], 0)
    assert [dict(corpus.labels) for corpus in inspection.corpora[1:]] == [{"0": 1, "1": 2}, {}]
    text = " ".join(render(inspection).split())
    assert "78 labelled pairs (0 held out), 312 tokens labels: 12 (15.4%), 11 (14.1%), 10 (12.8%)" in text
    assert "3 (3.8%) and 2 others" in text
    assert "3 labelled pairs (0 held out), 12 tokens labels: 0 (33.3%), 1 (66.7%) 2.0 tokens a sentence" in text
    assert "1 documents or sections (0 held out)" in text


def test_capitals_are_written_as_in_the_text(shards):
    (task,) = inspect(shards, "capitalization_prediction", 1).tasks
    assert task.examples == ("New York sleeps. Berta snores. New Berta sleeps. Berta",)
    assert task.label_counts == {"lower": 4 * 3, "capital": 4 * 6}
    assert (task.instances, task.scored, task.tokens) == (4, 36, 48)
    assert task.usable == {"cities": {"usable": 4, "of": 4, "scored": 9 / 12, "notes": []}}


def test_masked_units_are_in_one_pair_of_brackets(shards):
    shown = set()
    for seed in range(30):
        options = {"knowledge_masking": {"mix": {"all": 1.0}, "mask_share": 0.3}}
        (task,) = inspect(shards, "knowledge_masking", 4, seed, options).tasks
        shown |= set(task.examples)
        assert set(task.label_counts) <= {"word", "entity"}
    assert any("⟦new york⟧" in text for text in shown)
    assert any("≡" in text for text in shown)
    assert any("→" in text for text in shown)
    assert not any("⟦york" in text or "⟦new⟧" in text for text in shown)


def test_tokens_are_marked_elsewhere_or_only_here_against_the_text_left_over(tmp_path):
    # sequences of up to 8 tokens show a sentence or two; "york" and "snores" occur once
    shards = folder(tmp_path, {"cities": [city("a")]})
    (task,) = inspect(shards, "token_document_relation", 1, sequence_tokens=8).tasks
    assert task.examples == ("new⁺ york⁻ sleeps⁺.⁺",)


def test_segments_are_numbered_in_order_below_their_label(shards):
    whole = ["new york sleeps.", "berta snores.", "new berta sleeps.", "berta"]
    for seed in range(10):
        (task,) = inspect(shards, "sentence_reordering", 4, seed).tasks
        for example in task.examples:
            label, *segments = example.split("\n")
            order = label.removeprefix("label ")
            texts = {place: text.split(") ", 1)[1] for place, text in zip(order, segments, strict=True)}
            assert " ".join(texts[place] for place in sorted(texts)) == " ".join(whole)


def test_a_pair_is_written_below_its_distance(tmp_path):
    nights = document([[[8, 5], [10, 5], [11, 5]]], name="nights", group=1)
    shards = folder(tmp_path, {"cities": [city(), nights]})
    (task,) = inspect(shards, "sentence_distance", 8).tasks
    assert sum(task.label_counts.values()) == task.instances == task.scored
    assert {example.split("\n")[0] for example in task.examples} <= {
        "label adjacent",
        "label same_document",
        "label different_documents",
    }
    assert all(example.count("\n") == 2 for example in task.examples)


def test_one_text_alone_says_why_sentence_distance_does_not_apply(shards):
    (task,) = inspect(shards, "sentence_distance", 1).tasks
    assert "all are of one group" in (task.unusable_reason or "")


def test_continuation_pieces_are_joined(tmp_path):
    text = document([[[8, 9, 5]], [[8]]], caseless={1})
    shards = folder(tmp_path, {"a": [text]})
    (task,) = inspect(shards, "capitalization_prediction", 1).tasks
    assert task.examples == ("sleepsless. sleeps",)


def test_text_without_case_says_why_capitalization_does_not_apply(tmp_path):
    shards = folder(tmp_path, {"georgian": [document([[[6, 7]], [[8]]], caseless={0, 1, 2})]})
    (task,) = inspect(shards, "capitalization_prediction", 2).tasks
    assert task.examples == ()
    text = render(inspect(shards, "capitalization_prediction", 2))
    assert "can use 0 of 1 documents or sections of georgian" in text
    assert "needs words of a script that has case" in text
    assert "does not apply" in text


def test_a_cased_tokeniser_says_why_capitalization_does_not_apply(tmp_path):
    shards = write_corpora(tmp_path / "shards", {"a": [city()]}).folder
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join([*WORDS, *"abcdefghijklmnopqrstuvwxyz", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ"]))
    give_tokenizer(shards, load_tokenizer(vocabulary, lowercase=False))
    (task,) = inspect(shards, "capitalization_prediction", 2).tasks
    assert "the tokeniser is cased" in (task.unusable_reason or "")


def test_all_tasks_are_inspected_if_none_is_named(shards):
    inspection = inspect(shards, examples=1)
    assert [task.name for task in inspection.tasks] == list(known_tasks())
    text = render(inspection)
    assert all(f"task {name}:" in text for name in known_tasks())
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 120 + len(str(shards))


def pairs(*labels):
    return [document([[[6, 7]], [[10, 11]]], label=label, name=f"{label}{i}") for i, label in enumerate(labels)]


def test_labelled_pairs_are_written_below_their_label_with_both_texts(tmp_path):
    shards = folder(tmp_path, {"cities": [city()], "web": pairs("so", "so", "so", "but")})
    (task,) = inspect(shards, "discourse_relation", 5).tasks
    assert task.label_counts == {"but": 1, "so": 3}
    assert (
        sorted(task.examples)
        == ["label but\n(1) new york\n(2) berta snores"] + ["label so\n(1) new york\n(2) berta snores"] * 3
    )
    assert task.usable == {"web": {"usable": 4, "of": 4}}
    assert "labels: but (25.0%), so (75.0%)" in render(inspect(shards, "discourse_relation", 5))


def test_pairs_of_several_corpora_are_inspected_one_by_one(tmp_path):
    shards = folder(tmp_path, {"web": pairs("so", "but"), "clicks": pairs("0", "1", "2")})
    looks = inspect(shards, "ir_relevance", 5).tasks
    assert [(list(task.usable), list(task.label_counts)) for task in looks] == [
        (["web"], ["but", "so"]),
        (["clicks"], ["0", "1", "2"]),
    ]


def test_of_many_labels_the_ten_commonest_are_written_out(tmp_path):
    labels = [f"l{i:02}" for i in range(13)]
    shards = folder(tmp_path, {"web": pairs(*labels, *labels[5:12], "l12", "l12")})
    text = render(inspect(shards, "discourse_relation", 0))
    assert "labels: l12 (13.6%), l05 (9.1%)" in text
    assert "l01 (4.5%) and 3 others" in " ".join(text.split())


def test_shards_without_pairs_say_why_a_task_of_pairs_does_not_apply(shards):
    (task,) = inspect(shards, "discourse_relation", 5).tasks
    assert "none of these corpora holds any: cities" in (task.unusable_reason or "")


def test_wrong_questions_are_refused(shards, tmp_path):
    with pytest.raises(UnknownTask, match="Did you mean 'knowledge_masking'"):
        inspect(shards, "knowledge_maskin")
    with pytest.raises(ConfigError, match="mask_share"):
        inspect(shards, "knowledge_masking", options={"knowledge_masking": {"mask_share": 2}})
    with pytest.raises(ShardError, match="does not exist"):
        inspect(tmp_path / "nowhere")


def test_levels_of_the_mix_without_spans_are_warned_of(shards):
    text = " ".join(render(inspect(shards, "knowledge_masking", 0)).split())
    assert "note on cities: no phrases found (0.0 % of units), so level 'phrase' does nothing there; " in text
    assert "no entities" not in text


def test_a_note_on_several_corpora_is_printed_once(tmp_path):
    plain = document([[[8, 5], [10, 5]]])
    shards = folder(tmp_path, {"one": [plain], "two": [plain]})
    text = " ".join(render(inspect(shards, "knowledge_masking", 0)).split())
    assert text.count("no entities found") == 1
    assert "note on one, two: no entities found" in text


def test_a_recipe_s_tasks_options_and_length_are_used(shards):
    options = {"sentence_reordering": {"max_segments": 2}, "capitalization_prediction": {}}
    found = inspect(shards, None, 1, 0, options, sequence_tokens=10)
    assert [task.name for task in found.tasks] == list(options)
    assert set(found.tasks[0].label_counts) == {"1", "12", "21"}
    assert found.tasks[0].tokens <= found.tasks[0].instances * 7, "10 less [CLS] and two [SEP]"
    assert "instances of up to 10 tokens" in render(found)


def test_examples_contain_the_requested_span_or_class(tmp_path):
    plain = [document([[[8, 5], [10, 5]]], name=f"plain{i}", capitals={0}) for i in range(40)]
    shards = folder(tmp_path, {"mixed": [*plain, city()]})
    (reordering,) = inspect(shards, "sentence_reordering", 1, containing="entity").tasks
    assert "new york" in reordering.examples[0]
    options = {"knowledge_masking": {"mask_share": 0.2, "mix": {"all": 1.0}}}
    for seed in range(5):
        (masking,) = inspect(shards, "knowledge_masking", 1, seed, options, containing="entity").tasks
        for example in masking.examples:
            assert any(f"⟦{first}" in example for first in ("new york", "new berta", "new→", "new≡")), example
    (reordering,) = inspect(shards, "sentence_reordering", 3, containing="21").tasks
    assert {example.split("\n")[0] for example in reordering.examples} == {"label 21"}


def test_a_search_without_an_example_is_reported(tmp_path):
    shards = folder(tmp_path, {"plain": [document([[[8, 5], [10, 5]]], name=f"plain{i}") for i in range(4)]})
    options = {"knowledge_masking": {}, "sentence_reordering": {}}
    text = render(inspect(shards, None, 2, 0, options, containing="entity"))
    assert text.count("no corpus that these tasks read has spans of the kind 'entity'") == 1
    assert "no example" not in text
    text = render(inspect(shards, None, 2, 0, options, containing="21"))
    assert text.count("has no class '21'") == 1
    with pytest.raises(ConfigError, match=r"'entty' is not a kind of span.*Did you mean 'entity'"):
        inspect(shards, None, 2, 0, options, containing="entty")


def test_only_tasks_that_read_such_spans_say_that_no_example_has_them(tmp_path):
    """The masking task reads the corpus with one entity and hides none of it; the other reads one without."""
    plain = [document([[[8, 5], [10, 5]]], name=f"plain{i}") for i in range(4)]
    shards = folder(tmp_path, {"plain": plain, "cities": [city()]})
    options = {
        "knowledge_masking": {"corpora": ["cities"], "mix": {"basic": 1.0}, "mask_share": 0.01},
        "sentence_reordering": {"corpora": ["plain"]},
    }
    found = inspect(shards, None, 2, 0, options, containing="entity")
    assert [task.has_spans for task in found.tasks] == [True, False]
    text = render(found)
    assert text.count("no example with 'entity' was found") == 1
    assert text.index("no example") < text.index("task sentence_reordering")


def test_a_faulty_task_of_another_package_is_named_and_the_others_are_inspected(shards, monkeypatch):
    class Fails(TokenTask):
        name, title, about, labels = "fails", "Fails", "Does it fail?", ("a", "b")

        def __init__(self, options, vocabulary):
            raise KeyError("no such token")

    class Nameless(TokenTask):
        name, labels = "nameless", ("a", "b")

    class Breaks(TokenTask):
        name, title, about, labels = "breaks", "Breaks", "Does it break?", ("a", "b")

        def can_use(self, document):
            raise ZeroDivisionError

    faulty = {task.name: task for task in (Fails, Nameless, Breaks)}
    monkeypatch.setattr(base, "_TASKS", {**base._TASKS, **faulty})
    text = render(inspect(shards, examples=0))
    assert "task knowledge_masking: " in text
    assert "does not apply: task 'fails' of " in text
    assert "task nameless cannot be used: it failed with AttributeError(" in text
    assert "task breaks cannot be used: it failed with ZeroDivisionError(), " + f"{__file__}, line " in text
