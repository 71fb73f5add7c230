"""The typer application, options and output shared by all commands, and the mapping of errors to exit codes."""

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
"""Subclasses of `OSError` that do not concern files."""

_ORDER = (
    *("demo", "recipes", "tasks", "mine", "prepare", "inspect", "pretrain", "resume", "extend", "evaluate", "report"),
    *("finetune", "predict", "export", "study", "bench", "convert"),
)


RECIPE = typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a shipped recipe (`ernie2 recipes`).")
OVERRIDES = typer.Argument(
    metavar="KEY=VALUE", help="Override values of the recipe, for example train.peak_lr=3e-4.", show_default=False
)
HOOK = typer.Option(
    "--hook",
    metavar="NAME|MODULE:CLASS",
    help="Add a hook: the name of an installed hook, or a class of yours. Can be repeated.",
    show_default=False,
)
WORKERS = typer.Option(min=1, max=1_024, help="Number of processes that prepare shards.", show_default="all cores")


class _OrderedGroup(TyperGroup):
    """A command group that lists its commands in the order of a typical workflow."""

    def list_commands(self, ctx: Any) -> list[str]:
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))


_MESSAGES = "Messages"  # heading in the help
_MESSAGE_OPTIONS = ("quiet", "verbose", "log_file")


class _Command(TyperCommand):
    """A command that also accepts the message options, and rejects a repeated option that has a single value."""

    def get_params(self, ctx: Any) -> list[Any]:
        shared = [one for one in ctx.find_root().command.params if one.name in _MESSAGE_OPTIONS]
        return [*super().get_params(ctx), *shared]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for parameter in {id(one): one for one in order}.values():
            repeated = sum(one is parameter for one in order) > 1
            if repeated and parameter.param_type_name == "option" and not parameter.multiple:
                hint = _combine_hint(parameter, args)
                ctx.fail(f"{parameter.opts[0]} is given more than once, but accepts one value.{hint}")
        rest = super().parse_args(ctx, args)
        after = {name: ctx.params.pop(name, None) for name in _MESSAGE_OPTIONS}
        if any(after.values()):
            before = ctx.find_root().params
            if after["log_file"] and before.get("log_file"):
                ctx.fail("--log-file is given more than once, but accepts one value.")
            _configure(**{name: after[name] or before.get(name) for name in _MESSAGE_OPTIONS})
        return rest


def _combine_hint(parameter: Any, args: Sequence[str]) -> str:
    """Return how to combine the values of a repeated option, if it accepts several separated by commas."""
    if "," not in (parameter.metavar or ""):
        return ""
    option = parameter.opts[0]
    values = [value for name, value in pairwise(args) if name == option]
    values += [arg.removeprefix(f"{option}=") for arg in args if arg.startswith(f"{option}=")]
    return f" Use {option} {','.join(values)}."


class CommandLine(typer.Typer):
    """A `Typer` application whose commands are `_Command`s."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[_Function], _Function]:
        return super().command(name, cls=_Command, **settings)


app = CommandLine(
    name="ernie2",
    cls=_OrderedGroup,
    epilog="Exit codes: 0 success · 1 the run failed · 2 invalid input · 75 stopped by SIGTERM, Ctrl-C or a hook; the "
    "message says what was saved and how to resume · 130 interrupted, nothing saved.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line on `arguments` (default: those of the process) and exit with its exit code."""
    # let waiting OpenMP threads sleep early: spinning slows a small model on a busy machine (benchmarks/NOTES.md)
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    # 2 MiB pages for large CPU tensors if the kernel supports them; torch reads this at import
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for characters outside the locale's encoding
    with terminal_output():
        _run(arguments)


def _run(arguments: Sequence[str] | None) -> None:
    try:
        try:
            app(arguments, prog_name="ernie2")
        finally:
            sys.stdout.flush()  # inside the try block, to catch the BrokenPipeError of a closed pipe such as `head`
    except Ernie2Error as error:
        logger.debug("traceback:", exc_info=True)
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
        bool, typer.Option("--quiet", rich_help_panel=_MESSAGES, help="Show only results, warnings and errors.")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            rich_help_panel=_MESSAGES,
            help="Also show details, and the traceback of an error.",
        ),
    ] = False,
    log_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=_MESSAGES,
            help="Also append messages with time stamps to FILE; under torchrun, only those of rank 0.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Continual multi-task pre-training of text encoders, after ERNIE 2.0.

    From raw text to a checkpoint for Hugging Face transformers, and a report.

    Try it       [bold]ernie2 demo[/bold]
    Your corpus  [bold]ernie2 recipes demo-en my-recipe.yaml[/bold], edit it, then
                 [bold]ernie2 prepare[/bold] and [bold]ernie2 pretrain[/bold]
    """
    _configure(quiet, verbose, log_file)


def _configure(quiet: bool, verbose: bool, log_file: Path | None) -> None:
    """Configure messages as the options say; under torchrun only rank 0 writes the log file."""
    if quiet and verbose:
        raise ConfigError("--quiet and --verbose exclude each other; use one of them.")
    level = RESULT if quiet else logging.DEBUG if verbose else logging.INFO
    configure(Output(level, log_file if _is_first_rank() else None))


def _is_first_rank() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _storage_error(error: OSError) -> StorageError:
    """Return the error to show for an unexpected error of the file system."""
    files = [os.fsdecode(file) for file in (error.filename, error.filename2) if isinstance(file, str | bytes)]
    where = f" at {' and '.join(files)}" if files else ""
    return StorageError(
        f"file system error{where}: {_REASONS.get(error.errno or 0, error.strerror)}. Files written before are intact. "
        "Check the path, its free space and permissions, then run the same command again."
    )


def _fail(message: str, code: int, heading: str = "error") -> None:
    sys.stdout.flush()
    where = "" if _is_first_rank() else f" on rank {os.environ['RANK']}"  # under torchrun
    logger.error("%s", f"{heading}{where}: {message}")
    sys.exit(code)


def _fail_unexpectedly() -> None:
    logger.error("%s", traceback.format_exc().rstrip())
    _fail(
        "this is a bug in ernie2, not a problem with your input. Please report it with the lines above and the output "
        "of `ernie2 --version`.",
        1,
    )


@contextmanager
def advise_on_interrupt(advice: Callable[[], str]) -> Iterator[None]:
    """On Ctrl-C in this context, log `advice` and exit instead of showing a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        log_warning(f"\ninterrupted: {advice()}")
        raise typer.Exit(INTERRUPTED) from None


def print_results(results: Mapping[str, Path], *steps: str) -> None:
    """Print the paths of results and the next steps; under torchrun only on rank 0."""
    if not _is_first_rank():
        return
    log_result()
    print_columns([(f"{name}:", str(path)) for name, path in results.items()], log_result)
    print_next_steps(*steps)


def print_run_results(run: Path) -> None:
    """Print the paths in a run folder and the next steps."""
    steps = [f"open {run / 'report.html'} in a browser"]
    if (run / "hf" / "config.json").exists():  # not so for recurrent encoders
        steps.append(f'transformers.ErnieModel.from_pretrained("{run / "hf"}")      in Python')
    print_results({"run": run}, *steps)


def print_next_steps(*steps: str) -> None:
    log_info("\nnext:")
    for step in steps:
        log_info(f"  {step}")


def print_columns(rows: Iterable[tuple[str, ...]], write: Callable[[str], None] = print_line) -> None:
    """Write rows as aligned columns."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
