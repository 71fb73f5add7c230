"""A recipe as frozen values: everything a run depends on, with its defaults and what must hold between its parts.

`ernie2.runs.recipes.load_recipe` reads one from a file. Task options stay mappings here and are checked by each task's
own `Options` model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from ernie2.config.base import MAX_COUNT, PathText, SettingsModel
from ernie2.config.data_settings import CorpusSettings, KnowledgeSettings, ShardSettings, TokenizerSettings
from ernie2.config.plain_yaml import check_text
from ernie2.errors import did_you_mean

MAX_ITERATIONS = 4_000_000
"""Iterations of all tasks together: a plan is laid out step by step before a run begins."""
MAX_PACKS = 65_536
MAX_PARAMETERS = 20e9


Steps = Annotated[int, Field(ge=1, le=MAX_ITERATIONS)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class StageSettings(SettingsModel):
    """How iterations are laid out over stages (paper, Table 7)."""

    method: Literal["continual_multitask", "multitask", "continual"] = "continual_multitask"
    """The three learning methods of Table 7."""
    steps: Steps | dict[str, Steps] = 50_000
    """Iterations every task gets in total over all stages: one number, or one a task."""
    order: tuple[str | tuple[str, ...], ...] | None = None
    """The order in which tasks enter; a list inside the list enters in one stage. Default: the order under `tasks`."""
    combine: bool = True
    """Token-level tasks ride on the steps of sentence-level tasks; false: one task a step, as Table 7 counts."""
    plain_share: float = Field(default=0.1, ge=0, le=1)
    """Under `combine`, the share of its iterations every token task keeps as steps of its own."""
    patience: int | None = Field(default=None, ge=1, le=MAX_COUNT)
    """A stage ends early when none of its tasks has improved its held-out loss in so many evaluations in a row; what is
    left of its iterations is forfeited. null: stages run to their end. Needs train.evaluate_every."""
    least_gain: float = Field(default=0.001, ge=0, lt=1)
    """Share of the best loss by which a loss must be lower to count as improved."""
    max_epochs: float = Field(default=40, gt=0, le=1e15)
    """Most often any task may walk any of its corpora over all stages; a plan beyond it is refused before any work
    (ours: about as often as BERT saw its corpus; repeating text more teaches little)."""


class BatchSettings(SettingsModel):
    """Sizes in tokens. `batch_tokens` and `pack_tokens` belong to the identity of a run."""

    batch_tokens: int = Field(default=393_216, ge=32, le=2**30)
    """Tokens of one optimiser step (the paper's batch), over all packs and devices."""
    pack_tokens: int = Field(default=65_536, ge=32, le=2**24)
    """Tokens of one pack: what goes through the encoder at once."""
    sequence_tokens: int = Field(default=512, ge=16, le=1_048_576)
    """Longest sequence, special tokens included."""

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
                f"{MAX_PACKS:,} make a step"
            )
        return self

    @property
    def packs(self) -> int:
        """Packs of one optimiser step, M in the design."""
        return self.batch_tokens // self.pack_tokens


