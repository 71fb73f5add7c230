"""What the paper reports (Tables 5 and 6), as data: every figure with its model, size and split.

A figure is printed beside one of ours only for the same split of the official set, and what differs (a subset, an
encoder of another shape) is said; `beside` decides that.
"""

from __future__ import annotations

from dataclasses import dataclass

from ernie2.datasets.declarations import Size
from ernie2.datasets.examples import LabelledData
from ernie2.finetuning.paper_settings import size_for

SHAPES: dict[Size, tuple[int, int]] = {"base": (12, 768), "large": (24, 1024)}
"""Layers and width of the paper's encoders."""


@dataclass(frozen=True, slots=True)
class PaperRow:
    """One reported figure. `values` follow `parts`: the metrics of the data set, or the two halves of MNLI.

    Table 5's dev columns give the first part only. GLUE's dev figures are medians and Table 6's are means of five runs;
    GLUE's test figures are the server's, of single models.
    """

    dataset: str
    model: str
    size: Size
    split: str
    parts: tuple[str, ...]
    values: tuple[float, ...]

    @property
    def described(self) -> str:
        """'ERNIE 2.0 base, test: 86.1 / 89.9 (accuracy / f1)'."""
        figures, parts = " / ".join(f"{value:.1f}" for value in self.values), " / ".join(self.parts)
        return f"{self.model} {self.size}, {self.split}: {figures} ({parts})"


def paper_rows(name: str, size: Size, split: str) -> tuple[PaperRow, ...]:
    """What the paper reports for a data set, a model size and a split ('dev' or 'test'); nothing where it is silent."""
    return tuple(row for row in PAPER_ROWS if (row.dataset, row.size, row.split) == (name, size, split))


def beside(data: LabelledData, shape: tuple[int, int], split: str) -> tuple[tuple[PaperRow, ...], str]:
    """(the paper's rows that may stand beside a result of `data` on `split`, what to say of the comparison).

    `shape`: layers and width of the encoder that was tuned. No rows for a set that is not the paper's, and none where
    training or this split used stand-in text. With a subset, or an encoder of another shape than the paper's, the rows
    are given and the words say so. For one half of MNLI (`dev_matched`, …) the rows hold that half's figure.
    """
    size = size_for(shape[0])
    whole, _, half = split.partition("_")
    used = [data.splits[one] for one in ("train", split) if one in data.splits]
    if any(part.standing in ("stand-in", "own") for part in used):
        return (), "The paper's figures are not shown: this is not the paper's data, or part of it stands in."
    rows = paper_rows(data.name, size, whole)
    if half:
        rows = tuple(one for row in rows if (one := _part(row, half)) is not None)
    if not rows:
        return (), f"The paper reports no figure for {data.name}, a {size} model, {split}."
    subset = [one for one in ("train", split) if one in data.splits and data.splits[one].standing == "subset"]
    differs = [f"only a subset of {' and '.join(subset)} was used"] if subset else []
    if shape != (theirs := SHAPES[size]):
        differs.append(f"this encoder has {shape[0]} layers × {shape[1]}, the paper's {theirs[0]} × {theirs[1]}")
    return rows, f"Not comparable as it stands: {'; '.join(differs)}." if differs else "Full data."


def _part(row: PaperRow, half: str) -> PaperRow | None:
    """The row of one half of MNLI; None where the paper gives the other half only."""
    for part, value in zip(row.parts, row.values, strict=True):
        if part.startswith(half):
            return PaperRow(row.dataset, row.model, row.size, row.split, (part,), (value,))
    return None


