"""What is declared of a data set: its files a split, its columns, labels, head, metrics and the paper's settings.

The sets are declared in glue.yaml and chinese.yaml, and in packages that announce theirs; no code here names one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.metadata import entry_points
from importlib.resources.abc import Traversable
from typing import Any, Literal

from pydantic import Field, ValidationError

from ernie2.config.base import SettingsModel
from ernie2.config.finetuning_settings import FineTuningSettings
from ernie2.config.plain_yaml import parse_yaml
from ernie2.config.problems import explain, list_problems
from ernie2.datasets.examples import METRICS, Head, Provenance
from ernie2.datasets.tag_schemes import Scheme
from ernie2.errors import DataError, Ernie2Error, did_you_mean

Form = Literal["rows", "tags", "squad"]
"""rows: a table of texts and a label; tags: tokens and tags separated by \\x02 or lists; squad: nested JSON of contexts
with questions and answers."""
FORMS: dict[Head, Form] = {"classification": "rows", "regression": "rows", "tagging": "tags", "span": "squad"}
"""The form of the files by head. A set of several labels an example cannot be declared."""
Size = Literal["base", "large"]
_NAME = re.compile("[a-z0-9_]+")
_SPLIT = re.compile("train|(dev|test)(_[a-z0-9_]+)?")


class Files(SettingsModel):
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
    def fallbacks(self) -> tuple[tuple[tuple[str, ...], Provenance], ...]:
        """What is read where no official file is there, and what it is."""
        return (self.subset, "subset"), (self.substitutes, "stand-in")

    def describe(self) -> str:
        """The accepted names, for messages."""
        names = ", ".join((*self.official, *self.subset, *self.substitutes))
        return f"{names} (also with .gz or .zst), {self.hub}-*.parquet"


class Columns(SettingsModel):
    """Names under which a column is known, each a list of alternatives; those of the Hub are among them."""

    text: tuple[str, ...]
    pair: tuple[str, ...] = ()
    label: tuple[str, ...] = ("label",)
    id: tuple[str, ...] = ("index", "idx", "id")
    group: tuple[str, ...] = ()
    without_header: tuple[str, ...] = ()
    """What the columns are, in order, where a .tsv or .csv has no line of names."""


class PaperResult(SettingsModel):
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

    def describe(self) -> str:
        """'ERNIE 2.0 base, test: 86.1 / 89.9 (accuracy / f1)'."""
        figures, parts = " / ".join(f"{value:.1f}" for value in self.values), " / ".join(self.parts)
        return f"{self.model} {self.size}, {self.split}: {figures} ({parts})"


class Dataset(SettingsModel):
    """One declared data set."""

    name: str
    """The key of its entry: lower-case letters, digits and `_`. `--dataset` takes it."""
    title: str
    """Its name in messages and tables; `--dataset` takes it too."""
    folders: tuple[str, ...]
    """Names of the folder that holds its files, inside the one given by `--data`."""
    head: Head
    """The kind of task."""
    metrics: tuple[str, ...] = Field(min_length=1)
    """What is measured, in this order: names that `METRICS` in examples.py lists for the head."""
    splits: Mapping[str, Files]
    """By name (train, dev, test, or dev_… and test_…): the files, or only a number of rows with the files of `files` at
    the top of the file."""
    form: Form = "rows"
    """What a file holds; `FORMS` says which form goes with which head."""
    columns: Columns | None = None
    """The columns that are read, in the forms rows and tags."""
    labels: tuple[str, ...] = ()
    """The classes, or tags, in the order of their ids. An integer label is an index into them. None for other heads."""
    aliases: Mapping[str, str] | None = None
    """Other spellings of labels."""
    positive: str | None = None
    """The class of F1 and MRR, which need one."""
    answer_rules: Literal["squad", "cmrc2018", "dureader_robust"] | None = None
    """How answers of the head span are compared; squad where it is left out."""
    scheme: Scheme | None = None
    """How its tags mark entities; entity_f1 needs it."""
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
    reported: tuple[PaperResult, ...] = ()
    """What the paper reports of it: for each of the columns at the top of the file a figure a part, or a dash."""

    def problems(self) -> Iterator[str]:
        """What does not go together, a sentence each."""
        fitting, ids = METRICS[self.head], self.head in ("classification", "tagging")
        if (form := FORMS.get(self.head)) is None:
            yield f"head: {self.head} cannot be declared, only {', '.join(FORMS)}."
        elif self.form != form:
            yield f"form: must be {form} for head {self.head} (got {self.form})."
        elif form != "squad" and self.columns is None:
            yield f"columns: this key is required in the form {form}."
        for name in self.metrics:
            if name not in fitting:
                hint = did_you_mean(name, fitting)
                yield f"metrics: head {self.head} has no {name!r}.{hint} Known here: {', '.join(fitting)}."
        if ids and (len(self.labels) < 2 or len(set(self.labels)) < len(self.labels)):
            yield f"labels: head {self.head} needs two different ones or more."
        elif self.labels and not ids:
            yield f"labels: head {self.head} has none."
        known = ", ".join(self.labels) or "none"
        if self.positive is not None and self.positive not in self.labels:
            hint = did_you_mean(self.positive, self.labels)
            yield f"positive: {self.positive!r} is none of the labels ({known}).{hint}"
        if ranked := [name for name in self.metrics if name in ("f1", "mrr")]:
            if self.positive is None:
                yield f"positive: {' and '.join(ranked)} needs it: the label that is looked for, one of {known}."
            if "mrr" in ranked and not (self.columns and self.columns.group):
                yield "columns.group: mrr needs the column that says which rows belong to one question."
        if strange := [name for name in (self.aliases or {}).values() if name not in self.labels]:
            yield f"aliases: {', '.join(strange)} is none of the labels ({known})."
        if "entity_f1" in self.metrics and self.scheme is None:
            yield "scheme: entity_f1 needs it."
        for key, head in (("scheme", "tagging"), ("answer_rules", "span")):
            if getattr(self, key) is not None and self.head != head:
                yield f"{key}: is for head {head}, and this is {self.head}."
        for split in self.splits:
            if not _SPLIT.fullmatch(split):
                yield f"splits.{split}: must be train, dev, test, dev_NAME or test_NAME."
        if self.trained_on is not None and set(self.splits) != {"test"}:
            yield "splits: a set with trained_on has the split test and no other."
        elif self.trained_on is None and not (
            "train" in self.splits and any(name[:3] == "dev" for name in self.splits)
        ):
            yield "splits: train and dev are required."
        if not _NAME.fullmatch(self.name):
            yield "its name must be of lower-case letters, digits and _."


class _DatasetsFile(SettingsModel):
    """A file of declarations; each set is checked for itself."""

    sets: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, Mapping[str, Any]] = {}
    settings: Mapping[str, Any] = {}
    reported: tuple[tuple[str, str, str], ...] = ()


def declared_groups() -> dict[str, dict[str, Dataset]]:
    """Every declared set by group and name: ours, then those of packages that announce some.

    A package announces the sets of its file NAME.yaml by an entry point `NAME = "package"` of the group
    `ernie2.datasets`. Raises `DataError` for an announced file that cannot be read, or that declares what is there
    already or what does not go together.
    """
    groups = {name: _read(resources.files("ernie2.datasets"), name, {}) for name in ("glue", "chinese")}
    for entry in entry_points(group="ernie2.datasets"):
        known = {name: one for sets in groups.values() for name, one in sets.items()}
        try:
            sets = _read(resources.files(entry.value), entry.name, known)
        except (Ernie2Error, ImportError, OSError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise DataError(f"data sets {entry.name!r} of package {entry.value!r} cannot be read: {error}") from error
        if taken := {entry.name, *sets} & {*groups, *known}:
            raise DataError(f"package {entry.value!r} declares {', '.join(sorted(taken))}, which is there already.")
        groups[entry.name] = sets
    return groups


def _read(folder: Traversable, group: str, others: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """The sets declared in the file of `group`, by name; they may name each other and `others`.

    A split that is a number is one of so many rows; what it leaves out is that of `files`, and what settings leave out
    that of `settings` at the top of the file.
    """
    if not _NAME.fullmatch(group):
        raise DataError(f"the name {group!r} must be of lower-case letters, digits and _.")
    text = (folder / f"{group}.yaml").read_text(encoding="utf-8")
    values: Any = parse_yaml(text, f"{group}.yaml")
    try:
        declared = _DatasetsFile.model_validate(values)
    except ValidationError as error:
        problems = explain(error, _DatasetsFile, values)
        raise DataError(f"{group}.yaml:\n{list_problems(problems)}") from error
    sets = {name: _dataset(name, fields, declared) for name, fields in declared.sets.items()}
    for name, one in sets.items():
        problems = list(one.problems())
        known = {**others, **sets}
        for key, other in (("stands_for", one.stands_for), ("trained_on", one.trained_on)):
            if other is not None and other not in known:
                problems.append(f"{key}: no set is called {other!r}.{did_you_mean(other, known)}")
        model_of = known.get(one.trained_on or "", one)
        if (one.head, one.labels) != (model_of.head, model_of.labels):
            problems.append(f"trained_on: {one.trained_on} has another head or other labels.")
        if problems:
            raise DataError(f"{name}:\n{list_problems(problems)}")
    return sets


def _dataset(name: str, fields: Mapping[str, Any], shared: _DatasetsFile) -> Dataset:
    values = {**fields, "name": name}
    if isinstance(given_splits := values.get("splits"), dict):
        splits = {}
        for split, given in given_splits.items():
            files = {**shared.files.get(split, {}), **(given if isinstance(given, dict) else {"rows": given})}
            splits[split] = {
                key: [one] if key == "rows" and isinstance(one, int) else one for key, one in files.items()
            }
        values["splits"] = splits
    if isinstance(settings := values.get("settings"), dict):
        values["settings"] = {
            size: {**shared.settings, **given} if isinstance(given, dict) else given for size, given in settings.items()
        }
    if "reported" in fields:
        values["reported"] = _reported(name, fields["reported"], shared)
    try:
        return Dataset.model_validate(values)
    except ValidationError as error:
        raise DataError(f"{name}:\n{list_problems(explain(error, Dataset, values))}") from error


def _reported(name: str, table: Any, shared: _DatasetsFile) -> list[dict[str, Any]]:
    """The rows of `PaperResult` that a table {parts: […], figures: "71.2/80.1 - …"} holds, without those of a dash."""
    if not isinstance(table, dict) or table.keys() != {"parts", "figures"}:
        raise DataError(f"{name}:\n  - reported: must have the keys parts and figures.")
    cells = str(table["figures"]).split()
    if len(cells) != len(shared.reported):
        raise DataError(
            f"{name}:\n  - reported.figures: {len(cells)} figures or dashes, but the key reported at the top of the "
            f"file has {len(shared.reported)} columns (model, size, split)."
        )
    rows = []
    for (model, size, split), cell in zip(shared.reported, cells, strict=True):
        if figures := [figure for figure in cell.split("/") if figure != "-"]:
            parts = table["parts"][: len(figures)]
            rows.append({"model": model, "size": size, "split": split, "parts": parts, "values": figures})
    return rows
