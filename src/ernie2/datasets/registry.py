"""Declared datasets by name, and loading of their examples from a folder.

data = load_dataset("mrpc", "glue_data")       # the official folder, the dataset's folder, or a snapshot of the Hub's
data.splits["train"].examples[0]       # Example(id='0', text=…, pair=…, label='1')
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ernie2.datasets.declarations import Dataset, Files, declared_groups
from ernie2.datasets.examples import Example, LabelledData, Provenance, Split
from ernie2.datasets.labelled_files import read_labelled
from ernie2.datasets.official_files import SplitFiles, find_files, match_given_file
from ernie2.datasets.span_files import read_spans
from ernie2.errors import DataError, did_you_mean

_GROUPS = declared_groups()
DATASETS: dict[str, Dataset] = {name: one for sets in _GROUPS.values() for name, one in sets.items()}
"""Name → declaration."""
GROUPS: dict[str, tuple[str, ...]] = {group: tuple(sets) for group, sets in _GROUPS.items()}
"""Group → names; `--dataset` accepts glue, chinese and groups of other packages."""


def find_dataset(name: str) -> Dataset:
    """Return the declaration of a name or title, case-insensitively. Raises `DataError` with the nearest name."""
    key = name.lower().replace("-", "").replace(" ", "_")
    for known, dataset in DATASETS.items():
        if key in (known, dataset.title.lower().replace("-", "").replace(" ", "_")):
            return dataset
    known_names = (*DATASETS, *GROUPS)
    raise DataError(
        f"no dataset is called {name!r}.{did_you_mean(name.lower(), known_names)} Known: {', '.join(known_names)}. "
        "For your own files, use --train, --text and --label instead."
    )


def load_dataset(name: str, folder: str | None = None, files: Mapping[str, str] | None = None) -> LabelledData:
    """Load the dataset `name` with all splits in `folder` or named in `files` (split → file).

    `folder` is the official folder of all datasets, the folder of this one, or a snapshot of the Hub's parquet files; a
    path or an fsspec URL. Raises `DataError` for missing or unknown splits and for unreadable files.
    """
    dataset = find_dataset(name)
    found = find_files(dataset, folder) if folder is not None else {}
    for split, file in (files or {}).items():
        if split not in dataset.splits:
            raise DataError(
                f"{dataset.name} has no split {split!r}.{did_you_mean(split, dataset.splits)} "
                f"It has: {', '.join(dataset.splits)}."
            )
        found[split] = match_given_file(file, dataset.splits[split])
    accepted = {split: declared.describe() for split, declared in dataset.splits.items()}
    if not found:
        where = f"{folder} holds" if folder is not None else "there is"
        raise DataError(
            f"{where} no file of {dataset.title}. Looked in the folder itself and in {', '.join(dataset.folders)} for "
            + "; ".join(f"{split}: {names}" for split, names in accepted.items())
            + ". If the files have other names, name them explicitly."
        )
    return LabelledData(
        name=dataset.name,
        head=dataset.head,
        labels=dataset.labels,
        metrics=dataset.metrics,
        splits={split: _read(dataset, split, found[split]) for split in dataset.splits if split in found},
        positive=dataset.positive,
        answer_rules=dataset.answer_rules,
        scheme=dataset.scheme,
        trained_on=dataset.trained_on,
        texts=(columns.text[0], *columns.pair[:1]) if (columns := dataset.columns) else ("question", "context"),
        reasons=(f"tag scheme: {dataset.scheme}, as declared",) if dataset.scheme is not None else (),
        accepted=accepted,
    )


def find_available(group: str, folder: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return (names of the group's datasets with a folder inside `folder`, names of the others)."""
    if group not in GROUPS:
        raise DataError(f"no group is called {group!r}.{did_you_mean(group, GROUPS)} Known: {', '.join(GROUPS)}.")
    present = tuple(name for name in GROUPS[group] if find_files(DATASETS[name], folder, include_root=False))
    return present, tuple(name for name in GROUPS[group] if name not in present)


def _read(dataset: Dataset, split: str, found: SplitFiles) -> Split:
    examples: list[Example] = []
    notes: list[str] = []
    for file in found.files:
        read = read_spans if dataset.form == "squad" else read_labelled
        file_examples, file_notes = read(dataset, file, labelled=not split.startswith("test"))
        examples += file_examples
        notes += file_notes
    if not examples:
        raise DataError(f"{', '.join(found.files)}: no example in it; check that the file is complete.")
    if bare := sum(example.label is None for example in examples):
        notes.append(f"{found.files[0]}: {bare:,} of {len(examples):,} examples have no label; {split} is not measured")
    if len(found.files) > 1:  # ids must be unique
        examples = [replace(example, id=str(number)) for number, example in enumerate(examples)]
    return Split(
        tuple(examples),
        found.files,
        _provenance(dataset, dataset.splits[split], found.provenance, len(examples)),
        tuple(notes),
    )


def _provenance(dataset: Dataset, declared: Files, by_name: Provenance, examples: int) -> Provenance:
    """Return the provenance by file name, then by count: fewer examples are a subset, more are other data."""
    if by_name != "official":
        return by_name
    if any(abs(examples - rows) <= dataset.tolerance * rows for rows in declared.rows):
        # a dataset that replaces another is complete, but not the paper's
        return "stand-in" if dataset.stands_for else "official"
    return "subset" if examples < max(declared.rows) and not dataset.stands_for else "stand-in"
