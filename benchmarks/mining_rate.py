"""Speed of `ernie2 mine discourse`, and its most frequent labels: benchmarks/mining_rate.py CORPUS [en|zh].

Seconds are CPU seconds of this process, so other load matters little.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

from comparisons.script import reported_errors
from ernie2.config.data_settings import CorpusSettings
from ernie2.corpora.connectives import mine_discourse


@reported_errors()
def main(path: str, language: str = "en") -> None:
    """Mine `path` into a temporary file and print the rate."""
    read = [0]

    def on_progress(documents: int, characters: int, pairs: int) -> None:
        read[0] = characters

    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        corpus = CorpusSettings(path=path, language=language)
        mined = mine_discourse(corpus, Path(folder) / "pairs.tsv", 10_000, on_progress)
    seconds = time.process_time() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{read[0] / 1e6:.1f} M characters in {seconds:.1f} CPU s: {read[0] / 1e6 / seconds:.1f} M/s; {memory} MiB")
    print(", ".join(f"{label} {count:,}" for label, count in mined.labels.most_common(10)))
    print(", ".join(f"{reason} {count:,}" for reason, count in mined.drops.as_dict().items()))


if __name__ == "__main__":
    main(*sys.argv[1:])
