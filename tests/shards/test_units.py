"""The pass over the input: units, duplicates, the split."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie2.config.data_settings import CorpusSettings, ShardSettings
from ernie2.corpora.documents import hash64
from ernie2.errors import DataError
from ernie2.shards.store import HELDOUT
from ernie2.shards.units import (
    NO_GROUP,
    OTHER_LABEL,
    OUTSIDE,
    load_corpora,
    read_corpora,
    read_unit,
    unit_bytes,
)


def corpus(folder, rows, name="in.jsonl", **fields):
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return CorpusSettings(path=str(file), **fields)


def read(folder, corpora, **limits):
    (folder / "work" / "units").mkdir(parents=True)
    reported = []
    found = read_corpora(corpora, ShardSettings(folder="nowhere", **limits), folder / "work", reported.append)
    assert load_corpora(folder / "work") == found
    return found


def documents(folder, found):
    return [list(read_unit(folder / "work" / "units" / f"{unit}.jsonl.zst")) for unit in found.units]


def test_documents_are_read_back_unchanged(tmp_path):
    rows = [{"id": "a", "text": "one\n\ntwo", "spans": [[0, 3, "entity"]]}, {"id": "b", "text": "drei ß 文"}]
    (found,) = read(tmp_path, {"c": corpus(tmp_path, rows, language="de", licence="CC0")})
    assert [[d.name, d.group, d.text, list(map(tuple, d.spans))] for d in documents(tmp_path, found)[0]] == [
        ["a", hash64("a"), "one\n\ntwo", [(0, 3, "entity")]],
        ["b", hash64("b"), "drei ß 文", []],
    ]
    assert (found.language, found.licence, found.documents, found.characters) == ("de", "CC0", 2, 16)


def test_a_repeated_text_is_dropped_also_in_another_corpus(tmp_path):
    one = corpus(tmp_path, [{"text": "a"}, {"text": "b"}, {"text": "a"}, {"text": " "}], "one.jsonl")
    two = corpus(tmp_path, [{"text": "b"}, {"text": "c"}], "two.jsonl")
    first, second = read(tmp_path, {"one": one, "two": two})
    assert (first.documents, first.dropped) == (2, {"duplicate": 1, "empty text": 1})
    assert (second.documents, second.dropped) == (1, {"duplicate": 1})


def test_pairs_have_labels_and_are_compared_within_their_corpus(tmp_path):
    rows = [{"sentence1": "a", "sentence2": "b", "label": label} for label in (10, 9, 10)]
    rows += [{"sentence1": "b", "sentence2": "a", "label": 9}]
    pairs = corpus(tmp_path, rows, "pairs.jsonl", pairs={})
    again = corpus(tmp_path, rows[:1], "again.jsonl", pairs={})
    text = corpus(tmp_path, [{"text": "a\n\nb"}], "text.jsonl")
    found = read(tmp_path, {"text": text, "pairs": pairs, "again": again})
    assert [(part.documents, part.dropped, part.labels) for part in found] == [
        (1, {}, []),
        (2, {"duplicate": 1, OTHER_LABEL: 1}, ["9", "10"]),
        (1, {}, ["10"]),
    ]
    assert [(d.name, d.text, d.label) for d in documents(tmp_path, found[1])[0]] == [
        ("pairs#1", "a\n\nb", "10"),
        ("pairs#4", "b\n\na", "9"),
    ]


def test_a_share_consists_of_entire_groups_and_is_part_of_every_larger_share(tmp_path):
    rows = [{"id": str(i), "text": f"text {i}", "author": f"author {i // 2}"} for i in range(2000)]
    kept = {}
    for share in (0.1, 0.4, 1.0):
        folder = tmp_path / str(share)
        folder.mkdir()
        (found,) = read(folder, {"c": corpus(folder, rows, group="author")}, share=share)
        kept[share] = {document.name for unit in documents(folder, found) for document in unit}
        assert found.dropped == ({OUTSIDE: 2000 - len(kept[share])} if share < 1 else {})
    assert 140 < len(kept[0.1]) < 260
    assert 700 < len(kept[0.4]) < 900
    assert len(kept[1.0]) == 2000
    assert kept[0.1] < kept[0.4] < kept[1.0]
    assert all(str(int(name) ^ 1) in kept[0.1] for name in kept[0.1])


def test_a_share_that_leaves_nothing_is_an_error_that_names_it(tmp_path):
    with pytest.raises(DataError, match=r"shards\.share=1e-09; increase it"):
        read(tmp_path, {"c": corpus(tmp_path, [{"text": "a"}])}, share=1e-9)


def test_a_corpus_of_duplicates_only_is_an_error_that_names_it(tmp_path):
    rows = [{"text": "a"}]
    corpora = {"one": corpus(tmp_path, rows, "one.jsonl"), "two": corpus(tmp_path, rows, "two.jsonl")}
    with pytest.raises(DataError, match=r"corpora\.two: every document"):
        read(tmp_path, corpora)


def test_units_end_where_the_text_is_long_enough(tmp_path):
    rows = [{"id": str(i), "text": f"{i} " + "x" * 3000} for i in range(5)]
    (found,) = read(tmp_path, {"c": corpus(tmp_path, rows)}, shard_tokens=1000)
    assert found.units == ["c-00000", "c-00001", "c-00002"]
    assert [[d.name for d in unit] for unit in documents(tmp_path, found)] == [["0", "1"], ["2", "3"], ["4"]]
    assert found.unit_characters == [6004, 6004, 3002]


def test_a_small_corpus_is_cut_into_more_units_than_its_tokens_ask_for(tmp_path):
    file = tmp_path / "in.txt"
    file.write_bytes(b"x" * 16_000_000)
    assert unit_bytes([str(file)], ShardSettings(folder="nowhere")) == 1_000_000
    assert unit_bytes([str(file)], ShardSettings(folder="nowhere", shard_tokens=1000)) == 4000


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=30),
    st.sampled_from([0.0, 0.02, 0.3]),
    st.integers(0, 10),
)
def test_groups_are_held_out_by_hash_between_the_minimum_and_half(tmp_path_factory, groups, share, least):
    folder = tmp_path_factory.mktemp("split")
    rows = [{"id": str(i), "text": f"text {i}", "book": str(book)} for i, book in enumerate(groups)]
    (found,) = read(folder, {"c": corpus(folder, rows, group="book")}, heldout=share, min_heldout=least)
    sizes = {hash64(str(book)): groups.count(book) for book in groups}
    held = 0
    expected = set()
    for group in sorted(sizes):
        wanted = Fraction(group, NO_GROUP) < share or held < least
        if not wanted or 2 * (held + sizes[group]) > len(groups):
            break
        expected.add(group)
        held += sizes[group]
    assert {group for group in sizes if found.split(group) == HELDOUT} == expected
    assert found.heldout_documents == held
