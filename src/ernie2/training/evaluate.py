"""Held-out evaluation: each task by itself on documents nobody trained on, beside three baselines.

A task is shown its own instances only, plainly arranged, unmasked except for masking itself, under its own task id; the
same fixed instances every time. Classes that the caller draws come equally often. The baselines are the majority class
of training instances, the best constant answer on the held-out instances, and the feature baseline fitted on training
instances: the commonest label for one feature that the task names (the token's own prior, the number of segments).
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
"""Train instances the baselines are fitted on."""
SMOOTHING = 0.1
"""Added to every count where the feature baseline gives probabilities (for its loss)."""
Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


@dataclass(frozen=True)
class _HeldOutSet:
    """The fixed held-out instances of one task; `owner` (p,) is the instance each scored position belongs to."""

    packs: Sequence[PackedBatch]
    instances: int
    labels: Array
    owner: Array
    baselines: Mapping[str, Mapping[str, Any]]


class HeldOut:
    """Held-out instances and fitted baselines of every task, made once, asked again after every stage."""

    def __init__(
        self, train: DataStreams, feeds: Mapping[str, Feed], tasks: Sequence[Task], instances: int, seed: int
    ) -> None:
        self._tasks = {task.name: task for task in tasks}
        self._sets: dict[str, _HeldOutSet] = {}
        for task in tasks:
            held = heldout_feed(feeds[task.name], task, train.caps.longest)
            found = read_instances(train, held, task, instances, seed, "heldout")
            fitted = read_instances(train, feeds[task.name], task, FIT_INSTANCES, seed, "train") if found else []
            if fitted:
                self._sets[task.name] = _build_set(task, train, found, fitted)

    @property
    def missing(self) -> list[str]:
        """Tasks without a held-out document they can use."""
        return [name for name in self._tasks if name not in self._sets]

    def evaluate(
        self,
        model: MultiTaskModel,
        device: torch.device,
        precision: str,
        group: ProcessGroup | None = None,
        trained: Collection[str] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Per task: instances, scored positions, loss (nats), accuracy with its 95 % interval, macro-F1, baselines.

        `trained`: whether its training has begun, as it has for all tasks, or those that are given. `verdict`: the
        word of `ernie2.learned`. The ranks of `group` share the packs, and all return the same figures, those of one
        process.
        """
        group = group or ProcessGroup(device=device)
        made = [self._predict(name, heldout, model, precision, device, group) for name, heldout in self._sets.items()]
        values = iter(to_host([part for packs in made for pack in packs for part in pack]))
        shares = group.all_gather(
            {name: [(next(values), next(values)) for _ in packs] for name, packs in zip(self._sets, made, strict=True)}
        )
        found = {name: self._figures(name, heldout, [s[name] for s in shares]) for name, heldout in self._sets.items()}
        told = {name: {**figures, "trained": trained is None or name in trained} for name, figures in found.items()}
        return {name: {**figures, "verdict": verdict_of(figures).word} for name, figures in told.items()}

    def _predict(
        self,
        name: str,
        heldout: _HeldOutSet,
        model: MultiTaskModel,
        precision: str,
        device: torch.device,
        group: ProcessGroup,
    ) -> list[tuple[Tensor, Tensor]]:
        """Losses (p,) float32 and predicted classes (p,) of every pack this rank has: packs rank, rank + size, …

        A rank that has fewer spends its last turn on a pack of another: sharded layers need all ranks at once.
        """
        found = []
        for turn in range(group.max_per_rank(len(heldout.packs))):
            number = group.rank + turn * group.size
            with torch.no_grad(), autocast(precision, device):
                made = model.predictions(
                    Inputs.from_batch(heldout.packs[number % len(heldout.packs)], device, static=False)
                )
            if number < len(heldout.packs):
                losses, predicted = made[name]
                found.append((losses.float(), predicted))
        return found

    def _figures(
        self, name: str, heldout: _HeldOutSet, shares: Sequence[Sequence[tuple[Array, Array]]]
    ) -> dict[str, Any]:
        packs = range(len(heldout.packs))
        losses, predicted = zip(*(shares[pack % len(shares)][pack // len(shares)] for pack in packs), strict=True)
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
    """At most `instances` instances of `task` alone, from one pass over the `split` documents of each corpus of `feed`.

    Corpora are drawn by their shares; one that was walked to its end is left out of the draw from then on. `train`
    gives sizes and ids. Classes that the caller draws take turns, so that they come equally often.
    """
    found: list[Instance] = []
    cursor: Cursor | None = None
    left = dict(zip(feed.corpora, feed.shares, strict=True))
    while left:
        streams = train.with_feeds({task.name: Feed(list(left), list(left.values()))}, [task], seed=seed, split=split)
        walked_out = None
        while walked_out is None:
            if len(found) == instances:
                return found
            before = cursor.corpora if cursor else {}
            instance, cursor, _ = streams.instance(0, cursor, task.name, (task.name,))
            (corpus,) = (c for c in left if cursor.corpora.get(c.name) != before.get(c.name))
            size, (document, sentence) = corpus.num_documents(split), cursor.corpora[corpus.name]
            if (document, sentence) <= (size, 0):  # else it was found after the end, in a second pass
                found.append(instance)
            if document >= size:
                walked_out = corpus
        del left[walked_out]
    return found


def _build_set(task: Task, train: DataStreams, found: Sequence[Instance], fitted: Sequence[Instance]) -> _HeldOutSet:
    """Packs the held-out instances `found`, and computes the baselines, fitted on the train instances `fitted`."""
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
    rule = FeatureBaseline.fit(their_features, seen, classes)
    baselines = baseline_figures(rule, features, labels, task.baseline_name, with_f1=task.labels is not None)
    return _HeldOutSet(packs, len(found), labels, owner, baselines)


def _scored(task: Task, instances: Sequence[Instance]) -> tuple[Array, Array]:
    """Labels (p,) and features of the feature baseline (p,) at all positions `task` scores in `instances`."""
    made = [(i.labels[task.name], i.sequence) for i in instances]
    features = np.concatenate([task.baseline_feature(sequence, labels.positions) for labels, sequence in made])
    return np.concatenate([labels.targets for labels, _ in made]), features


def wilson(share: float, trials: float) -> tuple[float, float]:
    """95 % Wilson score interval of a proportion: `share` right of `trials` independent trials (may be fractional)."""
    square = Z95**2 / trials
    centre = (share + square / 2) / (1 + square)
    half = Z95 / (1 + square) * math.sqrt(share * (1 - share) / trials + square / (4 * trials))
    # where all or none are right, the bound is exactly that, whatever the rounding
    return (0.0 if share == 0 else max(0.0, centre - half)), (1.0 if share == 1 else min(1.0, centre + half))


def accuracy_interval(right: Array, owner: Array) -> tuple[float, float, float]:
    """Accuracy over scored positions with its 95 % interval, (accuracy, low, high).

    `right` (p,) bool, `owner` (p,) the instance of each position. Positions of one instance are correlated, so Wilson's
    interval is taken for the *effective* number of trials: the number of independent positions whose accuracy would
    have the variance that instance totals show (linearised ratio estimator, clustered by instance). It equals the
    number of instances where each scores one position, and is set to it where all positions are right or all wrong,
    which shows no variance.
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
    """Label frequencies by feature, from train instances; features never seen fall back on all labels together.

    `features` (f,) int64, ascending: those seen; `totals` (f,) and `best` (f,) int64: how often each was seen, and its
    commonest label. `pairs` (n,) int64, ascending: row of a feature · `classes` + label of every pair that was seen;
    `counts` (n,): how often. `overall` (classes,): how often each label was seen. `majority`: the commonest label. Of
    labels that are equally common, the one seen first.
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
        """features (p,) int64, labels (p,) int64 below `classes`."""
        known, rows, totals = np.unique(features, return_inverse=True, return_counts=True)
        pairs, first, counts = np.unique(rows * classes + labels, return_index=True, return_counts=True)
        order = np.lexsort((first, -counts, pairs // classes))  # by feature, the commonest label first
        _, begins = np.unique(pairs[order] // classes, return_index=True)
        overall = np.bincount(labels, minlength=classes)
        commonest = np.isin(labels, np.flatnonzero(overall == overall.max()))
        majority = int(labels[commonest.argmax()]) if len(labels) else 0
        return FeatureBaseline(known, totals, pairs[order][begins] % classes, pairs, counts, overall, majority, classes)

    @property
    def entropy(self) -> float:
        """Entropy in nats of the labels by themselves; for masking, the unigram entropy."""
        shares = self.overall[self.overall > 0] / self.overall.sum()
        return float(-(shares * np.log(shares)).sum())

    def predict(self, features: Array) -> Array:
        """(p,) int64: the commonest label of each feature."""
        rows, seen = _found(self.features, features)
        return np.where(seen, self.best[rows], self.majority)

    def losses(self, features: Array, labels: Array) -> Array:
        """(p,) float64: minus the log of the probability the baseline gives the right label, smoothed."""
        rows, seen = _found(self.features, features)
        at, paired = _found(self.pairs, rows * self.classes + labels)
        counts = np.where(seen, np.where(paired, self.counts[at], 0), self.overall[labels])
        totals = np.where(seen, self.totals[rows], self.overall.sum())
        losses: Array = -np.log((counts + SMOOTHING) / (totals + SMOOTHING * self.classes))
        return losses


def _found(ascending: Array, values: Array) -> tuple[Array, Array]:
    """Where each of `values` stands in `ascending`, and whether it does; those that do not stand at 0."""
    at = np.searchsorted(ascending, values)
    at[at == len(ascending)] = 0
    found = ascending[at] == values
    return np.where(found, at, 0), found


def baseline_figures(
    fitted: FeatureBaseline, features: Array, labels: Array, feature: str, with_f1: bool
) -> dict[str, dict[str, Any]]:
    """Figures of the three baselines on held-out positions, by their keys in the records.

    `features`, `labels` (p,); `feature` names the feature in words; `with_f1`: also macro-F1, where there are classes
    and not a vocabulary. They depend on the data alone, so a run computes them once.
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
    """Unweighted mean of the F1 of every class that occurs in `labels` or `predicted`, (p,) int64 each."""
    classes = 1 + int(max(labels.max(), predicted.max()))
    right = np.bincount(labels[labels == predicted], minlength=classes)
    named = np.bincount(labels, minlength=classes) + np.bincount(predicted, minlength=classes)
    occurs = named > 0
    return float((2 * right[occurs] / named[occurs]).mean())
