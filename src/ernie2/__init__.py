"""ERNIE 2.0 as open software: continual multi-task pre-training, from raw text to a Hugging Face checkpoint.

The commands of the command line are functions of this package, and leave the same folders:

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
`ernie2.errors.Ernie2Error`. Importing the package imports none of its libraries; the first function that is used does.

Functions print nothing: messages and progress are records of the logger "ernie2", warnings, results (level 25) and
information. `logging.basicConfig(level=logging.INFO)` shows them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ernie2.version import __version__

if TYPE_CHECKING:
    from ernie2.benchmarking.bench import bench
    from ernie2.corpora.mining import mine_clicks, mine_discourse
    from ernie2.demonstration import demo
    from ernie2.finetuning.export_onnx import export
    from ernie2.finetuning.finetune import finetune
    from ernie2.finetuning.inference.predict import predict
    from ernie2.runs.convert import convert
    from ernie2.runs.evaluate import evaluate, report
    from ernie2.runs.extend import extend
    from ernie2.runs.plan import plan
    from ernie2.runs.prepare import inspect, prepare
    from ernie2.runs.start import pretrain, resume
    from ernie2.studies.study import study, study_again
    from ernie2.tasks.catalogue import list_recipes, list_tasks, write_recipe
    from ernie2.tasks.recipe import recipe_schema

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
    "bench": "benchmarking.bench",
    "convert": "runs.convert",
    "demo": "demonstration",
    "evaluate": "runs.evaluate",
    "export": "finetuning.export_onnx",
    "extend": "runs.extend",
    "finetune": "finetuning.finetune",
    "inspect": "runs.prepare",
    "list_recipes": "tasks.catalogue",
    "list_tasks": "tasks.catalogue",
    "mine_clicks": "corpora.mining",
    "mine_discourse": "corpora.mining",
    "plan": "runs.plan",
    "predict": "finetuning.inference.predict",
    "prepare": "runs.prepare",
    "pretrain": "runs.start",
    "recipe_schema": "tasks.recipe",
    "report": "runs.evaluate",
    "resume": "runs.start",
    "study": "studies.study",
    "study_again": "studies.study",
    "write_recipe": "tasks.catalogue",
}


def __getattr__(name: str) -> Any:
    """Import the module of a function when the function is asked for."""
    if name in _MODULES:
        return getattr(import_module(f"ernie2.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'ernie2' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
