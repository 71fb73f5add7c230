"""Load hooks of users: declared by an installed package, or given on the command line as module:Class.

    [project.entry-points."ernie2.hooks"]
    my_hook = "my_package.hooks:MyHook"

A hook is code, so no file can name one: not a recipe, run.json or checkpoint. A resumed run has only the hooks of its
own command. An installed hook is used only if it is named.
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
"""Entry point group for hooks of packages."""
HookSource = str | Callable[[], Hook]
"""Name of an installed hook, "module:Class", or a class or function that returns the hook."""


def create_hooks(sources: Sequence[HookSource], *, first: bool = True) -> list[Hook]:
    """Create the hooks of one run; `first`: whether this is the first rank.

    Raises `ConfigError` for an unknown name, a module that cannot be imported, and a class that is not a hook.
    """
    check_list(sources, "hooks")
    created = [_create(source) for source in sources]
    return [hook for hook in created if first or hook.every_rank]


def _create(source: HookSource) -> Hook:
    factory = _load(source) if isinstance(source, str) else source
    try:
        hook = factory()
    except USER_CODE_ERRORS as error:
        raise ConfigError(
            f"hook {source} cannot be created without arguments ({error!r}{user_code_location(error)})."
        ) from error
    if not isinstance(hook, Hook):
        raise ConfigError(f"hook {source} returned {hook!r}, which is not a {Hook.__module__}.Hook.")
    return hook


def _load(name: str) -> type[Hook]:
    entry = EntryPoint(name, name, GROUP) if ":" in name else _declared(name)
    with _working_directory_importable():
        try:
            loaded = entry.load()
        except USER_CODE_ERRORS as error:
            raise ConfigError(
                f"hook {entry.value} cannot be imported ({error!r}{user_code_location(error)}). It is module:Class, of "
                "an installed package or of a file in the working directory."
            ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Hook)):
        raise ConfigError(f"hook {entry.value} is not a subclass of {Hook.__module__}.Hook.")
    return loaded


def _declared(name: str) -> EntryPoint:
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in known:
        installed = f"Installed: {', '.join(sorted(known))}." if known else "No installed package declares one."
        raise ConfigError(
            f"there is no hook {name!r}.{did_you_mean(name, known)} {installed} Give your own hook as module:Class."
        )
    return known[name]


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    """Append the working directory to the import path."""
    sys.path.append(os.getcwd())
    try:
        yield
    finally:
        sys.path.pop()
