"""Settings and results of the paper, as declared with each dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ernie2.config.finetuning_settings import FineTuningSettings
from ernie2.datasets.declarations import PaperResult, Size
from ernie2.datasets.examples import Head, LabelledData
from ernie2.datasets.registry import DATASETS

LARGE_LAYERS = 24
"""Models with this many layers or more get the paper's settings for its large model."""
PAPER_SHAPES: dict[Size, tuple[int, int]] = {"base": (12, 768), "large": (24, 1024)}
"""Layers and width of the paper's encoders."""
DEFAULT_SETTINGS = FineTuningSettings(
    epochs=3,
    peak_lr=3e-5,
    batch_size=32,
    max_length=128,
    schedule="linear",
    warmup_ratio=0.1,
    weight_decay=0.01,
    summary="mean",
)
"""Defaults for a user's own data: ours, in the middle of the paper's range."""


def default_settings(head: Head) -> FineTuningSettings:
    """Return `DEFAULT_SETTINGS`, with longer sequences for spans and tags."""
    return DEFAULT_SETTINGS.model_copy(update={"max_length": {"span": 384, "tagging": 256}.get(head, 128)})


def settings_for(name: str, size: Size) -> FineTuningSettings:
    """Return the declared settings of the dataset `name`, a key of `datasets.registry.DATASETS`.

    A stand-in has the settings of the dataset it replaces. AX has those of MNLI, whose model predicts it. A dataset
    without settings has those of `default_settings`.
    """
    return _declared_settings(name).get(size) or default_settings(DATASETS[name].head)


def settings_origin(name: str, size: Size) -> str:
    """Describe which settings `settings_for` returns; `name` may be undeclared."""
    declared = _declared_settings(name) if name in DATASETS else {}
    if size in declared:
        return f"settings of the {size} model"
    return "settings for own data" + (f", as {name} declares none for a {size} model" if declared else "")


def _declared_settings(name: str) -> Mapping[Size, FineTuningSettings]:
    dataset = DATASETS[name]
    return DATASETS[dataset.stands_for or dataset.trained_on or name].settings


def size_for(layers: int) -> Size:
    """Return the paper's model size for a number of layers: base below 24, else large."""
    return "large" if layers >= LARGE_LAYERS else "base"


def paper_rows(name: str, size: Size, split: str) -> list[PaperResult]:
    """Return the paper's results for a dataset, a model size and a split ('dev' or 'test'); [] without any."""
    return [row for row in DATASETS[name].reported if (row.size, row.split) == (size, split)]


def paper_comparison(data: LabelledData, shape: tuple[int, int], split: str) -> tuple[Sequence[PaperResult], str]:
    """Return (the paper's results to show with ours of `data` on `split`, a note on the comparison).

    `shape`: layers and width of the encoder. There are no rows for a dataset that is not the paper's, or if training
    or this split used stand-in text. For a subset, or an encoder of another shape than the paper's, the note says that
    they are not comparable. For one half of MNLI (`dev_matched`, …) the rows hold the result of that half.
    """
    size = size_for(shape[0])
    base_split, _, half = split.partition("_")
    used = [data.splits[one] for one in ("train", split) if one in data.splits]
    if any(part.provenance in ("stand-in", "own") for part in used):
        return (), "The paper's results are not shown: some of this data is not the paper's."
    rows = paper_rows(data.name, size, base_split)
    if half:
        rows = [
            row.model_copy(update={"parts": (part,), "values": (value,)})
            for row in rows
            for part, value in zip(row.parts, row.values, strict=True)
            if part.startswith(half)
        ]
    if not rows:
        return (), f"The paper reports no result for {data.name}, {size} model, {split}."
    subset = [one for one in ("train", split) if one in data.splits and data.splits[one].provenance == "subset"]
    differs = [f"only a subset of {' and '.join(subset)} was used"] if subset else []
    if shape != (theirs := PAPER_SHAPES[size]):
        differs.append(f"this encoder has {shape[0]} layers × {shape[1]}, the paper's {theirs[0]} × {theirs[1]}")
    return rows, f"Not comparable: {'; '.join(differs)}." if differs else "Full data."
