"""ONNX export: onnxruntime gives the outputs that `transformers` gives for the same model."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny_finetuning as tiny
from ernie2.config.settings import EncoderSettings
from ernie2.datasets.examples import Head
from ernie2.errors import CheckpointError, ConfigError, StorageError
from ernie2.finetuning import export_onnx
from ernie2.finetuning.encoding import ExampleEncoder
from ernie2.finetuning.export_onnx import export
from ernie2.finetuning.finetuned_model import FinetunedConfig, FinetunedModel, load_finetuned, save_finetuned
from ernie2.finetuning.heads import EncoderWithHead, PaddedEncoderWithHead, output_count
from ernie2.finetuning.inference.predictions import compute_logits

onnx = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")), reason="needs the extra onnx"
)


def saved(folder: Path, head: Head, pooling: Any = "first") -> Path:
    pretrained = tiny.pretrained(folder / "checkpoint", task_ids=4)
    settings = tiny.settings(pooling=pooling)
    model = EncoderWithHead(
        pretrained.build(settings, 0)[0].encoder, head, output_count(head, len(tiny.LABELS[head])), pooling=pooling
    )
    with torch.no_grad():
        model.linear.weight.normal_(generator=torch.Generator().manual_seed(0))
    config = FinetunedConfig(head=head, labels=tiny.LABELS[head], settings=settings, dataset="made-up", task_id=2)
    save_finetuned(folder / "model", FinetunedModel(model, pretrained.tokenizer, config, len(tiny.VOCABULARY)))
    return folder / "model"


def padded(rows: list[Any]) -> tuple[torch.Tensor, ...]:
    longest = max(len(one.tokens) for one in rows)
    tensors = [torch.zeros(len(rows), longest, dtype=torch.long) for _ in range(3)]
    for i, one in enumerate(rows):
        for tensor, values in zip(tensors, (one.tokens, np.ones(len(one.tokens)), one.segments), strict=True):
            tensor[i, : len(one.tokens)] = torch.tensor(values)
    return tuple(tensors)


@pytest.mark.parametrize("head", ["classification", "tagging", "span"])
@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_padded_batches_give_the_logits_of_packs(head: Head, pooling: str, tmp_path: Path) -> None:
    finetuned = load_finetuned(saved(tmp_path, head, pooling))
    encoder = ExampleEncoder(finetuned.tokenizer, head, finetuned.config.labels, finetuned.config.settings, 4)
    rows = list(encoder.encode(tiny.examples(head, 6), labelled=False).sequences)
    with torch.inference_mode():
        outputs = PaddedEncoderWithHead(finetuned.model).eval()(*padded(rows))
    packed = compute_logits(finetuned.model, rows, finetuned.config.settings, torch.device("cpu"))
    for i, (one, ours) in enumerate(zip(rows, packed, strict=True)):
        if head == "span":
            dense = torch.stack([part[i, : len(one.tokens)] for part in outputs], -1)
        else:
            dense = outputs[i, one.positions.tolist()] if head == "tagging" else outputs[i : i + 1]
        np.testing.assert_allclose(dense.numpy(), ours, atol=1e-5)


@onnx
@pytest.mark.parametrize(
    ("head", "kind"),
    [("classification", "SequenceClassification"), ("tagging", "TokenClassification"), ("span", "QuestionAnswering")],
)
def test_onnxruntime_gives_the_outputs_of_transformers(head: Head, kind: str, tmp_path: Path) -> None:
    import onnxruntime

    transformers = pytest.importorskip("transformers")
    model = saved(tmp_path, head)
    exported = export(model, tmp_path / "onnx")
    assert exported.difference <= 1e-5
    session = onnxruntime.InferenceSession(str(exported.folder / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_outputs()] == list(exported.outputs)
    theirs = getattr(transformers, f"ErnieFor{kind}").from_pretrained(model).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported.folder)
    for texts in (["w1 good"], ["w1 w2 w3", "undoing", "w9 " * 20]):
        inputs = tokenizer(texts, padding=True, return_tensors="pt")
        with torch.inference_mode():
            expected = theirs(**inputs)
        expected_outputs = [expected.start_logits, expected.end_logits] if head == "span" else [expected.logits]
        actual = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        is_token = inputs["attention_mask"].bool().numpy()
        for one, other in zip(actual, expected_outputs, strict=True):
            per_token = head != "classification"
            np.testing.assert_allclose(
                one[is_token] if per_token else one, other.numpy()[is_token] if per_token else other.numpy(), atol=1e-5
            )


@onnx
def test_an_encoder_outputs_hidden_states_and_the_pooled_token(tmp_path: Path) -> None:
    import onnxruntime

    transformers = pytest.importorskip("transformers")
    checkpoint = tiny.write_checkpoint(tmp_path / "checkpoint", activation="relu")
    exported = export(checkpoint, tmp_path / "onnx")
    assert exported.outputs == ("last_hidden_state", "pooler_output")
    theirs = transformers.ErnieModel.from_pretrained(checkpoint).eval()
    inputs = transformers.AutoTokenizer.from_pretrained(exported.folder)("w1 w2", "w3", return_tensors="pt")
    with torch.inference_mode():
        expected = theirs(**inputs)
    session = onnxruntime.InferenceSession(str(exported.folder / "model.onnx"), providers=["CPUExecutionProvider"])
    actual = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    np.testing.assert_allclose(actual[0], expected.last_hidden_state.numpy(), atol=1e-5)
    np.testing.assert_allclose(actual[1], expected.pooler_output.numpy(), atol=1e-5)


def test_missing_packages_are_named_with_the_command_to_install_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_onnx, "find_spec", lambda name: None if name == "onnxruntime" else object())
    with pytest.raises(
        ConfigError,
        match=r"needs onnxruntime: in the ernie2 checkout run `pip .* -e '\.\[onnx\]'`",
    ):
        export(tmp_path, tmp_path / "onnx")


def test_an_existing_folder_and_a_task_id_for_a_fine_tuned_model_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_onnx, "find_spec", lambda _: object())
    model = saved(tmp_path, "classification")
    with pytest.raises(StorageError, match="already exists"):
        export(model, tmp_path)
    with pytest.raises(ConfigError, match="is fine-tuned for one task id"):
        export(model, tmp_path / "onnx", "1")


def test_a_recurrent_encoder_is_refused() -> None:
    with pytest.raises(CheckpointError, match="the encoder has kind=gru, norm=pre"):
        export_onnx._check_exportable(Path("x"), EncoderSettings(kind="gru", norm="pre"))
