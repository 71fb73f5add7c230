"""Tokens/s that one core builds, for every task set of a recipe.

    python benchmarks/stream_rate.py                        synthetic shards of realistic shape
    python benchmarks/stream_rate.py --shards FOLDER        shards written by `ernie2 prepare`
    python benchmarks/stream_rate.py --recipe pairs --limit 512 --profile

Recipes: `four` (the English tasks), `seven` (all of the paper), `mixed` (`four` and sentence distance on two corpora
with equal shares of tokens), `pairs` (labelled pairs of 50 tokens, alone and with masking). The rate is tokens in packs
(with special tokens, without padding) over CPU time of the process, best of several rounds.
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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from comparisons.script import count, output_file, reported_errors
from ernie2.batches.feeds import build_feeds, disjoint_pairs
from ernie2.batches.packing import Caps
from ernie2.batches.stages import StagePlan, assign
from ernie2.batches.streams import DataStreams, StreamState
from ernie2.shards.store import CAPITALISED, CASED, FORMAT, WORD_START, Shards, write_shard
from ernie2.storage.json_files import write_checked_json
from ernie2.tasks.base import SentenceTask, Task, Vocabulary, find_task

FOUR = ("knowledge_masking", "capitalization_prediction", "token_document_relation", "sentence_reordering")
DISTANCE, DISCOURSE, RELEVANCE = "sentence_distance", "discourse_relation", "ir_relevance"
LABELS = ("0", "1", "2")
VOCAB_SIZE = 30_522
PACK_TOKENS = 16_384
PAIR_TOKENS = 50
FLOOR = 500_000
"""Tokens/s below which a row is marked."""


@dataclass(frozen=True)
class Setup:
    """Tasks with their options; measured are the task sets of a plan, or `sets` (main task, active)."""

    tasks: Mapping[str, Mapping[str, Any]]
    sets: tuple[tuple[str, tuple[str, ...]], ...] = ()


def setups(text: Sequence[str], pairs: str | None) -> dict[str, Setup]:
    """Return the recipes that these corpora allow."""
    read = {"corpora": text[:1]}
    made = {"four": Setup(dict.fromkeys(FOUR, read))}
    if len(text) > 1:
        both = {name: {"corpora": text} for name in (*FOUR, DISTANCE)}
        made["mixed"] = Setup(
            both, (*((name, (name,)) for name in both), (FOUR[3], FOUR), (DISTANCE, (*FOUR[:3], DISTANCE)))
        )
    if pairs is not None:
        labelled = {"corpora": (pairs,), "labels": LABELS}
        seven = {**dict.fromkeys((*FOUR, DISTANCE), read), DISCOURSE: labelled, RELEVANCE: labelled}
        made["seven"] = Setup(seven)
        with_masking = {FOUR[0]: {"corpora": (pairs,)}, RELEVANCE: {**labelled, "allows_attached_tasks": True}}
        made["pairs"] = Setup(
            with_masking, ((RELEVANCE, (RELEVANCE,)), (RELEVANCE, (FOUR[0], RELEVANCE)), (FOUR[0], FOUR[:1]))
        )
    return made


@dataclass(frozen=True)
class Case:
    """One row of the table: a task set of a recipe, and the stream that builds its packs."""

    recipe: str
    limit: int
    main_task: str
    active: tuple[str, ...]
    streams: DataStreams


def cases(shards: Shards, recipes: Sequence[str], limits: Sequence[int]) -> Iterator[Case]:
    """Yield every task set of `recipes` at every limit on the length of a sequence."""
    vocabulary = _vocabulary(shards)
    text = tuple(name for name, corpus in shards.corpora.items() if not corpus.labels)
    pairs = next((name for name, corpus in shards.corpora.items() if corpus.labels), None)
    for recipe, setup in setups(text, pairs).items():
        if recipes and recipe not in recipes:
            continue
        tasks = [
            find_task(name)(find_task(name).Options(**options), vocabulary) for name, options in setup.tasks.items()
        ]
        for limit in limits:
            feed, _ = build_feeds(shards, tasks, weights=dict.fromkeys(text, 1.0), sequence_tokens=limit)
            caps = Caps.of(PACK_TOKENS, limit, tasks)
            streams = DataStreams(feed, tasks, vocabulary, caps, {task.name: i for i, task in enumerate(tasks)}, seed=0)
            for main_task, active in setup.sets or _sets_of_plan(tasks, disjoint_pairs(feed)):
                yield Case(recipe, limit, main_task, active, streams)


@reported_errors()
def main() -> None:
    """Measure every task set at both sequence limits and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=Path, help="a folder written by `ernie2 prepare` (default: synthetic)")
    parser.add_argument("--recipe", action="append", default=[], help="four, seven, mixed or pairs (default: all)")
    parser.add_argument("--limit", action="append", type=int, default=[], help="longest sequence (default: 512 and 64)")
    parser.add_argument("--tokens", type=int, default=200_000, help="tokens per round")
    parser.add_argument("--rounds", type=count, default=3)
    parser.add_argument("--json", type=output_file, help="also write the figures here")
    parser.add_argument("--profile", action="store_true", help="print a profile of each task set")
    chosen = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as aside:
        shards = Shards(chosen.shards or make_shards(Path(aside)))
        print(f"{'recipe':7} {'task set (first: the main task)':72} {'limit':>5} {'tokens/s a core':>16}")
        for case in cases(shards, chosen.recipe, chosen.limit or (512, 64)):
            attached = [name for name in case.active if name != case.main_task]
            if chosen.profile:
                profile = cProfile.Profile()
                profile.runcall(rate, case, chosen.tokens, 1)
                pstats.Stats(profile).sort_stats("tottime").print_stats(25)
            tokens = round(rate(case, chosen.tokens, chosen.rounds))
            rows.append(
                {
                    "recipe": case.recipe,
                    "limit": case.limit,
                    "main_task": case.main_task,
                    "attached": attached,
                    "tokens_per_second": tokens,
                }
            )
            mark = " <" if case.limit == 512 and tokens < FLOOR else ""
            print(
                f"{case.recipe:7} {' + '.join([case.main_task, *attached]):72} {case.limit:>5} {tokens:>16,}{mark}",
                flush=True,
            )
    if chosen.json:
        facts = {
            "shards": str(chosen.shards or "synthetic"),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "numpy": np.__version__,
        }
        chosen.json.write_text(json.dumps({**facts, "rows": rows}, indent=1), encoding="utf-8")


