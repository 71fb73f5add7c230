"""Mine labelled pairs: discourse pairs from raw text, relevance pairs from a click log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from ernie2.config.languages import check_language
from ernie2.console import log_result, progress
from ernie2.errors import ConfigError
from ernie2.formatting import quantity

if TYPE_CHECKING:
    from ernie2.corpora.connectives import MiningResult


def mine_discourse(
    source: str,
    destination: str | Path,
    language: str = "en",
    max_per_label: int = 10_000,
    text: str = "text",
) -> Path:
    """Mine discourse pairs from raw text and print their number per connective; return `destination`.

    `source`: a corpus (file, glob, URL, `package:NAME`) in txt, jsonl or parquet with its text in the field `text`.
    `destination`: a .tsv or .jsonl, also .gz, with the columns sentence1, sentence2, label and group.
    """
    from ernie2.config.data_settings import CorpusSettings
    from ernie2.config.problems import explain
    from ernie2.corpora.connectives import mine_discourse as mine

    out, values = Path(destination), {"path": source, "language": check_language(language), "text": text}
    try:
        corpus = CorpusSettings.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{'; '.join(explain(error, CorpusSettings, values))}.") from error
    with progress("Looking for connectives", None, "characters") as bar:
        mined = mine(
            corpus,
            out,
            max_per_label,
            lambda documents, characters, pairs: bar.advance(
                characters - bar.done, f"{quantity(documents, 'document')}, {quantity(pairs, 'pair')}"
            ),
        )
    _report_pairs(out, mined)
    return out


def mine_clicks(
    source: str,
    destination: str | Path,
    min_query_count: int = 5,
    query: str = "query",
    title: str = "title",
    clicked: str = "clicked",
) -> Path:
    """Mine query–title pairs in three classes of relevance from a click log; return `destination`.

    `source`: a .tsv or .jsonl (compressed or not) with one row per shown title; `query`, `title` and `clicked` name its
    columns. `destination`: a .tsv or .jsonl, also .gz, with the columns query, title, label (0 clicked, 1 shown and
    never clicked, 2 never shown) and group.
    """
    from ernie2.corpora.clicks import mine_clicks as mine

    out = Path(destination)
    with progress("Reading the click log", None, "rows") as bar:
        mined = mine(source, out, min_query_count, (query, title, clicked), lambda rows: bar.advance(rows - bar.done))
    _report_pairs(out, mined)
    return out


def _report_pairs(out: Path, mined: MiningResult) -> None:
    """Print rows per label, most frequent first, and the numbers of dropped items."""
    log_result(f"{quantity(mined.labels.total(), 'pair')} of {quantity(len(mined.labels), 'label')} in {out}")
    for label, count in sorted(mined.labels.items(), key=lambda entry: (-entry[1], entry[0])):
        log_result(f"  {label:<26} {count:,}")
    for reason, count in mined.drops.as_dict().items():
        log_result(f"dropped {count:,}: {reason}")
