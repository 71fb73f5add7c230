"""What a pre-training task is: a sentence task arranges text and says its class, a token task labels what was arranged.

A task is one small file: a subclass, `@register`, and its rule. It knows no tensors, packs, devices or steps; options
and randomness are arguments. Its head, its metric and its place in the report follow from `level` and `labels`.

Tasks of others register through the entry-point group `ernie2.tasks` (name of the task → module that registers it).
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
"""The module of this package that holds each task."""
TASK_WITH_ID_ZERO = "knowledge_masking"
"""The task that row 0 of the task table is kept for, also where a recipe leaves it out; ours."""


@dataclass(frozen=True)
class Vocabulary:
    """The ids and strings a task may need.

    `ordinary` (v,) int64: the ids random replacement draws from. `tokens`: the string of every id, as the tokeniser has
    it ("##er" continues a word of a WordPiece vocabulary); '' for an id without one, empty where nobody gave any.
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
        """(size,) bool, by id: not [CLS] [SEP] [MASK] [PAD] [UNK], which nobody scores or replaces."""
        table = np.ones(self.size, bool)
        table[[self.cls, self.sep, self.mask, self.pad, self.unk]] = False
        return table


@dataclass(frozen=True, slots=True)
class Segment:
    """A token run [start, end) of a document; segment i of an instance gets segment type i."""

    document: AnnotatedDocument
    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Source:
    """Where an instance may come from: a document from sentence `start` on, and another document on request."""

    document: AnnotatedDocument
    start: int
    fetch_other_document: Callable[[], AnnotatedDocument] | None = None

    @property
    def other_document(self) -> AnnotatedDocument:
        """A document of another group, drawn anew at every access."""
        if self.fetch_other_document is None:
            raise LookupError("this source has no other document")
        return self.fetch_other_document()


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Segments in the order in which they are shown, their class (None: plain text), and where the walk goes on.

    `next_sentence`: first sentence of the document not used up; None where one instance a document is right.
    """

    segments: tuple[Segment, ...]
    label: int | None
    next_sentence: int | None = None


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """An arranged instance, laid out as [CLS] segment [SEP] segment [SEP] …; all arrays (n,), special tokens included.

    `tokens` int64 ids · `flags` uint8 as in the shard (0 at special tokens) · `document_count` int64 · `document` int64
    index into the documents shown, -1 at special tokens · `segment` int64 segment types (a [SEP] belongs to the segment
    before it, [CLS] to the first) · `spans` kind → (k, 2) token runs in this sequence · `segments` how many there are ·
    `document_lengths` (documents shown,) tokens of each whole document.
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
    """What a token task scores: `targets[i]` at `positions[i]`; `inputs` (n,) replaces the tokens the encoder sees."""

    positions: Array
    targets: Array
    inputs: Array | None = None


class Options(SettingsModel):
    """Options every task has; a task adds its own in a subclass called `Options`, each with a default."""

    corpora: tuple[str, ...] | None = None
    """Names of the corpora this task reads (default: every corpus of its kind it can use). A token task that names a
    corpus of labelled pairs here reads it too."""
    loss_weight: float = Field(default=1.0, ge=0, le=1e6)
    """w_t in the loss of a step, Σ w_t · mean loss of task t."""


