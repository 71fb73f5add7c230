"""A trained run as a Hugging Face folder: weights, configuration, tokeniser and a model card drawn from the records.

An encoder for which `transformers` has no class becomes a folder of ours instead, in the same place.
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
    """Write `folder`, which `transformers` loads as ErnieModel or ErnieForMaskedLM, atomically, and return it.

    `heldout`: the last held-out figures per task, `seen`: the instances trained under each task id;
    the last goes into config.json as `ernie2_task_instances`, beside `ernie2_task_ids`. The options of the tasks, with
    the labels of those that have them from their data, go there as `ernie2_task_options`. Of a recurrent encoder,
    ernie2.json holds all this.
    """
    carried, hf = ernie2_config_keys(record, seen), not unsupported_by_hf(model.settings)
    save_model(folder, model, carried, tokenizer.pad_id, tokenizer, model_card(record, heldout), hf=hf, replace=True)
    return folder


def save_model(
    folder: Path,
    model: MultiTaskModel,
    carried: Mapping[str, Any],
    pad_id: int,
    tokenizer: SubwordTokenizer | None,
    card: str,
    *,
    hf: bool,
    without: Sequence[str] = (),
    replace: bool = False,
) -> None:
    """Write a model with tokeniser, card and checksums into `folder`, atomically: for Hugging Face, or by our names.

    `carried`: our keys of the configuration. `without`: names of tensors that are left out.
    """
    specs = list(model.specs.values())
    with staged_folder(folder, replace=replace) as staging:
        if hf:
            ids = carried.get("ernie2_task_ids") or {}
            config = {**hf_config(model.settings, model.vocab_size, ids, specs, pad_id), **carried}
            ours = bool(ids)  # else nothing in the checkpoint is
            config = {key: value for key, value in config.items() if ours or not key.startswith("ernie2_")}
            save_hf(staging, model, config, without=without)
        else:
            described = ModelDescription(model.settings, model.vocab_size, tuple(specs), carried, pad_id)
            save_native(staging, described, model_tensors(model, without=without))
        if tokenizer is not None:
            tokenizer.save(staging, model.settings.position_rows)
        write_text(staging / "README.md", card)
        write_checksums(staging)


def model_card(record: RunRecord, heldout: Mapping[str, Mapping[str, Any]]) -> str:
    """The model card as Markdown: corpora with licences, tasks with their ids, held-out figures beside baselines."""
    corpora = record.data.corpora
    transformer = not unsupported_by_hf(EncoderSettings.model_validate(record.recipe["encoder"]))
    described = markdown_table(
        ("corpus", "language", "licence", "documents", "tokens"),
        [(name, c.language, c.licence, f"{c.documents:,}", f"{c.tokens:,}") for name, c in corpora.items()],
    )
    measured = markdown_table(
        ("task", "task id", "level", "accuracy (95 %)", "majority", "best constant", "feature baseline", "verdict"),
        [_task_row(task, heldout.get(task.name)) for task in record.tasks],
    )
    return _card(
        record.name,
        [corpus.language for corpus in corpora.values()],
        transformer=transformer,
        record=record,
        corpora="\n".join(described),
        tasks="\n".join(measured),
        least_instances=MIN_INSTANCES,
    )


def converted_card(name: str, layout: str, *, transformer: bool) -> str:
    """The model card, as Markdown, of a converted checkpoint that has none of its own; `layout`: what was read."""
    return _card(name, [], transformer=transformer, record=None, layout=layout, version=__version__)


def _card(name: str, languages: Sequence[str], *, transformer: bool, **values: Any) -> str:
    """Fill the template; of the languages, the Hub is told those that are codes, such as en or zh-hant."""
    codes = sorted({language for language in languages if _LANGUAGE.fullmatch(language)})
    matter: dict[str, Any] = {"library_name": "transformers"} if transformer else {}
    matter["tags"] = ["ernie", "ernie2", "continual-pre-training"]
    if codes:
        matter["language"] = codes
    if transformer:
        matter["pipeline_tag"] = "fill-mask"
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ernie2", "runs"),
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["markdown"] = escape_markdown
    front_matter = yaml.safe_dump(matter, sort_keys=False).rstrip()
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
