"""A trained run as a Hugging Face folder: weights, configuration, tokeniser and a model card drawn from the records.

An encoder for which `transformers` has no class becomes a folder of ours instead, in the same place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ernie2.config.settings import EncoderSettings
from ernie2.escaping import in_markdown, markdown_table
from ernie2.learned import LEAST_INSTANCES, verdict_of
from ernie2.model.formats.own import Described, save_own
from ernie2.model.hf import hf_config, save_hf, unknown_to_hf
from ernie2.model.multitask import MultiTaskModel, tensors_of
from ernie2.runs.stored import carried_keys
from ernie2.shards.wordpieces import WordPieces
from ernie2.storage.atomic import staged_folder, write_text
from ernie2.storage.written_folders import note_checksums
from ernie2.training.run_record import RunRecord, TaskRecord
from ernie2.version import __version__

_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})*", re.IGNORECASE)
_TRANSFORMERS = (
    "from transformers import AutoTokenizer, ErnieForMaskedLM, ErnieModel",
    'tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")',
    'encoder = ErnieModel.from_pretrained("THIS_FOLDER")',
)
_OURS = (
    "# a folder that ernie2 reads, and transformers does not",
    "from ernie2.model.formats.filling import load_model",
    'model = load_model("THIS_FOLDER").model',
)


def export_hf(
    folder: Path,
    model: MultiTaskModel,
    wordpieces: WordPieces,
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
    with staged_folder(folder, replace=True) as staging:
        wordpieces.save(staging, model.settings.position_rows)
        _save_model(staging, model, carried_keys(record, seen), wordpieces.pad_id)
        write_text(staging / "README.md", model_card(record, heldout))
        note_checksums(staging)
    return folder


def _save_model(folder: Path, model: MultiTaskModel, carried: Mapping[str, Any], pad_id: int) -> None:
    specs = list(model.specs.values())
    if unknown_to_hf(model.settings):
        save_own(folder, Described(model.settings, model.vocab_size, tuple(specs), carried, pad_id), tensors_of(model))
        return
    config = hf_config(model.settings, model.vocab_size, carried["ernie2_task_ids"], specs, pad_id)
    save_hf(folder, model, {**config, **carried})


def model_card(record: RunRecord, heldout: Mapping[str, Mapping[str, Any]]) -> str:
    """The model card as Markdown: corpora with licences, tasks with their ids, held-out figures beside baselines."""
    corpora = record.data.corpora
    transformer = not unknown_to_hf(EncoderSettings.model_validate(record.recipe["encoder"]))
    lines = [
        *_front_matter([corpus.language for corpus in corpora.values()], transformer=transformer),
        f"# {in_markdown(record.name)}",
        "",
        in_markdown(record.about or "A text encoder pre-trained continually on several tasks."),
        "",
        f"An ERNIE 2.0 encoder ({record.parameters / 1e6:.1f} million parameters with its task heads) pre-trained "
        "with "
        f"`ernie2` {in_markdown(record.versions['ernie2'])}, method "
        f"{in_markdown(record.recipe['stages']['method'])}, on {in_markdown(record.device)}.",
        "",
        "```python",
        *(_TRANSFORMERS if transformer else _OURS),
        "```",
        "",
        "## Training data",
        "",
        *markdown_table(
            ("corpus", "language", "licence", "documents", "tokens"),
            [(name, c.language, c.licence, f"{c.documents:,}", f"{c.tokens:,}") for name, c in corpora.items()],
        ),
        "",
        "## Tasks and held-out figures",
        "",
        "Each task by itself on documents that were not trained on. Baselines on the same instances: the majority "
        "class of training, the best constant answer, and the commonest label given one feature, fitted on training "
        "instances. A task is learned where the whole 95 % interval of its accuracy lies above all three; with fewer "
        f"than {LEAST_INSTANCES} instances nothing is claimed.",
        "",
        *markdown_table(
            ("task", "task id", "level", "accuracy (95 %)", "majority", "best constant", "feature baseline", "verdict"),
            [_task_row(task, heldout.get(task.name)) for task in record.tasks],
        ),
        "",
        "The task id is the row of `task_type_embeddings` (`task_type_ids` in `transformers`); any may be used when "
        "fine-tuning, 0 by default. Names are in `config.json` under `ernie2_task_ids`, instances trained under each "
        "id under "
        "`ernie2_task_instances`.",
        "",
        "## Limits",
        "",
        "The figures above are all that was measured: this data, this size, one seed "
        f"({record.seed}). The paper is ERNIE 2.0 (arXiv 1907.12412); this is not one of its released models.",
        "",
    ]
    return "\n".join(lines)


def converted_card(name: str, layout: str, *, transformer: bool) -> str:
    """The model card, as Markdown, of a converted checkpoint that has none of its own; `layout`: what was read."""
    lines = [
        *_front_matter([], transformer=transformer),
        f"# {in_markdown(name)}",
        "",
        f"Converted by `ernie2` {__version__} from a checkpoint in the layout {in_markdown(layout)}, which had no "
        "model card. Training data, licence and figures are not known here; see where the checkpoint came from.",
        "",
        "```python",
        *(_TRANSFORMERS if transformer else _OURS),
        "```",
        "",
    ]
    return "\n".join(lines)


def _front_matter(languages: Sequence[str], *, transformer: bool) -> list[str]:
    """What the Hub reads of a card; of the languages those that are codes, such as en or zh-hant."""
    codes = sorted({language for language in languages if _LANGUAGE.fullmatch(language)})
    told: dict[str, Any] = {"library_name": "transformers"} if transformer else {}
    told["tags"] = ["ernie", "ernie2", "continual-pre-training"]
    if codes:
        told["language"] = codes
    if transformer:
        told["pipeline_tag"] = "fill-mask"
    return ["---", yaml.safe_dump(told, sort_keys=False).rstrip(), "---"]


def _task_row(task: TaskRecord, figures: Mapping[str, Any] | None) -> tuple[str, ...]:
    name = (task.name, str(task.id), task.level)
    if figures is None:
        return (*name, "no held-out documents", "", "", "", "")
    return (
        *name,
        f"{figures['accuracy']:.3f} ({figures['low']:.3f} to {figures['high']:.3f})",
        f"{figures['majority']['accuracy']:.3f}",
        f"{figures['constant']['accuracy']:.3f}",
        f"{figures['cheap']['accuracy']:.3f} ({figures['cheap']['rule']})",
        verdict_of(figures).word,
    )
