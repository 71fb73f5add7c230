"""How a data set is declared: its files a split, its columns, labels, head and metrics. The sets are in glue_sets.py
and chinese_sets.py; nothing else in the package knows one of them by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ernie2.datasets.examples import Head
from ernie2.datasets.tag_schemes import Scheme

Form = Literal["rows", "tags", "squad"]
"""rows: a table of texts and a label; tags: tokens and tags separated by \\x02 or lists; squad: nested JSON of contexts
with questions and answers."""


@dataclass(frozen=True, kw_only=True)
class Files:
    """What one split is read from. Names are patterns (`*`), looked for with and without .gz or .zst.

    `official`: the first that is there is read alone. Else every match of `subset` is read, else every match of
    `substitutes`, text of another origin that is put in the split's place. `hub` is the split's name in the parquet
    files of the Hugging Face Hub. `rows`: the official number of examples (several where releases differ).
    """

    official: tuple[str, ...]
    rows: tuple[int, ...]
    hub: str
    subset: tuple[str, ...] = ()
    substitutes: tuple[str, ...] = ()

    def described(self) -> str:
        """The accepted names, for messages."""
        names = ", ".join((*self.official, *self.subset, *self.substitutes))
        return f"{names} (also with .gz or .zst), {self.hub}-*.parquet"


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names under which a column is known, each a list of alternatives; those of the Hub are among them.

    `without_header`: what the columns are, in order, where a .tsv or .csv has no line of names.
    """

    text: tuple[str, ...]
    pair: tuple[str, ...] = ()
    label: tuple[str, ...] = ("label",)
    id: tuple[str, ...] = ("index", "idx", "id")
    group: tuple[str, ...] = ()
    without_header: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every name by which a header line is recognised."""
        return (*self.text, *self.pair)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One declared data set.

    `labels` stand in the order of their ids, which is that of the Hub, so an integer label is an index into them;
    `meanings` says what they mean where a label is a bare number; `aliases` are other spellings. `positive`: the class
    of F1 and MRR. `scheme`: how its tags mark entities. `ragged`: rows with too few or too many cells are left out and
    counted (QQP's files have some).
    `traditional`: the official file is in Traditional Chinese and is turned into Simplified. `tolerance`: how far, as a
    share, a row count may be from `rows` and still be official. `stands_for`: the paper's set this one stands in for.
    `trained_on`: the set whose model predicts this one (AX).
    """

    name: str
    title: str
    group: Literal["glue", "chinese"]
    folders: tuple[str, ...]
    head: Head
    metrics: tuple[str, ...]
    splits: Mapping[str, Files]
    form: Form = "rows"
    columns: Columns | None = None
    labels: tuple[str, ...] = ()
    meanings: tuple[str, ...] = ()
    aliases: Mapping[str, str] | None = None
    positive: str | None = None
    answer_rules: str | None = None
    scheme: Scheme | None = None
    ragged: bool = False
    traditional: bool = False
    tolerance: float = 0.0
    stands_for: str | None = None
    trained_on: str | None = None
