"""The manifest of a set of shards, and how a finished set takes its place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from ernie2.errors import DataError, ShardError, StorageError
from ernie2.shards.shard_folders import TOKENIZER_FILES
from ernie2.shards.store import ADVICE, FORMAT, SPAN_KINDS, Shards
from ernie2.shards.tokenizer import SubwordTokenizer
from ernie2.shards.units import CorpusUnits
from ernie2.storage.atomic import checksum, move, remove_leftovers
from ernie2.storage.json_files import read_checked_json, write_checked_json
from ernie2.storage.removing import remove

_OWN_FILES = (*TOKENIZER_FILES, "phrases.tsv")


def describe(
    corpora: list[CorpusUnits], tokenizer: SubwordTokenizer, parts: Mapping[str, str], found: int, work: Path
) -> dict[str, Any]:
    """Return what shards.json holds; `parts` is what the set is made from (`provenance.digest_parts`).

    Its fingerprint is one of content: the same wherever and whenever the shards are made.
    """
    content = sha256(tokenizer.fingerprint.encode())
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
        "tokenizer": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "phrases": found,
        "corpora": described,
        "files": {name: checksum(work / "set" / name) for name in checked},
    }


def _corpus_facts(corpus: CorpusUnits, work: Path) -> dict[str, Any]:
    records = [read_checked_json(work / "records" / f"{unit}.json") for unit in corpus.units]
    dropped = sum((Counter(record["dropped"]) for record in records), Counter(corpus.dropped))
    dropped_spans = sum((Counter(record["dropped_spans"]) for record in records), Counter())
    encoded, unknown = (sum(record[name] for record in records) for name in ("encoded_tokens", "unknown_tokens"))
    made = [record for record in records if "shard" in record]
    if not made:
        reasons = ", ".join(f"{reason}: {number}" for reason, number in sorted(dropped.items()))
        raise DataError(
            f"corpora.{corpus.name}: nothing is left of {', '.join(corpus.sources)} ({reasons}); another vocabulary?"
        )
    lengths = Counter[str]()
    for record in made:
        shard = read_checked_json(work / "set" / corpus.name / record["shard"] / "shard.json")
        lengths.update({name: column["shape"][0] for name, column in shard["columns"].items()})
    label_counts = [sum(counts) for counts in zip(*(record["label_counts"] for record in made), strict=True)]
    labels = {"labels": corpus.labels, "label_counts": dict(zip(corpus.labels, label_counts, strict=True))}
    return {
        "language": corpus.language,
        "licence": corpus.licence,
        "sources": corpus.sources,
        "shards": [record["shard"] for record in made],
        "documents": sum(record["documents"] for record in made),
        "heldout_documents": sum(record["heldout_documents"] for record in made),
        "sections": lengths["documents"] - len(made),
        "paragraphs": lengths["paragraphs"] - len(made),
        "sentences": lengths["sentences"] - len(made),
        "tokens": lengths["tokens"],
        **(labels if corpus.labels else {}),
        "spans": {kind: lengths[f"spans_{kind}"] for kind in sorted(SPAN_KINDS) if lengths[f"spans_{kind}"]},
        "dropped": dict(sorted(dropped.items())),
        "dropped_spans": dict(sorted(dropped_spans.items())),
        "cut_texts": corpus.cut,
        "unknown_share": round(unknown / max(encoded, 1), 6),
    }


def finish(folder: Path, work: Path, manifest: dict[str, Any]) -> None:
    """Records that the set in `work` is whole and what it will replace; from here on only `commit` is left to do."""
    remove_leftovers(work / "set")  # a kill may have come after a file was renamed
    entries = sorted(entry.name for entry in (work / "set").iterdir())
    finished = {"manifest": manifest, "entries": entries, "old": _old_corpora(folder)}
    write_checked_json(work / "finished.json", finished, advice=ADVICE)


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
        remove(folder / name, advice=ADVICE)
    for name in sorted(entries):
        if (source := work / "set" / name).exists():
            move(source, folder / name, advice=ADVICE)
    write_checked_json(folder / "shards.json", finished["manifest"], advice=ADVICE)


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
