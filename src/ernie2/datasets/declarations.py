"""Declarations of datasets: files by split, columns, labels, head, metrics and the paper's settings.

Datasets are declared in glue.yaml, chinese.yaml and in files of other packages; no code names a dataset.
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
"""rows: a table of texts and a label. tags: tokens and tags, as lists or separated by \\x02. squad: nested JSON of
contexts with questions and answers."""
FORMS: dict[Head, Form] = {"classification": "rows", "regression": "rows", "tagging": "tags", "span": "squad"}
"""Head → form of the files. A multi-label dataset cannot be declared."""
Size = Literal["base", "large"]
_NAME = re.compile("[a-z0-9_]+")
_SPLIT = re.compile("train|(dev|test)(_[a-z0-9_]+)?")


class Files(SettingsModel):
    """The files of one split. Names are patterns (`*`), matched with and without .gz or .zst."""

    official: tuple[str, ...]
    """Only the first existing file is read. If none exists, every match of `subset` is read, else every match of
    `substitutes`."""
    rows: tuple[int, ...]
    """The official number of examples (several if releases differ)."""
    hub: str
    """The split's name in the parquet files of the Hugging Face Hub."""
    subset: tuple[str, ...] = ()
    """A part of the split."""
    substitutes: tuple[str, ...] = ()
    """Other text to use in place of the split."""

    @property
    def fallbacks(self) -> tuple[tuple[tuple[str, ...], Provenance], ...]:
        """Patterns to read if no official file exists, with their provenance."""
        return (self.subset, "subset"), (self.substitutes, "stand-in")

    def describe(self) -> str:
        """Return the accepted file names, for messages."""
        names = ", ".join((*self.official, *self.subset, *self.substitutes))
        return f"{names} (also with .gz or .zst), {self.hub}-*.parquet"


class Columns(SettingsModel):
    """Column names, each a list of alternatives that includes the Hub's name."""

    text: tuple[str, ...]
    pair: tuple[str, ...] = ()
    label: tuple[str, ...] = ("label",)
    id: tuple[str, ...] = ("index", "idx", "id")
    group: tuple[str, ...] = ()
    without_header: tuple[str, ...] = ()
    """Column names in order, for a .tsv or .csv without a header line."""


class PaperResult(SettingsModel):
    """One result that the paper reports: `values` of `parts`, the metrics of the dataset or the two halves of MNLI.

    Table 5's dev columns have the first part only. GLUE's dev results are medians of five runs, Table 6's are means;
    GLUE's test results are the server's, of single models.
    """

    model: str
    size: Size
    split: str
    parts: tuple[str, ...]
    values: tuple[float, ...]

    def describe(self) -> str:
        """Return 'ERNIE 2.0 base, test: 86.1 / 89.9 (accuracy / f1)'."""
        values, parts = " / ".join(f"{value:.1f}" for value in self.values), " / ".join(self.parts)
        return f"{self.model} {self.size}, {self.split}: {values} ({parts})"


