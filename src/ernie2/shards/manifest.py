"""The manifest of a dataset, and how a finished dataset is moved into place."""

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
    corpora: list[CorpusUnits], tokenizer: SubwordTokenizer, parts: Mapping[str, str], phrase_count: int, folder: Path
) -> dict[str, Any]:
    """Return the content of shards.json; `parts`: see `provenance.digest_parts`.

    The fingerprint hashes the content, so it is the same on every machine and at any time.
    """
    content = sha256(tokenizer.fingerprint.encode())
    described = {}
    for corpus in corpora:
        described[corpus.name] = _corpus_facts(corpus, folder)
        for name in described[corpus.name]["shards"]:
            content.update((folder / "set" / corpus.name / name / "shard.json").read_bytes())
    checked = [f"{name}/{shard}/shard.json" for name, facts in described.items() for shard in facts["shards"]]
    checked += [name for name in _OWN_FILES if (folder / "set" / name).exists()]
    return {
        "format": FORMAT,
        "fingerprint": content.hexdigest(),
        "parts": dict(parts),
        "tokenizer": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "phrases": phrase_count,
        "corpora": described,
        "files": {name: checksum(folder / "set" / name) for name in checked},
    }


def _corpus_facts(corpus: CorpusUnits, folder: Path) -> dict[str, Any]:
    records = [read_checked_json(folder / "records" / f"{unit}.json") for unit in corpus.units]
    dropped = sum((Counter(record["dropped"]) for record in records), Counter(corpus.dropped))
    dropped_spans = sum((Counter(record["dropped_spans"]) for record in records), Counter())
    encoded, unknown = (sum(record[name] for record in records) for name in ("encoded_tokens", "unknown_tokens"))
    written = [record for record in records if "shard" in record]
    if not written:
        reasons = ", ".join(f"{reason}: {number}" for reason, number in sorted(dropped.items()))
        raise DataError(
            f"corpora.{corpus.name}: no document of {', '.join(corpus.sources)} is left ({reasons}). Try "
            "another vocabulary."
        )
    lengths = Counter[str]()
    for record in written:
        shard = read_checked_json(folder / "set" / corpus.name / record["shard"] / "shard.json")
        lengths.update({name: column["shape"][0] for name, column in shard["columns"].items()})
    label_counts = [sum(counts) for counts in zip(*(record["label_counts"] for record in written), strict=True)]
    labels = {"labels": corpus.labels, "label_counts": dict(zip(corpus.labels, label_counts, strict=True))}
    return {
        "language": corpus.language,
        "licence": corpus.licence,
        "sources": corpus.sources,
        "shards": [record["shard"] for record in written],
        "documents": sum(record["documents"] for record in written),
        "heldout_documents": sum(record["heldout_documents"] for record in written),
        "sections": lengths["documents"] - len(written),
        "paragraphs": lengths["paragraphs"] - len(written),
        "sentences": lengths["sentences"] - len(written),
        "tokens": lengths["tokens"],
        **(labels if corpus.labels else {}),
        "spans": {kind: lengths[f"spans_{kind}"] for kind in sorted(SPAN_KINDS) if lengths[f"spans_{kind}"]},
        "dropped": dict(sorted(dropped.items())),
        "dropped_spans": dict(sorted(dropped_spans.items())),
        "cut_texts": corpus.cut,
        "unknown_share": round(unknown / max(encoded, 1), 6),
    }


def finish(folder: Path, staging: Path, manifest: dict[str, Any]) -> None:
    """Record that the dataset in `staging` is complete and what it replaces; afterwards only `commit` is left to do."""
    remove_leftovers(staging / "set")  # of a run that was killed just after renaming a file
    entries = sorted(entry.name for entry in (staging / "set").iterdir())
    finished = {"manifest": manifest, "entries": entries, "old": _old_corpora(folder)}
    write_checked_json(staging / "finished.json", finished, advice=ADVICE)


def commit(folder: Path, staging: Path) -> None:
    """Move the finished dataset into place; shards.json is removed first and written last.

    Can be repeated after a kill: staging/finished.json lists what is to be moved.
    """
    finished = read_checked_json(staging / "finished.json")
    entries = set(finished["entries"])
    for name in entries:
        if (staging / "set" / name).is_dir():
            _check_only_shards(folder / name)
    replaced = ["shards.json", *(name for name in (*finished["old"], *_OWN_FILES) if name not in entries)]
    for name in replaced:
        remove(folder / name, advice=ADVICE)
    for name in sorted(entries):
        if (source := staging / "set" / name).exists():
            move(source, folder / name, advice=ADVICE)
    write_checked_json(folder / "shards.json", finished["manifest"], advice=ADVICE)


def _old_corpora(folder: Path) -> list[str]:
    try:
        return list(Shards(folder).corpora)
    except ShardError:
        return []


def _check_only_shards(folder: Path) -> None:
    """Raise `StorageError` if a folder to be replaced contains anything but shards."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if not (entry / "shard.json").exists():
            raise StorageError(
                f"{entry} is not a shard, but {folder} is the folder of a corpus. Choose another shards.folder, or "
                "another name for the corpus."
            )
