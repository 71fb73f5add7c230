from __future__ import annotations

import numpy as np

import ernie2
import tiny
import tiny_run
from ernie2.runs.evaluate import say_figures


def test_evaluate_says_of_each_task_what_its_baselines_reach_and_whether_it_is_learned(capsys):
    figures = {
        "instances": 128,
        "scored": 128,
        "loss": 0.693,
        "accuracy": 0.547,
        "low": 0.460,
        "high": 0.633,
        "majority": {"accuracy": 0.453},
        "constant": {"accuracy": 0.547},
        "cheap": {"accuracy": 0.453, "rule": "share of pieces in common"},
    }
    say_figures({"same_author": figures})
    assert capsys.readouterr().out.splitlines() == [
        "same_author: accuracy 0.547 (0.460 to 0.633), loss 0.693 (128 instances, 128 scored)",
        "  baselines: majority class of training 0.453, best constant answer 0.547, feature baseline 0.453 "
        "(share of pieces in common)",
        "  not learned: the interval is not above the best baseline (best constant answer, 0.547)",
    ]


def test_evaluate_says_what_it_measures_on_and_where_its_settings_come_from(tmp_path, capsys):
    rng = np.random.default_rng(5)
    more = [tiny.random_document(rng, name=f"more{i}", group=50 + i) for i in range(12)]
    shards = tiny_run.write_shards(tmp_path / "shards", pairs={"more": more})
    recipe = tiny_run.recipe(tmp_path).model_dump(mode="json")
    recipe |= {
        "seed": 3,
        "tasks": {"knowledge_masking": {}},
        "corpora": {"text": {"path": "nowhere.txt", "weight": 2}, "more": {"path": "nowhere.txt", "weight": 0.5}},
    }
    run = ernie2.pretrain(recipe)
    capsys.readouterr()
    ernie2.evaluate(run)
    lines = capsys.readouterr().out.splitlines()
    assert lines.index(
        "Held out: up to 8 instances a task, of text (weight 2), more (weight 0.5); seed 3, sequences of up to 64 "
        "tokens. These settings are the run's recipe."
    ) < next(number for number, line in enumerate(lines) if line.startswith("knowledge_masking: accuracy"))
    ernie2.evaluate(run / "hf", tmp_path / "shards")
    text, other = (shards.corpora[name].tokens("train") for name in ("text", "more"))
    assert (
        f"Held out: up to 256 instances a task, of text (weight {text:,}: its tokens), more (weight {other:,}: its "
        f"tokens); seed 0, sequences of up to 64 tokens. These settings are defaults, since {run / 'hf'} carries no "
        "recipe."
    ) in capsys.readouterr().out.splitlines()