class Dataset(SettingsModel):
    """One declared dataset."""

    name: str
    """Key of the entry: lower-case letters, digits and `_`; accepted by `--dataset`."""
    title: str
    """Name in messages and tables; also accepted by `--dataset`."""
    folders: tuple[str, ...]
    """Accepted names of its folder inside the folder `--data`."""
    head: Head
    """The kind of task."""
    metrics: tuple[str, ...] = Field(min_length=1)
    """Metrics in order, from those that `METRICS` in examples.py lists for the head."""
    splits: Mapping[str, Files]
    """Split name (train, dev, test, dev_… or test_…) → its files, or only a number of rows if its files are those of
    `files` at the top of the YAML file."""
    form: Form = "rows"
    """Form of the files; it must be the form of the head in `FORMS`."""
    columns: Columns | None = None
    """Columns to read; required in the forms rows and tags."""
    labels: tuple[str, ...] = ()
    """Classes or tags in the order of their ids; an integer label is an index into them. Empty for other heads."""
    aliases: Mapping[str, str] | None = None
    """Other spelling → label."""
    positive: str | None = None
    """The positive class, required for F1 and MRR."""
    answer_rules: Literal["squad", "cmrc2018", "dureader_robust"] | None = None
    """How answers of the head span are compared; default: squad."""
    scheme: Scheme | None = None
    """Tag scheme of the entities; required for entity_f1."""
    ragged: bool = False
    """True: rows with a wrong number of cells are skipped and counted."""
    traditional: bool = False
    """True: the official file is in Traditional Chinese and is converted to Simplified."""
    tolerance: float = 0.0
    """Relative difference from `rows` up to which a file counts as official."""
    stands_for: str | None = None
    """Dataset of the paper that this one replaces."""
    trained_on: str | None = None
    """Dataset whose fine-tuned model predicts this one."""
    settings: Mapping[Size, FineTuningSettings] = {}
    """The paper's fine-tuning settings for both model sizes; empty if those of another dataset apply."""
    reported: tuple[PaperResult, ...] = ()
    """Results that the paper reports: for each column at the top of the file, a value for each part, or a dash."""

    def problems(self) -> Iterator[str]:
        """Yield a message for each inconsistency."""
        metrics, ids = METRICS[self.head], self.head in ("classification", "tagging")
        if (form := FORMS.get(self.head)) is None:
            yield f"head: {self.head} cannot be declared, only {', '.join(FORMS)}."
        elif self.form != form:
            yield f"form: must be {form} for head {self.head} (got {self.form})."
        elif form != "squad" and self.columns is None:
            yield f"columns: this key is required in the form {form}."
        for name in self.metrics:
            if name not in metrics:
                hint = did_you_mean(name, metrics)
                yield f"metrics: head {self.head} has no {name!r}.{hint} Known here: {', '.join(metrics)}."
        if ids and (len(self.labels) < 2 or len(set(self.labels)) < len(self.labels)):
            yield f"labels: head {self.head} needs two different labels or more."
        elif self.labels and not ids:
            yield f"labels: head {self.head} has none."
        known = ", ".join(self.labels) or "none"
        if self.positive is not None and self.positive not in self.labels:
            hint = did_you_mean(self.positive, self.labels)
            yield f"positive: {self.positive!r} is none of the labels ({known}).{hint}"
        if ranked := [name for name in self.metrics if name in ("f1", "mrr")]:
            if self.positive is None:
                yield f"positive: {' and '.join(ranked)} needs it. Set it to one of {known}."
            if "mrr" in ranked and not (self.columns and self.columns.group):
                yield "columns.group: mrr needs the column with the question of each row."
        if unknown := [name for name in (self.aliases or {}).values() if name not in self.labels]:
            yield f"aliases: {', '.join(unknown)} is none of the labels ({known})."
        if "entity_f1" in self.metrics and self.scheme is None:
            yield "scheme: entity_f1 needs it."
        for key, head in (("scheme", "tagging"), ("answer_rules", "span")):
            if getattr(self, key) is not None and self.head != head:
                yield f"{key}: is only for head {head} (got {self.head})."
        for split in self.splits:
            if not _SPLIT.fullmatch(split):
                yield f"splits.{split}: must be train, dev, test, dev_NAME or test_NAME."
        if self.trained_on is not None and set(self.splits) != {"test"}:
            yield "splits: a dataset with trained_on has only the split test."
        elif self.trained_on is None and not (
            "train" in self.splits and any(name[:3] == "dev" for name in self.splits)
        ):
            yield "splits: train and dev are required."
        if not _NAME.fullmatch(self.name):
            yield "the name must consist of lower-case letters, digits and _."


class _DatasetsFile(SettingsModel):
    """A file of declarations; each dataset is validated separately."""

    sets: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, Mapping[str, Any]] = {}
    settings: Mapping[str, Any] = {}
    reported: tuple[tuple[str, str, str], ...] = ()


def declared_groups() -> dict[str, dict[str, Dataset]]:
    """Return all declared datasets by group and name: ours, then those of other packages.

    A package declares its file NAME.yaml as an entry point `NAME = "package"` of the group `ernie2.datasets`. Raises
    `DataError` for a file that cannot be read, a name that is declared twice, or an inconsistent declaration.
    """
    groups = {name: _read(resources.files("ernie2.datasets"), name, {}) for name in ("glue", "chinese")}
    for entry in entry_points(group="ernie2.datasets"):
        known = {name: one for sets in groups.values() for name, one in sets.items()}
        try:
            sets = _read(resources.files(entry.value), entry.name, known)
        except (Ernie2Error, ImportError, OSError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise DataError(f"datasets {entry.name!r} of package {entry.value!r} cannot be read: {error}") from error
        if duplicates := {entry.name, *sets} & {*groups, *known}:
            raise DataError(f"package {entry.value!r} declares {', '.join(sorted(duplicates))}, which exists already.")
        groups[entry.name] = sets
    return groups


def _read(folder: Traversable, group: str, others: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """Return the datasets in the file of `group`, by name; they may refer to each other and to `others`.

    A split given as a number has that many rows. Keys missing in a split come from `files`, and keys missing in
    settings from `settings`, at the top of the file.
    """
    if not _NAME.fullmatch(group):
        raise DataError(f"the name {group!r} must consist of lower-case letters, digits and _.")
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
                problems.append(f"{key}: no dataset is called {other!r}.{did_you_mean(other, known)}")
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
    """Return the results in a table {parts: […], figures: "71.2/80.1 - …"}, without dashes."""
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
