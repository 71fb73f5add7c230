"""Every declared data set, by name, and from a folder to examples.

data = load_dataset("mrpc", "glue_data")       # the official folder, the set's own folder, or a snapshot of the Hub's
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
"""name -> declaration."""
GROUPS: dict[str, tuple[str, ...]] = {group: tuple(sets) for group, sets in _GROUPS.items()}
"""What `--dataset glue`, `--dataset chinese` and the names of announced groups run."""


def find_dataset(name: str) -> Dataset:
    """The declaration of this name, in any case. Raises `DataError` with the nearest name when there is none."""
    key = name.lower().replace("-", "").replace(" ", "_")
    for known, dataset in DATASETS.items():
        if key in (known, dataset.title.lower().replace("-", "").replace(" ", "_")):
            return dataset
    known_names = (*DATASETS, *GROUPS)
    raise DataError(
        f"no data set is called {name!r}.{did_you_mean(name.lower(), known_names)} Known: {', '.join(known_names)}. "
        "For a file of your own give --train, --text and --label instead."
    )


def load_dataset(name: str, folder: str | None = None, files: Mapping[str, str] | None = None) -> LabelledData:
    """The data set `name` with every split that is found in `folder` or named in `files` (split -> file).

    `folder` is the official folder of folders, the set's own, or a snapshot of the Hub's parquet files, anywhere fsspec
    reaches. Raises `DataError` when no split is found, for an unknown split, and for a file that cannot be read.
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
        where = f"{folder} holds" if folder is not None else "there are"
        raise DataError(
            f"{where} no file of {dataset.title}. Looked in the folder itself and in {', '.join(dataset.folders)} for "
            + "; ".join(f"{split}: {names}" for split, names in accepted.items())
            + ". Name the files explicitly if they are called otherwise."
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
    """(names of the group's sets that lie in folders of their own inside `folder`, names of those that do not)."""
    if group not in GROUPS:
        raise DataError(f"no group is called {group!r}.{did_you_mean(group, GROUPS)} Known: {', '.join(GROUPS)}.")
    there = tuple(name for name in GROUPS[group] if find_files(DATASETS[name], folder, include_root=False))
    return there, tuple(name for name in GROUPS[group] if name not in there)


def _read(dataset: Dataset, split: str, found: SplitFiles) -> Split:
    examples: list[Example] = []
    notes: list[str] = []
    for file in found.files:
        read = read_spans if dataset.form == "squad" else read_labelled
        more, said = read(dataset, file, labelled=not split.startswith("test"))
        examples += more
        notes += said
    if not examples:
        raise DataError(f"{', '.join(found.files)}: no example in it; check that the file is whole.")
    if bare := sum(example.label is None for example in examples):
        notes.append(f"{found.files[0]}: {bare:,} of {len(examples):,} examples have no label; {split} is not measured")
    if len(found.files) > 1:  # ids have to be distinct
        examples = [replace(example, id=str(number)) for number, example in enumerate(examples)]
    return Split(
        tuple(examples),
        found.files,
        _provenance(dataset, dataset.splits[split], found.provenance, len(examples)),
        tuple(notes),
    )


def _provenance(dataset: Dataset, declared: Files, by_name: Provenance, examples: int) -> Provenance:
    """By name first, then by number: fewer examples than official are a subset, more of them are other data."""
    if by_name != "official":
        return by_name
    if any(abs(examples - rows) <= dataset.tolerance * rows for rows in declared.rows):
        # a set that stands in for another is official as itself, and says for which set it stands by its declaration
        return "stand-in" if dataset.stands_for else "official"
    return "subset" if examples < max(declared.rows) and not dataset.stands_for else "stand-in"
