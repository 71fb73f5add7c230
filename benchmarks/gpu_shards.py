"""Prepare shards for `gpu_run.py`, with the settings of the preset `small` of `ernie2 study table7`.

    python benchmarks/gpu_shards.py CORPUS FOLDER

CORPUS is a value for `path` of a corpus in a recipe: .jsonl, .jsonl.gz, .parquet, … Other shards also work, except for
the study part, which needs these settings. A vocabulary of 30,522 is trained on the corpus.
"""

from __future__ import annotations

import argparse
import sys

import ernie2
from ernie2.config.overrides import as_override
from ernie2.console import terminal_output
from ernie2.errors import Ernie2Error
from ernie2.studies.settings import load_settings


def main() -> int:
    """Prepare the corpus; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", metavar="CORPUS", help="a .jsonl, .jsonl.gz, .parquet, … file, or a folder of them")
    parser.add_argument("folder", metavar="FOLDER", help="output folder")
    given = parser.parse_args()
    values = [
        as_override("recipe.corpora.wiki.path", given.corpus),
        as_override("recipe.shards.folder", given.folder),
    ]
    with terminal_output():
        try:
            ernie2.prepare(load_settings("small", values).checked_recipe().model_dump(mode="json"))
        except Ernie2Error as error:
            print(f"{error.heading}: {error}", file=sys.stderr)
            return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
