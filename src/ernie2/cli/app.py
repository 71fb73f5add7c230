"""The application every command registers with, what commands share, and what turns errors into exit codes."""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

import ernie2
from ernie2.console import (
    RESULT,
    Output,
    configure,
    log_info,
    log_result,
    log_warning,
    logger,
    print_line,
    terminal_output,
)
from ernie2.errors import ConfigError, Ernie2Error, StorageError

INTERRUPTED = 130
_Function = TypeVar("_Function", bound=Callable[..., Any])
_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EIO: "the disk reports an error (EIO)",
}
_NOT_FILE_ERRORS = (ConnectionError, ChildProcessError, ProcessLookupError, TimeoutError, InterruptedError)
"""Kinds of `OSError` that are not about files."""

_ORDER = (
    *("demo", "recipes", "tasks", "mine", "prepare", "inspect", "pretrain", "resume", "extend", "evaluate", "report"),
    *("finetune", "predict", "export", "study", "bench", "convert"),
)


RECIPE = typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a shipped recipe (`ernie2 recipes`).")
OVERRIDES = typer.Argument(
    metavar="KEY=VALUE", help="Values that replace those of the recipe, such as train.peak_lr=3e-4.", show_default=False
)
HOOK = typer.Option(
    "--hook",
    metavar="NAME|MODULE:CLASS",
    help="Code of yours that takes part: the name of an installed hook, or a class. May be given several times.",
    show_default=False,
)
WORKERS = typer.Option(min=1, max=1_024, help="Processes that make shards.", show_default="all cores")


class _OrderedGroup(TyperGroup):
    """Help lists the commands in the order in which a user needs them."""

    def list_commands(self, ctx: Any) -> list[str]:
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))


_MESSAGES = "Messages"  # the panel of the help
_MESSAGE_OPTIONS = ("quiet", "verbose", "log_file")


class _Command(TyperCommand):
    """A command that also takes the options about messages, and refuses an option given twice that takes one value."""

    def get_params(self, ctx: Any) -> list[Any]:
        shared = [one for one in ctx.find_root().command.params if one.name in _MESSAGE_OPTIONS]
        return [*super().get_params(ctx), *shared]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for parameter in {id(one): one for one in order}.values():
            repeated = sum(one is parameter for one in order) > 1
            if repeated and parameter.param_type_name == "option" and not parameter.multiple:
                ctx.fail(
                    f"{parameter.opts[0]} is given more than once, but takes one value.{_combine_hint(parameter, args)}"
                )
        rest = super().parse_args(ctx, args)
        after = {name: ctx.params.pop(name, None) for name in _MESSAGE_OPTIONS}
        if any(after.values()):
            before = ctx.find_root().params
            if after["log_file"] and before.get("log_file"):
                ctx.fail("--log-file is given more than once, but takes one value.")
            _configure(**{name: after[name] or before.get(name) for name in _MESSAGE_OPTIONS})
        return rest


def _combine_hint(parameter: Any, args: Sequence[str]) -> str:
    """Return how to give the values of a repeated option at once, where it takes several with commas between them."""
    if "," not in (parameter.metavar or ""):
        return ""
    option = parameter.opts[0]
    values = [value for name, value in pairwise(args) if name == option]
    values += [arg.removeprefix(f"{option}=") for arg in args if arg.startswith(f"{option}=")]
    return f" Use {option} {','.join(values)}."


class CommandLine(typer.Typer):
    """A set of commands, each of which refuses an option given twice."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[_Function], _Function]:
        return super().command(name, cls=_Command, **settings)


app = CommandLine(
    name="ernie2",
    cls=_OrderedGroup,
    epilog="Exit codes: 0 done · 1 the run failed · 2 wrong input · 75 asked to stop (SIGTERM, Ctrl-C, a hook): the "
    "message says what was saved and how to go on · 130 interrupted, nothing saved.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line on `arguments` (default: those of the process) and exits with its code."""
    # threads that wait should soon sleep: ones that spin stall a small model on a machine in use (benchmarks/NOTES.md)
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    # large tensors on a CPU in pages of 2 MiB where the kernel has them; torch reads this when it is imported
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a character that the locale does not have is not an error
    with terminal_output():
        _run(arguments)


