"""Knowledge masking on small documents, and its shares on large ones."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ernie2.tasks.base import Arrangement, Labels
from ernie2.tasks.instances import lay_out
from ernie2.tasks.knowledge_masking import unit_shares, unit_starts
from tiny import CLS, MASK, SEP, UNK, VOCABULARY, document, random_document, task, whole

WHOLE = {"all": 1.0}
"""A mix that always masks by units of every kind."""


def sequence_of(*documents):
    return lay_out(Arrangement(tuple(whole(d) for d in documents), None), VOCABULARY)


def masked(sequence, seed=0, **options):
    return task("knowledge_masking", **options).label(sequence, np.random.default_rng(seed))


#                     0   1    2   3   4    5   6   7
WORDS = [[[10, 901, 20, 30, 902, 40, 50, 60]]]  # words: 10-901, 20, 30-902, 40, 50, 60


def starts(spans, levels=("word", "phrase", "entity", "user")):
    """First tokens of units, counted in the document (without the [CLS] before it)."""
    found = unit_starts(sequence_of(document(WORDS, spans=spans)), levels)
    return (np.flatnonzero(found[1:9])).tolist()


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ({}, [0, 2, 3, 5, 6, 7]),
        ({"phrase": [(2, 5)]}, [0, 2, 5, 6, 7]),
        ({"phrase": [(0, 3)], "entity": [(5, 7)]}, [0, 3, 5, 7]),
        # the entity wins over the phrase it overlaps; the words the phrase covered stay units
        ({"phrase": [(0, 3)], "entity": [(2, 5)]}, [0, 2, 5, 6, 7]),
        # a given span wins over an entity
        ({"entity": [(5, 8)], "user": [(6, 8)]}, [0, 2, 3, 5, 6]),
        # neighbours do not overlap
        ({"phrase": [(0, 2)], "entity": [(2, 5)]}, [0, 2, 5, 6, 7]),
        # what is left of a word after a span ends inside it is a unit
        ({"user": [(2, 4)]}, [0, 2, 4, 5, 6, 7]),
        # up to the very end
        ({"entity": [(5, 8)]}, [0, 2, 3, 5]),
    ],
)
def test_units_are_words_joined_by_the_strongest_spans(spans, expected):
    assert starts(spans) == expected


def test_the_order_of_the_levels_says_which_span_wins():
    spans = {"phrase": [(0, 3)], "entity": [(2, 5)]}
    assert starts(spans, ("entity", "phrase")) == [0, 3, 5, 6, 7]
    assert starts(spans, ("word",)) == [0, 2, 3, 5, 6, 7]


def units_by_hand(sequence, levels):
    """Units as sets of positions, by a simple loop: strongest kind first; overlapped spans are ignored."""
    owner = {}
    for kind in reversed(levels):
        runs = [range(*run) for run in sequence.spans.get(kind, np.zeros((0, 2), int)).tolist()]
        for run in runs:
            if not any(position in owner for position in run):
                owner.update(dict.fromkeys(run, ("span", run.start)))
    units, last = {}, None
    for position, token in enumerate(sequence.tokens.tolist()):
        if sequence.document[position] < 0:
            last = None
        elif position in owner:
            last = owner[position]
            units.setdefault(last, set()).add(position)
        else:
            begins = token < 900 or last is None or last[0] == "span"
            last = ("word", position) if begins else last
            units.setdefault(last, set()).add(position)
    return list(units.values())


ALL = ("word", "phrase", "entity", "user")
KINDS = {
    "word": ("word", "user"),
    "phrase": ("word", "phrase", "user"),
    "entity": ("word", "entity", "user"),
    "all": ALL,
}


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3), st.sampled_from([*KINDS]))
def test_selected_units_are_masked_completely_and_nothing_else_is(seed, documents, level):
    rng = np.random.default_rng(seed)
    sequence = sequence_of(*(random_document(rng, sentences=6) for _ in range(documents)))
    labels = masked(sequence, seed, mix={level: 1.0})
    scored = set(labels.positions.tolist())
    for unit in units_by_hand(sequence, KINDS[level]):
        can = {position for position in unit if sequence.tokens[position] != UNK}
        assert can <= scored or not can & scored


#                       0   1   2   3   4   5   6   7   8   9
KNOWLEDGE = document(
    [[[*range(10, 20)]]], spans={"word": [(0, 2)], "phrase": [(2, 5)], "entity": [(4, 7)], "user": [(8, 10)]}
)
UNITS = {
    "basic": [(0,), (1,), (2,), (3,), (4,), (5,), (6,), (7,), (8,), (9,)],
    "word": [(0, 1), (2,), (3,), (4,), (5,), (6,), (7,), (8, 9)],
    "phrase": [(0, 1), (2, 3, 4), (5,), (6,), (7,), (8, 9)],
    "entity": [(0, 1), (2,), (3,), (4, 5, 6), (7,), (8, 9)],
    "all": [(0, 1), (2,), (3,), (4, 5, 6), (7,), (8, 9)],
}


@pytest.mark.parametrize("level", UNITS)
def test_each_level_hides_its_own_units(level):
    # a share this small picks one unit
    picked = {
        tuple((masked(sequence_of(KNOWLEDGE), seed, mix={level: 1.0}, mask_share=0.01).positions - 1).tolist())
        for seed in range(200)
    }
    assert picked == set(UNITS[level])


def test_levels_left_out_are_no_units_in_any_mix():
    options = {"mix": {"phrase": 0.5, "all": 0.5}, "levels": ("word", "phrase"), "mask_share": 0.01}
    picked = {tuple((masked(sequence_of(KNOWLEDGE), seed, **options).positions - 1).tolist()) for seed in range(200)}
    assert picked == {(0, 1), (2, 3, 4), (5,), (6,), (7,), (8,), (9,)}


def test_the_coin_shows_every_level_as_often_as_the_mix_says():
    # words of 2 pieces, phrases of 3 and entities of 4, each kind over all of it: the length of a unit tells the level
    tiles = {kind: [(at, at + n) for at in range(0, 24, n)] for kind, n in (("word", 2), ("phrase", 3), ("entity", 4))}
    sequence = sequence_of(document([[[*range(10, 34)]]], spans=tiles))
    mix = {"entity": 0.4, "basic": 0.1, "word": 0.2, "phrase": 0.3}
    drawn = Counter(len(masked(sequence, seed, mix=mix, mask_share=0.01).positions) for seed in range(4_000))
    for pieces, share in ((1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)):
        four_deviations = 4 * (share * (1 - share) / 4_000) ** 0.5
        assert drawn[pieces] / 4_000 == pytest.approx(share, abs=four_deviations)
    assert set(drawn) == {1, 2, 3, 4}


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([*KINDS]), st.floats(0.01, 0.9))
def test_the_share_of_units_is_met_to_within_one_unit_at_every_level(seed, level, share):
    sequence = sequence_of(random_document(np.random.default_rng(seed)))
    scored = set(masked(sequence, seed, mix={level: 1.0}, mask_share=share).positions.tolist())
    units = [[p for p in unit if sequence.tokens[p] != UNK] for unit in units_by_hand(sequence, KINDS[level])]
    units = [unit for unit in units if unit]
    picked = sum(unit[0] in scored for unit in units)
    assert picked in {max(1, int(len(units) * share)), max(1, int(len(units) * share) + 1)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mix": {"basic": 0.2, "all": 0.9}}, r"must sum to 1, not 1.1 \(basic 0.2, all 0.9\)"),
        ({"mix": {}}, "must sum to 1, not 0"),
        ({"mix": {"basic": 1.5, "all": -0.5}}, "less than or equal to 1"),
        ({"mix": {"phrse": 1.0}}, "'basic', 'word', 'phrase', 'entity' or 'all'"),
        ({"mix": {"entity": 1.0}, "levels": ("word", "phrase")}, "levels leaves out 'entity'"),
    ],
)
def test_a_mix_that_cannot_be_is_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        task("knowledge_masking", **options)


def test_picked_units_are_tallied_by_kind_and_pieces_by_number():
    sequence = sequence_of(KNOWLEDGE)
    everything = {"mask_share": 0.99}  # 6 or 7 of 7 units, 10 of 10 pieces
    for mix, expected in (
        ({"all": 1.0}, {"word": 4, "entity": 1, "user": 1}),
        ({"phrase": 1.0}, {"word": 4, "phrase": 1, "user": 1}),
    ):
        counts = []
        for seed in range(40):
            labels = masked(sequence, seed, mix=mix, **everything)
            counts.append(task("knowledge_masking", mix=mix).count_labels(sequence, labels))
        assert max(counts, key=lambda tally: sum(tally.values())) == expected
    labels = masked(sequence, 0, mix={"basic": 1.0})
    assert task("knowledge_masking", mix={"basic": 1.0}).count_labels(sequence, labels) == {
        "token": len(labels.positions)
    }


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.5, 1.0]))
def test_targets_are_the_original_ids_and_only_scored_tokens_are_replaced(seed, basic):
    sequence = sequence_of(random_document(np.random.default_rng(seed)))
    labels = masked(sequence, seed, mix={"basic": basic, "all": 1 - basic})
    assert np.array_equal(labels.targets, sequence.tokens[labels.positions])
    assert set(np.flatnonzero(labels.inputs != sequence.tokens)) <= set(labels.positions.tolist())
    assert (np.diff(labels.positions) > 0).all()
    assert len(labels.positions)
    untouched = np.isin(sequence.tokens, [CLS, SEP, UNK])
    assert not np.isin(np.flatnonzero(untouched), labels.positions).any()
    assert np.isin(labels.inputs, [*VOCABULARY.ordinary, MASK, CLS, SEP, UNK]).all()


def test_of_the_selected_tokens_80_percent_are_masked_10_random_10_unchanged():
    sequence = sequence_of(random_document(np.random.default_rng(0), sentences=60))
    masked_count = random = unchanged = total = 0
    for seed in range(300):
        labels = masked(sequence, seed)
        seen = labels.inputs[labels.positions]
        masked_count += int((seen == MASK).sum())
        unchanged += int((seen == labels.targets).sum())
        random += int(((seen != MASK) & (seen != labels.targets)).sum())
        total += len(labels.positions)
    assert total > 20_000
    assert masked_count / total == pytest.approx(0.8, abs=0.01)
    assert random / total == pytest.approx(0.1, abs=0.01)
    assert unchanged / total == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("words", [7, 10, 40, 300])
def test_15_percent_of_the_units_are_selected_at_any_length(words):
    sequence = sequence_of(document([[list(range(10, 10 + words))]]))
    picked = [len(masked(sequence, seed).positions) for seed in range(2_000)]
    assert np.mean(picked) / words == pytest.approx(0.15, rel=0.05)


def test_the_share_counts_units_not_pieces():
    # 100 units: 50 words and 50 entities of 3 words; 15 units are picked, so 30 pieces on average
    tokens = [[*range(10, 60)], [*range(60, 210)]]
    entities = [(50 + 3 * i, 53 + 3 * i) for i in range(50)]
    sequence = sequence_of(document([tokens], spans={"entity": entities}))
    picked = [len(masked(sequence, seed, mix=WHOLE).positions) for seed in range(500)]
    assert np.mean(picked) == pytest.approx(30, rel=0.03)


def test_basic_sequences_are_masked_token_by_token():
    sequence = sequence_of(document([[[*range(10, 110)]]], spans={"entity": [(0, 100)]}))
    assert {len(masked(sequence, seed, mix={"basic": 1.0}).positions) for seed in range(50)} <= {14, 15, 16}
    assert {len(masked(sequence, seed, mix=WHOLE).positions) for seed in range(50)} == {100}
    shares = [len(masked(sequence, seed).positions) < 100 for seed in range(2_000)]
    assert np.mean(shares) == pytest.approx(0.1, abs=0.02)


def test_a_unit_around_an_unknown_word_is_hidden_together_and_the_unknown_word_stays():
    sequence = sequence_of(document([[[10, UNK, 30]]], spans={"entity": [(0, 3)]}))
    labels = masked(sequence, mix=WHOLE)
    assert labels.positions.tolist() == [1, 3]
    assert labels.inputs[2] == UNK


def test_a_sequence_of_unknown_words_is_left_alone():
    labels = masked(sequence_of(document([[[UNK, UNK]]])))
    assert len(labels.positions) == 0
    assert labels.inputs.tolist() == [CLS, UNK, UNK, SEP]


def test_a_segment_that_begins_inside_a_word_does_not_join_the_one_before():
    # two documents, the second beginning with a continuation piece: [CLS] 10 [SEP] 901 [SEP]
    sequence = sequence_of(document([[[10]]]), document([[[901]]]))
    assert {tuple(masked(sequence, seed, mask_share=0.4).positions.tolist()) for seed in range(50)} == {(1,), (3,)}


def test_shares_of_units_count_complete_units():
    """Words 10-901, 20, 30-902, 40, 50, 60; the phrase 20-30-902 gives way to the entity 30-902-40."""
    sequence = sequence_of(document(WORDS, spans={"phrase": [(2, 5), (6, 8)], "entity": [(3, 6)]}))
    shares = unit_shares([sequence], ("word", "phrase", "entity", "user"))
    assert shares == {"word": 0.5, "phrase": 0.25, "entity": 0.25, "user": 0.0}  # 10-901 | 20 | 30-902-40 | 50-60


@pytest.mark.parametrize(
    ("mix", "missed"),
    [
        ({"all": 1.0}, ["phrases", "entities"]),
        ({"basic": 0.1, "entity": 0.4, "all": 0.5}, ["phrases", "entities"]),
        ({"phrase": 1.0}, ["phrases"]),
        ({"basic": 0.5, "word": 0.5}, []),
    ],
)
def test_only_kinds_that_the_mix_hides_are_missed(mix, missed):
    notes = task("knowledge_masking", mix=mix).notes([sequence_of(document(WORDS))])
    assert [note.split()[1] for note in notes] == missed


def test_one_span_in_a_hundred_units_is_enough():
    words = [[list(range(10, 110))]]
    enough, few = ([sequence_of(document(words, spans={"entity": [(0, 1)] * n}))] for n in (1, 0))
    masking = task("knowledge_masking", mix={"entity": 1.0})
    assert masking.notes(enough) == []
    (note,) = masking.notes(few)
    assert note == (
        "no entities found (0.0 % of units), so level 'entity' does nothing there; add knowledge.gazetteer or "
        "knowledge.spacy, or remove 'entity' from tasks.knowledge_masking.levels."
    )


def test_corpora_with_few_spans_share_one_note_whatever_their_shares():
    words = [[list(range(10, 310))]]
    one, two = (sequence_of(document(words, spans={"entity": [(i, i + 1) for i in range(n)]})) for n in (1, 2))
    masking = task("knowledge_masking", mix={"entity": 1.0})
    (note,) = masking.notes([one])
    assert note.startswith("few entities (less than 1% of units), so level 'entity' does nearly nothing there; ")
    assert masking.notes([two]) == [note]


def test_what_a_level_of_its_own_hid_is_counted_as_that_kind():
    """A phrase hidden at level phrase also hides whole words, as level entity would, but in more units."""
    sequence = sequence_of(document(WORDS, spans={"phrase": [(2, 6)]}))
    masking = task("knowledge_masking", mix={"word": 0.3, "phrase": 0.4, "entity": 0.3})
    hidden = Labels(np.array([3, 4, 5, 6]), sequence.tokens[3:7])
    assert masking.count_labels(sequence, hidden) == {"phrase": 1}
    assert masking.count_labels(sequence, Labels(np.array([3, 8]), sequence.tokens[[3, 8]])) == {"word": 2}
