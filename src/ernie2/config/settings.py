"""Settings of a recipe: everything a run depends on, with defaults and consistency checks.

`ernie2.runs.recipes.load_recipe` reads one from a file. Task options are plain mappings here; the `Options` model of
each task validates them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from ernie2.config.base import MAX_COUNT, PathText, SettingsModel
from ernie2.config.data_settings import CorpusSettings, KnowledgeSettings, ShardSettings, TokenizerSettings
from ernie2.config.plain_yaml import check_text
from ernie2.errors import did_you_mean

MAX_ITERATIONS = 4_000_000
"""Limit on the iterations of all tasks, because a plan lists every step before the run begins."""
MAX_PACKS = 65_536
MAX_PARAMETERS = 20e9


Steps = Annotated[int, Field(ge=1, le=MAX_ITERATIONS)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class StageSettings(SettingsModel):
    """How iterations are distributed over stages (paper, Table 7)."""

    RENAMED: ClassVar = {"plain_share": "token_only_share", "least_gain": "min_gain"}

    method: Literal["continual_multitask", "multitask", "continual"] = "continual_multitask"
    """Learning method of Table 7."""
    steps: Steps | dict[str, Steps] = 50_000
    """Iterations of each task over all stages: one number for all, or a mapping task → number."""
    order: tuple[str | tuple[str, ...], ...] | None = None
    """Order in which tasks are introduced, one per stage; a nested list is introduced in one stage. Default: the order
    under `tasks`."""
    combine: bool = True
    """true: token-level tasks are attached to the steps of sentence-level tasks; false: one task per step, as in
    Table 7."""
    token_only_share: float = Field(default=0.1, ge=0, le=1)
    """With `combine`, the share of a token-level task's iterations that are token-only steps."""
    patience: int | None = Field(default=None, ge=1, le=MAX_COUNT)
    """Early stopping of a stage: it ends after this many evaluations in a row in which no task improved its held-out
    loss; its remaining iterations are dropped. null: no early stopping. Needs train.evaluate_every."""
    min_gain: float = Field(default=0.001, ge=0, lt=1)
    """Relative decrease of the best loss that counts as an improvement."""
    max_epochs: float = Field(default=40, gt=0, le=1e15)
    """Maximum passes of any task over any of its corpora, over all stages; a plan that exceeds it is rejected before
    the run (ours: about as many as BERT made; more repetitions improve little)."""


class BatchSettings(SettingsModel):
    """Sizes in tokens. `batch_tokens` and `pack_tokens` also determine the instances of each step."""

    batch_tokens: int = Field(default=393_216, ge=32, le=2**30)
    """Tokens per optimiser step (the paper's batch), over all packs and devices."""
    pack_tokens: int = Field(default=65_536, ge=32, le=2**24)
    """Tokens per pack, the input of one encoder call."""
    sequence_tokens: int = Field(default=512, ge=16, le=1_048_576)
    """Maximum sequence length, including special tokens."""

    @model_validator(mode="after")
    def _sizes_divide(self) -> BatchSettings:
        if self.pack_tokens < self.sequence_tokens:
            raise ValueError(f"pack_tokens={self.pack_tokens} is below sequence_tokens={self.sequence_tokens}")
        if self.batch_tokens % self.pack_tokens:
            near = max(1, round(self.batch_tokens / self.pack_tokens)) * self.pack_tokens
            raise ValueError(
                f"batch_tokens={self.batch_tokens} is not a multiple of pack_tokens={self.pack_tokens}; the nearest is "
                f"{near}"
            )
        if self.packs > MAX_PACKS:
            raise ValueError(
                f"batch_tokens={self.batch_tokens} is {self.packs:,} packs of pack_tokens={self.pack_tokens}; at most "
                f"{MAX_PACKS:,} are allowed per step"
            )
        return self

    @property
    def packs(self) -> int:
        """Packs per optimiser step."""
        return self.batch_tokens // self.pack_tokens