def _run(arguments: Sequence[str] | None) -> None:
    try:
        try:
            app(arguments, prog_name="ernie2")
        finally:
            sys.stdout.flush()  # here, where a reader that went away (as `head` does) can still be met quietly
    except Ernie2Error as error:
        logger.debug("where this was raised:", exc_info=True)
        _fail(str(error), error.exit_code, error.heading)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        _fail("interrupted.", INTERRUPTED)
    except OSError as error:
        if error.errno is None or isinstance(error, _NOT_FILE_ERRORS):
            _fail_unexpectedly()
        _fail(str(_storage_error(error)), StorageError.exit_code)
    except Exception:
        _fail_unexpectedly()


def _print_version(asked: bool) -> None:
    if asked:
        print_line(f"ernie2 {ernie2.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", rich_help_panel=_MESSAGES, help="Show results, warnings and errors only.")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            rich_help_panel=_MESSAGES,
            help="Show details as well, and where in the code an error was raised.",
        ),
    ] = False,
    log_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=_MESSAGES,
            help="Append messages with time stamps to FILE as well; under torchrun the first rank does.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Continual multi-task pre-training of text encoders, after ERNIE 2.0.

    You bring text; you get a checkpoint that Hugging Face loads, and a report.

    Start with  [bold]ernie2 demo[/bold]
    Then write  [bold]ernie2 recipes demo-en[/bold]  and make the recipe your own.
    """
    _configure(quiet, verbose, log_file)


def _configure(quiet: bool, verbose: bool, log_file: Path | None) -> None:
    """Send messages where the options say; of many ranks under torchrun the first writes the log file."""
    if quiet and verbose:
        raise ConfigError("--quiet and --verbose contradict each other; give one of them.")
    level = RESULT if quiet else logging.DEBUG if verbose else logging.INFO
    configure(Output(level, log_file if _is_first_rank() else None))


def _is_first_rank() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _storage_error(error: OSError) -> StorageError:
    """Return what to tell a user about an error of the file system that nobody expected."""
    files = [os.fsdecode(file) for file in (error.filename, error.filename2) if isinstance(file, str | bytes)]
    where = f" at {' and '.join(files)}" if files else ""
    return StorageError(
        f"the file system failed{where}: {_REASONS.get(error.errno or 0, error.strerror)}. Files written before are "
        "whole. Check the place, its free space and permissions, then give the same command again."
    )


def _fail(message: str, code: int, heading: str = "error") -> None:
    sys.stdout.flush()
    where = "" if _is_first_rank() else f" on rank {os.environ['RANK']}"  # under torchrun
    logger.error("%s", f"{heading}{where}: {message}")
    sys.exit(code)


def _fail_unexpectedly() -> None:
    logger.error("%s", traceback.format_exc().rstrip())
    _fail(
        "this is a fault of ernie2 and not of your input. Please report it with the lines above and the output of "
        "`ernie2 --version`.",
        1,
    )


@contextmanager
def advise_on_interrupt(advice: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C inside ends the command with what to do now instead of a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        log_warning(f"\ninterrupted: {advice()}")
        raise typer.Exit(INTERRUPTED) from None


def print_results(results: Mapping[str, Path], *steps: str) -> None:
    """Says where the results are and what to do next; of many ranks under torchrun the first does."""
    if not _is_first_rank():
        return
    log_result()
    print_columns([(f"{name}:", str(path)) for name, path in results.items()], log_result)
    print_next_steps(*steps)


def print_run_results(run: Path) -> None:
    """`print_results` of a run folder."""
    steps = [f"open {run / 'report.html'} in a browser"]
    if (run / "hf" / "config.json").exists():  # not so for recurrent encoders
        steps.append(f'transformers.ErnieModel.from_pretrained("{run / "hf"}")      in Python')
    print_results({"run": run}, *steps)


def print_next_steps(*steps: str) -> None:
    log_info("\nnext:")
    for step in steps:
        log_info(f"  {step}")


def print_columns(rows: Iterable[tuple[str, ...]], write: Callable[[str], None] = print_line) -> None:
    """Write rows so that their cells stand below each other."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
