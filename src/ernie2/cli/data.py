"""Commands about what goes in: recipes, tasks, mine, prepare, inspect."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

import ernie2
from ernie2.cli.app import (
    OVERRIDES,
    RECIPE,
    WORKERS,
    CommandLine,
    advise_on_interrupt,
    app,
    print_columns,
    print_next_steps,
    print_results,
)
from ernie2.console import print_line

mine = CommandLine(no_args_is_help=True, help="Make labelled pairs of raw material: discourse (text), clicks (a log).")
app.add_typer(mine, name="mine")

PAIRS = typer.Argument(metavar="OUT", help="The table to write: .tsv or .jsonl, also .gz.")


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The recipe to write.", show_default=False)] = None,
    destination: Annotated[
        Path | None,
        typer.Argument(metavar="DESTINATION", help="The file to write it to.", show_default="NAME.yaml here"),
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of recipes.")] = False,
) -> None:
    """List the shipped recipes, or write a copy of one to edit. That of demo-en explains every key.

    Leaves   the copy, with run and shards folders named after it; a file
             that is there already is not replaced
    Example  [bold]ernie2 recipes english-wiki-small my-recipe.yaml[/bold]
    """
    if schema:
        print_line(json.dumps(ernie2.recipe_schema(), ensure_ascii=False, indent=2))
        return
    if name is None:
        print_columns([(known, about) for known, about in ernie2.list_recipes().items()])
        print_next_steps("ernie2 recipes NAME      writes a copy to edit")
        return
    written = ernie2.write_recipe(name, destination or Path(f"{name}.yaml"))
    print_results(
        {"recipe": written, "run": Path(written.stem, "run"), "shards": Path(written.stem, "shards")},
        f"edit it, then: ernie2 prepare {written}",
    )


@app.command()
def tasks() -> None:
    """List the pre-training tasks: level, labels, what each needs, where it comes from.

    Reads    the built-in tasks and those that installed packages announce
    Example  [bold]ernie2 tasks[/bold]
    """
    for task in ernie2.list_tasks():
        if "error" in task:
            print_line(f"{task['name']}  (from {task['origin']}) cannot be used: {task['error']}")
            continue
        labels = {None: "the vocabulary", 0: "labels from the data"}.get(task["labels"], f"{task['labels']} labels")
        print_line(f"{task['name']}  ({task['level']}-level, {labels}, from {task['origin']})")
        print_line(f"    {task['title']}: {task['about']}")
        print_line(f"    needs {task['needs']}")
    print_next_steps("name the ones you want under `tasks:` in a recipe")


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
    with advise_on_interrupt(lambda: "nothing was written; the same command starts again."):
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
    with advise_on_interrupt(lambda: "nothing was written; the same command starts again."):
        ernie2.mine_clicks(source, destination, min_query_count, query, title, clicked)


@app.command()
def prepare(
    recipe: Annotated[str, RECIPE],
    overrides: Annotated[list[str] | None, OVERRIDES] = None,
    workers: Annotated[int | None, WORKERS] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace shards of another recipe or input that are in the folder.")
    ] = False,
) -> None:
    """Turn corpora into annotated, tokenised shards.

    Reads    the corpora, the vocabulary and the entity list of RECIPE
    Leaves   a folder of shards (shards.folder in the recipe), and prints how
             many documents each task can use; finished work is not done again
    Example  [bold]ernie2 prepare my-recipe.yaml corpora.wiki.path=wiki.jsonl.gz[/bold]
    """
    with advise_on_interrupt(lambda: "run the same command to continue where it stopped."):
        shards = ernie2.prepare(recipe, overrides or (), workers, replace=replace)
    arguments = shlex.join([recipe, *(overrides or ())])
    print_results({"shards": shards}, f"ernie2 inspect {arguments}", f"ernie2 pretrain {arguments}")


@app.command()
def inspect(
    source: Annotated[
        str,
        typer.Argument(metavar="RECIPE|SHARDS", help="A recipe that was prepared, or a folder `ernie2 prepare` wrote."),
    ],
    overrides: Annotated[list[str] | None, OVERRIDES] = None,
    task: Annotated[str | None, typer.Option(help="Show examples of this task only.", show_default="all")] = None,
    examples: Annotated[int, typer.Option("--examples", "-n", min=0, help="Examples a task.")] = 5,
    containing: Annotated[
        str | None,
        typer.Option(
            "--with",
            metavar="KIND|CLASS",
            help="Only examples with a span of this kind (word, phrase, entity, user) or with this class.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Look at shards: label statistics of the tasks, and examples as the encoder sees them.

    A recipe gives tasks, options and sequence length; for a folder of shards
    every known task is shown with its defaults, in up to 512 tokens.

    Reads    the shards of RECIPE, or SHARDS
    Leaves   nothing
    Example  [bold]ernie2 inspect my-recipe.yaml --task knowledge_masking --with entity[/bold]
    """
    print_line(ernie2.inspect(source, task, examples, containing, overrides or ()))
