"""Shards for `gpu_run.py`: a corpus prepared with the settings of the preset `small` of `ernie2 study table7`.

    python benchmarks/gpu_shards.py CORPUS FOLDER

CORPUS is what `path` of a corpus in a recipe takes: .jsonl, .jsonl.gz, .parquet, … Other shards serve as well, but for
the study part, which needs these settings. A vocabulary of 30,522 is trained on the corpus.
"""

from __future__ import annotations

import sys

import ernie2
from ernie2.config.overrides import as_override
from ernie2.studies.settings import load_settings


def main() -> None:
    """Prepares the corpus named on the command line."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    corpus, folder = sys.argv[1:]
    values = [as_override("recipe.corpora.wiki.path", corpus), as_override("recipe.shards.folder", folder)]
    ernie2.prepare(load_settings("small", values).checked_recipe().model_dump(mode="json"))


if __name__ == "__main__":
    main()
