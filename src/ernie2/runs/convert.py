"""Convert a checkpoint of any supported format to the format of Hugging Face or ernie2."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from ernie2.config.problems import explain
from ernie2.config.settings import EncoderSettings
from ernie2.console import log_info, log_warning
from ernie2.errors import CheckpointError, ConfigError, StorageError
from ernie2.model.formats.loading import LoadReport, fold_layers, load_model
from ernie2.model.formats.stored_model import StoredModel
from ernie2.model.tensor_names import TASK_TABLE
from ernie2.runs.export import converted_card, save_model
from ernie2.runs.sources import load_checkpoint_tokenizer, open_run_or_checkpoint, unfinished_note
from ernie2.shards.tokenizer import SubwordTokenizer
from ernie2.storage.links import external_link_target

KINDS = ("hf", "ernie2")
_LONGEST_CARD = 1 << 20


@dataclass(frozen=True, slots=True)
class ConversionResult:
    """The folder written, the format of the source, and the use of each tensor."""

    folder: Path
    layout: str
    report: LoadReport


def convert(
    source: str | Path,
    destination: str | Path,
    to: str = "hf",
    task_ids: int | None = None,
    segment_types: int | None = None,
    position_rows: int | None = None,
    vocabulary: int | None = None,
) -> ConversionResult:
    """Convert a checkpoint of any supported format, write `destination` atomically, and log the use of each tensor.

    `to`: "hf" for `transformers`, or "ernie2" for all parameters under our names. Tensors are copied bit for bit;
    tensors that the checkpoint lacks are not initialised. The README.md of the source is copied; without one, a model
    card is written. `task_ids`, `segment_types`, `position_rows` and `vocabulary` resize a table. New task ids copy row
    0, or are zero if there is no table; other new rows are random. Only the vocabulary can shrink, as long as every
    token of the checkpoint's vocabulary file keeps its row.

    Raises `CheckpointError` if the source cannot be read or the sizes do not fit, `ConfigError` for an invalid `to` or
    invalid sizes, `StorageError` if `destination` exists or cannot be written.
    """
    source, destination = Path(source), Path(destination)
    if to not in KINDS:
        raise ConfigError(f"to={to!r} is not a target format; choose {' or '.join(KINDS)}.")
    if destination.exists():
        raise StorageError(f"{destination} already exists; name a new folder, or move that one away.")
    stored = open_run_or_checkpoint(source)
    tables = {"task_ids": task_ids, "segment_types": segment_types, "position_rows": position_rows}
    sizes = {name: rows for name, rows in tables.items() if rows is not None}
    values = stored.settings.model_dump() | sizes
    try:
        settings = EncoderSettings.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(explain(error, EncoderSettings, values))
        raise ConfigError(f"invalid sizes: {problems}.") from error
    grow = [name for name in sizes if name != "task_ids"] + (["vocabulary"] if vocabulary is not None else [])
    tokenizer = load_checkpoint_tokenizer(source)
    rows = stored.vocab_size if vocabulary is None else vocabulary
    _check_vocabulary(rows, stored, tokenizer)
    loaded = load_model(stored, settings=settings, vocab_size=vocabulary, grow=grow)
    missing = tuple(name for name in loaded.report.new if "[" not in name and name != TASK_TABLE)
    card = _existing_card(source) or converted_card(source.resolve().name, stored.layout, transformer=to == "hf")
    metadata, hf = stored.metadata, to == "hf"
    save_model(destination, loaded.model, metadata, stored.pad_id, tokenizer, card, hf=hf, without=missing)
    report = loaded.report
    if missing:
        note = f"the checkpoint lacks {', '.join(fold_layers(missing))}; they were not written"
        new = tuple(name for name in report.new if name not in missing)
        report = replace(report, new=new, notes=(*report.notes, note))
    if tokenizer is not None and tokenizer.notes:
        report = replace(report, notes=(*report.notes, *tokenizer.notes))
    log_info(f"{source} ({stored.layout}) -> {destination} ({to})")
    if (warning := unfinished_note(source, stored.where)) is not None:
        log_warning(warning)
    report.log()
    return ConversionResult(destination, stored.layout, report)


def _check_vocabulary(rows: int, stored: StoredModel, tokenizer: SubwordTokenizer | None) -> None:
    """Raise `CheckpointError` if a token would have no row, or if removed rows may belong to tokens."""
    if tokenizer is not None and rows < tokenizer.vocab_size:
        raise CheckpointError(
            f"the vocabulary file of {stored.where} has {tokenizer.vocab_size:,} tokens, too many for {rows:,} rows: "
            f"use --vocabulary {tokenizer.vocab_size} or more, or the vocabulary file that belongs to the weights."
        )
    if tokenizer is None and rows < stored.vocab_size:
        raise CheckpointError(
            f"{stored.where} has {stored.vocab_size} rows and no vocabulary file, so rows from {rows} on may belong to "
            "tokens. Put its vocab.txt into the folder."
        )


def _existing_card(source: Path) -> str:
    """Return the model card in `source`, or in the Hugging Face folder of a run; '' if there is none."""
    folders = [source, source / "hf"] if source.is_dir() else []
    for file in (folder / "README.md" for folder in folders):
        if file.is_file() and file.stat().st_size <= _LONGEST_CARD and external_link_target(file) is None:
            try:
                return file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                return ""
    return ""