_TABLE_5 = {
    # base test: BERT, ERNIE 2.0 · large dev: BERT, XLNet, ERNIE 2.0 · large test: BERT, ERNIE 2.0
    "cola": (("matthews",), "52.1 55.2 60.6 63.6 65.4 60.5 63.5"),
    "sst2": (("accuracy",), "93.5 95.0 93.2 95.6 96.0 94.9 95.6"),
    "mrpc": (("accuracy", "f1"), "84.8/88.9 86.1/89.9 88.0/- 89.2/- 89.7/- 85.4/89.3 87.4/90.2"),
    "stsb": (("pearson", "spearman"), "87.1/85.8 87.6/86.5 90.0/- 91.8/- 92.3/- 87.6/86.5 91.2/90.6"),
    "qqp": (("accuracy", "f1"), "89.2/71.2 89.8/73.2 91.3/- 91.8/- 92.5/- 89.3/72.1 90.1/73.8"),
    "mnli": (
        ("matched accuracy", "mismatched accuracy"),
        "84.6/83.4 86.1/85.5 86.6/- 89.8/- 89.1/- 86.7/85.9 88.7/88.8",
    ),
    "qnli": (("accuracy",), "90.5 92.9 92.3 93.9 94.3 92.7 94.6"),
    "rte": (("accuracy",), "66.4 74.8 70.4 83.8 85.2 70.1 80.2"),
    "wnli": (("accuracy",), "65.1 65.1 - - - 65.1 67.8"),
    "ax": (("matthews",), "34.2 37.4 - - - 39.6 48.0"),
}
_COLUMNS_5: tuple[tuple[str, Size, str], ...] = (
    *((model, "base", "test") for model in ("BERT", "ERNIE 2.0")),
    *((model, "large", "dev") for model in ("BERT", "XLNet", "ERNIE 2.0")),
    *((model, "large", "test") for model in ("BERT", "ERNIE 2.0")),
)
_TABLE_6 = {
    # dev and test of BERT base, ERNIE 1.0 base, ERNIE 2.0 base, ERNIE 2.0 large
    "cmrc2018": (("exact_match", "answer_f1"), "66.3/85.9 - 65.1/85.1 - 69.1/88.6 - 71.5/89.9 -"),
    "drcd": (
        ("exact_match", "answer_f1"),
        "85.7/91.6 84.9/90.9 84.6/90.9 84.0/90.5 88.5/93.8 88.0/93.4 89.7/94.7 89.0/94.2",
    ),
    "dureader": (("exact_match", "answer_f1"), "59.5/73.1 - 57.9/72.1 - 61.3/74.9 - 64.2/77.3 -"),
    "msra_ner": (("entity_f1",), "94.0 92.6 95.0 93.8 95.2 93.8 96.3 95.0"),
    "xnli": (("accuracy",), "78.1 77.2 79.9 78.4 81.2 79.7 82.6 81.0"),
    "chnsenticorp": (("accuracy",), "94.6 94.3 95.2 95.4 95.7 95.5 96.1 95.8"),
    "lcqmc": (("accuracy",), "88.8 87.0 89.7 87.4 90.9 87.9 90.9 87.9"),
    "bq": (("accuracy",), "85.9 84.8 86.1 84.8 86.4 85.0 86.5 85.2"),
    "dbqa": (("mrr", "f1"), "94.7/80.7 94.6/80.8 95.0/82.3 95.1/82.7 95.7/84.7 95.7/85.3 95.9/85.3 95.8/85.8"),
}
_MODELS_6: tuple[tuple[str, Size], ...] = (
    ("BERT", "base"),
    ("ERNIE 1.0", "base"),
    ("ERNIE 2.0", "base"),
    ("ERNIE 2.0", "large"),
)
_COLUMNS_6 = tuple((model, size, split) for model, size in _MODELS_6 for split in ("dev", "test"))


def _rows(
    table: dict[str, tuple[tuple[str, ...], str]], columns: tuple[tuple[str, Size, str], ...]
) -> tuple[PaperRow, ...]:
    made = []
    for dataset, (parts, cells) in table.items():
        for (model, size, split), cell in zip(columns, cells.split(), strict=True):
            values = tuple(float(value) for value in cell.split("/") if value != "-")
            if values:
                made.append(PaperRow(dataset, model, size, split, parts[: len(values)], values))
    return tuple(made)


PAPER_ROWS = (*_rows(_TABLE_5, _COLUMNS_5), *_rows(_TABLE_6, _COLUMNS_6))
"""Every figure of Tables 5 and 6."""