class EncoderSettings(SettingsModel):
    """The encoder (paper: base 12 × 768 × 12, large 24 × 1024 × 16; FFN 4 × hidden, post-norm)."""

    kind: Literal["transformer", "lstm", "gru"] = "transformer"
    """A Transformer, or a bidirectional recurrent network of LSTM or GRU cells; the paper allows both. Hugging
    Face reads transformer alone."""
    layers: int = Field(default=12, ge=1, le=1_000)
    """Layers: 12 in the base model, 24 in the large one."""
    hidden: int = Field(default=768, ge=8, le=100_000)
    """Width; a multiple of `heads`. 768 in the base model, 1,024 in the large one."""
    heads: int = Field(default=12, ge=1, le=10_000)
    """Attention heads; a recurrent network has none and ignores the number."""
    ffn: int | None = Field(default=None, ge=8, le=1_000_000)
    """Width of the feed-forward layer; 4 × hidden where null."""
    activation: Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"] = "gelu"
    """gelu in the English releases, relu in the Chinese ones; gelu_new and gelu_pytorch_tanh, the names of checkpoints
    in circulation, are both gelu approximated by tanh."""
    norm: Literal["post", "pre"] = Field(default="post", exclude_if=lambda norm: norm == "post")
    """Where norms stand: post, after each sum with the residual stream (BERT, the paper), or pre, before each branch,
    with one more after the last layer. Hugging Face does not read pre."""
    feed_forward: Literal["plain", "gated"] = Field(default="plain", exclude_if=lambda kind: kind == "plain")
    """plain: the activation stands between two linears; gated: activation(gate) · value, half as many weights more.
    Hugging Face does not read gated."""
    positions: Literal["learned", "none", "rotary"] = Field(
        default="learned", exclude_if=lambda kind: kind == "learned"
    )
    """learned: a table of position_rows; none; rotary: queries and keys are turned by their position. position_rows is
    the longest sequence in any case. Hugging Face reads learned alone."""
    position_rows: int = Field(default=512, ge=16, le=1_000_000)
    """Rows of the position table: positions there are, at least batch.sequence_tokens."""
    segment_types: int = Field(default=4, ge=1, le=10_000)
    """Rows of the segment-type table; the released models have 4."""
    task_ids: int = Field(default=16, ge=0, le=100_000)
    """Rows of the task-embedding table, 16 as in the released configurations; 0 leaves it out."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """On embeddings and on the output of each sub-layer, as in BERT."""
    attention_dropout: float = Field(default=0.0, ge=0, lt=1)
    """The paper's code has 0.1; packed kernels have none, so 0.0 is our named deviation."""
    norm_eps: float = Field(default=1e-5, gt=0, le=1)
    """Added to the variance in layer norms; 1e-5 as in the released configurations."""
    init_std: float = Field(default=0.02, gt=0, le=10)
    """Standard deviation of initial weights, as in BERT."""

    @model_validator(mode="after")
    def _parts_fit(self) -> EncoderSettings:
        recurrent = self.kind != "transformer"
        if recurrent and self.hidden % 2:
            raise ValueError(f"hidden={self.hidden} is odd; a bidirectional {self.kind} has half of it each way")
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
                f"rotary positions turn pairs: hidden={self.hidden} and heads={self.heads} make heads of the odd width "
                f"{self.hidden // self.heads}"
            )
        if self.parameters > MAX_PARAMETERS:
            raise ValueError(
                f"layers={self.layers}, hidden={self.hidden}, ffn={self.ffn_width} and position_rows="
                f"{self.position_rows} make about {self.parameters / 1e9:,.0f} billion parameters; "
                f"{MAX_PARAMETERS / 1e9:.0f} billion is the most"
            )
        return self

    @property
    def parameters(self) -> int:
        """About how many there are, without the word table and the heads."""
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
"""By the name in `train.optimizer`: its class, and the class's options with the keys of `train` that set them."""


