"""The demo: the complete pipeline on the shipped text, in minutes.

It prepares shards and a vocabulary, trains four tasks in four stages, evaluates on held-out documents, writes a report,
and fine-tunes a small classifier: which work is a passage from? The classifier trains on 64 labelled passages and is
tested on held-out documents, with three seeds, and is compared with the same encoder untrained.
"""

from __future__ import annotations

import copy
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ernie2.batches.order import generator
from ernie2.config.finetuning_settings import FineTuningSettings
from ernie2.config.languages import check_language
from ernie2.config.overrides import as_override
from ernie2.console import log_info, log_result, progress
from ernie2.errors import ConfigError, RunStopped, did_you_mean
from ernie2.finetuning.encoding import EncodedSequence
from ernie2.finetuning.heads import EncoderWithHead
from ernie2.finetuning.inference.predictions import compute_logits
from ernie2.finetuning.training import train_model
from ernie2.learned import verdict_of
from ernie2.model.multitask import MultiTaskModel
from ernie2.reporting.report import write_report
from ernie2.runs.load import load_checkpoint
from ernie2.runs.prepare import prepare
from ernie2.runs.recipes import load_recipe
from ernie2.runs.start import pretrain, resume
from ernie2.seed_interval import mean_over_seeds
from ernie2.shards.store import ShardedCorpus, Shards
from ernie2.storage.locks import FolderLock
from ernie2.tasks.base import Vocabulary
from ernie2.training.checkpoints import is_started
from ernie2.training.records import Records

TRAIN_PASSAGES, TEST_PASSAGES, PASSAGE_TOKENS, SEEDS = 64, 200, 64, (0, 1, 2)
SETTINGS = FineTuningSettings(
    epochs=12,
    peak_lr=5e-4,
    batch_size=16,
    max_length=PASSAGE_TOKENS + 2,
    schedule="linear",
    warmup_ratio=0.1,
    weight_decay=0.0,
    summary="mean",
    betas=(0.9, 0.98),
    adam_eps=1e-6,
)
"""Settings of the paper's small datasets, with more epochs and a higher learning rate for this small encoder."""


QUESTIONS = {"en": "Which book is this passage from?", "zh": "Is this passage from a law or from a recipe?"}
"""The classification task by language. The class of a document is the part of its name before the #."""


def demo(language: str = "en", folder: str | Path = "ernie2-demo") -> Path:
    """Run the pipeline on the shipped text and return the run folder. A finished demo shows its results again."""
    folder, language = Path(folder), check_language(language)
    if language not in QUESTIONS:
        raise ConfigError(
            f"there is no demo in {language!r}.{did_you_mean(language, QUESTIONS)} Available: {', '.join(QUESTIONS)}."
        )
    folders = {"run": folder / language / "run", "shards.folder": folder / language / "shards"}
    overrides = [as_override(key, path) for key, path in folders.items()]
    recipe = load_recipe(f"demo-{language}", overrides)
    run = Path(recipe.run)
    log_info(f"1. Corpus → shards: {recipe.about}")
    prepare(f"demo-{language}", overrides)
    log_info(f"2. Shards → {len(recipe.tasks)} tasks in stages")
    try:
        if is_started(run):
            resume(run)
        else:
            pretrain(f"demo-{language}", overrides)
    except RunStopped as error:
        again = shlex.join(["ernie2", "demo", "--language", language, "--folder", str(folder)])
        raise RunStopped(f"the run was stopped and saved. Continue with `{again}`.") from error
    records = Records(run)
    with FolderLock(run, alternative="name another folder"):
        if not any(line["kind"] == "score" for line in records.read()):
            log_info(f"3. Checkpoint → score: {QUESTIONS[language]}")
            records.write("score", **score(run, Shards(recipe.shards.folder), QUESTIONS[language]))
    page = write_report(run)
    _log_summary(records.read())
    log_info(f"\nReport:  {page}\nModel:   {run / 'hf'} (transformers loads it as ErnieModel or ErnieForMaskedLM)")
    log_info("Next, use your own text: `ernie2 recipes demo-en my-recipe.yaml`, then see docs/own-corpus.md")
    return run


