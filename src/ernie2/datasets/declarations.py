"""What is declared of a data set: its files a split, its columns, labels, head, metrics and the paper's settings.

The sets are declared in glue.yaml and chinese.yaml, and in packages that announce theirs; no code here names one.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from importlib.metadata import entry_points
from importlib.resources.abc import Traversable
from typing import Any, Literal

from pydantic import ValidationError

from ernie2.config.base import Part
from ernie2.config.finetuning_settings import FineTuningSettings
from ernie2.config.plain_yaml import parse_yaml
from ernie2.config.problems import explain, list_problems
from ernie2.datasets.examples import Head, Standing
from ernie2.datasets.tag_schemes import Scheme
from ernie2.errors import DataError, Ernie2Error

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


class Reported(Part):
    """One figure that the paper reports. `values` follow `parts`: the metrics of the data set, or the two halves of
    MNLI.

    Table 5's dev columns give the first part only. GLUE's dev figures are medians and Table 6's are means of five runs;
    GLUE's test figures are the server's, of single models.
    """

    model: str
    size: Size
    split: str
    parts: tuple[str, ...]
    values: tuple[float, ...]

    def described(self) -> str:
        """'ERNIE 2.0 base, test: 86.1 / 89.9 (accuracy / f1)'."""
        figures, parts = " / ".join(f"{value:.1f}" for value in self.values), " / ".join(self.parts)
        return f"{self.model} {self.size}, {self.split}: {figures} ({parts})"


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
    reported: tuple[Reported, ...] = ()
    """What the paper reports of it: for each of the columns at the top of the file a figure a part, or a dash."""


def declared_groups() -> dict[str, dict[str, Dataset]]:
    """Every declared set by group and name: ours, then those of packages that announce some.

    A package announces the sets of its file NAME.yaml by an entry point `NAME = "package"` of the group
    `ernie2.datasets`. Raises `DataError` for an announced file that cannot be read or declares what is there already.
    """
    groups = {name: _read(resources.files("ernie2.datasets"), name) for name in ("glue", "chinese")}
    for entry in entry_points(group="ernie2.datasets"):
        try:
            sets = _read(resources.files(entry.value), entry.name)
        except (Ernie2Error, ImportError, OSError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise DataError(f"data sets {entry.name!r} of package {entry.value!r} cannot be read: {error}") from error
        if taken := {entry.name, *sets} & {name for group, known in groups.items() for name in (group, *known)}:
            raise DataError(f"package {entry.value!r} declares {', '.join(sorted(taken))}, which is there already.")
        groups[entry.name] = sets
    return groups


def _read(folder: Traversable, group: str) -> dict[str, Dataset]:
    """The sets declared in the file of `group`, by name.

    A split that is a number is one of so many rows; what it leaves out is that of `files`, and what settings leave out
    that of `settings` at the top of the file.
    """
    text = (folder / f"{group}.yaml").read_text(encoding="utf-8")
    declared: dict[str, Any] = parse_yaml(text, f"{group}.yaml")
    return {name: _dataset(name, fields, declared) for name, fields in declared["sets"].items()}


def _dataset(name: str, fields: Mapping[str, Any], shared: Mapping[str, Any]) -> Dataset:
    splits = {}
    for split, given in fields["splits"].items():
        files = shared.get("files", {}).get(split, {}) | (given if isinstance(given, dict) else {"rows": given})
        splits[split] = files | {"rows": files["rows"] if isinstance(files["rows"], list) else [files["rows"]]}
    settings = {size: shared.get("settings", {}) | given for size, given in fields.get("settings", {}).items()}
    reported, table = [], fields.get("reported", {"parts": (), "figures": ""})
    columns = shared["reported"] if "reported" in fields else ()
    for (model, size, split), cell in zip(columns, table["figures"].split(), strict=True):
        if figures := [figure for figure in cell.split("/") if figure != "-"]:
            parts = table["parts"][: len(figures)]
            reported.append({"model": model, "size": size, "split": split, "parts": parts, "values": figures})
    values = {**fields, "name": name, "splits": splits, "settings": settings, "reported": reported}
    try:
        return Dataset.model_validate(values)
    except ValidationError as error:
        raise DataError(f"{name}:\n{list_problems(explain(error, Dataset, values))}") from error
