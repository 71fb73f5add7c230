"""The shard format: round trips, checksums and atomic writes."""

from __future__ import annotations

import errno
import random

import numpy as np
import pytest

import tiny
from ernie2.errors import ShardError, StorageError
from ernie2.shards import store
from ernie2.shards.store import FORMAT, Shard, Shards, add_columns, span_columns, token_dtype, write_shard
from ernie2.storage.atomic import checksum
from ernie2.storage.json_files import write_checked_json

NAMES = ["a", "b", "b§2"]


def columns():
    """Documents of 5, 2 and 3 tokens: sentences of 2, 3, 2, 1 and 2 tokens; the first has two paragraphs."""
    return {
        "tokens": np.arange(10, 20, dtype=np.uint16),
        "flags": np.arange(10, dtype=np.uint8) % 8,
        "document_count": np.ones(10, dtype=np.uint16),
        "sentences": np.array([0, 2, 5, 7, 8, 10]),
        "paragraphs": np.array([0, 1, 2, 3, 5]),
        "documents": np.array([0, 2, 3, 4]),
        "split": np.array([0, 1, 0], dtype=np.uint8),
        "group": np.array([7, 8, 8], dtype=np.uint64),
        **span_columns("entity", np.array([[1, 2], [3, 5], [8, 10]]), np.array([0, 5, 7, 10])),
    }


@pytest.fixture
def folder(tmp_path):
    write_shard(tmp_path / "c" / "s0", columns(), NAMES, {"corpus": "c", "tokenizer": "t"})
    write_shard(tmp_path / "c" / "s1", columns(), NAMES, {"corpus": "c", "tokenizer": "t"})
    corpus = {"language": "en", "licence": "CC0", "shards": ["s0", "s1"]}
    manifest = {"format": FORMAT, "tokenizer": "t", "fingerprint": "f", "corpora": {"c": corpus}}
    write_checked_json(tmp_path / "shards.json", manifest)
    return tmp_path


def flip(file, bit):
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


def test_offsets_of_a_document_count_from_its_first_token(folder):
    document = Shard(folder / "c" / "s0").document(2)
    assert (document.name, document.group, len(document), document.sentence_count) == ("b§2", 8, 3, 2)
    assert document.tokens.tolist() == [17, 18, 19]
    assert document.sentences.tolist() == [0, 1, 3]
    assert document.paragraphs.tolist() == [0, 2]
    assert {kind: runs.tolist() for kind, runs in document.spans.items()} == {"entity": [[1, 3]]}


def test_a_document_without_spans_of_a_kind_does_not_name_it(folder):
    assert Shard(folder / "c" / "s0").document(1).spans == {}


def test_documents_of_a_corpus_are_numbered_per_split(folder):
    corpus = Shards(folder).corpora["c"]
    assert (corpus.num_documents("train"), corpus.num_documents("heldout")) == (4, 2)
    assert (corpus.num_tokens("train"), corpus.num_tokens("heldout")) == (16, 4)
    assert [corpus.document("train", i).name for i in range(4)] == ["a", "b§2", "a", "b§2"]
    assert [corpus.document("heldout", i).tokens.tolist() for i in range(2)] == [[15, 16], [15, 16]]


def test_damage_is_detected_and_the_file_named(folder):
    shard = Shard(folder / "c" / "s0")
    shard.verify()
    file = folder / "c" / "s0" / "flags.npy"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    with pytest.raises(ShardError, match=r"flags\.npy does not match its checksum"):
        Shard(folder / "c" / "s0").verify()
    file.write_bytes(raw[:40])
    with pytest.raises(ShardError, match=r"flags\.npy cannot be read"):
        Shard(folder / "c" / "s0")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a folder of shards"),
        ("{", r"shards\.json is damaged: .*ernie2 prepare RECIPE --replace"),
        ("[]", r"shards\.json is damaged"),
        ("{}", r"shards\.json is damaged"),
        ("[" * 100_000, r"shards\.json is damaged"),
        ('{"format": 1}', r"has format 1 \(ernie2 0\.1 wrote it\); this version reads 2"),
        ('{"format": 99}', "has format 99; this version reads 2"),
    ],
)
def test_a_folder_without_shards_or_of_another_format_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "shards.json").write_text(content)
    with pytest.raises(ShardError, match=message):
        Shards(tmp_path)
    with pytest.raises(ShardError, match="does not exist"):
        Shards(tmp_path / "none")


