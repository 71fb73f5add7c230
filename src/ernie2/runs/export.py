"""Export a trained run as a Hugging Face folder: weights, configuration, tokeniser and a model card.

An encoder without a class in `transformers` is saved in the format of ernie2 instead, in the same folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml

from ernie2.config.settings import EncoderSettings
from ernie2.escaping import escape_markdown, markdown_table
from ernie2.learned import MIN_INSTANCES, verdict_of
from ernie2.model.formats.native import ModelDescription, save_native
from ernie2.model.hf import hf_config, save_hf, unsupported_by_hf
from ernie2.model.multitask import MultiTaskModel, model_tensors
from ernie2.runs.sources import ernie2_config_keys
from ernie2.shards.tokenizer import SubwordTokenizer
from ernie2.storage.atomic import staged_folder, write_text
from ernie2.storage.checksums import write_checksums
from ernie2.training.run_record import RunRecord, TaskRecord
from ernie2.version import __version__

_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})*", re.IGNORECASE)
_TEMPLATE = "model_card.md.jinja"


def export_hf(
    folder: Path,
    model: MultiTaskModel,
    tokenizer: SubwordTokenizer,
    record: RunRecord,
    heldout: Mapping[str, Mapping[str, Any]],
    seen: Mapping[str, int],
) -> Path:
    """Write `folder` atomically and return it; `transformers` loads it as ErnieModel or ErnieForMaskedLM.

    `heldout`: the last held-out figures per task. `seen`: instances trained under each task id. config.json stores
    `ernie2_task_ids`, `ernie2_task_instances` (from `seen`) and `ernie2_task_options` (with labels from the data).
    Encoders that `transformers` does not support have an ernie2.json instead.
    """
    metadata, hf = ernie2_config_keys(record, seen), not unsupported_by_hf(model.settings)
    save_model(folder, model, metadata, tokenizer.pad_id, tokenizer, model_card(record, heldout), hf=hf, replace=True)
    return folder


def save_model(
    folder: Path,
    model: MultiTaskModel,
    metadata: Mapping[str, Any],
    pad_id: int,
    tokenizer: SubwordTokenizer | None,
    card: str,
    *,
    hf: bool,
    without: Sequence[str] = (),
    replace: bool = False,
) -> None:
    """Write a model with tokeniser, card and checksums to `folder` atomically, in the format of Hugging Face or ernie2.

    `metadata`: keys of ernie2 in the configuration. `without`: names of tensors to omit.
    """
    specs = list(model.specs.values())
    with staged_folder(folder, replace=replace) as staging:
        if hf:
            ids = metadata.get("ernie2_task_ids") or {}
            config = {**hf_config(model.settings, model.vocab_size, ids, specs, pad_id), **metadata}
            ours = bool(ids)  # False for a converted checkpoint that ernie2 did not train
            config = {key: value for key, value in config.items() if ours or not key.startswith("ernie2_")}
            save_hf(staging, model, config, without=without)
        else:
            description = ModelDescription(model.settings, model.vocab_size, tuple(specs), metadata, pad_id)
            save_native(staging, description, model_tensors(model, without=without))
        if tokenizer is not None:
            tokenizer.save(staging, model.settings.position_rows)
        write_text(staging / "README.md", card)
        write_checksums(staging)


def model_card(record: RunRecord, heldout: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the model card in Markdown: corpora with licences, tasks with ids, held-out figures and baselines."""
    corpora = record.data.corpora
    transformer = not unsupported_by_hf(EncoderSettings.model_validate(record.recipe["encoder"]))
    corpora_table = markdown_table(
        ("corpus", "language", "licence", "documents", "tokens"),
        [(name, c.language, c.licence, f"{c.documents:,}", f"{c.tokens:,}") for name, c in corpora.items()],
    )
    tasks_table = markdown_table(
        ("task", "task id", "level", "accuracy (95 %)", "majority", "best constant", "feature baseline", "verdict"),
        [_task_row(task, heldout.get(task.name)) for task in record.tasks],
    )
    return _card(
        record.name,
        [corpus.language for corpus in corpora.values()],
        transformer=transformer,
        record=record,
        corpora="\n".join(corpora_table),
        tasks="\n".join(tasks_table),
        min_instances=MIN_INSTANCES,
    )


def converted_card(name: str, layout: str, *, transformer: bool) -> str:
    """Return a model card in Markdown for a converted checkpoint without one; `layout`: format of the source."""
    return _card(name, [], transformer=transformer, record=None, layout=layout, version=__version__)


def _card(name: str, languages: Sequence[str], *, transformer: bool, **values: Any) -> str:
    """Fill the template. Only languages that are codes, such as en or zh-hant, go into the Hub's metadata."""
    codes = sorted({language for language in languages if _LANGUAGE.fullmatch(language)})
    hub: dict[str, Any] = {"library_name": "transformers"} if transformer else {}
    hub["tags"] = ["ernie", "ernie2", "continual-pre-training"]
    if codes:
        hub["language"] = codes
    if transformer:
        hub["pipeline_tag"] = "fill-mask"
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ernie2", "runs"),
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["markdown"] = escape_markdown
    front_matter = yaml.safe_dump(hub, sort_keys=False).rstrip()
    return environment.get_template(_TEMPLATE).render(
        name=name, front_matter=front_matter, transformer=transformer, **values
    )


def _task_row(task: TaskRecord, figures: Mapping[str, Any] | None) -> tuple[str, ...]:
    name = (task.name, str(task.id), task.level)
    if figures is None:
        return (*name, "no held-out documents", "", "", "", "")
    return (
        *name,
        f"{figures['accuracy']:.3f} ({figures['low']:.3f} to {figures['high']:.3f})",
        f"{figures['majority_baseline']['accuracy']:.3f}",
        f"{figures['constant_baseline']['accuracy']:.3f}",
        f"{figures['feature_baseline']['accuracy']:.3f} ({figures['feature_baseline']['feature']})",
        verdict_of(figures).word,
    )