class Task:
    """Base of both kinds. `options` are checked; `vocabulary` holds the ids of the shards' tokeniser."""

    name: ClassVar[str]
    level: ClassVar[Literal["token", "sentence"]]
    title: ClassVar[str]
    """The name a person reads, as the paper writes it."""
    about: ClassVar[str]
    """One sentence: what is predicted."""
    needs: ClassVar[str] = "text"
    """What a corpus must offer, in words, for messages."""
    baseline_name: ClassVar[str] = "majority class"
    """Name of the feature that the feature baseline uses; `baseline_feature` computes its feature."""
    legend: ClassVar[str] = ""
    """How a person reads an example of `inspect`; `format_token` writes it."""
    counts_heading: ClassVar[str] = "labels"
    """What `count_labels` counts."""
    labels: tuple[str, ...] | None = None
    """Names of the classes; None: the vocabulary."""
    corpus_kind: ClassVar[Literal["documents", "pairs"]] = "documents"
    """Kind of corpora it reads: running text, or pairs of texts with a label each."""
    labels_from_data: ClassVar[bool] = False
    """True: the classes are the labels of the corpora it reads, unless its option `labels` names them."""
    min_scored_share: ClassVar[float] = 0.0
    """Share of a corpus's tokens a token task must score there; a corpus that offers less is not read."""
    Options: ClassVar[type[Options]] = Options

    def __init__(self, options: Any, vocabulary: Vocabulary) -> None:
        self.options = options
        self.vocabulary = vocabulary

    def unsupported_reason(self) -> str | None:
        """Why this task cannot work with this tokeniser at all, or None."""
        return None

    def can_use(self, document: AnnotatedDocument) -> bool:
        """Whether this document can show at least one label of the task."""
        return len(document) > 0

    def baseline_feature(self, sequence: TokenSequence, positions: Array) -> Array:
        """Return the feature (p,) int64 of each scored position; the baseline predicts its most frequent label."""
        return np.zeros(len(positions), np.int64)

    def count_labels(self, sequence: TokenSequence, labels: Labels) -> Mapping[str, int]:
        """What `inspect` counts in one instance: how often each class was scored."""
        counts = np.bincount(labels.targets, minlength=len(self.labels or ()))
        return dict(zip(self.labels or (), counts.tolist(), strict=False))

    def format_token(self, text: str, target: int) -> str:
        """How an example writes a scored token of class `target`."""
        return f"{text}/{self.labels[target]}" if self.labels else text


class SentenceTask(Task):
    """Arranges text so that it shows a class, one class a sequence."""

    level = "sentence"
    labels: tuple[str, ...]
    balanced: ClassVar[bool] = True
    """The caller draws the label, all classes equally often; False: `arrange` draws for itself and is given None."""
    allows_attached_tasks: bool = True
    """Whether token tasks may label what this task arranged (paper: one sentence-level, several token-level losses)."""

    def arrange(self, source: Source, label: str | None, max_tokens: int, rng: Generator) -> Arrangement | None:
        """Arranges at most `room` tokens of `source` so that they show `label`, or None where they cannot.

        `room` already leaves out [CLS] and one [SEP] for each of `max_segments`.
        """
        raise NotImplementedError

    @property
    def max_segments(self) -> int:
        """Most segments an instance of this task has."""
        return 2


class TokenTask(Task):
    """Labels tokens of a sequence that somebody else arranged."""

    level = "token"
    changes_input: ClassVar[bool] = False
    """True: `label` returns other inputs; such a task goes last, and nobody else scores what it replaced."""
    max_scored_share: ClassVar[float] = 1.0
    """Cap on scored positions as a share of a pack's tokens, for static shapes."""

    def label(self, sequence: TokenSequence, rng: Generator) -> Labels:
        """Returns the positions it scores and their targets; positions ascend, none is a special token."""
        raise NotImplementedError

    def label_block(self, block: Block, rngs: Sequence[Generator]) -> Labels:
        """Return what `label` gives for every sequence of `block`, with positions in the block; `rngs`: one a sequence.

        To override where that is faster than calls of `label`, which are made otherwise.
        """
        raise NotImplementedError

    def notes(self, sequences: Sequence[TokenSequence]) -> list[str]:
        """What to warn of in a corpus, in sentences; `sequences` are a sample of it, arranged plainly."""
        return []


_TASKS: dict[str, type[Task]] = {}
T = TypeVar("T", bound=type[Task])


def register(task: T) -> T:
    """Class decorator: make a task known by its `name`. Two different tasks of one name are a `ValueError`.

    Raises `TaskError` where one of its options has no default.
    """
    if required := [name for name, option in task.Options.model_fields.items() if option.is_required()]:
        raise TaskError(
            f"task {task.name!r} has options without a default: {', '.join(required)}. Give each one in its Options, "
            "so that the task works in a recipe that says only its name."
        )
    if (known := _TASKS.setdefault(task.name, task)) is not task:
        raise ValueError(f"two tasks are called {task.name!r}: {known.__module__} and {task.__module__}")
    return task


def known_tasks() -> dict[str, str]:
    """Return every task that can be named with its origin: built in, registered in this process, or announced.

    A task comes from the package that announces it, whether or not it was imported already; else from its module.
    """
    announced = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    names = dict.fromkeys((*BUILT_IN, *_TASKS, *announced))
    return {name: _origin(name, announced.get(name)) for name in names}


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
    """Returns the task class called `name`; imports only the module that holds it.

    Raises `UnknownTask` with a suggestion, and `TaskError` where a package announces the task but does not bring it.
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
        raise TaskError(
            f"package {package!r} announces task {entry.name!r}, but {entry.module} registers no such task."
        )
