"""Tokens a second the stream makes on one core, all four tasks on.

    python benchmarks/stream_rate.py                    synthetic shards of realistic shape, made on the spot
    python benchmarks/stream_rate.py --shards FOLDER    shards written by `ernie2 prepare`

Counted are the tokens of the packs as they come (special tokens included, padding not) against the processor time of
the process, best of several rounds.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import cProfile
import json
import platform
import pstats
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ernie2.annotate.shards import CAPITALISED, CASED, FORMAT, WORD_START, Shards, write_shard
from ernie2.batches.feeds import feeds
from ernie2.batches.packing import Caps
from ernie2.batches.stream import Lane, Stream
from ernie2.storage.json_files import write_checked_json
from ernie2.tasks.base import Task, Vocabulary, find

TASKS = ("knowledge_masking", "capitalization_prediction", "token_document_relation", "sentence_reordering")
VOCAB_SIZE = 30_522
PACK_TOKENS = 16_384
STEPS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("all four, combined", TASKS[3], TASKS),
    ("three token tasks, combined", TASKS[0], TASKS[:3]),
    *((f"{name} alone", name, (name,)) for name in TASKS),
)


def main() -> None:
    """Measures every kind of step at both sequence limits and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=Path, help="a folder written by `ernie2 prepare` (default: synthetic)")
    parser.add_argument("--tokens", type=int, default=400_000, help="tokens a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--profile", action="store_true", help="print where the time of the combined step goes")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as aside:
        shards = Shards(chosen.shards or make_shards(Path(aside)))
        vocabulary = _vocabulary(shards)
        tasks = [find(name)(find(name).Options(), vocabulary) for name in TASKS]
        if chosen.profile:
            _profile(shards, tasks, chosen.tokens)
            return
        rows = [
            {
                "step": name,
                "limit": limit,
                "tokens_per_second": round(rate(shards, tasks, limit, host, active, chosen.tokens, chosen.rounds)),
            }
            for limit in (512, 64)
            for name, host, active in STEPS
        ]
    print(f"{'step':32} {'limit':>5} {'tokens/s a core':>16}")
    for row in rows:
        print(f"{row['step']:32} {row['limit']:>5} {row['tokens_per_second']:>16,}")
    if chosen.json:
        facts = {
            "shards": str(chosen.shards or "synthetic"),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "numpy": np.__version__,
        }
        chosen.json.write_text(json.dumps({**facts, "rows": rows}, indent=1), encoding="utf-8")


def rate(
    shards: Shards, tasks: Sequence[Task], limit: int, host: str, active: Sequence[str], tokens: int, rounds: int
) -> float:
    """Best rate of `rounds`, each about `tokens` tokens further along one lane."""
    stream, lane, best = _stream(shards, tasks, limit), Lane(), 0.0
    _, lane = stream.pack(0, lane, host, active)
    for _ in range(rounds):
        made, began = 0, time.process_time()
        while made < tokens:
            pack, lane = stream.pack(0, lane, host, active)
            made += pack.real_tokens
        best = max(best, made / (time.process_time() - began))
    return best


def make_shards(folder: Path, tokens: int = 2_000_000, shards: int = 4) -> Path:
    """Writes random shards shaped like encyclopedia text: Zipf ids, sentences of 25 tokens, paragraphs of 4.

    Documents have a few hundred to four thousand tokens; a fifth of the tokens continue a word; one in six lies in
    a phrase or an entity.
    """
    rng = np.random.default_rng(0)
    names = []
    for number in range(shards):
        columns = _columns(rng, tokens // shards)
        documents = [f"synthetic-{number}-{i}" for i in range(len(columns["documents"]) - 1)]
        names.append(f"synthetic-{number:05d}")
        write_shard(folder / "synthetic" / names[-1], columns, documents, {"tokenizer": "none", "corpus": "synthetic"})
    corpora = {"synthetic": {"language": "en", "licence": "none", "shards": names}}
    facts = {"format": FORMAT, "tokenizer": "none", "fingerprint": "none", "corpora": corpora}
    write_checked_json(folder / "shards.json", facts)
    return folder


def _columns(rng: np.random.Generator, tokens: int) -> dict[str, Any]:
    sentences = _cuts(np.clip(rng.lognormal(3.0, 0.6, size=tokens // 20), 3, 120).astype(np.int64), tokens)
    paragraphs = _cuts(1 + rng.geometric(0.28, size=len(sentences)), len(sentences) - 1)
    documents = _cuts(1 + rng.geometric(0.06, size=len(paragraphs)), len(paragraphs) - 1)
    tokens = int(sentences[-1])
    ids = 1_000 + np.minimum(rng.zipf(1.15, size=tokens) - 1, VOCAB_SIZE - 1_001)
    starts = rng.random(tokens) < 0.8
    starts[sentences[:-1]] = True
    capital = (rng.random(tokens) < 0.12) & starts
    flags = WORD_START * starts + CASED * (rng.random(tokens) < 0.85) + CAPITALISED * capital
    edges = sentences[paragraphs[documents]]
    counts = np.concatenate([np.bincount(ids[a:b])[ids[a:b]] for a, b in pairwise(edges)])
    columns = {
        "tokens": ids.astype(np.uint16),
        "flags": flags.astype(np.uint8),
        "document_count": counts.astype(np.uint16),
        "sentences": sentences,
        "paragraphs": paragraphs,
        "documents": documents,
        "split": np.zeros(len(documents) - 1, np.uint8),
        "group": np.arange(len(documents) - 1, dtype=np.uint64),
    }
    for kind, every in (("phrase", 20), ("entity", 40)):
        begin = np.unique(rng.integers(tokens // every, size=tokens // every)) * every
        end = begin + rng.integers(2, 5, size=len(begin))
        within = np.searchsorted(sentences, begin, side="right") == np.searchsorted(sentences, end - 1, side="right")
        runs = np.stack([begin, end], axis=1)[within & (end <= tokens)]
        columns[f"spans_{kind}"] = runs
        columns[f"spans_{kind}_at"] = np.searchsorted(runs[:, 0], edges)
    return columns


def _cuts(lengths: Any, total: int) -> Any:
    """Offsets of runs of these lengths, up to exactly `total`."""
    ends = np.cumsum(lengths)
    return np.concatenate([[0], ends[ends < total], [total]])


def _vocabulary(shards: Shards) -> Vocabulary:
    """Ids as in BERT's vocabularies; which they are makes no difference to the rate."""
    size = int(shards.facts.get("vocab_size", VOCAB_SIZE))
    return Vocabulary(size, cls=2, sep=3, mask=4, pad=0, unk=1, ordinary=np.arange(5, size))


def _stream(shards: Shards, tasks: Sequence[Task], limit: int) -> Stream:
    feed, _ = feeds(shards, tasks, sequence_tokens=limit)
    caps = Caps.of(PACK_TOKENS, limit, tasks)
    return Stream(feed, tasks, tasks[0].vocabulary, caps, {task.name: i for i, task in enumerate(tasks)}, seed=0)


def _profile(shards: Shards, tasks: Sequence[Task], tokens: int) -> None:
    for limit in (512, 64):
        profile = cProfile.Profile()
        profile.runcall(rate, shards, tasks, limit, TASKS[3], TASKS, tokens, 1)
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
