"""What is declared of a data set: its files a split, its columns, labels, head, metrics and the paper's settings.

The sets are declared in glue.yaml and chinese.yaml; nothing else in the package knows one of them by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any, Literal

from ernie2.config.base import Part
from ernie2.config.finetuning_settings import FineTuningSettings
from ernie2.config.plain_yaml import parse_yaml
from ernie2.datasets.examples import Head, Standing
from ernie2.datasets.tag_schemes import Scheme

Form = Literal["rows", "tags", "squad"]
"""rows: a table of texts and a label; tags: tokens and tags separated by \\x02 or lists; squad: nested JSON of contexts
with questions and answers."""
Size = Literal["base", "large"]


class Files(Part):
    """What one split is read from. Names are patterns (`*`), looked for with and without .gz or .zst."""

    official: tuple[str, ...]
    """The first that is there is read alone. Else every match of `subset` is read, else every match of
    `substitutes`."""
    rows: tuple[int, ...]
    """The official number of examples (several where releases differ)."""
    hub: str
    """The split's name in the parquet files of the Hugging Face Hub."""
    subset: tuple[str, ...] = ()
    """A part of the split."""
    substitutes: tuple[str, ...] = ()
    """Text of another origin that is put in the split's place."""

    @property
    def in_its_place(self) -> tuple[tuple[tuple[str, ...], Standing], ...]:
        """What is read where no official file is there, and what it is."""
        return (self.subset, "subset"), (self.substitutes, "stand-in")

    def described(self) -> str:
        """The accepted names, for messages."""
        names = ", ".join((*self.official, *self.subset, *self.substitutes))
        return f"{names} (also with .gz or .zst), {self.hub}-*.parquet"


class Columns(Part):
    """Names under which a column is known, each a list of alternatives; those of the Hub are among them."""

    text: tuple[str, ...]
    pair: tuple[str, ...] = ()
    label: tuple[str, ...] = ("label",)
    id: tuple[str, ...] = ("index", "idx", "id")
    group: tuple[str, ...] = ()
    without_header: tuple[str, ...] = ()
    """What the columns are, in order, where a .tsv or .csv has no line of names."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every name by which a header line is recognised."""
        return (*self.text, *self.pair)


class Dataset(Part):
    """One declared data set."""

    name: str
    title: str
    folders: tuple[str, ...]
    head: Head
    metrics: tuple[str, ...]
    splits: Mapping[str, Files]
    form: Form = "rows"
    columns: Columns | None = None
    labels: tuple[str, ...] = ()
    """In the order of their ids, which is that of the Hub, so an integer label is an index into them."""
    aliases: Mapping[str, str] | None = None
    """Other spellings of labels."""
    positive: str | None = None
    """The class of F1 and MRR."""
    answer_rules: str | None = None
    scheme: Scheme | None = None
    """How its tags mark entities."""
    ragged: bool = False
    """Rows with too few or too many cells are left out and counted."""
    traditional: bool = False
    """The official file is in Traditional Chinese and is turned into Simplified."""
    tolerance: float = 0.0
    """How far, as a share, a row count may be from `rows` and still be official."""
    stands_for: str | None = None
    """The paper's set this one stands in for."""
    trained_on: str | None = None
    """The set whose model predicts this one."""
    settings: Mapping[Size, FineTuningSettings] = {}
    """How the paper fine-tunes its models of both sizes on it; none where another set's settings are taken."""


def read_declarations(group: str) -> dict[str, Dataset]:
    """The sets declared in the file of `group`, by name.

    A split that is a number is one of so many rows; what it leaves out is that of `files`, and what settings leave out
    that of `settings` at the top of the file.
    """
    text = (resources.files("ernie2.datasets") / f"{group}.yaml").read_text(encoding="utf-8")
    declared: dict[str, Any] = parse_yaml(text, f"{group}.yaml")
    return {name: _dataset(name, fields, declared) for name, fields in declared["sets"].items()}


def _dataset(name: str, fields: Mapping[str, Any], shared: Mapping[str, Any]) -> Dataset:
    splits = {}
    for split, given in fields["splits"].items():
        files = shared["files"].get(split, {}) | (given if isinstance(given, dict) else {"rows": given})
        splits[split] = files | {"rows": files["rows"] if isinstance(files["rows"], list) else [files["rows"]]}
    settings = {size: shared["settings"] | given for size, given in fields.get("settings", {}).items()}
    return Dataset.model_validate({**fields, "name": name, "splits": splits, "settings": settings})
