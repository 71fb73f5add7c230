"""The paper's settings and figures, as declared with each set: where fine-tuning starts from, and what stands beside a
result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ernie2.config.finetuning_settings import FineTuningSettings
from ernie2.datasets.declarations import PaperResult, Size
from ernie2.datasets.examples import Head, LabelledData
from ernie2.datasets.registry import DATASETS

LARGE_LAYERS = 24
"""From this many layers on, the paper's settings for its large model are taken."""
PAPER_SHAPES: dict[Size, tuple[int, int]] = {"base": (12, 768), "large": (24, 1024)}
"""Layers and width of the paper's encoders."""
DEFAULT_SETTINGS = FineTuningSettings(
    epochs=3,
    peak_lr=3e-5,
    batch=32,
    max_length=128,
    schedule="linear",
    warmup_share=0.1,
    weight_decay=0.01,
    summary="mean",
)
"""Where a user's own data start from; ours, in the middle of what the paper uses."""


def default_settings(head: Head) -> FineTuningSettings:
    """Where own data of a kind of task start from: `DEFAULT_SETTINGS`, with longer sequences for spans and tags."""
    return DEFAULT_SETTINGS.model_copy(update={"max_length": {"span": 384, "tagging": 256}.get(head, 128)})


def settings_for(name: str, size: Size) -> FineTuningSettings:
    """The paper's settings of the data set `name` (a key of `datasets.registry.DATASETS`), as declared.

    A stand-in has those of what it stands for, and AX, which is predicted by the MNLI model, those of MNLI; a set
    without any starts where own data do.
    """
    return _declared_settings(name).get(size) or default_settings(DATASETS[name].head)


def settings_origin(name: str, size: Size) -> str:
    """Where the settings of a data set, declared or not, start from, in words: what `settings_for` took."""
    declared = _declared_settings(name) if name in DATASETS else {}
    if size in declared:
        return f"settings of the {size} model"
    return "settings for own data" + (f", as {name} declares none for a {size} model" if declared else "")


def _declared_settings(name: str) -> Mapping[Size, FineTuningSettings]:
    dataset = DATASETS[name]
    return DATASETS[dataset.stands_for or dataset.trained_on or name].settings


def size_for(layers: int) -> Size:
    """Whose settings a model of this many layers takes: base below 24, large from there on."""
    return "large" if layers >= LARGE_LAYERS else "base"


def paper_rows(name: str, size: Size, split: str) -> list[PaperResult]:
    """What the paper reports for a data set, a model size and a split ('dev' or 'test'); nothing where it is silent."""
    return [row for row in DATASETS[name].reported if (row.size, row.split) == (size, split)]


def paper_comparison(data: LabelledData, shape: tuple[int, int], split: str) -> tuple[Sequence[PaperResult], str]:
    """(the paper's rows that may stand beside a result of `data` on `split`, what to say of the comparison).

    `shape`: layers and width of the fine-tuned encoder. No rows for a set that is not the paper's, and none where
    training or this split used stand-in text. With a subset, or an encoder of another shape than the paper's, the rows
    are given and the words say so. For one half of MNLI (`dev_matched`, …) the rows hold that half's figure.
    """
    size = size_for(shape[0])
    whole, _, half = split.partition("_")
    used = [data.splits[one] for one in ("train", split) if one in data.splits]
    if any(part.provenance in ("stand-in", "own") for part in used):
        return (), "The paper's figures are not shown: this is not the paper's data, or part of it stands in."
    rows = paper_rows(data.name, size, whole)
    if half:
        rows = [
            row.model_copy(update={"parts": (part,), "values": (value,)})
            for row in rows
            for part, value in zip(row.parts, row.values, strict=True)
            if part.startswith(half)
        ]
    if not rows:
        return (), f"The paper reports no figure for {data.name}, a {size} model, {split}."
    subset = [one for one in ("train", split) if one in data.splits and data.splits[one].provenance == "subset"]
    differs = [f"only a subset of {' and '.join(subset)} was used"] if subset else []
    if shape != (theirs := PAPER_SHAPES[size]):
        differs.append(f"this encoder has {shape[0]} layers × {shape[1]}, the paper's {theirs[0]} × {theirs[1]}")
    return rows, f"Not comparable as it stands: {'; '.join(differs)}." if differs else "Full data."
