"""Settings of fine-tuning: one row of Table 3 or 4 of the paper, completed from the authors' scripts."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from ernie2.config.base import SettingsModel

Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


def _listed(value: Any) -> Any:
    """Split `0.9,0.98`, as given on the command line, into a list."""
    return value.split(",") if isinstance(value, str) else value


class FineTuningSettings(SettingsModel):
    """How a checkpoint is fine-tuned on one dataset."""

    RENAMED: ClassVar = {
        "batch": "batch_size",
        "clip": "max_grad_norm",
        "warmup_share": "warmup_ratio",
        "max_query": "max_query_length",
        "max_answer": "max_answer_length",
        "train_examples": "max_train_examples",
    }

    epochs: int = Field(ge=1, le=10_000)
    """Passes over the training examples."""
    peak_lr: float = Field(gt=0, le=100)
    """Peak learning rate."""
    batch_size: Count
    """Sequences per step over all devices, accumulated over packs."""
    max_length: int = Field(ge=8, le=1_000_000)
    """Maximum tokens per sequence, including special tokens; pairs are truncated longest first. At most the encoder's
    number of positions."""
    schedule: Literal["linear", "constant"]
    """Learning-rate schedule after the warm-up: linear decay to 0, or constant."""
    warmup_ratio: Share
    """Fraction of the steps used for linear warm-up."""
    weight_decay: float = Field(ge=0, le=100)
    """Decoupled weight decay; not applied to biases and norms."""
    summary: Literal["median", "mean"]
    """How scores of several runs are summarised."""
    decay_from_zero: bool = True
    """true: linear decay starts at the first step, as in the released scripts, so the learning rate reaches only
    (1 - warmup_ratio) · peak_lr. false: it starts at the peak."""
    max_grad_norm: float = Field(default=1.0, gt=0, le=1e9)
    """Maximum global norm of the gradient."""
    dropout: Share = 0.1
    """Dropout in the encoder and before the head."""
    stride: Count = 128
    """Span heads: tokens between the starts of two windows."""
    max_query_length: Count = 64
    """Span heads: maximum question length, in tokens."""
    max_answer_length: Count = 100
    """Span heads: maximum answer length, in tokens."""
    n_best: Count = 20
    """Span heads: best starts and ends per window that are combined, and best answers returned."""
    task_id: int = Field(default=0, ge=0, le=1_000_000)
    """Row of the task embedding."""
    runs: int = Field(default=5, ge=1, le=1_000)
    """Number of runs with different seeds."""
    attention_dropout: Share | None = None
    """Attention dropout; null: that of the checkpoint."""
    pooling: Literal["first", "mean"] = "first"
    """Input of a sentence-level head: the pooled [CLS] (paper), or the mean of the hidden states (ours)."""
    betas: Annotated[tuple[Share, Share], BeforeValidator(_listed)] = (0.9, 0.999)
    """Adam's decay rates; the defaults of the library that the authors' scripts use."""
    adam_eps: float = Field(default=1e-8, gt=0, le=1)
    """Adam's epsilon; the default of the library that the authors' scripts use."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """auto: bf16 if the device supports it, fp16 on older GPUs, else fp32."""
    pack_tokens: int = Field(default=4096, ge=8, le=2**24)
    """Maximum tokens per encoder call. Affects only memory and dropout masks."""
    max_train_examples: int | None = Field(default=None, ge=2)
    """Train on this many examples instead of all; results then name the dataset a subset."""
