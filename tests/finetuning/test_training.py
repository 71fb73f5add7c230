"""The training loop, compared with a plain loop around classes of transformers and torch's AdamW."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny_finetuning as tiny
from ernie2.datasets.examples import Head
from ernie2.finetuning.encoding import ExampleEncoder
from ernie2.finetuning.finetuned_model import FinetunedConfig, FinetunedModel, save_finetuned
from ernie2.finetuning.heads import EncoderWithHead, output_count
from ernie2.finetuning.training import epoch_batches, learning_rate, train_model

CPU = torch.device("cpu")


def ready(folder: Path, head: Head, count: int = 13, **changes: Any):
    """A model before training, its sequences and settings."""
    settings = tiny.settings(**changes)
    pretrained = tiny.pretrained(folder / "checkpoint", dropout=settings.dropout)
    encoder = ExampleEncoder(pretrained.tokenizer, head, tiny.LABELS[head], settings, 4)
    base_model, _ = pretrained.build(settings, 0)
    model = EncoderWithHead(
        base_model.encoder, head, output_count(head, len(tiny.LABELS[head])), dropout=settings.dropout, seed=3
    )
    return model, encoder.encode(tiny.examples(head, count), labelled=True).sequences, settings, pretrained


def plain_losses(folder: Path, head: Head, sequences: Any, settings: Any, seed: int) -> list[float]:
    """Losses of an independent loop: padded batches through the class transformers picks, AdamW, clipping by norm."""
    import transformers

    kind = {"tagging": "TokenClassification", "span": "QuestionAnswering"}.get(head, "SequenceClassification")
    theirs = getattr(transformers, f"ErnieFor{kind}").from_pretrained(folder).train()
    plain = [p for n, p in theirs.named_parameters() if n.endswith("bias") or "LayerNorm" in n]
    decayed = [p for n, p in theirs.named_parameters() if not (n.endswith("bias") or "LayerNorm" in n)]
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": settings.weight_decay}]
    optimizer = torch.optim.AdamW(groups, lr=settings.peak_lr)
    losses = []
    for epoch in range(settings.epochs):
        for chosen in epoch_batches(len(sequences), settings.batch_size, seed, epoch):
            batch = [sequences[i] for i in chosen]
            longest = max(len(one.tokens) for one in batch)
            ids, mask, types = (torch.zeros(len(batch), longest, dtype=torch.long) for _ in range(3))
            for row, one in enumerate(batch):
                ids[row, : len(one.tokens)] = torch.tensor(one.tokens)
                mask[row, : len(one.tokens)] = 1
                types[row, : len(one.tokens)] = torch.tensor(one.segments)
            inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
            labels = [torch.tensor(one.labels) for one in batch]
            if head == "tagging":
                inputs["labels"] = torch.full_like(ids, -100)
                for row, one in enumerate(batch):
                    inputs["labels"][row, one.positions.tolist()] = labels[row]
                loss = theirs(**inputs).loss
            elif head == "span":  # their loss lets padding take part in the softmax
                outputs = theirs(**inputs)
                both = [outputs.start_logits, outputs.end_logits]
                targets = torch.cat(labels)
                masked = [scores.masked_fill(mask == 0, float("-inf")) for scores in both]
                parts = [torch.nn.functional.cross_entropy(masked[i], targets[:, i]) for i in (0, 1)]
                loss = (parts[0] + parts[1]) / 2
            else:
                loss = theirs(**inputs, labels=torch.cat(labels)).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(theirs.parameters(), settings.max_grad_norm)
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("head", ["classification", "regression", "multi_label", "tagging", "span"])
def test_losses_are_those_of_transformers_on_the_same_batches(head: Head, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    # five epochs of four batches, accumulated over packs of two sequences or so
    model, sequences, settings, pretrained = ready(tmp_path, head, epochs=5, pack_tokens=40)
    config = FinetunedConfig(head=head, labels=tiny.LABELS[head], settings=settings, dataset="made-up")
    save_finetuned(tmp_path / "start", FinetunedModel(model, pretrained.tokenizer, config, len(tiny.VOCABULARY)))
    ours = train_model(model, sequences, settings, 5, CPU).losses
    theirs = plain_losses(tmp_path / "start", head, sequences, settings, 5)
    assert len(ours) == len(theirs) == 20
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert ours[-1] < ours[0]


def test_packs_change_nothing_but_memory(tmp_path: Path) -> None:
    results = []
    for pack_tokens in (16, 4096):
        model, sequences, settings, _ = ready(tmp_path, "classification", pack_tokens=pack_tokens)
        results.append(train_model(model, sequences, settings, 0, CPU).losses)
    assert results[0] == pytest.approx(results[1], abs=1e-5)


def test_the_same_seed_gives_the_same_parameters_with_dropout_and_another_does_not(tmp_path: Path) -> None:
    results = []
    for seed in (0, 0, 1):
        model, sequences, settings, _ = ready(tmp_path, "classification", dropout=0.1, epochs=1)
        train_model(model, sequences, settings, seed, CPU)
        results.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_a_nonfinite_loss_ends_the_run_and_names_the_step(tmp_path: Path) -> None:
    model, sequences, settings, _ = ready(tmp_path, "classification", epochs=3)
    with torch.no_grad():
        model.linear.weight.fill_(float("nan"))
    history = train_model(model, sequences, settings, 0, CPU)
    assert history.diverged == "the loss was not finite at step 1 of 12"
    assert len(history.epochs) == 1


def test_every_epoch_is_recorded_with_the_result_of_after_epoch(tmp_path: Path) -> None:
    model, sequences, settings, _ = ready(tmp_path, "classification", count=8)
    history = train_model(model, sequences, settings, 0, CPU, after_epoch=lambda: {"metrics": 1})
    assert [(one["epoch"], one["metrics"]) for one in history.epochs] == [(1, 1), (2, 1)]
    assert history.epochs[0]["loss"] == pytest.approx(sum(history.losses[:2]) / 2)
    assert history.sequences_per_second > 0


def test_max_steps_does_not_change_the_schedule(tmp_path: Path) -> None:
    model, sequences, settings, _ = ready(tmp_path, "classification", schedule="linear", warmup_ratio=0.1)
    losses = train_model(model, sequences, settings, 0, CPU).losses
    model, *_ = ready(tmp_path, "classification")
    assert train_model(model, sequences, settings, 0, CPU, max_steps=3).losses == losses[:3]


LINEAR = tiny.settings(schedule="linear", warmup_ratio=0.1, peak_lr=1.0)
RATES = [
    (LINEAR, [(1, 0.5), (2, 0.95), (11, 0.5), (20, 0.05)]),  # of 20 steps; warm-up over 2; 1 - (step - 1) / 20
    (
        tiny.settings(schedule="linear", warmup_ratio=0.1, peak_lr=1.0, decay_from_zero=False),
        [(2, 1.0), (3, 1.0), (12, 0.5)],
    ),
    (tiny.settings(peak_lr=1.0), [(1, 1.0), (20, 1.0)]),
    (tiny.settings(peak_lr=1.0, warmup_ratio=0.5), [(1, 0.1), (10, 1.0), (20, 1.0)]),
]


@pytest.mark.parametrize(("settings", "rates"), RATES)
def test_learning_rate_of_a_step(settings: Any, rates: list[tuple[int, float]]) -> None:
    assert [learning_rate(step, 20, settings) for step, _ in rates] == pytest.approx([rate for _, rate in rates])


def test_the_order_is_a_pure_function_of_seed_and_epoch_and_covers_everything_once() -> None:
    orders = {key: np.concatenate(list(epoch_batches(10, 4, *key))).tolist() for key in [(0, 0), (0, 1), (1, 0)]}
    assert all(sorted(order) == list(range(10)) for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) == 3
    assert np.concatenate(list(epoch_batches(10, 4, 0, 0))).tolist() == orders[0, 0]
    assert [len(batch) for batch in epoch_batches(10, 4, 0, 0)] == [4, 4, 2]
