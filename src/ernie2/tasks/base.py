"""Base classes and registry of pre-training tasks.

A `SentenceTask` arranges text into segments and gives the sequence one class. A `TokenTask` labels the tokens of an
arranged sequence. A task is a subclass decorated with `@register`, usually one small file. It uses no tensors, packs,
devices or steps; options and random generators are arguments. Its head, metric and place in the report follow from
`level` and `labels`.

Other packages add tasks through the entry-point group `ernie2.tasks` (task name → module that registers it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import Field

from ernie2.config.base import SettingsModel
from ernie2.errors import USER_CODE_ERRORS, TaskError, UnknownTask, did_you_mean, user_code_location
from ernie2.shards.store import AnnotatedDocument

if TYPE_CHECKING:
    from ernie2.tasks.blocks import Block

Array = NDArray[Any]

ENTRY_POINT_GROUP = "ernie2.tasks"
BUILT_IN = {
    "knowledge_masking": "knowledge_masking",
    "capitalization_prediction": "capitalization_prediction",
    "token_document_relation": "token_document_relation",
    "sentence_reordering": "sentence_reordering",
    "sentence_distance": "sentence_distance",
    "discourse_relation": "labelled_pairs",
    "ir_relevance": "labelled_pairs",
}
"""Built-in tasks: name → module of this package."""
TASK_WITH_ID_ZERO = "knowledge_masking"
"""The task of row 0 of the task embedding. The row is reserved even if a recipe leaves the task out (ours)."""


@dataclass(frozen=True)
class Vocabulary:
    """Ids and strings of the tokeniser that a task may need.

    `ordinary` (v,) int64: ids from which random replacements are drawn. `tokens`: the tokeniser's string of every id
    ("##er" continues a word of a WordPiece vocabulary); '' for an id without a string, () if not provided.
    """

    size: int
    cls: int
    sep: int
    mask: int
    pad: int
    unk: int
    ordinary: Array
    cased: bool = False
    tokens: tuple[str, ...] = ()

    @cached_property
    def is_text(self) -> Array:
        """(size,) bool by id: False for [CLS] [SEP] [MASK] [PAD] [UNK], which are never scored or replaced."""
        table = np.ones(self.size, bool)
        table[[self.cls, self.sep, self.mask, self.pad, self.unk]] = False
        return table


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens [start, end) of a document; segment i of an instance has segment type i."""

    document: AnnotatedDocument
    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Source:
    """The text available for an instance: a document from sentence `start` on, and other documents on request."""

    document: AnnotatedDocument
    start: int
    fetch_other_document: Callable[[], AnnotatedDocument] | None = None

    @property
    def other_document(self) -> AnnotatedDocument:
        """A random document of another group; every access draws a new one."""
        if self.fetch_other_document is None:
            raise LookupError("this source has no other document")
        return self.fetch_other_document()


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Segments in their order in the sequence, and its class `label` (None: no sentence-level label).

    `next_sentence`: the sentence at which the next instance of this document starts; None: go to the next document.
    """

    segments: tuple[Segment, ...]
    label: int | None
    next_sentence: int | None = None


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """An arranged instance with its special tokens: [CLS] segment [SEP] segment [SEP] …

    All arrays are (n,), special tokens included, unless noted:

    * `tokens` int64: ids
    * `flags` uint8: bits of `ernie2.shards.store`, 0 at special tokens
    * `document_count` int64: occurrences of the id in its document
    * `document` int64: index of the document, -1 at special tokens
    * `segment` int64: segment type; a [SEP] belongs to the segment before it, [CLS] to the first
    * `spans`: kind → (k, 2) token ranges in this sequence
    * `segment_count`: number of segments
    * `document_lengths` (documents,): tokens of each complete document
    """

    tokens: Array
    flags: Array
    document_count: Array
    document: Array
    segment: Array
    spans: Mapping[str, Array]
    segment_count: int
    document_lengths: Array


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of one task: `targets[i]` at `positions[i]`; `inputs` (n,), if given, replaces the encoder's input."""

    positions: Array
    targets: Array
    inputs: Array | None = None


