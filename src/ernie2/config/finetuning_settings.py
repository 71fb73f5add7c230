"""Settings of fine-tuning: one row of the paper's Table 3 or 4, with what only the authors' scripts say."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ernie2.config.base import SettingsModel

Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


def _listed(value: Any) -> Any:
    """`0.9,0.98`, as typed on the command line, as a list."""
    return value.split(",") if isinstance(value, str) else value


class FineTuningSettings(SettingsModel):
    """How a checkpoint is fine-tuned on one data set."""

    epochs: int = Field(ge=1, le=10_000)
    """Times the training examples are walked."""
    peak_lr: float = Field(gt=0, le=100)
    """Peak learning rate."""
    batch: Count
    """Sequences of one step over all devices, accumulated over packs."""
    max_length: int = Field(ge=8, le=1_000_000)
    """Tokens of a sequence, special ones included; pairs are cut longest first. Never more than the encoder has
    positions."""
    schedule: Literal["linear", "constant"]
    """Learning rate after the warm-up: linear decay to 0, or constant."""
    warmup_share: Share
    """Share of the steps with a linear warm-up."""
    weight_decay: float = Field(ge=0, le=100)
    """Decoupled; not on biases and norms."""
    summary: Literal["median", "mean"]
    """How the figures of several runs are summarised."""
    decay_from_zero: bool = True
    """The linear decay counts from the first step, as in the released scripts, so the rate reaches
    (1 - warmup_share) · peak_lr only; false: it counts from the peak."""
    clip: float = Field(default=1.0, gt=0, le=1e9)
    """Largest global norm of the gradient."""
    dropout: Share = 0.1
    """In the encoder and before the head."""
    stride: Count = 128
    """Spans: tokens between the starts of two windows."""
    max_query: Count = 64
    """Spans: longest question, in tokens."""
    max_answer: Count = 100
    """Spans: longest answer, in tokens."""
    n_best: Count = 20
    """Spans: starts and ends of a window that are paired, and answers kept."""
    task_id: int = Field(default=0, ge=0, le=1_000_000)
    """Row of the task embedding."""
    runs: int = Field(default=5, ge=1, le=1_000)
    """Runs, of different seeds."""
    attention_dropout: Share | None = None
    """null: as the checkpoint says."""
    pooling: Literal["first", "mean"] = "first"
    """What a sentence-level head reads: the pooled [CLS] (paper), or the mean of the hidden states (ours)."""
    betas: Annotated[tuple[Share, Share], BeforeValidator(_listed)] = (0.9, 0.999)
    """Adam's decay rates, as the scripts leave them: the defaults of their library."""
    adam_eps: float = Field(default=1e-8, gt=0, le=1)
    """Adam's epsilon, as the scripts leave it."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """auto: bf16 where the device computes in it, fp16 on older GPUs, else fp32."""
    pack_tokens: int = Field(default=4096, ge=8, le=2**24)
    """Most tokens that go through the encoder at once. Changes memory and masks of dropout, nothing else."""
    train_examples: int | None = Field(default=None, ge=2)
    """Train on so many examples instead of all; the set is called a subset then."""