def rate(case: Case, tokens: int, rounds: int) -> float:
    """Best rate of `rounds`, each about `tokens` tokens further along one data stream."""
    state, best = StreamState(), 0.0
    _, state = case.streams.pack(0, state, case.main_task, case.active)
    for _ in range(rounds):
        made, began = 0, time.process_time()
        while made < tokens:
            pack, state = case.streams.pack(0, state, case.main_task, case.active)
            made += pack.real_tokens
        best = max(best, made / (time.process_time() - began))
    return best


def make_shards(folder: Path, tokens: int = 2_000_000, shards: int = 4) -> Path:
    """Write random shards: two corpora shaped like encyclopedia text, `tokens` tokens each, and one of labelled pairs.

    Text has Zipf ids, sentences of 25 tokens, paragraphs of 4, documents of a few hundred to four thousand tokens; a
    fifth of the tokens continue a word; one in six lies in a phrase or an entity. Pairs make sequences of 40 to 60.
    """
    rng = np.random.default_rng(0)
    corpora: dict[str, Any] = {}
    for corpus in ("text", "more"):
        names = []
        for number in range(shards):
            columns = _columns(rng, tokens // shards)
            documents = [f"{corpus}-{number}-{i}" for i in range(len(columns["documents"]) - 1)]
            names.append(f"{corpus}-{number:05d}")
            write_shard(folder / corpus / names[-1], columns, documents, {"tokenizer": "none", "corpus": corpus})
        corpora[corpus] = {"language": "en", "licence": "none", "shards": names}
    columns = _pair_columns(rng, 20_000)
    described = {"tokenizer": "none", "corpus": "pairs", "labels": list(LABELS)}
    write_shard(folder / "pairs" / "pairs-00000", columns, [f"pair-{i}" for i in range(20_000)], described)
    corpora["pairs"] = {"language": "en", "licence": "none", "shards": ["pairs-00000"], "labels": list(LABELS)}
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


def _pair_columns(rng: np.random.Generator, pairs: int) -> dict[str, Any]:
    lengths = rng.integers(PAIR_TOKENS - 10, PAIR_TOKENS + 11, pairs) - 3  # less [CLS] and two [SEP]
    first = lengths // 4  # a query beside a title
    sentences = np.concatenate([[0], np.cumsum(np.stack([first, lengths - first], axis=1).reshape(-1))])
    total = int(sentences[-1])
    return {
        "tokens": rng.integers(1_000, VOCAB_SIZE, total).astype(np.uint16),
        "flags": np.full(total, WORD_START | CASED, np.uint8),
        "document_count": np.ones(total, np.uint16),
        "sentences": sentences,
        "paragraphs": np.arange(2 * pairs + 1),
        "documents": 2 * np.arange(pairs + 1),
        "split": np.zeros(pairs, np.uint8),
        "group": np.arange(pairs, dtype=np.uint64),
        "label": (np.arange(pairs) % len(LABELS)).astype(np.uint16),
    }


def _cuts(lengths: Any, total: int) -> Any:
    """Return the offsets of runs of these lengths, up to exactly `total`."""
    ends = np.cumsum(lengths)
    return np.concatenate([[0], ends[ends < total], [total]])


def _sets_of_plan(tasks: Sequence[Task], strangers: frozenset[tuple[str, str]]) -> list[tuple[str, tuple[str, ...]]]:
    """Return the distinct task sets of the paper's schedule, with 1,000 iterations per task."""
    closed = frozenset(task.name for task in tasks if isinstance(task, SentenceTask) and not task.allows_attached_tasks)
    levels = {task.name: task.level for task in tasks}
    plans = [
        StagePlan(stage, levels, without_attached=closed, disjoint=strangers) for stage in assign(list(levels), 1_000)
    ]
    return list(dict.fromkeys((plan.main_task(k), plan.active_tasks(k)) for plan in plans for k in range(len(plan))))


def _vocabulary(shards: Shards) -> Vocabulary:
    """Return ids as in BERT's vocabularies; they do not affect the rate."""
    size = int(shards.facts.get("vocab_size", VOCAB_SIZE))
    return Vocabulary(size, cls=2, sep=3, mask=4, pad=0, unk=1, ordinary=np.arange(5, size))


if __name__ == "__main__":
    main()
