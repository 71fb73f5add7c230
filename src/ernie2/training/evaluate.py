"""Held-out evaluation: each task on its own instances from held-out documents, with three baselines.

The instances are fixed and have the task's own task id. No tasks are attached, so only the masking task sees masked
tokens. Labels of balanced tasks are equally frequent. The baselines are the majority class of training instances, the
best constant answer on the held-out instances, and the feature baseline fitted on training instances: the most frequent
label for one feature that the task names (such as the token itself or the number of segments).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ernie2.batches.batch import PackedBatch
from ernie2.batches.feeds import heldout_feed
from ernie2.batches.packing import Packer
from ernie2.batches.streams import Cursor, DataStreams, Feed
from ernie2.learned import verdict_of
from ernie2.model.inputs import Inputs
from ernie2.model.multitask import MultiTaskModel
from ernie2.model.transfer import to_host
from ernie2.tasks.base import Task
from ernie2.tasks.instances import Instance
from ernie2.training.distributed import ProcessGroup
from ernie2.training.step import autocast

Array = NDArray[Any]

FIT_INSTANCES = 2_000
"""Training instances on which the baselines are fitted."""
SMOOTHING = 0.1
"""Added to every count in the probabilities of the feature baseline (for its loss)."""
Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


@dataclass(frozen=True)
class _HeldOutSet:
    """The held-out instances of one task; `owner` (p,) is the instance of each scored position."""

    packs: Sequence[PackedBatch]
    instances: int
    labels: Array
    owner: Array
    baselines: Mapping[str, Mapping[str, Any]]


class HeldOut:
    """Held-out instances and fitted baselines of every task, built once and evaluated repeatedly."""

    def __init__(
        self, train: DataStreams, feeds: Mapping[str, Feed], tasks: Sequence[Task], instances: int, seed: int
    ) -> None:
        self._tasks = {task.name: task for task in tasks}
        self._sets: dict[str, _HeldOutSet] = {}
        for task in tasks:
            feed = heldout_feed(feeds[task.name], task, train.caps.longest)
            evaluated = read_instances(train, feed, task, instances, seed, "heldout")
            fitted = read_instances(train, feeds[task.name], task, FIT_INSTANCES, seed, "train") if evaluated else []
            if fitted:
                self._sets[task.name] = _build_set(task, train, evaluated, fitted)

    @property
    def missing(self) -> list[str]:
        """Tasks without a usable held-out document."""
        return [name for name in self._tasks if name not in self._sets]

    def evaluate(
        self,
        model: MultiTaskModel,
        device: torch.device,
        precision: str,
        group: ProcessGroup | None = None,
        trained: Collection[str] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Return by task: instances, scored positions, loss (nats), accuracy with 95 % interval, macro-F1, baselines.

        `trained`: tasks trained so far, default all. `verdict` in the result: see `ernie2.learned`. Ranks share the
        packs; all return the same figures as a single process.
        """
        group = group or ProcessGroup(device=device)
        predictions = [
            self._predict(name, heldout, model, precision, device, group) for name, heldout in self._sets.items()
        ]
        values = iter(to_host([part for packs in predictions for pack in packs for part in pack]))
        by_rank = group.all_gather(
            {
                name: [(next(values), next(values)) for _ in packs]
                for name, packs in zip(self._sets, predictions, strict=True)
            }
        )
        figures = {
            name: self._figures(name, heldout, [rank[name] for rank in by_rank]) for name, heldout in self._sets.items()
        }
        trained_names = figures.keys() if trained is None else trained
        results = {name: {**each, "trained": name in trained_names} for name, each in figures.items()}
        return {name: {**each, "verdict": verdict_of(each).word} for name, each in results.items()}

    def _predict(
        self,
        name: str,
        heldout: _HeldOutSet,
        model: MultiTaskModel,
        precision: str,
        device: torch.device,
        group: ProcessGroup,
    ) -> list[tuple[Tensor, Tensor]]:
        """Return losses (p,) float32 and predicted classes (p,) of this rank's packs, numbers rank, rank + size, …

        A rank with fewer packs repeats one of another rank, because FSDP layers need all ranks at once.
        """
        predictions = []
        for turn in range(group.max_per_rank(len(heldout.packs))):
            number = group.rank + turn * group.size
            with torch.no_grad(), autocast(precision, device):
                outputs = model.predictions(
                    Inputs.from_batch(heldout.packs[number % len(heldout.packs)], device, static=False)
                )
            if number < len(heldout.packs):
                losses, predicted = outputs[name]
                predictions.append((losses.float(), predicted))
        return predictions

    def _figures(
        self, name: str, heldout: _HeldOutSet, by_rank: Sequence[Sequence[tuple[Array, Array]]]
    ) -> dict[str, Any]:
        packs = range(len(heldout.packs))
        losses, predicted = zip(*(by_rank[pack % len(by_rank)][pack // len(by_rank)] for pack in packs), strict=True)
        right = np.concatenate(predicted) == heldout.labels
        accuracy, low, high = accuracy_interval(right, heldout.owner)
        classes = self._tasks[name].labels is not None
        return {
            "instances": heldout.instances,
            "scored": len(heldout.labels),
            "loss": float(np.concatenate(losses).mean()),
            "accuracy": accuracy,
            "low": low,
            "high": high,
            "macro_f1": macro_f1(heldout.labels, np.concatenate(predicted)) if classes else None,
            **heldout.baselines,
        }


def read_instances(train: DataStreams, feed: Feed, task: Task, instances: int, seed: int, split: str) -> list[Instance]:
    """Return at most `instances` instances of `task` from one pass over the `split` documents of each corpus of `feed`.

    Corpora are drawn by their shares; a corpus read to its end is not drawn any more. `train` gives pack sizes and
    task ids, not data. Labels of balanced tasks rotate, so that they are equally frequent.
    """
    instances_read: list[Instance] = []
    cursor: Cursor | None = None
    remaining = dict(zip(feed.corpora, feed.shares, strict=True))
    while remaining:
        streams = train.with_feeds(
            {task.name: Feed(list(remaining), list(remaining.values()))}, [task], seed=seed, split=split
        )
        finished = None
        while finished is None:
            if len(instances_read) == instances:
                return instances_read
            before = cursor.corpora if cursor else {}
            instance, cursor, _ = streams.instance(0, cursor, task.name, (task.name,))
            # the corpus of this instance: the only one whose position moved
            (corpus,) = (c for c in remaining if cursor.corpora.get(c.name) != before.get(c.name))
            size, (document, sentence) = corpus.num_documents(split), cursor.corpora[corpus.name]
            if (document, sentence) <= (size, 0):  # else it is from a second pass
                instances_read.append(instance)
            if document >= size:
                finished = corpus
        del remaining[finished]
    return instances_read


def _build_set(
    task: Task, train: DataStreams, evaluated: Sequence[Instance], fitted: Sequence[Instance]
) -> _HeldOutSet:
    """Pack the held-out instances `evaluated` and compute baselines fitted on the training instances `fitted`."""
    packs = []
    packer = Packer(train.caps, train.vocabulary.pad)
    for instance in evaluated:
        if not packer.add(instance, train.ids[task.name]):
            packs.append(packer.pack())
            packer = Packer(train.caps, train.vocabulary.pad)
            packer.add(instance, train.ids[task.name])
    packs.append(packer.pack())
    labels, features = _scored(task, evaluated)
    owner = np.repeat(np.arange(len(evaluated)), [len(i.labels[task.name].targets) for i in evaluated])
    classes = len(task.labels) if task.labels is not None else task.vocabulary.size
    fitted_labels, fitted_features = _scored(task, fitted)
    baseline = FeatureBaseline.fit(fitted_features, fitted_labels, classes)
    baselines = baseline_figures(baseline, features, labels, task.baseline_name, with_f1=task.labels is not None)
    return _HeldOutSet(packs, len(evaluated), labels, owner, baselines)


def _scored(task: Task, instances: Sequence[Instance]) -> tuple[Array, Array]:
    """Return labels (p,) and features of the feature baseline (p,) at all scored positions of `instances`."""
    scored = [(i.labels[task.name], i.sequence) for i in instances]
    features = np.concatenate([task.baseline_feature(sequence, labels.positions) for labels, sequence in scored])
    return np.concatenate([labels.targets for labels, _ in scored]), features


def wilson(share: float, trials: float) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of the proportion `share` in `trials` trials (may be fractional)."""
    square = Z95**2 / trials
    centre = (share + square / 2) / (1 + square)
    half = Z95 / (1 + square) * math.sqrt(share * (1 - share) / trials + square / (4 * trials))
    # exact bounds if all or none are correct, without rounding errors
    return (0.0 if share == 0 else max(0.0, centre - half)), (1.0 if share == 1 else min(1.0, centre + half))


def accuracy_interval(right: Array, owner: Array) -> tuple[float, float, float]:
    """Return accuracy over scored positions with its 95 % interval: (accuracy, low, high).

    `right` (p,) bool: whether each position is correct; `owner` (p,): its instance. Positions of one instance are
    correlated, so Wilson's interval uses the effective sample size: the number of independent positions that gives the
    same variance as the instance totals (linearised ratio estimator, clustered by instance). It equals the number of
    instances if each scores one position, and is set to it if all positions are correct or all wrong (no variance).
    """
    counts = np.bincount(owner).astype(float)
    totals = np.bincount(owner, weights=right)
    counts, totals = counts[counts > 0], totals[counts > 0]
    positions, instances = float(counts.sum()), len(counts)
    accuracy = float(totals.sum()) / positions
    squares = float(((totals - accuracy * counts) ** 2).sum())
    if accuracy in (0.0, 1.0):
        trials = float(instances)
    else:
        trials = min(positions, accuracy * (1 - accuracy) * positions**2 / squares) if squares else positions
    return accuracy, *wilson(accuracy, trials)


@dataclass(frozen=True)
class FeatureBaseline:
    """Label frequencies by feature, from training instances; unknown features use the frequencies of all labels.

    `features` (f,) int64, ascending; `totals` (f,) int64: their counts; `best` (f,) int64: their most frequent labels.
    `pairs` (n,) int64, ascending: every observed (feature, label) as feature row · `classes` + label; `counts` (n,):
    their counts. `overall` (classes,): counts of labels. `majority`: the most frequent label. The label that came first
    wins ties.
    """

    features: Array
    totals: Array
    best: Array
    pairs: Array
    counts: Array
    overall: Array
    majority: int
    classes: int

    @staticmethod
    def fit(features: Array, labels: Array, classes: int) -> FeatureBaseline:
        """Fit to features (p,) int64 and labels (p,) int64 below `classes`."""
        known, rows, totals = np.unique(features, return_inverse=True, return_counts=True)
        pairs, first, counts = np.unique(rows * classes + labels, return_index=True, return_counts=True)
        order = np.lexsort((first, -counts, pairs // classes))  # by feature, the most frequent label first
        _, begins = np.unique(pairs[order] // classes, return_index=True)
        overall = np.bincount(labels, minlength=classes)
        commonest = np.isin(labels, np.flatnonzero(overall == overall.max()))
        majority = int(labels[commonest.argmax()]) if len(labels) else 0
        return FeatureBaseline(known, totals, pairs[order][begins] % classes, pairs, counts, overall, majority, classes)

    @property
    def entropy(self) -> float:
        """Entropy of the labels in nats; for masking, the unigram entropy."""
        shares = self.overall[self.overall > 0] / self.overall.sum()
        return float(-(shares * np.log(shares)).sum())

    def predict(self, features: Array) -> Array:
        """Return the most frequent label of each feature, (p,) int64."""
        rows, seen = _lookup(self.features, features)
        return np.where(seen, self.best[rows], self.majority)

    def losses(self, features: Array, labels: Array) -> Array:
        """Return the smoothed negative log-likelihood of the correct labels, (p,) float64."""
        rows, seen = _lookup(self.features, features)
        at, paired = _lookup(self.pairs, rows * self.classes + labels)
        counts = np.where(seen, np.where(paired, self.counts[at], 0), self.overall[labels])
        totals = np.where(seen, self.totals[rows], self.overall.sum())
        losses: Array = -np.log((counts + SMOOTHING) / (totals + SMOOTHING * self.classes))
        return losses


def _lookup(ascending: Array, values: Array) -> tuple[Array, Array]:
    """Return the index of each of `values` in `ascending`, 0 if absent, and whether it is present."""
    index = np.searchsorted(ascending, values)
    index[index == len(ascending)] = 0
    present = ascending[index] == values
    return np.where(present, index, 0), present


def baseline_figures(
    fitted: FeatureBaseline, features: Array, labels: Array, feature: str, with_f1: bool
) -> dict[str, dict[str, Any]]:
    """Return the figures of the three baselines on held-out positions, by their keys in records.

    `features`, `labels` (p,); `feature`: description of the feature; `with_f1`: also macro-F1, for classes that are not
    a vocabulary. They depend only on the data, so a run computes them once.
    """
    constant = int(np.bincount(labels).argmax())
    answers = {
        "majority_baseline": np.full_like(labels, fitted.majority),
        "constant_baseline": np.full_like(labels, constant),
        "feature_baseline": fitted.predict(features),
    }
    figures: dict[str, dict[str, Any]] = {
        name: {
            "accuracy": float((answer == labels).mean()),
            "macro_f1": macro_f1(labels, answer) if with_f1 else None,
        }
        for name, answer in answers.items()
    }
    loss = float(fitted.losses(features, labels).mean())
    figures["feature_baseline"] |= {"feature": feature, "loss": loss, "entropy": fitted.entropy}
    return figures


def macro_f1(labels: Array, predicted: Array) -> float:
    """Return the unweighted mean F1 of the classes in `labels` or `predicted`, (p,) int64 each."""
    classes = 1 + int(max(labels.max(), predicted.max()))
    correct = np.bincount(labels[labels == predicted], minlength=classes)
    totals = np.bincount(labels, minlength=classes) + np.bincount(predicted, minlength=classes)
    occurs = totals > 0
    return float((2 * correct[occurs] / totals[occurs]).mean())