class Options(SettingsModel):
    """Options of every task. A task adds options in a subclass named `Options`; each needs a default."""

    corpora: tuple[str, ...] | None = None
    """Names of the corpora this task reads (default: every corpus of its kind it can use). A token task may also name
    corpora of labelled pairs."""
    loss_weight: float = Field(default=1.0, ge=0, le=1e6)
    """Weight w_t in the loss of a step, Σ w_t · mean loss of task t."""


class Task:
    """Base of `SentenceTask` and `TokenTask`; `options` are validated, `vocabulary` is that of the shards."""

    name: ClassVar[str]
    level: ClassVar[Literal["token", "sentence"]]
    title: ClassVar[str]
    """Display name, as the paper writes it."""
    about: ClassVar[str]
    """One sentence: what is predicted."""
    needs: ClassVar[str] = "text"
    """What a corpus must contain, for messages."""
    baseline_name: ClassVar[str] = "majority class"
    """Name of the feature of the feature baseline, for reports; `baseline_feature` computes it. Default: no feature."""
    legend: ClassVar[str] = ""
    """How to read an example of `ernie2 inspect`; `format_token` writes the tokens."""
    counts_heading: ClassVar[str] = "labels"
    """Heading of the counts of `count_labels`."""
    labels: tuple[str, ...] | None = None
    """Names of the classes; None: the classes are the vocabulary."""
    corpus_kind: ClassVar[Literal["documents", "pairs"]] = "documents"
    """Kind of corpora the task reads: documents, or labelled pairs of texts."""
    labels_from_data: ClassVar[bool] = False
    """True: the classes are the labels of its corpora, unless the option `labels` names them."""
    min_scored_share: ClassVar[float] = 0.0
    """Least share of a corpus's tokens that a token task must score; corpora below it are not read."""
    Options: ClassVar[type[Options]] = Options

    def __init__(self, options: Any, vocabulary: Vocabulary) -> None:
        self.options = options
        self.vocabulary = vocabulary

    def unsupported_reason(self) -> str | None:
        """Return why the task cannot work with this tokeniser, or None if it can."""
        return None

    def can_use(self, document: AnnotatedDocument) -> bool:
        """Return whether this document can give at least one label of the task."""
        return len(document) > 0

    def baseline_feature(self, sequence: TokenSequence, positions: Array) -> Array:
        """Return the feature (p,) int64 of each scored position; the baseline predicts its most frequent label."""
        return np.zeros(len(positions), np.int64)

    def count_labels(self, sequence: TokenSequence, labels: Labels) -> Mapping[str, int]:
        """Return what `ernie2 inspect` counts in one instance: by default, scored positions by class."""
        counts = np.bincount(labels.targets, minlength=len(self.labels or ()))
        return dict(zip(self.labels or (), counts.tolist(), strict=False))

    def format_token(self, text: str, target: int) -> str:
        """Return a scored token of class `target` as `ernie2 inspect` writes it."""
        return f"{text}/{self.labels[target]}" if self.labels else text


class SentenceTask(Task):
    """A task with one class per sequence, which arranges the text so that it has that class."""

    level = "sentence"
    labels: tuple[str, ...]
    balanced: ClassVar[bool] = True
    """True: the caller draws the label, all classes equally often; False: `label` is None and `arrange` chooses."""
    allows_attached_tasks: bool = True
    """Whether token tasks may label this task's instances (paper: one sentence-level and several token losses)."""

    def arrange(self, source: Source, label: str | None, max_tokens: int, rng: Generator) -> Arrangement | None:
        """Arrange at most `max_tokens` tokens of `source` with the class `label`; return None if that is impossible.

        `max_tokens` excludes [CLS] and one [SEP] for each of `max_segments`.
        """
        raise NotImplementedError

    @property
    def max_segments(self) -> int:
        """Maximum number of segments of an instance."""
        return 2


