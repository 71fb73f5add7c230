"""Commands that make labelled pairs of raw material: mine discourse, mine clicks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import ernie2
from ernie2.cli.app import CommandLine, app
from ernie2.cli.shared import when_interrupted

mine = CommandLine(no_args_is_help=True, help="Make labelled pairs of raw material: discourse (text), clicks (a log).")
app.add_typer(mine, name="mine")

PAIRS = typer.Argument(metavar="OUT", help="The table to write: .tsv or .jsonl, also .gz.")


@mine.command("discourse")
def mine_discourse(
    source: Annotated[
        str, typer.Argument(metavar="IN", help="Text: .txt, .jsonl or .parquet; a file, a quoted glob, a URL.")
    ],
    destination: Annotated[Path, PAIRS],
    language: Annotated[str, typer.Option(help="Language of the text: en or zh.")] = "en",
    max_per_label: Annotated[int, typer.Option(min=1, help="Keep at most this many pairs of a connective.")] = 10_000,
    text: Annotated[str, typer.Option(help="Field or column that holds the text.")] = "text",
) -> None:
    """Make discourse pairs: adjacent sentences, labelled with the connective that opened the second.

    Reads    the text; paragraphs and sentences as `ernie2 prepare` sees them
    Leaves   OUT with the columns sentence1, sentence2 (without its
             connective), label and group (the document, which must not be
             parted between training and held-out pairs); an OUT that is
             there already is replaced
    Example  [bold]ernie2 mine discourse package:demo-en.jsonl pairs.tsv[/bold]
    Example  [bold]ernie2 mine discourse "news/*.jsonl.gz" pairs.jsonl.gz --language zh[/bold]
    """
    with when_interrupted(lambda: "nothing was written; the same command starts again."):
        ernie2.mine_discourse(source, destination, language, max_per_label, text)


@mine.command("clicks")
def mine_clicks(
    source: Annotated[str, typer.Argument(metavar="IN", help="A click log, .tsv with column names, or .jsonl.")],
    destination: Annotated[Path, PAIRS],
    min_query_count: Annotated[int, typer.Option(min=1, help="Drop queries with fewer rows.")] = 5,
    query: Annotated[str, typer.Option(help="Column that holds the query.")] = "query",
    title: Annotated[str, typer.Option(help="Column that holds the title.")] = "title",
    clicked: Annotated[str, typer.Option(help="Column that says whether it was clicked: 0 or 1.")] = "clicked",
) -> None:
    """Make query–title pairs of a click log, in the three classes of IR relevance.

    Reads    the log, a row a shown title; other columns are not looked at
    Leaves   OUT with the columns query, title, label (0 clicked, 1 shown and
             never clicked, 2 never shown for the query) and group (the query);
             an OUT that is there already is replaced
    Example  [bold]ernie2 mine clicks log.tsv.gz triples.tsv --query q --clicked click[/bold]
    """
    with when_interrupted(lambda: "nothing was written; the same command starts again."):
        ernie2.mine_clicks(source, destination, min_query_count, query, title, clicked)
