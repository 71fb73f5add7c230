"""`prepare` for labelled pairs: tables → documents of two paragraphs with a label."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ernie2.config.data_settings import CorpusSettings
from ernie2.corpora.connectives import mine_discourse
from ernie2.errors import DataError
from ernie2.runs.recipes import load_recipe
from ernie2.shards import units
from ernie2.shards.prepare import prepare
from ernie2.shards.store import Shards
from ernie2.shards.tokenizer import load_tokenizer

SHARED = Path(os.environ.get("ERNIE2_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
WORDS = ("rain", "snow", "wind", "sun", "ship", "crew", "sea", "harbour", "rope", "fish", "captain", "letter", "night")


def table(count: int = 400) -> list[dict[str, Any]]:
    """Rows of two texts of one or two sentences; eight per query, labels 0, 2 and 10."""
    rng = np.random.default_rng(0)

    def text(words: int) -> str:
        return " ".join(rng.choice(WORDS, words).tolist()).capitalize() + "."

    return [
        {"a": f"{text(4)} {i // 8}", "b": f"{i} {text(5)} {text(6)}", "y": (0, 2, 10)[i % 3], "query": f"q{i // 8}"}
        for i in range(count)
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    lines = (
        ["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]
        if ".tsv" in path.name
        else [json.dumps(row, ensure_ascii=False) for row in rows]
    )
    content = "".join(line + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def build(folder: Path, corpora: dict[str, Any], workers: int = 1, unit: int = 4_000, **parts: Any) -> Shards:
    """Shards of small units of `unit` bytes, so that a few hundred pairs fill several."""
    shards = {"folder": str(folder / "shards"), "shard_tokens": 1000, "min_heldout": 5, "heldout": 0.1}
    described = {
        "name": "test",
        "run": str(folder / "run"),
        "corpora": corpora,
        "tokenizer": {"train": 200, "max_unknown": 1},
        "knowledge": {"phrases": {"min_count": 4, "min_npmi": 0.1}},
        "shards": shards | parts.pop("shards", {}),
        "tasks": {"discourse_relation": {}},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "MIN_UNIT_BYTES", unit)
        return prepare(load_recipe(described | parts), workers=workers)


def pairs_of(path: Path, **settings: Any) -> dict[str, Any]:
    columns = {"a": "a", "b": "b", "label": "y"}
    return {"path": str(path), "licence": "CC0", "pairs": columns, "group": "query"} | settings


def documents(shards: Shards, name: str = "pairs"):
    corpus = shards.corpora[name]
    return [corpus.document(split, at) for split in ("train", "heldout") for at in range(corpus.num_documents(split))]


def texts(document, tokenizer) -> list[str]:
    """The text of every paragraph."""
    bounds = document.sentences[document.paragraphs].tolist()
    return [tokenizer.decode(document.tokens[start:end].tolist()) for start, end in pairwise(bounds)]


def squeezed(text: str) -> str:
    return "".join(text.lower().split())


def contents(folder: Path) -> dict[str, str]:
    """Every column and shard description below `folder` by its checksum."""
    of_this_input = ("shards.json", "input-files.json")
    files = [f for f in folder.rglob("*") if f.suffix in (".npy", ".json") and f.name not in of_this_input]
    return {str(file.relative_to(folder)): sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    return build(folder, {"pairs": pairs_of(write(folder / "in.jsonl", table()))})


def test_texts_and_labels_come_back_from_the_shards(shards):
    tokenizer = load_tokenizer(shards.folder / "tokenizer.json")
    rows = {f"in#{number}": row for number, row in enumerate(table(), start=1)}
    found = documents(shards)
    assert len(shards.corpora["pairs"].shards) > 3
    assert sorted(document.name for document in found) == sorted(rows)
    for document in found:
        row = rows[document.name]
        assert document.label == str(row["y"])
        assert [squeezed(text) for text in texts(document, tokenizer)] == [squeezed(row["a"]), squeezed(row["b"])]
        tokens = document.tokens.tolist()
        assert document.document_count.tolist() == [Counter(tokens)[token] for token in tokens]


def test_labels_are_listed_in_order_with_their_counts(shards):
    assert shards.corpora["pairs"].labels == ("0", "2", "10")
    assert shards.facts["corpora"]["pairs"]["label_counts"] == {"0": 134, "2": 133, "10": 133}
    for shard in shards.corpora["pairs"].shards:
        assert shard.facts["labels"] == ["0", "2", "10"]
        assert shard.label is not None
        assert shard.label.dtype == np.uint16
        shard.verify()


def test_no_group_is_on_both_sides_of_the_split(shards):
    corpus = shards.corpora["pairs"]
    sides = [
        {corpus.document(split, at).group for at in range(corpus.num_documents(split))}
        for split in ("train", "heldout")
    ]
    assert not sides[0] & sides[1]
    assert (len(sides[0] | sides[1]), corpus.num_documents("train") + corpus.num_documents("heldout")) == (50, 400)
    assert corpus.num_documents("heldout") >= 5


def test_pairs_count_for_the_vocabulary_and_for_phrases(tmp_path):
    rows = table(160)
    rng = np.random.default_rng(1)
    for number, row in enumerate(rows):
        row["b"] += " " + " ".join("".join(rng.choice(WORDS, 2)) for _ in range(40))  # no word is common
        row["a"] += "; Barrier Reef" if number % 16 == 0 else ""
    corpora = {"pairs": pairs_of(write(tmp_path / "in.tsv", rows), group=None)}
    shards = build(tmp_path, corpora, unit=1 << 18, shards={"shard_tokens": 100_000})
    tokenizer = load_tokenizer(shards.folder / "tokenizer.json")
    marked = {
        tokenizer.decode(document.tokens[first:end].tolist())
        for document in documents(shards)
        for first, end in document.spans.get("phrase", np.zeros((0, 2), dtype=int)).tolist()
    }
    assert "barrier reef" in marked


def test_any_number_of_workers_builds_the_same_shards(shards, tmp_path):
    again = build(tmp_path, {"pairs": pairs_of(write(tmp_path / "in.jsonl", table()))}, workers=2)
    assert contents(again.folder) == contents(shards.folder)
    assert again.fingerprint == shards.fingerprint


@pytest.mark.parametrize("name", ["in.tsv", "in.parquet"])
def test_every_format_gives_equal_documents(shards, tmp_path, name):
    again = build(tmp_path, {"pairs": pairs_of(write(tmp_path / name, table()))})
    for one, other in zip(documents(shards), documents(again), strict=True):
        assert (one.name, one.label, one.group) == (other.name, other.label, other.group)
        assert one.tokens.tolist() == other.tokens.tolist()
        assert one.sentences.tolist() == other.sentences.tolist()


def test_dropped_rows_are_counted_by_reason(tmp_path):
    rows = [
        {"a": "rain fell", "b": "it rained", "y": "same"},
        {"a": "rain  fell", "b": "it rained", "y": "same"},
        {"a": "rain fell", "b": "it rained", "y": "other"},
        {"a": "it rained", "b": "rain fell", "y": "other"},
        {"a": "rain", "b": "\u200b", "y": "same"},
        {"a": "\u200b", "b": "\u200b", "y": "same"},
        {"a": "", "b": "it rained", "y": "same"},
        {"a": "snow", "b": "it snowed", "y": ""},
    ]
    corpora = {"pairs": pairs_of(write(tmp_path / "in.jsonl", rows), group=None)}
    facts = build(tmp_path, corpora).facts["corpora"]["pairs"]
    assert facts["documents"] == 2
    assert facts["label_counts"] == {"other": 1, "same": 1}
    assert facts["dropped"] == {
        "duplicate": 1,
        "empty text": 1,
        "no label": 1,
        "no tokens": 1,
        "no tokens in one of the texts": 1,
        "same texts, another label": 1,
    }


def test_the_same_texts_may_have_other_labels_in_another_corpus(tmp_path):
    rows = [{"a": f"rain {i}", "b": "fell", "y": i % 2, "z": "wet"} for i in range(20)]
    path = write(tmp_path / "in.jsonl", rows)
    wet = pairs_of(path, pairs={"a": "a", "b": "b", "label": "z"}, group=None)
    (tmp_path / "text.txt").write_text("rain 1\nfell\n\nrain\n", encoding="utf-8")
    corpora = {"text": {"path": str(tmp_path / "text.txt")}, "pairs": pairs_of(path, group=None), "wet": wet}
    facts = build(tmp_path, corpora).facts["corpora"]
    assert [facts[name]["documents"] for name in corpora] == [2, 20, 20]
    assert [facts[name].get("labels") for name in corpora] == [None, ["0", "1"], ["wet"]]


def test_a_long_pair_is_one_document_of_two_paragraphs_and_its_sentences_are_cut(tmp_path):
    rows = [{"a": "rain " * 300, "b": f"snow {i}. " * 200, "y": "long"} for i in range(4)]
    limits = {"document_tokens": 64, "sentence_tokens": 50}
    shards = build(tmp_path, {"pairs": pairs_of(write(tmp_path / "in.jsonl", rows), group=None)}, shards=limits)
    for document in documents(shards):
        assert document.paragraphs.tolist() == [0, 6, 206]
        assert np.diff(document.sentences)[:6].tolist() == [50] * 6
        assert document.document_count[0] == 300
    assert len(documents(shards)) == 4


def test_documents_have_neither_labels_nor_their_column(tmp_path):
    (tmp_path / "in.txt").write_text("rain fell\n\nrain\n\nfell\n", encoding="utf-8")
    shards = build(tmp_path, {"text": {"path": str(tmp_path / "in.txt")}}, tasks={"knowledge_masking": {}})
    assert shards.corpora["text"].labels == ()
    assert "label_counts" not in shards.facts["corpora"]["text"]
    assert not list(shards.folder.rglob("label.npy"))
    assert {document.label for document in documents(shards, "text")} == {None}


def test_a_wrong_column_is_reported_before_anything_is_written(tmp_path):
    corpora = {"pairs": pairs_of(write(tmp_path / "in.tsv", table(4)), pairs={"a": "aa", "b": "b", "label": "y"})}
    with pytest.raises(
        DataError, match=r"in.tsv, line 1: there is no column 'aa'.*Columns: a, b, y, query. Set corpora.pairs.pairs.a"
    ):
        build(tmp_path, corpora)
    assert not (tmp_path / "shards").exists()


def test_mined_pairs_are_read_as_they_were_written(tmp_path):
    sentences = [f"The crew of ship {i} slept. However, the captain of ship {i} stayed awake." for i in range(12)]
    (tmp_path / "text.txt").write_text("\n\n".join(sentences), encoding="utf-8")
    mined = mine_discourse(CorpusSettings(path=str(tmp_path / "text.txt")), tmp_path / "mined.tsv", 100)
    assert mined is not None
    corpora = {"pairs": {"path": str(tmp_path / "mined.tsv"), "pairs": {}, "group": "group"}}
    shards = build(tmp_path, corpora)
    assert shards.facts["corpora"]["pairs"]["label_counts"]["however"] == 12


@pytest.mark.parametrize(
    ("path", "columns", "group", "expected"),
    [
        ("en/ir/wikiqa_query_title_3class.tsv", ("query", "title", "label"), None, ("0", "1", "2")),
        ("zh/dureader_v2_demo/ir_relevance_train.tsv", ("query", "title", "label"), None, ("0", "1", "2")),
    ],
)
def test_real_tables_are_read(path, columns, group, expected, tmp_path):
    if not (SHARED / path).exists():
        pytest.skip(f"no {path}")
    settings = {
        "path": str(SHARED / path),
        "pairs": dict(zip(("a", "b", "label"), columns, strict=True)),
        "group": group,
    }
    shards = build(tmp_path, {"pairs": settings}, tokenizer={"train": 2000}, knowledge={"chinese": False})
    facts = shards.facts["corpora"]["pairs"]
    assert shards.corpora["pairs"].labels == expected
    assert sum(facts["label_counts"].values()) == facts["documents"] > 700
    assert all(len(document.paragraphs) == 3 for document in documents(shards))
