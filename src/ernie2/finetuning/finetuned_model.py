"""Save and load fine-tuned models, in folders that `transformers` loads too.

The class is ErnieForSequenceClassification (class, several labels, number), ErnieForTokenClassification or
ErnieForQuestionAnswering, with label names. A head on mean-pooled states has no such class: its tensors are added to
an ErnieModel. A recurrent encoder is saved in our own format. Everything else that prediction needs is in the key
`ernie2_finetuned` of the config.

The trained row of the task embedding is swapped with row 0, the default of `transformers`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError, field_validator
from torch import Tensor

from ernie2.config.base import SettingsModel
from ernie2.config.finetuning_settings import FineTuningSettings
from ernie2.config.problems import explain
from ernie2.datasets.examples import Head
from ernie2.datasets.tag_schemes import Scheme
from ernie2.errors import CheckpointError, DamagedFile
from ernie2.finetuning.heads import EncoderWithHead, output_count
from ernie2.model.formats.containers import read_weights
from ernie2.model.formats.loading import check_numbers, load_model
from ernie2.model.formats.native import NATIVE_CONFIG, ModelDescription, read_native, save_native
from ernie2.model.hf import CONFIG, WEIGHTS, hf_config, hf_state_dict, unsupported_by_hf
from ernie2.model.multitask import MultiTaskModel, model_tensors
from ernie2.model.tensor_names import TASK_TABLE
from ernie2.shards.tokenizer import SubwordTokenizer, load_tokenizer
from ernie2.storage.arrays import save_tensors
from ernie2.storage.atomic import staged_folder, write_json
from ernie2.storage.checksums import write_checksums
from ernie2.storage.json_files import read_json

CONFIG_KEY = "ernie2_finetuned"
_TOKEN_CLASSES = {"tagging": "ErnieForTokenClassification", "span": "ErnieForQuestionAnswering"}
_PROBLEMS: dict[Head, str] = {
    "classification": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}
_OWN_LINEAR = "tuned.linear."


class FinetunedConfig(SettingsModel):
    """Metadata of a fine-tuned model, saved in its config file."""

    head: Head
    labels: tuple[str, ...]
    settings: FineTuningSettings
    dataset: str
    texts: tuple[str, ...] = ("text",)
    """Names of the text columns of the training data."""
    positive: str | None = None
    answer_rules: str | None = None
    metrics: tuple[str, ...] = ()
    per_character: bool = False
    """Training tokens were single characters, so plain text is tagged per character."""
    scheme: Scheme | None = None
    """Tag scheme; None if the tags mark no entities."""
    null_threshold: float | None = None
    """Null score above which the answer is empty; None if all questions are answered."""
    task_id: int = 0
    """Row of the task embedding in training, before the swap with row 0."""

    @field_validator("labels")
    @classmethod
    def _check_unique(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if twice := [name for name, count in Counter(labels).items() if count > 1]:
            raise ValueError(f"duplicate label {', '.join(map(repr, twice))}")
        return labels


@dataclass(frozen=True)
class FinetunedModel:
    """A fine-tuned model with its tokeniser. `task_id`: row of the task embedding, 0 for a loaded model."""

    model: EncoderWithHead
    tokenizer: SubwordTokenizer
    config: FinetunedConfig
    vocab_size: int
    task_id: int = 0


def save_finetuned(folder: Path, finetuned: FinetunedModel) -> None:
    """Write `folder` atomically, replacing an existing one. Raises `StorageError`."""
    base_model = MultiTaskModel(finetuned.model.encoder.settings, finetuned.vocab_size, [], 0)
    base_model.encoder = finetuned.model.encoder
    linear = {name: tensor.detach().cpu().clone() for name, tensor in finetuned.model.linear.state_dict().items()}
    with staged_folder(folder, replace=True) as staging:
        finetuned.tokenizer.save(staging, finetuned.config.settings.max_length)
        if unsupported_by_hf(base_model.settings):
            description = ModelDescription(
                base_model.settings,
                finetuned.vocab_size,
                (),
                {CONFIG_KEY: _config_to_json(finetuned.config)},
                finetuned.tokenizer.pad_id,
            )
            own = {name: tensor for name, tensor in model_tensors(base_model).items() if name.startswith("encoder.")}
            _swap_first_row(own, TASK_TABLE, finetuned.config.task_id)
            save_native(staging, description, own | {_OWN_LINEAR + name: tensor for name, tensor in linear.items()})
        else:
            _save_hf(staging, finetuned, base_model, linear)
        write_checksums(staging)


def _save_hf(folder: Path, finetuned: FinetunedModel, base_model: MultiTaskModel, linear: Mapping[str, Tensor]) -> None:
    config, pooled = finetuned.config, finetuned.config.head not in ("tagging", "span")
    poolers = [name for name in base_model.state_dict() if name.startswith("encoder.pooler.")]
    tensors = hf_state_dict(base_model, without=[] if pooled else poolers)
    _swap_first_row(tensors, "ernie.embeddings.task_type_embeddings.weight", config.task_id)
    tensors |= {f"{_head_prefix(config.head)}.{name}": tensor for name, tensor in linear.items()}
    save_tensors(folder / WEIGHTS, tensors, metadata={"format": "pt"})
    hf = hf_config(base_model.settings, finetuned.vocab_size, {}, (), finetuned.tokenizer.pad_id)
    first = config.settings.pooling == "first" or not pooled
    hf["architectures"] = [_TOKEN_CLASSES.get(config.head, "ErnieForSequenceClassification") if first else "ErnieModel"]
    if config.head != "span":
        names = config.labels or ("score",)
        hf["id2label"] = {str(number): name for number, name in enumerate(names)}
        hf["label2id"] = {name: number for number, name in enumerate(names)}
        hf["classifier_dropout"] = config.settings.dropout
    if config.head in _PROBLEMS:
        hf["problem_type"] = _PROBLEMS[config.head]
    hf[CONFIG_KEY] = _config_to_json(config)
    write_json(folder / CONFIG, hf)


def load_finetuned(folder: str | Path) -> FinetunedModel:
    """Load a folder that `save_finetuned` wrote. Raises `CheckpointError` for any other."""
    folder = Path(folder)
    own = (folder / NATIVE_CONFIG).is_file()
    file = folder / (NATIVE_CONFIG if own else CONFIG)
    config = _read_config(file)
    loaded = load_model(folder, [])
    if config.settings.max_length > (rows := loaded.model.settings.position_rows):
        raise _damaged(
            file, [f"max_length={config.settings.max_length} is more than the {rows} positions of the encoder"]
        )
    tensors = read_native(folder)[1] if own else read_weights(folder).tensors
    prefix = _OWN_LINEAR if own else f"{_head_prefix(config.head)}."
    linear = {name: tensors.get(prefix + name) for name in ("weight", "bias")}
    outputs = output_count(config.head, len(config.labels))
    model = EncoderWithHead(
        loaded.model.encoder,
        config.head,
        outputs,
        dropout=config.settings.dropout,
        pooling=config.settings.pooling,
    )
    weight, bias, shape = linear["weight"], linear["bias"], tuple(model.linear.weight.shape)
    if weight is None or bias is None or tuple(weight.shape) != shape or len(bias) != outputs:
        raise CheckpointError(f"{folder} is damaged: its head {prefix}* is missing or does not have {outputs} outputs.")
    for name, tensor in (("weight", weight), ("bias", bias)):
        check_numbers(prefix + name, tensor, str(folder))
    with torch.no_grad():
        model.linear.weight.copy_(weight)
        model.linear.bias.copy_(bias)
    return FinetunedModel(model.eval(), load_tokenizer(folder), config, loaded.model.vocab_size)


def _read_config(file: Path) -> FinetunedConfig:
    advice = "Give a folder written by `ernie2 finetune`: OUT/DATASET/seed-0/model."
    try:
        values = read_json(file, dict).get(CONFIG_KEY)
    except FileNotFoundError:
        raise CheckpointError(f"{file.parent} is not a fine-tuned model: it has no {file.name}. {advice}") from None
    except DamagedFile as error:
        raise CheckpointError(str(error)) from error
    if values is None:
        raise CheckpointError(
            f"{file.parent} is not a model fine-tuned by ernie2 ({file.name} has no {CONFIG_KEY!r}). {advice}"
        )
    if not isinstance(values, dict):
        raise _damaged(file, ["not a JSON object"])
    settings = values.get("settings")
    if isinstance(settings, dict) and settings.keys() & FineTuningSettings.RENAMED.keys():
        raise CheckpointError(f"{file} has former names of settings: an older ernie2 wrote it. Fine-tune again.")
    if values.get("head") == "tagging" and "scheme" not in values:
        raise CheckpointError(
            f'{file} has no tag scheme: an older ernie2 wrote it. Fine-tune again, or add "scheme": "IOB2" (or the '
            f"right scheme; null for none) to {CONFIG_KEY!r}."
        )
    try:
        return FinetunedConfig.model_validate(values)
    except ValidationError as error:
        raise _damaged(file, explain(error, FinetunedConfig, values)) from error


def _damaged(file: Path, problems: Sequence[str]) -> CheckpointError:
    listed = "; ".join(problem.rstrip(".") for problem in problems)
    return CheckpointError(f"{file} is damaged in {CONFIG_KEY!r}: {listed}. Restore the file, or fine-tune again.")


def _config_to_json(config: FinetunedConfig) -> dict[str, Any]:
    settings = config.settings.model_copy(update={"task_id": 0})
    return config.model_copy(update={"settings": settings}).model_dump()


def _head_prefix(head: Head) -> str:
    return "qa_outputs" if head == "span" else "classifier"


def _swap_first_row(tensors: dict[str, Tensor], table: str, row: int) -> None:
    """Swap rows 0 and `row` of a table, if the model has it."""
    if row and table in tensors:
        swapped = tensors[table].clone()
        swapped[[0, row]] = swapped[[row, 0]]
        tensors[table] = swapped
