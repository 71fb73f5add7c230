"""Turn a checkpoint of any kind into a Hugging Face folder or one of ours."""

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
    """The folder that was written, the layout of what was read, and what became of every tensor."""

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
    """Reads a checkpoint of any kind and writes `destination`, whole or not at all; prints what became of every tensor.

    `to`: "hf", which `transformers` loads, or "ernie2", every parameter by our names. Tensors are copied bit for bit;
    what the checkpoint lacks is not made up. The README.md of the source is copied as text; where there is none, a
    model card is written. The four numbers ask for other sizes of a table: more rows than it has (new task ids copy row
    0, or are zeros where there is no table; all others start at random), and of the vocabulary also fewer, as far as no
    token of the vocabulary beside the checkpoint loses its row.

    Raises `CheckpointError` where the source cannot be read or the sizes do not fit, `ConfigError` for another `to` and
    impossible sizes,
    `StorageError` where `destination` exists or cannot be written.
    """
    source, destination = Path(source), Path(destination)
    if to not in KINDS:
        raise ConfigError(f"to={to!r} is not a kind of folder to convert to; choose {' or '.join(KINDS)}.")
    if destination.exists():
        raise StorageError(f"{destination} exists already; name a folder that does not, or move that one away.")
    stored = open_run_or_checkpoint(source)
    tables = {"task_ids": task_ids, "segment_types": segment_types, "position_rows": position_rows}
    asked = {name: rows for name, rows in tables.items() if rows is not None}
    wanted = stored.settings.model_dump() | asked
    try:
        settings = EncoderSettings.model_validate(wanted)
    except ValidationError as error:
        told = "; ".join(explain(error, EncoderSettings, wanted))
        raise ConfigError(f"no encoder can have these sizes: {told}.") from error
    grow = [name for name in asked if name != "task_ids"] + (["vocabulary"] if vocabulary is not None else [])
    tokenizer = load_checkpoint_tokenizer(source)
    rows = stored.vocab_size if vocabulary is None else vocabulary
    _check_vocabulary(rows, stored, tokenizer)
    loaded = load_model(stored, settings=settings, vocab_size=vocabulary, grow=grow)
    lacking = tuple(name for name in loaded.report.new if "[" not in name and name != TASK_TABLE)
    card = _existing_card(source) or converted_card(source.resolve().name, stored.layout, transformer=to == "hf")
    carried, hf = stored.metadata, to == "hf"
    save_model(destination, loaded.model, carried, stored.pad_id, tokenizer, card, hf=hf, without=lacking)
    report = loaded.report
    if lacking:
        told = f"the checkpoint lacks {', '.join(fold_layers(lacking))}; nothing was written in their place"
        new = tuple(name for name in report.new if name not in lacking)
        report = replace(report, new=new, notes=(*report.notes, told))
    if tokenizer is not None and tokenizer.notes:
        report = replace(report, notes=(*report.notes, *tokenizer.notes))
    log_info(f"{source} ({stored.layout}) -> {destination} ({to})")
    if (note := unfinished_note(source, stored.where)) is not None:
        log_warning(note)
    report.log()
    return ConversionResult(destination, stored.layout, report)


def _check_vocabulary(rows: int, stored: StoredModel, tokenizer: SubwordTokenizer | None) -> None:
    """Raise `CheckpointError` where a token would have no row, or rows would go that may be of tokens."""
    if tokenizer is not None and rows < tokenizer.vocab_size:
        raise CheckpointError(
            f"the vocabulary beside {stored.where} has {tokenizer.vocab_size:,} tokens, too many for {rows:,} rows: "
            f"give --vocabulary {tokenizer.vocab_size} or more, or take the vocabulary that belongs to the weights."
        )
    if tokenizer is None and rows < stored.vocab_size:
        raise CheckpointError(
            f"{stored.where} has {stored.vocab_size} rows and no vocabulary beside it, so it cannot be told whether "
            f"rows from {rows} on belong to tokens. Put its vocab.txt into the folder."
        )


def _existing_card(source: Path) -> str:
    """Return the model card inside `source`, or inside the Hugging Face folder of a run; '' where there is none."""
    folders = [source, source / "hf"] if source.is_dir() else []
    for file in (folder / "README.md" for folder in folders):
        if file.is_file() and file.stat().st_size <= _LONGEST_CARD and external_link_target(file) is None:
            try:
                return file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                return ""
    return ""
