"""The command line: each command calls the verb of its name, says where the result is and what to do next.

Exit codes: 0 done, 1 the run failed, 2 wrong input or nowhere to write (what, where, what now; no traceback), 130
interrupted. This module imports no library but typer, so that help comes at once; the verbs import what they need.
"""

from __future__ import annotations

import errno
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

import ernie2
from ernie2.errors import Ernie2Error, StorageError

INTERRUPTED = 130
_NOWHERE_TO_WRITE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your disk quota is used up",
    errno.EROFS: "the file system is read-only",
}

app = typer.Typer(
    name="ernie2",
    epilog="Exit codes: 0 done · 1 the run failed · 2 wrong input · 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

mine = typer.Typer(no_args_is_help=True, help="Make labelled pairs of raw material: discourse (text), clicks (a log).")
app.add_typer(mine, name="mine")

RECIPE = typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a shipped recipe (`ernie2 recipes`).")
OVERRIDES = typer.Argument(
    metavar="KEY=VALUE", help="Values that replace those of the recipe, such as train.peak_lr=3e-4.", show_default=False
)
WORKERS = typer.Option(min=1, help="Processes that make shards.", show_default="all cores")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line on `arguments` (default: those of the process) and exits with its code."""
    # threads that wait should soon sleep: ones that spin stall a small model on a machine in use (benchmarks/NOTES.md)
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    try:
        try:
            app(arguments, prog_name="ernie2")
        finally:
            sys.stdout.flush()  # here, where a reader that went away (as `head` does) can still be met quietly
    except Ernie2Error as error:
        _fail(str(error), error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        _fail("interrupted.", INTERRUPTED)
    except OSError as error:
        if error.errno in _NOWHERE_TO_WRITE:
            _fail(str(_storage_error(error)), StorageError.exit_code)
        _fail_unexpectedly()
    except Exception:
        _fail_unexpectedly()


def _print_version(asked: bool) -> None:
    if asked:
        print(f"ernie2 {ernie2.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Continual multi-task pre-training of text encoders, after ERNIE 2.0.

    You bring text; you get a checkpoint that Hugging Face loads, and a report.

    Start with  [bold]ernie2 demo[/bold]
    Then write  [bold]ernie2 recipes demo-en[/bold]  and make the recipe your own.
    """


@app.command()
def demo(
    language: Annotated[str, typer.Option(help="Language of the shipped text: en or zh.")] = "en",
    folder: Annotated[
        Path, typer.Option(help="Where everything goes; what is there already is not made again.")
    ] = Path("ernie2-demo"),
) -> None:
    """See the whole way on text that comes with the package, within minutes and without a network.

    Reads    the corpus of that language inside the package
    Leaves   FOLDER with shards, a small encoder trained through four stages,
             its held-out metrics, and a classification it learned from a few
             labels, beside the same encoder untrained
    Example  [bold]ernie2 demo --language zh[/bold]
    """
    with _when_interrupted(lambda: "the same command goes on where it stopped."):
        ernie2.demo(language, folder)


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The recipe to write.", show_default=False)] = None,
    destination: Annotated[
        Path | None,
        typer.Argument(metavar="DESTINATION", help="The file to write it to.", show_default="NAME.yaml here"),
    ] = None,
) -> None:
    """List the shipped recipes, or write a copy of one in which every key is explained.

    Leaves   the copy; a file that is there already is not replaced
    Example  [bold]ernie2 recipes english-wiki-small my-recipe.yaml[/bold]
    """
    if name is None:
        _columns([(known, about) for known, about in ernie2.list_recipes().items()])
        _next("ernie2 recipes NAME      writes a copy to edit")
        return
    written = ernie2.write_recipe(name, destination or Path(f"{name}.yaml"))
    _finished({"recipe": written}, f"edit it, then: ernie2 prepare {written}")


@app.command()
def tasks() -> None:
    """List the pre-training tasks: level, labels, what each needs, where it comes from.

    Reads    the built-in tasks and those that installed packages announce
    Example  [bold]ernie2 tasks[/bold]
    """
    for task in ernie2.list_tasks():
        labels = "the vocabulary" if task["labels"] is None else f"{task['labels']} labels"
        print(f"{task['name']}  ({task['level']}-level, {labels}, from {task['origin']})")
        print(f"    {task['title']}: {task['about']}")
        print(f"    needs {task['needs']}")
    _next("name the ones you want under `tasks:` in a recipe")


@app.command()
def prepare(
    recipe: Annotated[str, RECIPE],
    overrides: Annotated[list[str] | None, OVERRIDES] = None,
    workers: Annotated[int | None, WORKERS] = None,
) -> None:
    """Turn corpora into annotated, tokenised shards.

    Reads    the corpora, the vocabulary and the entity list of RECIPE
    Leaves   a folder of shards (shards.folder in the recipe), and prints how
             many documents each task can use; finished work is not done again
    Example  [bold]ernie2 prepare my-recipe.yaml corpora.wiki.path=wiki.jsonl.gz[/bold]
    """
    with _when_interrupted(lambda: "the same command goes on where it stopped."):
        shards = ernie2.prepare(recipe, overrides or (), workers)
    _finished(
        {"shards": shards}, f"ernie2 inspect {shards}", f"ernie2 pretrain {shlex.join([recipe, *(overrides or ())])}"
    )


