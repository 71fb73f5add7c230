"""ERNIE 2.0 as open software: continual multi-task pre-training, from raw text to a Hugging Face checkpoint.

The verbs of the command line are functions of this package, and leave the same folders:

    import ernie2

    shards = ernie2.prepare("demo-en")                        # corpora → annotated, tokenised shards
    print(ernie2.inspect(shards, task="sentence_reordering"))
    run = ernie2.pretrain("demo-en", ["train.peak_lr=3e-4"])  # → run/hf, run/report.html, run/metrics.jsonl
    run = ernie2.resume(run)                                  # goes on where a run stopped
    scores = ernie2.evaluate(run, shards)                     # task → metrics and baselines

A recipe is a YAML file, the name of a shipped one, or a mapping. What a user can do wrong raises a subclass of
`ernie2.errors.Ernie2Error`. Importing the package imports none of its libraries; the first verb that is used does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ernie2.version import __version__

if TYPE_CHECKING:
    from ernie2.verbs import (
        demo,
        evaluate,
        inspect,
        list_recipes,
        list_tasks,
        mine_clicks,
        mine_discourse,
        prepare,
        pretrain,
        report,
        resume,
        write_recipe,
    )

__all__ = [
    "__version__",
    "demo",
    "evaluate",
    "inspect",
    "list_recipes",
    "list_tasks",
    "mine_clicks",
    "mine_discourse",
    "prepare",
    "pretrain",
    "report",
    "resume",
    "write_recipe",
]


def __getattr__(name: str) -> Any:
    """Imports the verbs when the first of them is asked for."""
    if name in __all__:
        from ernie2 import verbs

        return getattr(verbs, name)
    raise AttributeError(f"module 'ernie2' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
