"""Commands for recipes and data: recipes, tasks, mine, prepare, inspect."""

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

mine = CommandLine(no_args_is_help=True, help="Create labelled pairs from text (discourse) or a click log (clicks).")
app.add_typer(mine, name="mine")

PAIRS = typer.Argument(metavar="OUT", help="The table to write: .tsv or .jsonl, also .gz.")


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The recipe to copy.", show_default=False)] = None,
    destination: Annotated[
        Path | None,
        typer.Argument(metavar="DESTINATION", help="The file to write.", show_default="NAME.yaml"),
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of recipes.")] = False,
) -> None:
    """List the shipped recipes, or copy one for editing.

    The recipe demo-en explains every key.

    Writes   the copy, with run and shards folders named after it; existing
             files are not replaced
    Example  [bold]ernie2 recipes english-wiki-small my-recipe.yaml[/bold]
    """
    if schema:
        print_line(json.dumps(ernie2.recipe_schema(), ensure_ascii=False, indent=2))
        return
    if name is None:
        print_columns([(known, about) for known, about in ernie2.list_recipes().items()])
        print_next_steps("ernie2 recipes NAME      copies one for editing")
        return
    written = ernie2.write_recipe(name, destination or Path(f"{name}.yaml"))
    print_results(
        {"recipe": written, "run": Path(written.stem, "run"), "shards": Path(written.stem, "shards")},
        f"edit it, then: ernie2 prepare {written}",
    )


@app.command()
def tasks() -> None:
    """List the pre-training tasks with level, labels, requirements and origin.

    Reads    the built-in tasks and those of installed packages
    Example  [bold]ernie2 tasks[/bold]
    """
    for task in ernie2.list_tasks():
        if "error" in task:
            print_line(f"{task['name']}  (from {task['origin']}) cannot be used: {task['error']}")
            continue
        labels = {None: "labels: the vocabulary", 0: "labels: from the data"}.get(
            task["labels"], f"{task['labels']} labels"
        )
        print_line(f"{task['name']}  ({task['level']}-level, {labels}, from {task['origin']})")
        print_line(f"    {task['title']}: {task['about']}")
        print_line(f"    needs {task['needs']}")
    print_next_steps("add tasks under `tasks:` in a recipe")


@mine.command("discourse")
def mine_discourse(
    source: Annotated[
        str, typer.Argument(metavar="IN", help="Text: .txt, .jsonl or .parquet; a file, a quoted glob, a URL.")
    ],
    destination: Annotated[Path, PAIRS],
    language: Annotated[str, typer.Option(help="Language of the text: en or zh.")] = "en",
    max_per_label: Annotated[int, typer.Option(min=1, help="Maximum number of pairs per connective.")] = 10_000,
    text: Annotated[str, typer.Option(help="Field or column with the text.")] = "text",
) -> None:
    """Mine adjacent sentences, labelled with the connective that began the second.

    Reads    the text; split into paragraphs and sentences as by `ernie2 prepare`
    Writes   OUT with the columns sentence1, sentence2 (without its
             connective), label and group (the document; it keeps all its pairs
             on one side of the held-out split). An existing OUT is replaced
    Example  [bold]ernie2 mine discourse package:demo-en.jsonl pairs.tsv[/bold]
             [bold]ernie2 mine discourse "news/*.jsonl.gz" pairs.jsonl.gz --language zh[/bold]
    """
    with advise_on_interrupt(lambda: "nothing was written; run the same command to start again."):
        ernie2.mine_discourse(source, destination, language, max_per_label, text)


@mine.command("clicks")
def mine_clicks(
    source: Annotated[str, typer.Argument(metavar="IN", help="A click log, .tsv with column names, or .jsonl.")],
    destination: Annotated[Path, PAIRS],
    min_query_count: Annotated[int, typer.Option(min=1, help="Drop queries with fewer rows.")] = 5,
    query: Annotated[str, typer.Option(help="Column with the query.")] = "query",
    title: Annotated[str, typer.Option(help="Column with the title.")] = "title",
    clicked: Annotated[str, typer.Option(help="Column with the click: 0 or 1.")] = "clicked",
) -> None:
    """Mine query–title pairs with three relevance classes from a click log.

    Reads    the log, one shown title per row; other columns are ignored
    Writes   OUT with the columns query, title, label (0 clicked, 1 shown but
             never clicked, 2 never shown for the query) and group (the query).
             An existing OUT is replaced
    Example  [bold]ernie2 mine clicks log.tsv.gz triples.tsv --query q --clicked click[/bold]
    """
    with advise_on_interrupt(lambda: "nothing was written; run the same command to start again."):
        ernie2.mine_clicks(source, destination, min_query_count, query, title, clicked)


@app.command()
def prepare(
    recipe: Annotated[str, RECIPE],
    overrides: Annotated[list[str] | None, OVERRIDES] = None,
    workers: Annotated[int | None, WORKERS] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace existing shards of another recipe or input.")
    ] = False,
) -> None:
    """Prepare the corpora of a recipe as annotated, tokenised shards.

    Prints how many documents each task can use. Shards that are complete are
    not written again.

    Reads    the corpora, the vocabulary and the entity list of RECIPE
    Writes   a folder of shards (shards.folder in the recipe)
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
        typer.Argument(metavar="RECIPE|SHARDS", help="A prepared recipe, or a folder of shards."),
    ],
    overrides: Annotated[list[str] | None, OVERRIDES] = None,
    task: Annotated[str | None, typer.Option(help="Show only examples of this task.", show_default="all")] = None,
    examples: Annotated[int, typer.Option("--examples", "-n", min=0, help="Number of examples per task.")] = 5,
    containing: Annotated[
        str | None,
        typer.Option(
            "--with",
            metavar="KIND|CLASS",
            help="Show only examples with a span of this kind (word, phrase, entity, user) or with this class.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show label statistics of shards, and examples as the encoder reads them.

    Tasks, their options and the sequence length come from the recipe. For a
    folder, every known task is shown with default options and 512 tokens.

    Reads    the shards of RECIPE, or SHARDS
    Writes   nothing
    Example  [bold]ernie2 inspect my-recipe.yaml --task knowledge_masking --with entity[/bold]
    """
    print_line(ernie2.inspect(source, task, examples, containing, overrides or ()))
