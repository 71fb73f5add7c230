"""The manifest of a set of shards, and how a finished set takes its place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from ernie2.errors import DataError, ShardError, StorageError
from ernie2.shards.shard_folders import TOKENIZER_FILES
from ernie2.shards.store import FORMAT, WHAT_NOW, Shards
from ernie2.shards.units import ReadCorpus
from ernie2.shards.wordpieces import WordPieces
from ernie2.storage.atomic import checksum, move, remove_leftovers
from ernie2.storage.json_files import read_checked_json, write_checked_json
from ernie2.storage.removing import remove

_OWN_FILES = (*TOKENIZER_FILES, "phrases.tsv")


def describe(
    corpora: list[ReadCorpus], wordpieces: WordPieces, parts: Mapping[str, str], found: int, work: Path
) -> dict[str, Any]:
    """Return what shards.json holds; `parts` is what the set is made from (`provenance.parts_of`).

    Its fingerprint is one of content: the same wherever and whenever the shards are made.
    """
    content = sha256(wordpieces.fingerprint.encode())
    described = {}
    for corpus in corpora:
        described[corpus.name] = _corpus_facts(corpus, work)
        for name in described[corpus.name]["shards"]:
            content.update((work / "set" / corpus.name / name / "shard.json").read_bytes())
    checked = [f"{name}/{shard}/shard.json" for name, facts in described.items() for shard in facts["shards"]]
    checked += [name for name in _OWN_FILES if (work / "set" / name).exists()]
    return {
        "format": FORMAT,
        "fingerprint": content.hexdigest(),
        "parts": dict(parts),
        "tokenizer": wordpieces.fingerprint,
        "vocab_size": wordpieces.vocab_size,
        "phrases": found,
        "corpora": described,
        "files": {name: checksum(work / "set" / name) for name in checked},
    }


def _corpus_facts(corpus: ReadCorpus, work: Path) -> dict[str, Any]:
    dropped, dropped_spans, spans = Counter(corpus.dropped), Counter[str](), Counter[str]()
    totals, labels = Counter[str](), Counter[str]()
    names = []
    encoded = unknown = 0
    for unit in corpus.units:
        record = read_checked_json(work / "records" / f"{unit}.json")
        dropped.update(record["dropped"])
        dropped_spans.update(record["dropped_spans"])
        encoded += record["encoded_tokens"]
        unknown += record["unknown_tokens"]
        if "shard" not in record:
            continue
        names.append(unit)
        totals.update({name: record[name] for name in ("documents", "heldout_documents")})
        labels.update(dict(zip(corpus.labels, record["label_counts"], strict=True)))
        columns = read_checked_json(work / "set" / corpus.name / unit / "shard.json")["columns"]
        lengths = {name: column["shape"][0] for name, column in columns.items()}
        totals.update(
            sections=lengths["documents"] - 1,
            paragraphs=lengths["paragraphs"] - 1,
            sentences=lengths["sentences"] - 1,
            tokens=lengths["tokens"],
        )
        spans.update(
            {k.removeprefix("spans_"): n for k, n in lengths.items() if k.startswith("spans_") and k[-3:] != "_at"}
        )
    if not names:
        reasons = ", ".join(f"{reason}: {number}" for reason, number in sorted(dropped.items()))
        raise DataError(
            f"corpora.{corpus.name}: nothing is left of {', '.join(corpus.sources)} ({reasons}); another vocabulary?"
        )
    labelled = {"labels": corpus.labels, "label_counts": {name: labels[name] for name in corpus.labels}}
    return {
        "language": corpus.language,
        "licence": corpus.licence,
        "sources": corpus.sources,
        "shards": names,
        **{
            name: totals[name]
            for name in ("documents", "heldout_documents", "sections", "paragraphs", "sentences", "tokens")
        },
        **(labelled if corpus.labels else {}),
        "spans": dict(sorted(spans.items())),
        "dropped": dict(sorted(dropped.items())),
        "dropped_spans": dict(sorted(dropped_spans.items())),
        "cut_texts": corpus.cut,
        "unknown_share": round(unknown / max(encoded, 1), 6),
    }


def finish(folder: Path, work: Path, manifest: dict[str, Any]) -> None:
    """Records that the set in `work` is whole and what it will replace; from here on only `commit` is left to do."""
    for folder_of_set in (work / "set", *(work / "set").iterdir()):
        remove_leftovers(folder_of_set)  # a kill may have come after a file was renamed
    entries = sorted(entry.name for entry in (work / "set").iterdir())
    write_checked_json(
        work / "finished.json",
        {"manifest": manifest, "entries": entries, "old": _old_corpora(folder)},
        what_now=WHAT_NOW,
    )


def commit(folder: Path, work: Path) -> None:
    """Moves the finished set into place. Without shards.json it is not a set: that goes first and comes last.

    Killed half-way, it can be begun again: what is to be moved is known from work/finished.json.
    """
    finished = read_checked_json(work / "finished.json")
    entries = set(finished["entries"])
    for name in entries:
        if (work / "set" / name).is_dir():
            _refuse_strange(folder / name)
    replaced = ["shards.json", *(name for name in (*finished["old"], *_OWN_FILES) if name not in entries)]
    for name in replaced:
        remove(folder / name, what_now=WHAT_NOW)
    for name in sorted(entries):
        if (source := work / "set" / name).exists():
            move(source, folder / name, what_now=WHAT_NOW)
    write_checked_json(folder / "shards.json", finished["manifest"], what_now=WHAT_NOW)


def _old_corpora(folder: Path) -> list[str]:
    try:
        return list(Shards(folder).corpora)
    except ShardError:
        return []


def _refuse_strange(folder: Path) -> None:
    """Raises `StorageError` where a folder that is to be replaced holds anything but shards."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if not (entry / "shard.json").exists():
            raise StorageError(
                f"{entry} is in the way: the shards of a corpus go into {folder}, which holds something else. Choose "
                "another shards.folder or another name for the corpus."
            )
