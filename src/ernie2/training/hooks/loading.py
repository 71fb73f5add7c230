"""A user's own hooks: announced by an installed package, or typed on the command line as module:Class.

    [project.entry-points."ernie2.hooks"]
    my_hook = "my_package.hooks:MyHook"

A hook is code, so it never comes from a file that someone may have sent you: no recipe, run.json or checkpoint names
one, and a resumed run has the hooks that its own command names. An installed hook takes part only where it is named.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points

from ernie2.config.overrides import check_list
from ernie2.errors import USER_CODE_ERRORS, ConfigError, did_you_mean, user_code_location
from ernie2.training.hooks.base import Hook

GROUP = "ernie2.hooks"
"""Entry points by which a package announces hooks."""
HookSource = str | Callable[[], Hook]
"""The name of an installed hook, "module:Class", or what makes the hook of a run: a class, or any function."""


def create_hooks(sources: Sequence[HookSource], *, first: bool = True) -> list[Hook]:
    """Return the hooks of one training from their sources; `first`: on the first rank, or where there is one only.

    Raises `ConfigError` for a name there is no hook of, a module that cannot be imported, and what is no hook.
    """
    check_list(sources, "hooks")
    made = [_create(source) for source in sources]
    return [hook for hook in made if first or hook.every_rank]


def _create(source: HookSource) -> Hook:
    make = _load(source) if isinstance(source, str) else source
    try:
        hook = make()
    except USER_CODE_ERRORS as error:
        raise ConfigError(
            f"hook {source} cannot be created without arguments ({error!r}{user_code_location(error)})."
        ) from error
    if not isinstance(hook, Hook):
        raise ConfigError(f"hook {source} made {hook!r}, which is no {Hook.__module__}.Hook.")
    return hook


def _load(name: str) -> type[Hook]:
    entry = EntryPoint(name, name, GROUP) if ":" in name else _announced(name)
    with _working_directory_importable():
        try:
            loaded = entry.load()
        except USER_CODE_ERRORS as error:
            raise ConfigError(
                f"hook {entry.value} cannot be imported ({error!r}{user_code_location(error)}). It is module:Class, of "
                "an installed package or of a file in the working directory."
            ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Hook)):
        raise ConfigError(f"hook {entry.value} is no subclass of {Hook.__module__}.Hook.")
    return loaded


def _announced(name: str) -> EntryPoint:
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in known:
        there = f"Installed: {', '.join(sorted(known))}." if known else "No installed package announces one."
        raise ConfigError(
            f"no hook is called {name!r}.{did_you_mean(name, known)} {there} A hook of your own is module:Class."
        )
    return known[name]


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    """Find modules in the working directory too, after all others, while one is imported."""
    sys.path.append(os.getcwd())
    try:
        yield
    finally:
        sys.path.pop()
