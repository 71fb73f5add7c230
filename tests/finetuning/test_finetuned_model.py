"""Saved models: loaded by `transformers` or by us, they give the same logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny_finetuning as tiny
from ernie2.datasets.examples import Head
from ernie2.errors import CheckpointError
from ernie2.finetuning.encoding import ExampleEncoder
from ernie2.finetuning.finetuned_model import FinetunedConfig, FinetunedModel, load_finetuned, save_finetuned
from ernie2.finetuning.heads import EncoderWithHead, output_count
from ernie2.finetuning.inference.predictions import compute_logits

CPU = torch.device("cpu")
CLASSES = {
    "classification": "ErnieForSequenceClassification",
    "multi_label": "ErnieForSequenceClassification",
    "regression": "ErnieForSequenceClassification",
    "tagging": "ErnieForTokenClassification",
    "span": "ErnieForQuestionAnswering",
}


def saved(folder: Path, head: Head, task_id: int = 0, pooling: Any = "first", **changes: Any):
    """(the model as it was, its config, where it was saved), with a head that is far from zero."""
    pretrained = tiny.pretrained(folder / "checkpoint", **changes)
    settings = tiny.settings(pooling=pooling)
    base_model, _ = pretrained.build(settings, 0)
    model = EncoderWithHead(
        base_model.encoder, head, output_count(head, len(tiny.LABELS[head])), dropout=0.0, pooling=pooling
    )
    with torch.no_grad():
        model.linear.weight.normal_(generator=torch.Generator().manual_seed(0))
        model.linear.bias.normal_(generator=torch.Generator().manual_seed(1))
        if model.encoder.embeddings.task is not None:
            model.encoder.embeddings.task.weight.normal_(generator=torch.Generator().manual_seed(2))
    config = FinetunedConfig(
        head=head,
        labels=tiny.LABELS[head],
        settings=settings,
        dataset="made-up",
        texts=("text", "pair"),
        task_id=task_id,
    )
    save_finetuned(folder / "model", FinetunedModel(model, pretrained.tokenizer, config, len(tiny.VOCABULARY)))
    return model, config, folder / "model"


def logits(model: EncoderWithHead, head: Head, tokenizer: Any, task_id: int) -> list[Any]:
    encoder = ExampleEncoder(tokenizer, head, tiny.LABELS[head], tiny.settings(), 4)
    sequences = encoder.encode(tiny.examples(head, 5), labelled=False).sequences
    return list(compute_logits(model, sequences, tiny.settings(), CPU, task_id=task_id))


@pytest.mark.parametrize("head", list(CLASSES))
@pytest.mark.parametrize("task_id", [0, 2])
def test_transformers_gives_the_same_logits_without_the_task_id(head: Head, task_id: int, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model, config, folder = saved(tmp_path, head, task_id, with_ids={"knowledge_masking": 0})
    pretrained = load_finetuned(folder).tokenizer
    theirs = getattr(transformers, CLASSES[head]).from_pretrained(folder).eval()
    encoder = ExampleEncoder(pretrained, head, config.labels, config.settings, 4)
    for one, ours in zip(
        encoder.encode(tiny.examples(head, 5), labelled=False).sequences,
        logits(model, head, pretrained, task_id),
        strict=True,
    ):
        ids, types = torch.tensor(one.tokens[None]).long(), torch.tensor(one.segments[None]).long()
        with torch.inference_mode():
            outputs = theirs(input_ids=ids, token_type_ids=types)
        if head == "span":
            expected = torch.stack([outputs.start_logits, outputs.end_logits], -1)[0]
        else:
            expected = outputs.logits[0, one.positions.tolist()] if head == "tagging" else outputs.logits
        np.testing.assert_allclose(ours, expected.numpy(), atol=1e-5)
    assert transformers.AutoTokenizer.from_pretrained(folder).model_max_length == config.settings.max_length
    hf = json.loads((folder / "config.json").read_text())
    assert hf["architectures"] == [CLASSES[head]]
    if config.labels:
        assert theirs.config.id2label == dict(enumerate(config.labels))


@pytest.mark.parametrize(
    ("head", "pooling", "changes"),
    [
        ("classification", "first", {}),
        ("regression", "mean", {}),
        ("tagging", "first", {"with_ids": {"knowledge_masking": 0}}),
        ("span", "first", {}),
        ("classification", "first", {"kind": "gru"}),
    ],
)
def test_a_loaded_model_gives_the_same_logits(head: Head, pooling: str, changes: Any, tmp_path: Path) -> None:
    if changes.get("kind"):  # such an encoder has no Hugging Face folder to start from
        model, config = recurrent(tmp_path, head)
    else:
        model, config, _ = saved(tmp_path, head, 1 if changes else 0, pooling, **changes)
    again = load_finetuned(tmp_path / "model")
    for one, other in zip(
        logits(model, head, again.tokenizer, config.task_id),
        logits(again.model, head, again.tokenizer, 0),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    assert again.config == config.model_copy(update={"settings": config.settings.model_copy(update={"task_id": 0})})


def recurrent(folder: Path, head: Head) -> tuple[EncoderWithHead, FinetunedConfig]:
    from ernie2.config.settings import EncoderSettings
    from ernie2.model.encoders import build_encoder

    tokenizer = tiny.pretrained(folder / "checkpoint").tokenizer
    shape = EncoderSettings(kind="gru", layers=1, hidden=16, position_rows=64, task_ids=4, dropout=0.0)
    model = EncoderWithHead(build_encoder(shape, 128, 0), head, 2, dropout=0.0)
    config = FinetunedConfig(
        head=head, labels=tiny.LABELS[head], settings=tiny.settings(), dataset="made-up", task_id=1
    )
    save_finetuned(folder / "model", FinetunedModel(model, tokenizer, config, len(tiny.VOCABULARY)))
    return model, config


def test_a_folder_that_is_not_fine_tuned_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"not a model fine-tuned by ernie2.*ernie2 finetune"):
        load_finetuned(tiny.write_checkpoint(tmp_path / "checkpoint"))
    with pytest.raises(CheckpointError, match=r"it has no config.json"):
        load_finetuned(tmp_path)


def test_a_model_with_former_names_of_settings_is_not_called_damaged(tmp_path: Path) -> None:
    _, _, folder = saved(tmp_path, "tagging")
    config = json.loads((folder / "config.json").read_text())
    settings = config["ernie2_finetuned"]["settings"]
    settings["batch"] = settings.pop("batch_size")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config\.json has former names of settings: an older ernie2 wrote it"):
        load_finetuned(folder)


def test_a_tagger_without_a_tag_scheme_is_refused(tmp_path: Path) -> None:
    _, _, folder = saved(tmp_path, "tagging")
    config = json.loads((folder / "config.json").read_text())
    assert config["ernie2_finetuned"].pop("scheme", "no key") is None
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"has no tag scheme.*Fine-tune again"):
        load_finetuned(folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("max_length", 100_000, "max_length=100000 is more than the 64 positions of the encoder"),
        ("max_length", "x", r"settings\.max_length: must be a whole number \(got 'x'\)"),
        ("max_length", 3, r"settings\.max_length: must be at least 8 \(got 3\)"),
        ("stride", 0, r"settings\.stride: must be at least 1 \(got 0\)"),
        ("n_best", -1, r"settings\.n_best: must be at least 1 \(got -1\)"),
        ("max_answer_length", 0, r"settings\.max_answer_length: must be at least 1 \(got 0\)"),
        ("pooling", "zz", r"settings\.pooling: must be 'first' or 'mean'"),
        ("batch_size", None, r"settings\.batch_size: must be a whole number"),
    ],
)
def test_settings_out_of_range_are_refused_in_one_line(key: str, value: Any, message: str, tmp_path: Path) -> None:
    _, _, folder = saved(tmp_path, "span")
    config = json.loads((folder / "config.json").read_text())
    config["ernie2_finetuned"]["settings"][key] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message) as error:
        load_finetuned(folder)
    assert "\n" not in str(error.value)


def test_missing_keys_and_duplicate_labels_are_named(tmp_path: Path) -> None:
    _, _, folder = saved(tmp_path, "classification")
    written = json.loads((folder / "config.json").read_text())
    first, *_ = written["ernie2_finetuned"]["labels"]
    for key, value, message in (
        ("dataset", None, "dataset: this key is required"),
        ("labels", [first] * 2, "duplicate label"),
    ):
        config = {name: one for name, one in written["ernie2_finetuned"].items() if name != key}
        if value is not None:
            config[key] = value
        (folder / "config.json").write_text(json.dumps(written | {"ernie2_finetuned": config}))
        with pytest.raises(CheckpointError, match=message) as error:
            load_finetuned(folder)
        assert "\n" not in str(error.value)


def test_a_missing_head_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    _, _, folder = saved(tmp_path, "classification")
    tensors = load_file(folder / "model.safetensors")
    del tensors["classifier.bias"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"its head classifier\.\* is missing"):
        load_finetuned(folder)