@pytest.mark.parametrize("name", ["shards.json", "c/s0/shard.json"])
def test_no_flipped_bit_of_a_description_is_accepted(folder, name):
    file = folder / name
    whole = file.read_bytes()
    for bit in range(0, 8 * len(whole), 5):
        flip(file, bit)
        with pytest.raises(ShardError, match=r"shards?\.json (is damaged|has format)"):
            Shards(folder)
        file.write_bytes(whole)
    Shards(folder)


def test_no_flipped_bit_of_a_shard_passes_verification(folder):
    place, numbers = folder / "c" / "s0", random.Random(0)
    for file in sorted(place.iterdir()):
        whole = file.read_bytes()
        for bit in numbers.sample(range(8 * len(whole)), 40):
            flip(file, bit)
            with pytest.raises(ShardError):
                Shard(place).verify()
            file.write_bytes(whole)
    Shard(place).verify()


@pytest.mark.parametrize("content", [None, b"[]", b'["a", "b"]', b"\xff", b"[" * 100_000])
def test_names_that_are_not_those_that_were_written_are_refused(folder, content):
    file = folder / "c" / "s0" / "names.json"
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(ShardError, match=r"names\.json (does not match its checksum|cannot be read)"):
        Shards(folder).corpora["c"].document("train", 0)


def test_files_that_shards_json_names_are_compared(folder):
    expected = {"tokenizer.json": checksum(folder / "c" / "s0" / "names.json"), "c/s0/shard.json": "0" * 64}
    tiny.change(folder / "shards.json", files=expected)
    with pytest.raises(ShardError, match=r"c/s0/shard\.json does not match its checksum"):
        Shards(folder)
    tiny.change(folder / "shards.json", files={"tokenizer.json": "0" * 64})
    Shards(folder).verify_files("vocab.txt")
    with pytest.raises(ShardError, match=r"tokenizer\.json cannot be read"):
        Shards(folder).verify_files("tokenizer.json")


def test_a_shard_of_another_tokeniser_is_refused(folder):
    write_shard(folder / "c" / "s1", columns(), NAMES, {"corpus": "c", "tokenizer": "other"})
    with pytest.raises(ShardError, match=r"s1 was prepared with another tokeniser \(other\)"):
        Shards(folder)


def test_added_columns_are_described_and_replaced_entirely(folder):
    place = folder / "c" / "s0"
    for runs in ([[0, 2]], [[0, 2], [5, 7]]):
        add_columns(place, span_columns("phrase", np.array(runs), np.array([0, 5, 7, 10])))
        shard = Shard(place)
        shard.verify()
        assert shard.spans["phrase"][0].tolist() == runs
    assert list(shard.facts["columns"]) == sorted(shard.facts["columns"])
    assert shard.document(1).spans["phrase"].tolist() == [[0, 2]]


def test_a_full_disk_leaves_the_old_shard_and_nothing_else(folder, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.np, "save", full)
    place = folder / "c" / "s0"
    for write in (
        lambda: write_shard(place, columns(), NAMES, {"corpus": "c", "tokenizer": "t"}),
        lambda: add_columns(place, span_columns("phrase", np.array([[0, 2]]), np.array([0, 5, 7, 10]))),
    ):
        with pytest.raises(StorageError, match=r"No space left on device; nothing was changed\..* is reused"):
            write()
    Shard(place).verify()
    assert sorted(entry.name for entry in (folder / "c").iterdir()) == ["s0", "s1"]


def test_ids_take_two_bytes_where_they_fit():
    assert (token_dtype(65_536), token_dtype(65_537)) == (np.uint16, np.uint32)