def score(run: Path, shards: Shards, question: str) -> dict[str, Any]:
    """Fine-tune the run's encoder and the same encoder untrained; return accuracies on passages of held-out documents.

    Uses mean pooling: the first token of an encoder this small contains almost no information on the topic.
    """
    loaded = load_checkpoint(run, shards)
    recipe = loaded.recipe
    assert recipe is not None
    vocabulary = loaded.tasks[0].vocabulary
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    corpora = list(shards.corpora.values())
    classes = sorted({_class_of(name) for corpus in corpora for shard in corpus.shards for name in shard.names})
    test = _passages(corpora, "heldout", classes, TEST_PASSAGES, vocabulary, seed=0)
    answers = np.concatenate([one.labels for one in test if one.labels is not None])
    untrained = MultiTaskModel(recipe.encoder, vocabulary.size, [], recipe.seed)
    accuracies: dict[str, list[float]] = {"pretrained": [], "untrained": []}
    with progress("Fine-tuning", 2 * len(SEEDS), "runs") as bar:
        for seed in SEEDS:
            train = _passages(corpora, "train", classes, TRAIN_PASSAGES, vocabulary, seed)
            for kind, source in (("pretrained", loaded.model), ("untrained", untrained)):
                encoder = copy.deepcopy(source.encoder)
                model = EncoderWithHead(encoder, "classification", len(classes), seed=seed, pooling="mean")
                train_model(model, train, SETTINGS, seed, device)
                best = np.array([scores.argmax() for scores in compute_logits(model, test, SETTINGS, device)])
                accuracies[kind].append(float((best == answers).mean()))
                bar.advance(note=f"{kind} {accuracies[kind][-1]:.3f}")
    # spread over seeds, not over test passages
    margin = mean_over_seeds(np.subtract(accuracies["pretrained"], accuracies["untrained"]).tolist())
    return {
        "name": question,
        "metric": "accuracy",
        "train": TRAIN_PASSAGES,
        "test": len(test),
        "classes": classes,
        "majority": float(np.bincount(answers).max() / len(test)),
        "seeds": list(SEEDS),
        **accuracies,
        "margin": margin.mean,
        "margin_low": margin.low,
        "margin_high": margin.high,
        "margin_note": margin.note,
    }


def _passages(
    corpora: Sequence[ShardedCorpus],
    split: str,
    classes: Sequence[str],
    count: int,
    vocabulary: Vocabulary,
    seed: int,
) -> list[EncodedSequence]:
    """Return `count` passages of complete sentences with at most PASSAGE_TOKENS tokens, equally many per class.

    A single longer sentence is truncated.
    """
    rng = generator("passages", split, seed)
    passages: list[EncodedSequence] = []
    for label, name in enumerate(classes):
        starts = [
            (document, sentence)
            for corpus in corpora
            for number in range(corpus.num_documents(split))
            if _class_of((document := corpus.document(split, number)).name) == name
            for sentence in range(0, document.sentence_count - 1, 3)
        ]
        for i in rng.permutation(len(starts))[: count // len(classes)]:
            document, sentence = starts[i]
            first = document.sentences[sentence]
            end = np.searchsorted(document.sentences, first + PASSAGE_TOKENS, side="right") - 1
            stop = document.sentences[max(end, sentence + 1)]
            text = document.tokens[first:stop][:PASSAGE_TOKENS]
            tokens = np.concatenate([[vocabulary.cls], text, [vocabulary.sep]]).astype(np.int32)
            first = np.zeros(1, np.int32)
            passages.append(
                EncodedSequence(tokens, np.zeros_like(tokens), first, np.array([label], np.int64), len(passages))
            )
    return passages


def _class_of(name: str) -> str:
    return name.partition("#")[0]


def _log_summary(lines: Sequence[dict[str, Any]]) -> None:
    ends = [line["tasks"] for line in lines if line["kind"] == "heldout" and line["at"] == "stage_end"]
    log_result("\nResults")
    masked = [tasks["knowledge_masking"] for tasks in ends]
    path = " → ".join(f"{figures['loss']:.3f}" for figures in masked)
    entropy = masked[0]["feature_baseline"]["entropy"]
    log_result(f"  masked-token loss at the end of each stage: {path} (unigram entropy {entropy:.3f})")
    for name, figures in ends[-1].items():
        interval = f"{figures['accuracy']:.3f} ({figures['low']:.3f} to {figures['high']:.3f})"
        log_result(f"  {name}: {interval}, {verdict_of(figures).reason}")
    result = [line for line in lines if line["kind"] == "score"][-1]
    shown = {kind: "/".join(f"{a:.3f}" for a in result[kind]) for kind in ("pretrained", "untrained")}
    bounds = result["margin_note"] or (
        f"95 % over {len(result['seeds'])} seeds: {result['margin_low']:+.3f} to {result['margin_high']:+.3f}"
    )
    log_result(
        f"  {result['name']} pre-trained {shown['pretrained']}, untrained {shown['untrained']}: margin "
        f"{result['margin']:+.3f} ({bounds}); {result['test']} passages of held-out documents"
    )
