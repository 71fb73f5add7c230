"""How the paper fine-tunes (Tables 3 and 4) with what only the authors' scripts say, and where own data start from."""

from __future__ import annotations

from typing import Any, Literal

from ernie2.config.finetuning_settings import FineTuningSettings
from ernie2.datasets.examples import Head

Size = Literal["base", "large"]

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
    """The settings of the data set `name` (a key of `datasets.declared.DATASETS`); a stand-in has those of what it
    stands for, and AX, which is predicted by the MNLI model, those of MNLI."""
    return PAPER_SETTINGS[_SAME_AS.get(name, name)][("base", "large").index(size)]


def size_for(layers: int) -> Size:
    """Whose settings a model of this many layers takes: base below 24, large from there on."""
    return "large" if layers >= LARGE_LAYERS else "base"


def _glue(epochs: int, peak_lr: float, batch: int, max_length: int = 128) -> FineTuningSettings:
    script = {"schedule": "linear", "warmup_share": 0.1, "weight_decay": 0.0, "summary": "median"}
    return _row(epochs, peak_lr, batch, max_length, **script)


def _chinese(epochs: int, peak_lr: float, batch: int, max_length: int, **changes: Any) -> FineTuningSettings:
    script = {"schedule": "constant", "warmup_share": 0.0, "weight_decay": 0.01, "summary": "mean"}
    return _row(epochs, peak_lr, batch, max_length, **(script | changes))


def _row(epochs: int, peak_lr: float, batch: int, max_length: int, **rest: Any) -> FineTuningSettings:
    return FineTuningSettings(epochs=epochs, peak_lr=peak_lr, batch=batch, max_length=max_length, **rest)


PAPER_SETTINGS: dict[str, tuple[FineTuningSettings, FineTuningSettings]] = {
    "cola": (_glue(3, 3e-5, 64), _glue(5, 3e-5, 32)),
    "sst2": (_glue(4, 2e-5, 256), _glue(4, 2e-5, 64)),
    "mrpc": (_glue(4, 3e-5, 32), _glue(4, 3e-5, 16)),
    "stsb": (_glue(3, 5e-5, 128), _glue(3, 5e-5, 128)),
    "qqp": (_glue(3, 3e-5, 256), _glue(3, 5e-5, 256)),
    "mnli": (_glue(3, 3e-5, 512), _glue(3, 3e-5, 256)),
    "qnli": (_glue(4, 2e-5, 256), _glue(4, 2e-5, 256)),
    "rte": (_glue(4, 2e-5, 4), _glue(5, 3e-5, 16)),
    "wnli": (_glue(4, 2e-5, 8, 512), _glue(4, 2e-5, 8, 512)),
    "cmrc2018": (_chinese(2, 3e-5, 64, 512), _chinese(2, 3e-5, 64, 512)),
    "drcd": (_chinese(2, 5e-5, 64, 512), _chinese(2, 3e-5, 64, 512)),
    # length and stride of DuReader are ours: its script was not released
    "dureader": (_chinese(2, 5e-5, 64, 512), _chinese(2, 2e-5, 64, 512)),
    "msra_ner": (_chinese(6, 5e-5, 16, 256), _chinese(6, 1e-5, 16, 256)),
    "xnli": (_chinese(3, 1e-4, 512, 512), _chinese(3, 4e-5, 512, 512)),
    "chnsenticorp": (_chinese(10, 5e-5, 24, 256), _chinese(10, 1e-5, 24, 256)),
    "lcqmc": (_chinese(3, 2e-5, 32, 128, weight_decay=0.0), _chinese(3, 5e-6, 32, 128, weight_decay=0.0)),
    # the script of the base model alone passes a task id
    "bq": (_chinese(3, 3e-5, 64, 128, task_id=2), _chinese(3, 1.5e-5, 64, 128)),
    "dbqa": (_chinese(3, 2e-5, 64, 512), _chinese(3, 1e-5, 64, 512)),
}
"""data set -> (base, large), in the order of Tables 3 and 4."""
_SAME_AS = {"ax": "mnli", "dureader_robust": "dureader", "para_rank": "dbqa"}
