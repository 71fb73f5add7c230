"""ERNIE 2.0 as open software: continual multi-task pre-training, from raw text to a Hugging Face checkpoint.

The verbs of the command line are functions of this package, and leave the same folders:

    import ernie2

    shards = ernie2.prepare("demo-en")                        # corpora → annotated, tokenised shards
    print(ernie2.inspect(shards, task="sentence_reordering"))
    ernie2.plan("demo-en")                                    # schedule, epochs, memory and time, before a run
    run = ernie2.pretrain("demo-en", ["train.peak_lr=3e-4"])  # → run/hf, run/report.html, run/metrics.jsonl
    run = ernie2.resume(run)                                  # goes on where a run stopped
    scores = ernie2.evaluate(run, shards)                     # task → metrics and baselines
    longer = ernie2.extend(run, "sentence_distance", shards)  # a task that arrives later
    tuned = ernie2.finetune(run, "mrpc", "glue_data")         # scores and models, five seeds
    ernie2.predict(tuned.models["mrpc"][0], ["A text.\tAnother."])
    ernie2.study("laptop", ["finetuning.data=glue_data"])     # learning methods side by side, forgetting made visible

A recipe is a YAML file, the name of a shipped one, or a mapping. What a user can do wrong raises a subclass of
`ernie2.errors.Ernie2Error`. Importing the package imports none of its libraries; the first verb that is used does.

Functions print nothing: messages and progress are records of the logger "ernie2", warnings, results (level 25) and
information. `logging.basicConfig(level=logging.INFO)` shows them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ernie2.version import __version__

if TYPE_CHECKING:
    from ernie2.verbs.benching import bench
    from ernie2.verbs.converting import convert
    from ernie2.verbs.demonstration import demo
    from ernie2.verbs.evaluating import evaluate, report
    from ernie2.verbs.exporting_onnx import export
    from ernie2.verbs.extending import extend
    from ernie2.verbs.finetuning import finetune
    from ernie2.verbs.mining import mine_clicks, mine_discourse
    from ernie2.verbs.planning import plan
    from ernie2.verbs.predicting import predict
    from ernie2.verbs.preparing import inspect, prepare
    from ernie2.verbs.pretraining import pretrain, resume
    from ernie2.verbs.recipes import list_recipes, list_tasks, recipe_schema, write_recipe
    from ernie2.verbs.studying import study, study_again

__all__ = [
    "__version__",
    "bench",
    "convert",
    "demo",
    "evaluate",
    "export",
    "extend",
    "finetune",
    "inspect",
    "list_recipes",
    "list_tasks",
    "mine_clicks",
    "mine_discourse",
    "plan",
    "predict",
    "prepare",
    "pretrain",
    "recipe_schema",
    "report",
    "resume",
    "study",
    "study_again",
    "write_recipe",
]

_MODULES = {
    "bench": "benching",
    "convert": "converting",
    "demo": "demonstration",
    "evaluate": "evaluating",
    "export": "exporting_onnx",
    "extend": "extending",
    "finetune": "finetuning",
    "inspect": "preparing",
    "list_recipes": "recipes",
    "list_tasks": "recipes",
    "mine_clicks": "mining",
    "mine_discourse": "mining",
    "plan": "planning",
    "predict": "predicting",
    "prepare": "preparing",
    "pretrain": "pretraining",
    "recipe_schema": "recipes",
    "report": "evaluating",
    "resume": "pretraining",
    "study": "studying",
    "study_again": "studying",
    "write_recipe": "recipes",
}


def __getattr__(name: str) -> Any:
    """Imports the module of a verb when the verb is asked for."""
    if name in _MODULES:
        return getattr(import_module(f"ernie2.verbs.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'ernie2' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
