"""Rate and peak memory of `ernie2 prepare`, compared with the bare tokeniser on the same text and cores.

    python benchmarks/prepare_rate.py --corpus enwiki_sample.jsonl.gz --vocab bert_uncased_vocab.txt --workers 2

Every repetition times two separate processes, one after the other: (a) `encode_batch` of the texts, in batches of about
1 MB, with as many threads as workers, without reading; (b) the complete `prepare` with phrase mining, from the start of
Python to the last file. The ratio is that of the two rates. Memory is the sampled resident set of the process tree,
where shared pages count for each process. CPU seconds depend less on other load.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from comparisons.script import count, output_file, reported_errors

BARE = """
import json, sys, time, resource
from ernie2.shards.tokenizer import load_tokenizer
from ernie2.corpora.documents import Drops, read_documents
from ernie2.config.data_settings import CorpusSettings
corpus, vocab, language = sys.argv[1:]
tokenizer = load_tokenizer(vocab)
texts = [document.text for document in read_documents(CorpusSettings(path=corpus, language=language), Drops())]
batches, size = [[]], 0
for text in texts:
    if size > 1_000_000:
        batches.append([]); size = 0
    batches[-1].append(text); size += len(text)
tokenizer.encode_batch(batches[0][:4])
cpu, wall, tokens = time.process_time(), time.perf_counter(), 0
for batch in batches:
    tokens += sum(map(len, tokenizer.encode_batch(batch)))
print(json.dumps({"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "tokens": tokens,
                  "characters": sum(map(len, texts))}))
"""

PREPARE = """
import json, sys, time
from ernie2.shards.prepare import prepare
from ernie2.runs.recipes import load_recipe
corpus, vocab, language, folder, workers = sys.argv[1:]
text = {"path": corpus, "language": language}
recipe = load_recipe({"name": "rate", "run": folder + "/run", "corpora": {"text": text}, "tokenizer": {"file": vocab},
    "shards": {"folder": folder + "/shards"}, "tasks": {"knowledge_masking": {}}})
stages, began = {}, time.perf_counter()
def progress(state):
    stages.setdefault(state.stage, time.perf_counter() - began)
prepare(recipe, workers=int(workers), progress=progress)
print(json.dumps({"call": time.perf_counter() - began, "stages": stages}))
"""


@reported_errors()
def main() -> None:
    """Measure, print a table, and write JSON if requested."""
    options = _options()
    corpus = [str(options.corpus), str(options.vocab), options.language]
    threads = {"RAYON_NUM_THREADS": str(options.workers), "TOKENIZERS_PARALLELISM": "true"}
    rows: list[dict[str, Any]] = []
    for _ in range(options.repeat):
        bare = _measure(BARE, corpus, threads)
        with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
            ours = _measure(PREPARE, [*corpus, folder, str(options.workers)], {})
        ours["ratio"] = bare["seconds"] / ours["wall"]
        ours["cpu_ratio"] = bare["cpu"] / ours["cpu"]
        rows.append({"bare": bare, "prepare": ours})
        _print_row(rows[-1])
    summary = {
        "corpus": options.corpus.name,
        "workers": options.workers,
        "characters": rows[0]["bare"]["characters"],
        "tokens": rows[0]["bare"]["tokens"],
        "bare_tokens_per_second": rows[0]["bare"]["tokens"] / median(row["bare"]["seconds"] for row in rows),
        "prepare_tokens_per_second": rows[0]["bare"]["tokens"] / median(row["prepare"]["wall"] for row in rows),
        "ratio_median": median(row["prepare"]["ratio"] for row in rows),
        "ratio_best": max(row["prepare"]["ratio"] for row in rows),
        "cpu_ratio_median": median(row["prepare"]["cpu_ratio"] for row in rows),
        "peak_rss_mib": max(row["prepare"]["peak_rss_mib"] for row in rows),
        "load_average": os.getloadavg()[0],
    }
    print()
    for name, value in summary.items():
        print(f"{name:26} {value:,.3f}" if isinstance(value, float) else f"{name:26} {value}")
    if options.json:
        options.json.write_text(json.dumps({"summary": summary, "runs": rows}, indent=1) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--vocab", type=Path, required=True)
    parser.add_argument("--language", default="en")
    parser.add_argument("--workers", type=count, default=2)
    parser.add_argument("--repeat", type=count, default=3)
    parser.add_argument("--scratch", type=Path, default=None, help="folder for temporary shards")
    parser.add_argument("--json", type=output_file, default=None)
    return parser.parse_args()


def _measure(script: str, arguments: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Run a script; return its printed figures with wall time, CPU time and peak memory of its process tree."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
        text=True,
    )
    peak, cpu = 0.0, {}
    while process.poll() is None:
        resident = 0
        for pid in _tree(process.pid):
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            cpu[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            resident += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
        peak = max(peak, resident / 2**20)
        time.sleep(0.03)
    wall = time.perf_counter() - began
    assert process.stdout is not None
    printed = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode}")
    return {"cpu": sum(cpu.values()), **json.loads(printed), "wall": wall, "peak_rss_mib": peak}


def _tree(root: int) -> list[int]:
    """Return a process and all its descendants."""
    pids, queue = list[int](), [root]
    while queue:
        pid = queue.pop()
        pids.append(pid)
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                queue += map(int, (task / "children").read_text().split())
        except (OSError, ValueError):
            continue
    return pids


def _print_row(row: dict[str, Any]) -> None:
    bare, ours = row["bare"], row["prepare"]
    stages = ", ".join(f"{name} at {seconds:.2f} s" for name, seconds in ours["stages"].items())
    print(
        f"bare {bare['seconds']:.2f} s ({bare['cpu']:.2f} CPU) | "
        f"prepare {ours['wall']:.2f} s ({ours['cpu']:.2f} CPU; {stages}) "
        f"| ratio {ours['ratio']:.2f} (CPU {ours['cpu_ratio']:.2f}) | {ours['peak_rss_mib']:.0f} MiB",
        flush=True,
    )


if __name__ == "__main__":
    main()