class TrainSettings(SettingsModel):
    """Optimiser, schedule, evaluation and checkpoints."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """adamw (the paper's Adam) or plain sgd. Keys that belong to another optimizer are ignored."""

    peak_lr: float = Field(default=5e-5, gt=0, le=100)
    """Peak of the schedule; the paper's is 5e-5 for English, 1.28e-4 for Chinese."""
    schedule: Literal["noam", "linear", "wsd"] = "noam"
    """After a linear warm-up, noam (paper) falls with the inverse square root of the step, linear falls to 0 at the
    end, and wsd (warm-up, stable, decay) stays at the peak and falls to 0 over its last steps."""
    warmup: int | float | None = Field(default=None, gt=0, le=MAX_COUNT)
    """Steps (an integer) or a fraction of a task's steps; default min(4000, 8 %)."""
    lr_decay: int | float = Field(default=0.1, ge=0, le=MAX_COUNT)
    """The last steps of wsd, as a number (an integer) or a fraction; other schedules ignore it."""
    restart: Literal["per_stage", "per_task", "never"] = "per_stage"
    """Where the schedule starts over, and so what its end is: that of the stage, of a task's iterations, or of the run.
    The optimizer's state is kept."""
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    """Decay rates of adamw, as widely reported for this paper."""
    adam_eps: float = Field(default=1e-6, gt=0, le=1)
    """Epsilon of adamw (ours)."""
    momentum: Beta = 0.9
    """Of sgd; 0: none."""
    weight_decay: float = Field(default=0.01, ge=0, le=100)
    """Not on biases and norms; adamw decouples it from the gradient, sgd adds it to the gradient."""
    clip: float = Field(default=1.0, gt=0, le=1e9)
    """Largest global gradient norm."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """auto: bf16 where the device computes in it, fp16 on GPUs that only emulate it (V100, T4), else fp32. fp16 scales
    the loss (paper). Parameters and moments are always fp32."""
    compile: Literal["auto"] | bool = "auto"
    """Compile layers and heads with static shapes; auto: on CUDA only."""
    recompute: bool = False
    """Compute every layer again in the backward pass instead of keeping its activations: less memory, about a third
    more work."""
    evaluate_every: int = Field(default=0, ge=0, le=MAX_COUNT)
    """Steps between held-out evaluations inside a stage; each stage's end is always evaluated."""
    heldout_instances: int = Field(default=256, ge=1, le=10_000_000)
    """Held-out instances a task."""
    checkpoint_every: int = Field(default=500, ge=1, le=MAX_COUNT)
    """Steps between checkpoints; each stage's end is always saved."""
    keep_checkpoints: int = Field(default=2, ge=1, le=MAX_COUNT)
    """Newest checkpoints kept, besides the ends of stages."""
    mirror: PathText | None = None
    """An fsspec URL, such as s3://bucket/run, every checkpoint is copied to; `ernie2 resume RUN --from URL` goes on
    from it where the disk of RUN is gone."""
    workers: int | None = Field(default=None, ge=0, le=1_024)
    """Processes that make batches ahead of the step, for every rank; null: none where the CPU trains, up to 8
    beside a GPU. The batches are the same for any number."""
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    """How the ranks torchrun starts share a model. ddp (auto): each holds all of it; fsdp: each holds a share of
    parameters, gradients and moments, for models too large for one GPU. One process needs neither."""
    log_every: int = Field(default=10, ge=1, le=MAX_COUNT)
    """Steps between lines of metrics.jsonl."""
    sinks: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where else the lines of metrics.jsonl go; the package of each must be installed."""
    max_bad_steps: int = Field(default=3, ge=1, le=MAX_COUNT)
    """Steps in a row whose loss or gradient is not finite, skipped one by one, at which the run stops."""
    watchdog_seconds: float = Field(default=600, ge=0, le=30 * 86_400)
    """Seconds without a finished step after which every rank says what it waits for; 0: never."""


class Recipe(SettingsModel):
    """Everything one run depends on."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)
    """Name of the run in reports and model cards: letters, digits, '.', '_' and '-'."""
    about: Annotated[str, AfterValidator(check_text)] = ""
    """A sentence on what this run is for; goes into the report and the model card."""
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    """Every random choice follows from it; the same seed gives the same run."""
    run: PathText
    """The run folder."""
    corpora: dict[str, CorpusSettings] = Field(min_length=1)
    """One entry a corpus; its name is yours: letters, digits, '-' and '_'."""
    tokenizer: TokenizerSettings
    """The vocabulary: set exactly one of `file` and `train`."""
    knowledge: KnowledgeSettings = KnowledgeSettings()
    """Which annotators mark words, phrases and entities, which knowledge masking hides as wholes."""
    shards: ShardSettings
    """How documents become shards."""
    tasks: dict[str, dict[str, Any]] = Field(min_length=1)
    """Per task: `corpora` (default: all), `loss_weight`, and the task's own options."""
    stages: StageSettings = StageSettings()
    """How iterations are laid out over stages."""
    batch: BatchSettings = BatchSettings()
    """Sizes in tokens."""
    encoder: EncoderSettings = EncoderSettings()
    """The encoder all tasks share; the defaults are the base model of the paper."""
    train: TrainSettings = TrainSettings()
    """Optimiser, schedule, evaluation and checkpoints."""

    @field_validator("corpora")
    @classmethod
    def _corpus_names_are_folder_names(cls, corpora: dict[str, CorpusSettings]) -> dict[str, CorpusSettings]:
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
            raise ValueError("corpora: give every corpus a weight, or none (then each weighs as many tokens as it has)")
        if self.stages.patience is not None and not self.train.evaluate_every:
            raise ValueError("stages.patience counts evaluations inside a stage: set train.evaluate_every too")
        known = list(self.tasks)
        groups = [[entry] if isinstance(entry, str) else list(entry) for entry in self.stages.order or ()]
        entering = [name for group in groups for name in group]
        for name in entering:
            if name not in self.tasks:
                raise ValueError(f"stages.order names {name!r}, which is not under tasks.{did_you_mean(name, known)}")
            if entering.count(name) > 1:
                raise ValueError(f"stages.order names {name!r} twice; a task enters once")
        if not all(groups):
            raise ValueError("stages.order holds an empty list: a stage in which no task enters")
        if groups and (left := [name for name in known if name not in entering]):
            raise ValueError(f"stages.order leaves out {', '.join(left)}: name every task, or take it off tasks")
        if isinstance(self.stages.steps, dict) and set(self.stages.steps) != set(known):
            raise ValueError(f"stages.steps names {sorted(self.stages.steps)}, but tasks are {sorted(known)}")
        steps = self.stages.steps
        total = sum(steps.values()) if isinstance(steps, dict) else steps * len(known)
        if total > MAX_ITERATIONS:
            raise ValueError(f"stages.steps makes {total:,} iterations; {MAX_ITERATIONS:,} is the most over all tasks")
        return self
