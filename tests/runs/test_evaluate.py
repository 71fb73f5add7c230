from __future__ import annotations

import numpy as np

import ernie2
import tiny
import tiny_run


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
    assert (
        "Held out: up to 8 instances per task from text (weight 2), more (weight 0.5); seed 3, sequences of up to 64 "
        "tokens. Settings: the run's recipe."
    ) in capsys.readouterr().out.splitlines()
    ernie2.evaluate(run / "hf", tmp_path / "shards")
    text, other = (shards.corpora[name].num_tokens("train") for name in ("text", "more"))
    assert (
        f"Held out: up to 256 instances per task from text (weight {text:,}: its token count), more (weight "
        f"{other:,}: its token count); seed 0, sequences of up to 64 tokens. Settings: defaults, because "
        f"{run / 'hf'} has no recipe."
    ) in capsys.readouterr().out.splitlines()
