"""Several folders of shards, read as one dataset."""

from __future__ import annotations

import pytest

import tiny
from ernie2.errors import ShardError
from ernie2.shards.store import Shards


def make(folder, corpora, fingerprint):
    """Corpora of documents of one sentence each: name → first tokens."""
    documents = {
        name: [tiny.document([[[token, token + 1]]], name=f"{name}{token}", group=token) for token in tokens]
        for name, tokens in corpora.items()
    }
    tiny.write_corpora(folder, documents)
    tiny.change(folder / "shards.json", fingerprint=fingerprint)
    return folder


def test_corpora_of_all_folders_are_combined_with_their_documents(tmp_path):
    a, b = make(tmp_path / "a", {"old": [10, 20]}, "one"), make(tmp_path / "b", {"new": [30], "more": [40]}, "two")
    joined = Shards(a, b)
    assert list(joined.corpora) == ["old", "new", "more"]
    assert list(joined.facts["corpora"]) == ["old", "new", "more"]
    assert joined.corpora["old"].document("train", 1).tokens.tolist() == [20, 21]
    assert joined.corpora["more"].document("train", 0).tokens.tolist() == [40, 41]
    assert joined.folders == (a, b)
    assert joined.folder == a


def test_the_fingerprint_depends_on_every_folder_and_their_order(tmp_path):
    a, b = make(tmp_path / "a", {"old": [10]}, "one"), make(tmp_path / "b", {"new": [30]}, "two")
    c = make(tmp_path / "c", {"new": [30]}, "three")
    prints = {Shards(*folders).fingerprint for folders in ([a, b], [b, a], [a, c], [a])}
    assert len(prints) == 4
    assert Shards(a, b).fingerprint == Shards(a, b).fingerprint


def test_a_folder_named_twice_is_read_once(tmp_path):
    a = make(tmp_path / "a", {"old": [10]}, "one")
    shards = Shards(a, a / ".." / "a")
    assert (shards.fingerprint, shards.folders) == ("one", (a,))


def test_two_corpora_of_one_name_are_refused(tmp_path):
    a, b = make(tmp_path / "a", {"text": [10]}, "one"), make(tmp_path / "b", {"text": [30]}, "two")
    with pytest.raises(ShardError, match=r"a and .*b both have a corpus 'text'.*Rename it under `corpora`"):
        Shards(a, b)


def test_another_tokeniser_is_refused_with_the_file_to_prepare_with(tmp_path):
    a, b = make(tmp_path / "a", {"old": [10]}, "one"), make(tmp_path / "b", {"new": [30]}, "two")
    for described in [b / "shards.json", *b.glob("new/*/shard.json")]:
        tiny.change(described, tokenizer="other")
    with pytest.raises(ShardError, match=r"another tokeniser.*tokenizer\.file=.*a/tokenizer\.json"):
        Shards(a, b)


def test_a_folder_without_shards_is_refused(tmp_path):
    a = make(tmp_path / "a", {"old": [10]}, "one")
    with pytest.raises(ShardError, match="does not exist"):
        Shards(a, tmp_path / "nowhere")