class TokenTask(Task):
    """A task that labels the tokens of an arranged sequence."""

    level = "token"
    changes_input: ClassVar[bool] = False
    """True: `label` returns changed inputs. The task labels last; other tasks do not score the tokens it replaced."""
    max_scored_share: ClassVar[float] = 1.0
    """Cap on scored positions as a share of a pack's tokens, which keeps shapes static."""

    def label(self, sequence: TokenSequence, rng: Generator) -> Labels:
        """Return the scored positions and their targets. Positions ascend; none is a special token."""
        raise NotImplementedError

    def label_block(self, block: Block, rngs: Sequence[Generator]) -> Labels:
        """Return the results of `label` for every sequence of `block`, as positions in the block.

        Optional, for speed: without it, `label` is called for each sequence. `rngs`: one generator per sequence.
        """
        raise NotImplementedError

    def notes(self, sequences: Sequence[TokenSequence]) -> list[str]:
        """Return warnings about a corpus, a sentence each; `sequences` are a sample without sentence-level labels."""
        return []


_TASKS: dict[str, type[Task]] = {}
T = TypeVar("T", bound=type[Task])


RENAMED = {
    "cheap": "baseline_feature",
    "cheap_rule": "baseline_name",
    "usable": "can_use",
    "show": "format_token",
    "refuses": "unsupported_reason",
    "reads": "corpus_kind",
    "hosts_riders": "allows_attached_tasks",
    "least_scored": "min_scored_share",
    "scored_share": "max_scored_share",
    "tally": "count_labels",
    "tallies": "counts_heading",
}
"""Former names of attributes of tasks → the names now."""


def register(task: T) -> T:
    """Register a task class under its `name`; use it as a class decorator.

    Raises `ValueError` if another task has the name, and `TaskError` if an option has no default or an attribute has a
    former name, which would have no effect.
    """
    if former := [f"{old} (now {new})" for old, new in RENAMED.items() if hasattr(task, old)]:
        raise TaskError(f"task {task.name!r} has attributes with former names: {', '.join(former)}. Rename them.")
    if required := [name for name, option in task.Options.model_fields.items() if option.is_required()]:
        raise TaskError(
            f"task {task.name!r} has options without a default: {', '.join(required)}. Give each one in its Options, "
            "so that a recipe can name the task without options."
        )
    if (known := _TASKS.setdefault(task.name, task)) is not task:
        raise ValueError(f"two tasks are called {task.name!r}: {known.__module__} and {task.__module__}")
    return task


def known_tasks() -> dict[str, str]:
    """Return all built-in, registered and declared tasks: name → origin.

    The origin is "ernie2", the package that declares the task as an entry point, or else the task's module.
    """
    declared = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    names = dict.fromkeys((*BUILT_IN, *_TASKS, *declared))
    return {name: _origin(name, declared.get(name)) for name in names}


def _origin(name: str, entry: EntryPoint | None) -> str:
    if name in BUILT_IN:
        return "ernie2"
    module = _TASKS[name].__module__ if name in _TASKS else None
    if entry is not None and module in (None, entry.module):
        return _package(entry)
    return str(module)


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.module


def find_task(name: str) -> type[Task]:
    """Return the task class called `name`; only its module is imported.

    Raises `UnknownTask` with a suggestion, and `TaskError` if a package declares the task but does not register it.
    """
    if name not in _TASKS:
        if name in BUILT_IN:
            import_module(f"ernie2.tasks.{BUILT_IN[name]}")
        else:
            for entry in entry_points(group=ENTRY_POINT_GROUP, name=name):
                _load(entry)
    if name not in _TASKS:
        names = known_tasks()
        raise UnknownTask(f"no task is called {name!r}.{did_you_mean(name, names)} Known: {', '.join(sorted(names))}.")
    return _TASKS[name]


def _load(entry: EntryPoint) -> None:
    package = _package(entry)
    try:
        entry.load()
    except TaskError as error:
        raise TaskError(f"package {package!r}: {error}") from error
    except USER_CODE_ERRORS as error:
        raise TaskError(
            f"task {entry.name!r} of package {package!r} cannot be imported: {error!r}{user_code_location(error)}."
        ) from error
    if entry.name not in _TASKS:
        raise TaskError(f"package {package!r} declares task {entry.name!r}, but {entry.module} registers no such task.")
