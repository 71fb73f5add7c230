"""Held-out evaluation: each task by itself on documents nobody trained on, beside two baselines.

A task is shown its own instances only, plainly arranged, unmasked except for masking itself, under its own task id; the
same fixed instances every time. Beside its accuracy stand the majority class and a cheap rule fitted on train
instances: the commonest label for one feature that the task names (the token's own prior, the number of segments,
nothing but the unigram).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ernie2.batches.batch import PackedBatch
from ernie2.batches.packing import Packer
from ernie2.batches.stream import Cursor, Feed, Stream
from ernie2.model.inputs import Inputs
from ernie2.model.multitask import MultiTaskModel
from ernie2.tasks.base import Task
from ernie2.tasks.instances import Instance
from ernie2.tasks.usable import count_usable
from ernie2.train.distributed import World
from ernie2.train.step import autocast

Array = NDArray[Any]

FIT_INSTANCES = 2_000
"""Train instances the cheap rule is fitted on."""
SMOOTHING = 0.1
"""Added to every count where the cheap rule gives probabilities (for its loss)."""


@dataclass(frozen=True)
class CheapRule:
    """Label frequencies by feature, from train instances; features never seen fall back on all labels together.

    `by_feature`: feature → label → count; `overall`: label → count; `classes`: number of labels.
    """

    by_feature: Mapping[int, Counter[int]]
    overall: Counter[int]
    classes: int

    @staticmethod
    def fit(features: Array, labels: Array, classes: int) -> CheapRule:
        """features (p,) int64, labels (p,) int64."""
        by_feature: dict[int, Counter[int]] = {}
        for feature, label in zip(features.tolist(), labels.tolist(), strict=True):
            by_feature.setdefault(feature, Counter())[label] += 1
        return CheapRule(by_feature, Counter(labels.tolist()), classes)

    @property
    def majority(self) -> int:
        """The commonest label."""
        return self.overall.most_common(1)[0][0] if self.overall else 0

    @property
    def entropy(self) -> float:
        """Entropy in nats of the labels by themselves; for masking, the unigram entropy."""
        total = self.overall.total()
        return -sum(count / total * math.log(count / total) for count in self.overall.values())

    def predict(self, features: Array) -> Array:
        """(p,) int64: the commonest label of each feature."""
        best = {feature: counts.most_common(1)[0][0] for feature, counts in self.by_feature.items()}
        majority = self.majority
        return np.array([best.get(feature, majority) for feature in features.tolist()], np.int64)

    def losses(self, features: Array, labels: Array) -> Array:
        """(p,) float64: minus the log of the probability the rule gives the right label, smoothed."""
        return np.array(
            [
                -math.log(
                    ((counts := self.by_feature.get(feature, self.overall))[label] + SMOOTHING)
                    / (counts.total() + SMOOTHING * self.classes)
                )
                for feature, label in zip(features.tolist(), labels.tolist(), strict=True)
            ]
        )


@dataclass(frozen=True)
class _Exam:
    """The fixed held-out instances of one task; `owner` (p,) is the instance each scored position belongs to."""

    packs: Sequence[PackedBatch]
    instances: int
    labels: Array
    features: Array
    owner: Array
    rule: CheapRule


class HeldOut:
    """Held-out instances and fitted baselines of every task, made once, asked again after every stage."""

    def __init__(
        self, train: Stream, feeds: Mapping[str, Feed], tasks: Sequence[Task], instances: int, seed: int
    ) -> None:
        self._tasks = {task.name: task for task in tasks}
        self._exams: dict[str, _Exam] = {}
        for task in tasks:
            corpora, shares = feeds[task.name].corpora, feeds[task.name].shares
            usable = {c.name: s for c, s in zip(corpora, shares, strict=True) if count_usable(c, task, "heldout")[0]}
            held = Feed([corpus for corpus in corpora if corpus.name in usable], list(usable.values()))
            found = walk_once(train, held, task, instances, seed, "heldout")
            fitted = walk_once(train, feeds[task.name], task, FIT_INSTANCES, seed, "train") if found else []
            if fitted:
                self._exams[task.name] = _exam(task, train, found, fitted)

    @property
    def missing(self) -> list[str]:
        """Tasks without a held-out document they can use."""
        return [name for name in self._tasks if name not in self._exams]

    def evaluate(
        self, model: MultiTaskModel, device: torch.device, precision: str, world: World | None = None
    ) -> dict[str, dict[str, Any]]:
        """Per task: instances, scored positions, loss (nats), accuracy with its 95 % interval, macro-F1, both
        baselines.

        `learned`: the interval's lower end lies above the cheap rule's accuracy. The ranks of `world` share the packs,
        and all return the same figures, those of one process.
        """
        world = world or World(device=device)
        made = {name: self._predict(name, exam, model, precision, device, world) for name, exam in self._exams.items()}
        shares = world.gather(made)
        return {name: self._figures(name, exam, [s[name] for s in shares]) for name, exam in self._exams.items()}

    def _predict(
        self, name: str, exam: _Exam, model: MultiTaskModel, precision: str, device: torch.device, world: World
    ) -> list[tuple[Array, Array]]:
        """Losses (p,) and predicted classes (p,) of every pack this rank has: packs rank, rank + size, …

        A rank that has fewer spends its last turn on a pack of another: sharded layers need all ranks at once.
        """
        found = []
        for turn in range(world.turns(len(exam.packs))):
            number = world.rank + turn * world.size
            with torch.no_grad(), autocast(precision, device):
                made = model.predictions(Inputs.of(exam.packs[number % len(exam.packs)], device, static=False))
            if number < len(exam.packs):
                losses, predicted = made[name]
                found.append((losses.float().cpu().numpy(), predicted.cpu().numpy()))
        return found

    def _figures(self, name: str, exam: _Exam, shares: Sequence[Sequence[tuple[Array, Array]]]) -> dict[str, Any]:
        """Figures from what every rank predicted."""
        packs = range(len(exam.packs))
        losses, predicted = zip(*(shares[pack % len(shares)][pack // len(shares)] for pack in packs), strict=True)
        right = np.concatenate(predicted) == exam.labels
        accuracy, low, high = ratio_interval(right, exam.owner)
        classes = self._tasks[name].labels is not None
        rule, by_rule = exam.rule, exam.rule.predict(exam.features)
        majority = np.full_like(exam.labels, rule.majority)
        cheap_accuracy = float((by_rule == exam.labels).mean())
        return {
            "instances": exam.instances,
            "scored": len(exam.labels),
            "loss": float(np.concatenate(losses).mean()),
            "accuracy": accuracy,
            "low": low,
            "high": high,
            "macro_f1": _macro_f1(exam.labels, np.concatenate(predicted)) if classes else None,
            "majority": {
                "accuracy": float((majority == exam.labels).mean()),
                "macro_f1": _macro_f1(exam.labels, majority) if classes else None,
            },
            "cheap": {
                "rule": self._tasks[name].cheap_rule,
                "accuracy": cheap_accuracy,
                "macro_f1": _macro_f1(exam.labels, by_rule) if classes else None,
                "loss": float(rule.losses(exam.features, exam.labels).mean()),
                "entropy": rule.entropy,
            },
            "learned": low > cheap_accuracy,
        }


def ratio_interval(right: Array, owner: Array) -> tuple[float, float, float]:
    """Accuracy over positions with its 95 % interval, (accuracy, low, high).

    `right` (p,) bool, `owner` (p,) the instance of each position. Positions of one instance are not independent, so the
    interval is that of a ratio of instance totals (linearised, clustered by instance).
    """
    counts = np.bincount(owner).astype(float)
    totals = np.bincount(owner, weights=right)
    counts, totals = counts[counts > 0], totals[counts > 0]
    ratio, m = float(totals.sum() / counts.sum()), len(counts)
    if m < 2:
        return ratio, 0.0, 1.0
    error = math.sqrt(m / (m - 1) * float(((totals - ratio * counts) ** 2).sum())) / float(counts.sum())
    return ratio, max(0.0, ratio - 1.96 * error), min(1.0, ratio + 1.96 * error)


def walk_once(train: Stream, feed: Feed, task: Task, instances: int, seed: int, split: str) -> list[Instance]:
    """At most `instances` instances of `task` alone, from one pass over the `split` documents of each corpus of `feed`.

    Corpora are drawn by their shares; one that was walked to its end is left out of the draw from then on. `train`
    gives sizes and ids.
    """
    found: list[Instance] = []
    cursor: Cursor | None = None
    left = dict(zip(feed.corpora, feed.shares, strict=True))
    while left:
        stream = train.like({task.name: Feed(list(left), list(left.values()))}, [task], seed=seed, split=split)
        walked_out = None
        while walked_out is None:
            if len(found) == instances:
                return found
            before = cursor.corpora if cursor else {}
            instance, cursor, _ = stream.instance(0, cursor, task.name, (task.name,))
            (corpus,) = (c for c in left if cursor.corpora.get(c.name) != before.get(c.name))
            size, (document, sentence) = corpus.documents(split), cursor.corpora[corpus.name]
            if (document, sentence) <= (size, 0):  # else it was found after the end, in a second pass
                found.append(instance)
            if document >= size:
                walked_out = corpus
        del left[walked_out]
    return found


def _exam(task: Task, train: Stream, found: Sequence[Instance], fitted: Sequence[Instance]) -> _Exam:
    """Packs the held-out instances `found`, and fits the cheap rule on the train instances `fitted`."""
    packs = []
    packer = Packer(train.caps, train.vocabulary.pad)
    for instance in found:
        if not packer.add(instance, train.ids[task.name]):
            packs.append(packer.pack())
            packer = Packer(train.caps, train.vocabulary.pad)
            packer.add(instance, train.ids[task.name])
    packs.append(packer.pack())
    labels, features = _scored(task, found)
    owner = np.repeat(np.arange(len(found)), [len(i.labels[task.name].targets) for i in found])
    classes = len(task.labels) if task.labels is not None else task.vocabulary.size
    seen, their_features = _scored(task, fitted)
    return _Exam(packs, len(found), labels, features, owner, CheapRule.fit(their_features, seen, classes))


def _scored(task: Task, instances: Sequence[Instance]) -> tuple[Array, Array]:
    """Labels (p,) and features of the cheap rule (p,) at all positions `task` scores in `instances`."""
    made = [(i.labels[task.name], i.sequence) for i in instances]
    features = np.concatenate([task.cheap(sequence, labels.positions) for labels, sequence in made])
    return np.concatenate([labels.targets for labels, _ in made]), features


def _macro_f1(labels: Array, predicted: Array) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predicted, average="macro", zero_division=0.0))
