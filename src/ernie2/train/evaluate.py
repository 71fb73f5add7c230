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
from ernie2.batches.stream import Cursor, Feed, Lane, Stream
from ernie2.model.inputs import Inputs
from ernie2.model.multitask import MultiTaskModel
from ernie2.tasks.base import Task
from ernie2.tasks.instances import Instance
from ernie2.tasks.usable import count_usable
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
            corpora = [
                (corpus, share)
                for corpus, share in zip(feeds[task.name].corpora, feeds[task.name].shares, strict=True)
                if count_usable(corpus, task, "heldout")[0]
            ]
            if corpora:
                feed = {task.name: Feed(*map(list, zip(*corpora, strict=True)))}
                stream = train.like(feed, [task], seed=seed, split="heldout")
                self._exams[task.name] = _exam(task, stream, train, instances)

    @property
    def missing(self) -> list[str]:
        """Tasks without a held-out document they can use."""
        return [name for name in self._tasks if name not in self._exams]

    def evaluate(self, model: MultiTaskModel, device: torch.device, precision: str) -> dict[str, dict[str, Any]]:
        """Per task: instances, scored positions, loss (nats), accuracy with its 95 % interval, macro-F1, both
        baselines.

        `learned`: the interval's lower end lies above the cheap rule's accuracy.
        """
        return {name: self._evaluate(name, exam, model, device, precision) for name, exam in self._exams.items()}

    def _evaluate(
        self, name: str, exam: _Exam, model: MultiTaskModel, device: torch.device, precision: str
    ) -> dict[str, Any]:
        losses, predicted = [], []
        for pack in exam.packs:
            with torch.inference_mode(), autocast(precision, device):
                made = model.predictions(Inputs.of(pack, device, static=False))
            if name in made:
                losses.append(made[name][0].float().cpu().numpy())
                predicted.append(made[name][1].cpu().numpy())
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


def _exam(task: Task, heldout: Stream, train: Stream, instances: int) -> _Exam:
    packs, made, labels, features, owner = [], 0, [], [], []
    packer = Packer(heldout.caps, heldout.vocabulary.pad)
    for instance in _walk(heldout, task, instances):
        if not packer.add(instance, heldout.ids[task.name]):
            packs.append(packer.pack())
            packer = Packer(heldout.caps, heldout.vocabulary.pad)
            packer.add(instance, heldout.ids[task.name])
        scored = instance.labels[task.name]
        labels.append(scored.targets)
        features.append(task.cheap(instance.sequence, scored.positions))
        owner.append(np.full(len(scored.targets), made))
        made += 1
    packs.append(packer.pack())
    fitted = [
        (i.labels[task.name].targets, task.cheap(i.sequence, i.labels[task.name].positions))
        for i in _walk(train, task, FIT_INSTANCES)
    ]
    classes = len(task.labels) if task.labels is not None else task.vocabulary.size
    rule = CheapRule.fit(np.concatenate([f for _, f in fitted]), np.concatenate([t for t, _ in fitted]), classes)
    return _Exam(packs, made, np.concatenate(labels), np.concatenate(features), np.concatenate(owner), rule)


def _walk(stream: Stream, task: Task, instances: int) -> list[Instance]:
    """At most `instances` instances of `task` alone, from one pass over the documents."""
    found: list[Instance] = []
    cursor: Cursor | None = None
    while len(found) < instances:
        instance, cursor, _ = stream.instance(0, cursor, task.name, (task.name,))
        found.append(instance)
        if stream.epoch(task.name, Lane({task.name: cursor})) > 0:
            break
    return found


def _macro_f1(labels: Array, predicted: Array) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predicted, average="macro", zero_division=0.0))
