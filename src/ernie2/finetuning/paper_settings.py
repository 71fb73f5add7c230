"""How the paper fine-tunes (Tables 3 and 4), with what only the authors' scripts say; data, not branches in a loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Size = Literal["base", "large"]

LARGE_LAYERS = 24
"""From this many layers on, the paper's settings for its large model are taken."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One row of Table 3 or 4 for one model size. `batch` counts examples over all devices.

    From the scripts, not the paper: `max_length` (tokens, special ones included; pairs are cut longest first),
    `schedule` with `warmup_share` of the steps, `decay_from_zero` (the linear decay counts from step 0, so the rate
    reaches (1 - warmup_share) · peak_lr only), `weight_decay` (decoupled, not on biases and norms), `clip` (global
    norm), `stride` to `max_answer` (spans: tokens between windows, of the question, of an answer), `n_best`, and
    `task_id`, the row of the task embedding. `runs` runs are summarised by their `summary`.
    """

    epochs: int
    peak_lr: float
    batch: int
    max_length: int
    schedule: Literal["linear", "constant"]
    warmup_share: float
    weight_decay: float
    summary: Literal["median", "mean"]
    decay_from_zero: bool = True
    clip: float = 1.0
    dropout: float = 0.1
    stride: int = 128
    max_query: int = 64
    max_answer: int = 100
    n_best: int = 20
    task_id: int = 0
    runs: int = 5
    attention_dropout: float | None = None
    """None: as the checkpoint says."""
    pooling: Literal["first", "mean"] = "first"
    """What a sentence-level head reads: the pooled [CLS] (paper), or the mean of the hidden states (ours)."""
    betas: tuple[float, float] = (0.9, 0.999)
    adam_eps: float = 1e-8
    """Adam's, as the scripts leave them: the defaults of their library."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """auto: bf16 where the device computes in it."""
    pack_tokens: int = 4096
    """Most tokens that go through the encoder at once; a batch is accumulated over as many packs as it needs. Changes
    memory and masks of dropout, nothing else."""
    train_examples: int | None = None
    """Train on so many examples instead of all; the set is called a subset then."""


def settings_for(name: str, size: Size) -> Settings:
    """The settings of the data set `name` (a key of `datasets.declared.DATASETS`); a stand-in has those of what it
    stands for, and AX, which is predicted by the MNLI model, those of MNLI."""
    return PAPER_SETTINGS[_SAME_AS.get(name, name)][("base", "large").index(size)]


def size_for(layers: int) -> Size:
    """Whose settings a model of this many layers takes: base below 24, large from there on."""
    return "large" if layers >= LARGE_LAYERS else "base"


def _glue(epochs: int, peak_lr: float, batch: int, *, max_length: int = 128) -> Settings:
    return Settings(
        epochs=epochs,
        peak_lr=peak_lr,
        batch=batch,
        max_length=max_length,
        schedule="linear",
        warmup_share=0.1,
        weight_decay=0.0,
        summary="median",
    )


def _chinese(
    epochs: int,
    peak_lr: float,
    batch: int,
    *,
    max_length: int,
    weight_decay: float = 0.01,
    task_id: int = 0,
) -> Settings:
    return Settings(
        epochs=epochs,
        peak_lr=peak_lr,
        batch=batch,
        max_length=max_length,
        schedule="constant",
        warmup_share=0.0,
        weight_decay=weight_decay,
        summary="mean",
        task_id=task_id,
    )


PAPER_SETTINGS: dict[str, tuple[Settings, Settings]] = {
    "cola": (_glue(3, 3e-5, 64), _glue(5, 3e-5, 32)),
    "sst2": (_glue(4, 2e-5, 256), _glue(4, 2e-5, 64)),
    "mrpc": (_glue(4, 3e-5, 32), _glue(4, 3e-5, 16)),
    "stsb": (_glue(3, 5e-5, 128), _glue(3, 5e-5, 128)),
    "qqp": (_glue(3, 3e-5, 256), _glue(3, 5e-5, 256)),
    "mnli": (_glue(3, 3e-5, 512), _glue(3, 3e-5, 256)),
    "qnli": (_glue(4, 2e-5, 256), _glue(4, 2e-5, 256)),
    "rte": (_glue(4, 2e-5, 4), _glue(5, 3e-5, 16)),
    "wnli": (_glue(4, 2e-5, 8, max_length=512), _glue(4, 2e-5, 8, max_length=512)),
    "cmrc2018": (_chinese(2, 3e-5, 64, max_length=512), _chinese(2, 3e-5, 64, max_length=512)),
    "drcd": (_chinese(2, 5e-5, 64, max_length=512), _chinese(2, 3e-5, 64, max_length=512)),
    # length and stride of DuReader are ours: its script was not released
    "dureader": (_chinese(2, 5e-5, 64, max_length=512), _chinese(2, 2e-5, 64, max_length=512)),
    "msra_ner": (_chinese(6, 5e-5, 16, max_length=256), _chinese(6, 1e-5, 16, max_length=256)),
    "xnli": (_chinese(3, 1e-4, 512, max_length=512), _chinese(3, 4e-5, 512, max_length=512)),
    "chnsenticorp": (_chinese(10, 5e-5, 24, max_length=256), _chinese(10, 1e-5, 24, max_length=256)),
    "lcqmc": (
        _chinese(3, 2e-5, 32, max_length=128, weight_decay=0.0),
        _chinese(3, 5e-6, 32, max_length=128, weight_decay=0.0),
    ),
    # the script of the base model alone passes a task id
    "bq": (_chinese(3, 3e-5, 64, max_length=128, task_id=2), _chinese(3, 1.5e-5, 64, max_length=128)),
    "dbqa": (_chinese(3, 2e-5, 64, max_length=512), _chinese(3, 1e-5, 64, max_length=512)),
}
"""data set -> (base, large), in the order of Tables 3 and 4."""
_SAME_AS = {"ax": "mnli", "dureader_robust": "dureader", "para_rank": "dbqa"}