class EncoderSettings(SettingsModel):
    """The encoder (paper: base 12 × 768 × 12, large 24 × 1024 × 16; FFN 4 × hidden, post-norm)."""

    kind: Literal["transformer", "lstm", "gru"] = "transformer"
    """A Transformer, or a bidirectional LSTM or GRU; the paper allows all three. Hugging Face supports only
    transformer."""
    layers: int = Field(default=12, ge=1, le=1_000)
    """Number of layers: 12 in the base model, 24 in the large model."""
    hidden: int = Field(default=768, ge=8, le=100_000)
    """Hidden size, a multiple of `heads`: 768 in the base model, 1,024 in the large model."""
    heads: int = Field(default=12, ge=1, le=10_000)
    """Attention heads; ignored by recurrent networks."""
    ffn: int | None = Field(default=None, ge=8, le=1_000_000)
    """Width of the feed-forward layer; null: 4 × hidden."""
    activation: Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"] = "gelu"
    """gelu in the English releases, relu in the Chinese ones. gelu_new and gelu_pytorch_tanh, names used in published
    checkpoints, both mean gelu with the tanh approximation."""
    norm: Literal["post", "pre"] = Field(default="post", exclude_if=lambda norm: norm == "post")
    """Position of layer norms: post, after each residual sum (BERT, the paper), or pre, before each branch, with one
    more after the last layer. Hugging Face does not support pre."""
    feed_forward: Literal["plain", "gated"] = Field(default="plain", exclude_if=lambda kind: kind == "plain")
    """plain: linear, activation, linear; gated: activation(gate) · value, with half as many weights more. Hugging Face
    does not support gated."""
    positions: Literal["learned", "none", "rotary"] = Field(
        default="learned", exclude_if=lambda kind: kind == "learned"
    )
    """learned: an embedding table of position_rows; none; rotary: rotary embeddings of queries and keys. position_rows
    is always the maximum sequence length. Hugging Face supports only learned."""
    position_rows: int = Field(default=512, ge=16, le=1_000_000)
    """Rows of the position table, at least batch.sequence_tokens."""
    segment_types: int = Field(default=4, ge=1, le=10_000)
    """Rows of the segment-type table; the released models have 4."""
    task_ids: int = Field(default=16, ge=0, le=100_000)
    """Rows of the task-embedding table, 16 as in the released configurations; 0: no table."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout on embeddings and on the output of each sub-layer, as in BERT."""
    attention_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on attention weights. 0.1 in the paper's code; 0.0 here, because packed kernels have no dropout (a
    deviation)."""
    norm_eps: float = Field(default=1e-5, gt=0, le=1)
    """Epsilon of layer norms, 1e-5 as in the released configurations."""
    init_std: float = Field(default=0.02, gt=0, le=10)
    """Standard deviation of initial weights, as in BERT."""

    @model_validator(mode="after")
    def _parts_fit(self) -> EncoderSettings:
        recurrent = self.kind != "transformer"
        if recurrent and self.hidden % 2:
            raise ValueError(f"hidden={self.hidden} is odd; a bidirectional {self.kind} uses half of it per direction")
        if recurrent and (self.attention_dropout or self.ffn is not None):
            raise ValueError(
                f"kind={self.kind} has neither attention nor a feed-forward layer: set attention_dropout=0 and ffn=null"
            )
        if recurrent and (self.positions == "rotary" or self.feed_forward != "plain"):
            raise ValueError(
                f"kind={self.kind} has neither attention nor a feed-forward layer: rotary positions and "
                "feed_forward=gated are for kind=transformer"
            )
        if not recurrent and self.hidden % self.heads:
            below = self.hidden // self.heads * self.heads
            raise ValueError(
                f"hidden={self.hidden} does not divide into heads={self.heads}; the next hidden below that does is "
                f"{below}"
            )
        if self.positions == "rotary" and self.hidden // self.heads % 2:
            raise ValueError(
                f"rotary positions need heads of even width: hidden={self.hidden} and heads={self.heads} give "
                f"{self.hidden // self.heads}"
            )
        if self.parameters > MAX_PARAMETERS:
            raise ValueError(
                f"layers={self.layers}, hidden={self.hidden}, ffn={self.ffn_width} and position_rows="
                f"{self.position_rows} give about {self.parameters / 1e9:,.0f} billion parameters; at most "
                f"{MAX_PARAMETERS / 1e9:.0f} billion are allowed"
            )
        return self

    @property
    def parameters(self) -> int:
        """Approximate number of parameters, without the token embedding and the heads."""
        layer = self.hidden * (4 * self.hidden + (3 if self.feed_forward == "gated" else 2) * self.ffn_width)
        positions = self.position_rows if self.positions == "learned" else 0
        return self.layers * layer + (positions + self.segment_types + self.task_ids) * self.hidden

    @property
    def ffn_width(self) -> int:
        """Width of the feed-forward layer."""
        return self.ffn or 4 * self.hidden


OPTIMIZERS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "adamw": ("torch.optim:AdamW", {"betas": "betas", "eps": "adam_eps"}),
    "sgd": ("torch.optim:SGD", {"momentum": "momentum"}),
}
"""`train.optimizer` → the optimizer class, and its options with the keys of `train` that set them."""


class TrainSettings(SettingsModel):
    """Optimiser, schedule, evaluation and checkpoints."""

    RENAMED: ClassVar = {
        "clip": "max_grad_norm",
        "recompute": "activation_checkpointing",
        "sinks": "trackers",
        "max_bad_steps": "max_nonfinite_steps",
    }

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """adamw (the paper's Adam) or sgd. Keys of the other optimizer are ignored."""

    peak_lr: float = Field(default=5e-5, gt=0, le=100)
    """Peak learning rate; 5e-5 for English and 1.28e-4 for Chinese in the paper."""
    schedule: Literal["noam", "linear", "wsd"] = "noam"
    """Learning-rate schedule after a linear warm-up: noam (paper) decays with the inverse square root of the step,
    linear decays to 0 at the end, wsd (warm-up, stable, decay) stays at the peak and decays to 0 over the last
    steps."""
    warmup: int | float | None = Field(default=None, gt=0, le=MAX_COUNT)
    """Warm-up in steps (an integer) or as a fraction of a task's steps; default min(4000, 8 %)."""
    lr_decay: int | float = Field(default=0.1, ge=0, le=MAX_COUNT)
    """Decay phase of wsd, in steps (an integer) or as a fraction; other schedules ignore it."""
    restart: Literal["per_stage", "per_task", "never"] = "per_stage"
    """When the schedule restarts, which also sets its end: the end of the stage, of a task's iterations, or of the run.
    The optimizer's state is not reset."""
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    """Decay rates of adamw, the values usually reported for this paper."""
    adam_eps: float = Field(default=1e-6, gt=0, le=1)
    """Epsilon of adamw (ours)."""
    momentum: Beta = 0.9
    """Momentum of sgd; 0: none."""
    weight_decay: float = Field(default=0.01, ge=0, le=100)
    """Weight decay, not applied to biases and norms; decoupled in adamw, added to the gradient in sgd."""
    max_grad_norm: float = Field(default=1.0, gt=0, le=1e9)
    """Maximum global gradient norm."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """auto: bf16 if the device supports it, fp16 on GPUs that only emulate bf16 (V100, T4), else fp32. fp16 uses loss
    scaling (paper). Parameters and moments are always fp32."""
    compile: Literal["auto"] | bool = "auto"
    """Compile layers and heads with `torch.compile` and static shapes; auto: on CUDA only."""
    activation_checkpointing: bool = False
    """Recompute each layer in the backward pass instead of storing its activations: less memory, about a third more
    computation."""
    evaluate_every: int = Field(default=0, ge=0, le=MAX_COUNT)
    """Steps between held-out evaluations within a stage; 0: none. The end of each stage is always evaluated."""
    heldout_instances: int = Field(default=256, ge=1, le=10_000_000)
    """Held-out instances per task."""
    checkpoint_every: int = Field(default=500, ge=1, le=MAX_COUNT)
    """Steps between checkpoints; the end of each stage is always saved."""
    keep_checkpoints: int = Field(default=2, ge=1, le=MAX_COUNT)
    """Number of newest checkpoints to keep, in addition to those at the ends of stages."""
    mirror: PathText | None = None
    """An fsspec URL, such as s3://bucket/run, to which every checkpoint is copied. If the run folder is lost,
    `ernie2 resume RUN --from URL` resumes from there."""
    workers: int | None = Field(default=None, ge=0, le=1_024)
    """Loader workers per rank, which build batches ahead of the step; null: none on a CPU, up to 8 with a GPU. The
    batches are the same for any number."""
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    """Data parallelism under torchrun. ddp (auto): every rank has the complete model; fsdp: parameters, gradients and
    moments are sharded over the ranks, for models too large for one GPU. No effect with one process."""
    log_every: int = Field(default=10, ge=1, le=MAX_COUNT)
    """Steps between lines of metrics.jsonl."""
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Trackers that also receive the metrics; the package of each must be installed."""
    max_nonfinite_steps: int = Field(default=3, ge=1, le=MAX_COUNT)
    """Steps in a row with a non-finite loss or gradient after which the run stops; each such step is skipped."""
    watchdog_seconds: float = Field(default=600, ge=0, le=30 * 86_400)
    """Seconds without a finished step after which every rank logs what it is waiting for; 0: never."""


class Recipe(SettingsModel):
    """Everything one run depends on."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)
    """Name of the run in reports and model cards: letters, digits, '.', '_' and '-'."""
    about: Annotated[str, AfterValidator(check_text)] = ""
    """One sentence on the purpose of the run, shown in the report and the model card."""
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    """Random seed; the same seed gives the same run."""
    run: PathText
    """The run folder."""
    corpora: dict[str, CorpusSettings] = Field(min_length=1)
    """Name → corpus. Names consist of letters, digits, '-' and '_'."""
    tokenizer: TokenizerSettings
    """The vocabulary: set exactly one of `file` and `train`."""
    knowledge: KnowledgeSettings = KnowledgeSettings()
    """Which annotators mark words, phrases and entities; knowledge masking masks these as units."""
    shards: ShardSettings
    """How documents are prepared as shards."""
    tasks: dict[str, dict[str, Any]] = Field(min_length=1)
    """Task → `corpora` (default: all), `loss_weight`, and the options of the task."""
    stages: StageSettings = StageSettings()
    """How iterations are distributed over stages."""
    batch: BatchSettings = BatchSettings()
    """Sizes in tokens."""
    encoder: EncoderSettings = EncoderSettings()
    """The encoder, shared by all tasks; the defaults are the paper's base model."""
    train: TrainSettings = TrainSettings()
    """Optimiser, schedule, evaluation and checkpoints."""

    @field_validator("corpora")
    @classmethod
    def _names_are_folder_names(cls, corpora: dict[str, CorpusSettings]) -> dict[str, CorpusSettings]:
        for name in corpora:
            if not name.replace("-", "").replace("_", "").isalnum() or len(name.encode()) > 128:
                raise ValueError(
                    f"corpus name {name[:140]!r} becomes a folder: use letters, digits, '-' and '_' only, 128 at most"
                )
        return corpora

    @model_validator(mode="after")
    def _parts_fit(self) -> Recipe:
        if self.batch.sequence_tokens > self.encoder.position_rows:
            raise ValueError(
                f"batch.sequence_tokens={self.batch.sequence_tokens} needs as many positions, but "
                f"encoder.position_rows={self.encoder.position_rows}"
            )
        if 0 < sum(corpus.weight is not None for corpus in self.corpora.values()) < len(self.corpora):
            raise ValueError("corpora: give all corpora a weight, or none (the default weight is the number of tokens)")
        if self.stages.patience is not None and not self.train.evaluate_every:
            raise ValueError("stages.patience counts evaluations within a stage: also set train.evaluate_every")
        known = list(self.tasks)
        groups = [[entry] if isinstance(entry, str) else list(entry) for entry in self.stages.order or ()]
        entering = [name for group in groups for name in group]
        for name in entering:
            if name not in self.tasks:
                raise ValueError(f"stages.order names {name!r}, which is not under tasks.{did_you_mean(name, known)}")
            if entering.count(name) > 1:
                raise ValueError(f"stages.order names {name!r} twice; name each task once")
        if not all(groups):
            raise ValueError("stages.order contains an empty list; every stage must introduce a task")
        if groups and (missing := [name for name in known if name not in entering]):
            raise ValueError(f"stages.order lacks {', '.join(missing)}: name every task, or remove it from tasks")
        if isinstance(self.stages.steps, dict) and set(self.stages.steps) != set(known):
            given = ", ".join(self.stages.steps)
            raise ValueError(f"stages.steps must name every task ({', '.join(known)}) and no other; it names {given}")
        steps = self.stages.steps
        total = sum(steps.values()) if isinstance(steps, dict) else steps * len(known)
        if total > MAX_ITERATIONS:
            raise ValueError(f"stages.steps gives {total:,} iterations; at most {MAX_ITERATIONS:,} over all tasks")
        return self
