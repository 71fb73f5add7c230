"""Documents small enough to check by eye, and shards made of them.

A document is written as paragraphs of sentences of ids. Ids from 900 on are continuation pieces, 1 is [UNK]; every
other id is a word of a script that has case, lower-cased unless its position is among `capitals`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ernie2.corpora.pairs import sort_labels
from ernie2.shards.store import (
    CAPITALISED,
    CASED,
    FORMAT,
    WORD_START,
    AnnotatedDocument,
    Shards,
    write_shard,
)
from ernie2.shards.tokenizer import SubwordTokenizer
from ernie2.storage.json_files import read_checked_json, write_checked_json
from ernie2.tasks.base import Segment, Task, Vocabulary, find_task
from ernie2.training.state import Position

PAD, UNK, CLS, SEP, MASK = 0, 1, 2, 3, 4
CONTINUING = 900
VOCABULARY = Vocabulary(size=1000, cls=CLS, sep=SEP, mask=MASK, pad=PAD, unk=UNK, ordinary=np.arange(5, 1000))
FOUR = ("knowledge_masking", "capitalization_prediction", "token_document_relation", "sentence_reordering")

Paragraphs = Sequence[Sequence[Sequence[int]]]


def document(
    paragraphs: Paragraphs,
    *,
    capitals: Collection[int] = (),
    caseless: Collection[int] = (),
    spans: Mapping[str, Sequence[tuple[int, int]]] | None = None,
    name: str = "doc",
    group: int = 0,
    label: str | None = None,
) -> AnnotatedDocument:
    """An annotated document; `capitals`, `caseless` and `spans` count tokens of the document.

    With a `label` it is a labelled pair, whose texts are its two paragraphs.
    """
    sentences = [sentence for paragraph in paragraphs for sentence in paragraph]
    tokens = np.array([token for sentence in sentences for token in sentence], np.uint16)
    counts = Counter(tokens.tolist())
    flags = np.zeros(len(tokens), np.uint8)
    for at, token in enumerate(tokens.tolist()):
        if token < CONTINUING:
            flags[at] |= WORD_START
        if at not in caseless:
            flags[at] |= CASED
        if at in capitals:
            flags[at] |= CAPITALISED
    return AnnotatedDocument(
        name=name,
        group=group,
        tokens=tokens,
        flags=flags,
        document_count=np.array([counts[token] for token in tokens.tolist()], np.uint16),
        sentences=np.cumsum([0, *map(len, sentences)]),
        paragraphs=np.cumsum([0, *map(len, paragraphs)]),
        spans={kind: np.array(runs, np.int64).reshape(-1, 2) for kind, runs in (spans or {}).items()},
        label=label,
    )


def random_document(
    rng: np.random.Generator, *, sentences: int = 12, words: int = 9, name: str = "doc", group: int = 0
) -> AnnotatedDocument:
    """Random sentences: a tenth continuation pieces, a few [UNK], overlapping spans, capitals where sentences begin."""
    paragraphs: list[list[list[int]]] = []
    for _ in range(sentences):
        made = rng.integers(5, 200, size=int(rng.integers(1, 2 * words))).tolist()
        for at in range(1, len(made)):
            chance = rng.random()
            made[at] = int(rng.integers(900, 990)) if chance < 0.1 else UNK if chance < 0.13 else made[at]
        if not paragraphs or rng.random() < 0.3:
            paragraphs.append([])
        paragraphs[-1].append(made)
    ends = np.cumsum([len(sentence) for paragraph in paragraphs for sentence in paragraph]).tolist()
    spans: dict[str, list[tuple[int, int]]] = {"phrase": [], "entity": []}
    for start, end in zip([0, *ends], ends, strict=False):
        if end - start >= 4:
            spans["phrase"].append((start, start + 2))
            spans["entity"].append((start + 1, start + 4))
    return document(paragraphs, capitals={0, *ends}, spans=spans, name=name, group=group)


def whole(document: AnnotatedDocument) -> Segment:
    """All of a document as one segment."""
    return Segment(document, 0, len(document))


def task(name: str, **options: Any) -> Any:
    """The task called `name` with these options and the vocabulary of these tests."""
    found: type[Task] = find_task(name)
    return found(found.Options(**options), VOCABULARY)


def write_corpora(
    folder: Path,
    corpora: Mapping[str, Sequence[AnnotatedDocument]],
    *,
    heldout: Collection[str] = (),
    weights: Mapping[str, float] | None = None,
    per_shard: int = 5,
) -> Shards:
    """Writes documents as a folder of shards, `per_shard` documents each; `heldout` names held-out documents.

    A corpus whose documents have labels becomes one of labelled pairs.
    """
    facts: dict[str, Any] = {"format": FORMAT, "tokenizer": "tiny", "fingerprint": "tiny", "corpora": {}}
    for name, documents in corpora.items():
        shards = []
        counts = Counter(document.label for document in documents if document.label is not None)
        labels = sort_labels(counts)
        for first in range(0, len(documents), per_shard):
            shard = f"shard-{first:05d}"
            _write_shard(folder / name / shard, name, documents[first : first + per_shard], heldout, labels)
            shards.append(shard)
        weight = {"weight": weights[name]} if weights and name in weights else {}
        facts["corpora"][name] = {"language": "en", "licence": "test", "shards": shards, **weight}
        if labels:
            facts["corpora"][name] |= {"labels": labels, "label_counts": {label: counts[label] for label in labels}}
    folder.mkdir(parents=True, exist_ok=True)
    write_checked_json(folder / "shards.json", facts)
    return Shards(folder)


def change(file: Path, **facts: Any) -> None:
    """Changes facts in a checked JSON file, such as shards.json, whose checksum fits afterwards."""
    write_checked_json(file, {**read_checked_json(file), **facts})


def give_tokenizer(folder: Path, tokenizer: SubwordTokenizer) -> None:
    """Puts a tokeniser beside shards, as the one they were made with."""
    tokenizer.save(folder)
    for described in [folder / "shards.json", *folder.glob("*/*/shard.json")]:
        change(described, tokenizer=tokenizer.fingerprint)


def _write_shard(
    folder: Path,
    corpus: str,
    documents: Sequence[AnnotatedDocument],
    heldout: Collection[str],
    labels: Sequence[str],
) -> None:
    kinds = sorted({kind for document in documents for kind in document.spans})
    tokens_before = np.cumsum([0, *map(len, documents)])
    sentences_before = np.cumsum([0, *(document.sentence_count for document in documents)])
    columns = {
        "tokens": np.concatenate([document.tokens for document in documents]),
        "flags": np.concatenate([document.flags for document in documents]),
        "document_count": np.concatenate([document.document_count for document in documents]),
        "sentences": np.concatenate(
            [[0], *(d.sentences[1:] + at for d, at in zip(documents, tokens_before, strict=False))]
        ),
        "paragraphs": np.concatenate(
            [[0], *(d.paragraphs[1:] + at for d, at in zip(documents, sentences_before, strict=False))]
        ),
        "documents": np.cumsum([0, *(len(document.paragraphs) - 1 for document in documents)]),
        "split": np.array([document.name in heldout for document in documents], np.uint8),
        "group": np.array([document.group for document in documents], np.uint64),
    }
    for kind in kinds:
        runs = [document.spans.get(kind, np.zeros((0, 2), np.int64)) for document in documents]
        columns[f"spans_{kind}"] = np.concatenate([r + at for r, at in zip(runs, tokens_before, strict=False)])
        columns[f"spans_{kind}_at"] = np.cumsum([0, *map(len, runs)])
    shard_facts: dict[str, Any] = {"tokenizer": "tiny", "corpus": corpus}
    if labels:
        assert all(document.label is not None for document in documents), "a corpus has labels throughout or not at all"
        columns["label"] = np.array([labels.index(str(document.label)) for document in documents], np.uint16)
        shard_facts["labels"] = labels
    write_shard(folder, columns, [document.name for document in documents], shard_facts)


def states_as_json(states):
    """States of data streams as a checkpoint holds them."""
    return json.loads(json.dumps(Position(states).state()))["streams"]


def states_of(values):
    """The states of what `states_as_json` returned."""
    return Position.of({"streams": values}).stream_states
