"""Which settings fine-tuning starts from: the paper's, as declared with each set, or ours for own data."""

from __future__ import annotations

from ernie2.config.finetuning_settings import FineTuningSettings
from ernie2.datasets.declarations import Size
from ernie2.datasets.declared import DATASETS
from ernie2.datasets.examples import Head

LARGE_LAYERS = 24
"""From this many layers on, the paper's settings for its large model are taken."""
OWN = FineTuningSettings(
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


def own_settings(head: Head) -> FineTuningSettings:
    """Where own data of a kind of task start from: `OWN`, with longer sequences for spans and tags."""
    return OWN.model_copy(update={"max_length": {"span": 384, "tagging": 256}.get(head, 128)})


def settings_for(name: str, size: Size) -> FineTuningSettings:
    """The paper's settings of the data set `name` (a key of `datasets.declared.DATASETS`), as declared.

    A stand-in has those of what it stands for, and AX, which is predicted by the MNLI model, those of MNLI; a set
    without any starts where own data do.
    """
    dataset = DATASETS[name]
    declared = DATASETS[dataset.stands_for or dataset.trained_on or name].settings
    return declared.get(size) or own_settings(dataset.head)


def size_for(layers: int) -> Size:
    """Whose settings a model of this many layers takes: base below 24, large from there on."""
    return "large" if layers >= LARGE_LAYERS else "base"