@app.command()
def inspect(
    shards: Annotated[Path, typer.Argument(metavar="SHARDS", help="A folder written by `ernie2 prepare`.")],
    task: Annotated[str | None, typer.Option(help="Show examples of this task only.", show_default="all")] = None,
    examples: Annotated[int, typer.Option("--examples", "-n", min=0, help="Examples a task.")] = 5,
) -> None:
    """Look at shards: label statistics of the tasks, and examples as the encoder sees them.

    Reads    SHARDS
    Leaves   nothing
    Example  [bold]ernie2 inspect my-shards --task sentence_reordering -n 3[/bold]
    """
    print(ernie2.inspect(shards, task, examples))


@app.command()
def pretrain(
    recipe: Annotated[str, RECIPE],
    overrides: Annotated[list[str] | None, OVERRIDES] = None,
    init_from: Annotated[
        Path | None,
        typer.Option(help="Start from these parameters: a run or a Hugging Face folder.", show_default="random"),
    ] = None,
    workers: Annotated[int | None, WORKERS] = None,
) -> None:
    """Pre-train an encoder through the stages of a recipe.

    Reads    the shards of RECIPE
    Leaves   a run folder (run in the recipe) with hf/ for Hugging Face,
             report.html, metrics.jsonl, run.json and checkpoints/
    Example  [bold]ernie2 pretrain my-recipe.yaml run=runs/b train.peak_lr=3e-4[/bold]
    """
    with _when_interrupted(lambda: _how_to_resume(_run_of(recipe, overrides or ()))):
        run = ernie2.pretrain(recipe, overrides or (), init_from, workers)
    _finished({"run": run}, *_after_run(run))


@app.command()
def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder that `ernie2 pretrain` began.")],
) -> None:
    """Go on with a run that was stopped, exactly as if it had not been.

    Reads    the newest checkpoint in RUN
    Leaves   the run finished
    Example  [bold]ernie2 resume runs/b[/bold]
    """
    with _when_interrupted(lambda: _how_to_resume(run)):
        run = ernie2.resume(run)
    _finished({"run": run}, *_after_run(run))


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A run, or a Hugging Face folder.")],
    data: Annotated[Path, typer.Option(help="A folder of shards; their held-out documents are used.")],
) -> None:
    """Measure every task on held-out documents, beside the majority class and a cheap rule.

    Reads    CHECKPOINT and the held-out documents of the shards
    Leaves   nothing
    Example  [bold]ernie2 evaluate runs/b --data my-shards[/bold]
    """
    ernie2.evaluate(checkpoint, data)


@app.command()
def report(run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, finished or not.")]) -> None:
    """Write the report of a run anew: schedule, losses, held-out metrics, the forgetting matrix.

    Reads    run.json and metrics.jsonl in RUN, finished or not
    Leaves   RUN/report.html, one file that needs no network
    Example  [bold]ernie2 report runs/b[/bold]
    """
    page = ernie2.report(run)
    _finished({"report": page}, f"open {page} in a browser")


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
    with _when_interrupted(lambda: "nothing was written; the same command starts again."):
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
    with _when_interrupted(lambda: "nothing was written; the same command starts again."):
        ernie2.mine_clicks(source, destination, min_query_count, query, title, clicked)


def _after_run(run: Path) -> tuple[str, ...]:
    return (
        f"open {run / 'report.html'} in a browser",
        f'transformers.ErnieModel.from_pretrained("{run / "hf"}")      in Python',
    )


def _run_of(recipe: str, overrides: Sequence[str]) -> Path:
    from ernie2.settings import load_recipe

    return Path(load_recipe(recipe, overrides).run)


def _how_to_resume(run: Path) -> str:
    if (run / "checkpoints").is_dir() and any((run / "checkpoints").iterdir()):
        return f"the run goes on from its last checkpoint with: ernie2 resume {run}"
    return "no checkpoint was written yet; the same command starts again."


@contextmanager
def _when_interrupted(advice: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C inside ends the command with what to do now instead of a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\ninterrupted: {advice()}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def _finished(results: Mapping[str, Path], *steps: str) -> None:
    """Says where the results are and what to do next."""
    print()
    _columns([(f"{name}:", str(path)) for name, path in results.items()])
    _next(*steps)


def _next(*steps: str) -> None:
    print("\nnext:")
    for step in steps:
        print(f"  {step}")


def _columns(rows: Iterable[tuple[str, ...]]) -> None:
    """Prints rows so that their cells stand below each other."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _storage_error(error: OSError) -> StorageError:
    """What to tell a user when `error` says that nothing can be written."""
    where = f" at {error.filename}" if error.filename else ""
    return StorageError(
        f"writing failed{where}: {_NOWHERE_TO_WRITE.get(error.errno or 0, error.strerror)}. Files written before are "
        "whole. Free some space or choose another folder, then give the same command again."
    )


def _fail(message: str, code: int) -> None:
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def _fail_unexpectedly() -> None:
    traceback.print_exc()
    _fail(
        "this is a fault of ernie2 and not of your input. Please report it with the lines above and the output of "
        "`ernie2 --version`.",
        1,
    )
