"""Open implementation of ERNIE 2.0: continual multi-task pre-training, from raw text to a Hugging Face checkpoint.

Every command of the command line is also a function of this package and writes the same folders:

    import ernie2

    shards = ernie2.prepare("demo-en")                        # corpora → annotated, tokenised shards
    print(ernie2.inspect(shards, task="sentence_reordering"))
    ernie2.plan("demo-en")                                    # schedule, epochs, memory and time, before a run
    run = ernie2.pretrain("demo-en", ["train.peak_lr=3e-4"])  # → run/hf, run/report.html, run/metrics.jsonl
    run = ernie2.resume(run)                                  # continue a stopped run
    scores = ernie2.evaluate(run, shards)                     # task → metrics and baselines
    longer = ernie2.extend(run, "sentence_distance", shards)  # add a task to a finished run
    tuned = ernie2.finetune(run, "mrpc", "glue_data")         # five seeds: scores and models
    ernie2.predict(tuned.models["mrpc"][0], ["A text.\tAnother."])
    ernie2.study("laptop", ["finetuning.data=glue_data"])     # compare learning methods and measure forgetting

A recipe is a YAML file, the name of a shipped recipe, or a mapping. User errors raise subclasses of
`ernie2.errors.Ernie2Error`. `import ernie2` imports no other library; the first function used does.

Functions print nothing. Messages and progress are records of the logger "ernie2" at levels INFO, RESULT (25) and
WARNING. `logging.basicConfig(level=logging.INFO)` shows them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ernie2.version import __version__

if TYPE_CHECKING:
    from ernie2.benchmarking.bench import bench as bench
    from ernie2.corpora.mining import mine_clicks as mine_clicks
    from ernie2.corpora.mining import mine_discourse as mine_discourse
    from ernie2.demonstration import demo as demo
    from ernie2.finetuning.export_onnx import export as export
    from ernie2.finetuning.finetune import finetune as finetune
    from ernie2.finetuning.inference.predict import predict as predict
    from ernie2.runs.convert import convert as convert
    from ernie2.runs.evaluate import evaluate as evaluate
    from ernie2.runs.extend import extend as extend
    from ernie2.runs.inspect import inspect as inspect
    from ernie2.runs.plan import plan as plan
    from ernie2.runs.prepare import prepare as prepare
    from ernie2.runs.recipes import list_recipes as list_recipes
    from ernie2.runs.recipes import list_tasks as list_tasks
    from ernie2.runs.recipes import recipe_schema as recipe_schema
    from ernie2.runs.recipes import write_recipe as write_recipe
    from ernie2.runs.report import report as report
    from ernie2.runs.start import pretrain as pretrain
    from ernie2.runs.start import resume as resume
    from ernie2.studies.study import analyse_study as analyse_study
    from ernie2.studies.study import study as study

_MODULES = {
    "benchmarking.bench": ("bench",),
    "corpora.mining": ("mine_clicks", "mine_discourse"),
    "demonstration": ("demo",),
    "finetuning.export_onnx": ("export",),
    "finetuning.finetune": ("finetune",),
    "finetuning.inference.predict": ("predict",),
    "runs.convert": ("convert",),
    "runs.evaluate": ("evaluate",),
    "runs.extend": ("extend",),
    "runs.inspect": ("inspect",),
    "runs.plan": ("plan",),
    "runs.prepare": ("prepare",),
    "runs.recipes": ("list_recipes", "list_tasks", "recipe_schema", "write_recipe"),
    "runs.report": ("report",),
    "runs.start": ("pretrain", "resume"),
    "studies.study": ("study", "analyse_study"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
__all__ = ["__version__", *sorted(_MODULE_OF)]


def __getattr__(name: str) -> Any:
    """Import the module of a function on first access."""
    if name in _MODULE_OF:
        return getattr(import_module(f"ernie2.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module 'ernie2' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
