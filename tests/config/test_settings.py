import re

import pytest
import yaml

from ernie2.config.recipe import shipped_recipes
from ernie2.config.settings import EncoderSettings
from ernie2.errors import ConfigError
from ernie2.runs.recipes import load_recipe


def test_overrides_reach_into_parts_and_are_read_as_yaml():
    recipe = load_recipe("demo-en", ["train.peak_lr=3e-4", "encoder.layers=5", "tokenizer.file=null"])
    assert (recipe.train.peak_lr, recipe.encoder.layers, recipe.tokenizer.file) == (3e-4, 5, None)


def test_a_leading_zero_makes_no_octal_number():
    assert load_recipe("demo-en", ["seed=010"]).seed == 10


def test_a_recipe_survives_being_written_and_read_with_its_tasks_in_order():
    recipe = load_recipe("demo-en")
    again = load_recipe(recipe.model_dump(mode="json"))
    assert again == recipe
    assert list(again.tasks) == list(recipe.tasks)


def test_all_invalid_keys_and_values_are_reported_at_once_with_the_nearest_valid_key():
    wrong = ["train.peek_lr=1", "encoder.layers=0", "tasks.sentence_reordering.max_segment=3", "tasks.maskin={}"]
    with pytest.raises(ConfigError) as error:
        load_recipe("demo-en", wrong)
    message = str(error.value)
    assert "4 problems" in message
    for part in ("Did you mean 'peak_lr'?", "encoder.layers", "Did you mean 'max_segments'?", "tasks.maskin"):
        assert part in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.steps=abc", ["stages.steps: must be a whole number or a mapping (got 'abc')"]),
        ("stages.steps=0", ["stages.steps: must be at least 1 (got 0)"]),
        (
            "stages.steps={knowledge_masking: x, sentence_reordering: 0}",
            [
                "stages.steps.knowledge_masking: must be a whole number (got 'x')",
                "stages.steps.sentence_reordering: must be at least 1 (got 0)",
            ],
        ),
        ("train.peak_lr=-1", ["train.peak_lr: must be above 0 (got -1)"]),
        ("stages.steps=5000000", ["stages.steps: must be at most 4,000,000 (got 5000000)"]),
        ("train.warmup=abc", ["train.warmup: must be a number (got 'abc')"]),
        ("corpora.books.path={}", ["corpora.books.path: must be text or a list"]),
        ("corpora.books.path=[1]", ["corpora.books.path.0: must be text (got 1)"]),
        ("stages.order=[[4]]", ["stages.order.0.0: must be text (got 4)"]),
        ("tasks.sentence_reordering.max_segments=x", ["tasks.sentence_reordering.max_segments: must be a whole"]),
        ("train.restart=x", ["train.restart: must be 'per_stage', 'per_task' or 'never' (got 'x')"]),
        ("train.optimizer=adam", ["train.optimizer: must be 'adamw' or 'sgd' (got 'adam'). Did you mean 'adamw'?"]),
        (
            "train.schedule=liner",
            ["train.schedule: must be 'noam', 'linear' or 'wsd' (got 'liner'). Did you mean 'linear'?"],
        ),
        ("train.momentum=1", ["train.momentum: must be below 1 (got 1)"]),
        ("train.lr_decay=-1", ["train.lr_decay: must be at least 0 (got -1)"]),
        ("train.compile=3", ["train.compile: must be 'auto' or true or false (got 3)"]),
        ("seed=true", ["seed: must be a whole number (got True)"]),
        ("seed=1:30", ["seed: must be a whole number (got '1:30')"]),
        ("train.peak_lr=yes", ["train.peak_lr: must be a number (got True)"]),
        ("stages.steps=true", ["stages.steps: must be a whole number or a mapping (got True)"]),
        ("stages.steps={knowledge_masking: on}", ["stages.steps.knowledge_masking: must be a whole number (got True)"]),
        ("train.betas=[0.9, false]", ["train.betas.1: must be a number (got False)"]),
        (
            "tasks.sentence_reordering.max_segments=true",
            ["tasks.sentence_reordering.max_segments: must be a whole number (got True)"],
        ),
        ("train.betas=[0.9]", ["train.betas: value 2 of the list is missing"]),
        ("train.betas=[0.9, 0.9, 0.9]", ["train.betas: must have at most 2 values"]),
        ('about="a\\u202eb"', ["about: the text contains a character that changes the writing direction, U+202E"]),
        ("corpora=7", ["corpora: must be a mapping (got 7)"]),
        ("tasks.knowledge_masking=7", ["tasks.knowledge_masking: must be a mapping (got 7)"]),
    ],
)
def test_a_value_of_several_possible_kinds_is_reported_once_by_its_key(override, message):
    with pytest.raises(ConfigError) as error:
        load_recipe("demo-en", [override])
    lines = [line.removeprefix("  - ") for line in str(error.value).splitlines() if line.startswith("  - ")]
    assert len(lines) == len(message)
    assert all(line.startswith(start) for line, start in zip(lines, message, strict=True))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("encoder.heads=3", "the next hidden below that does is 126"),
        ("batch.batch_tokens=3000", "the nearest is 2048"),
        ("batch.sequence_tokens=256", "encoder.position_rows=128"),
        ("tokenizer.file=vocab.txt", "set exactly one of `file`"),
        ("stages.patience=2", "also set train.evaluate_every"),
        ("stages.order=[sentence_reorderin]", "Did you mean 'sentence_reordering'?"),
        ("tasks.knowledge_masking.corpora=[book]", "Did you mean 'books'?"),
        ("peak", "is not of the form"),
    ],
)
def test_values_that_do_not_fit_together_are_refused_with_a_way_out(override, message):
    with pytest.raises(ConfigError, match=r"(?s).*" + message.replace("?", r"\?")):
        load_recipe("demo-en", [override])


def test_weights_are_for_every_corpus_or_none():
    values = load_recipe("demo-en").model_dump(mode="json")
    values["corpora"]["more"] = {"path": "more.txt", "weight": 2.0}
    with pytest.raises(ConfigError, match="all corpora a weight, or none"):
        load_recipe(values)


def test_labelled_pairs_name_their_columns_and_no_fields_of_documents():
    values = load_recipe("demo-en").model_dump(mode="json")
    values |= {"tasks": {"discourse_relation": {}}, "stages": {}}
    values["corpora"] = {"pairs": {"path": "p.tsv", "pairs": {}}}
    pairs = load_recipe(values).corpora["pairs"].pairs
    assert pairs is not None
    assert (pairs.a, pairs.b, pairs.label) == ("sentence1", "sentence2", "label")
    values["corpora"]["pairs"] |= {"text": "body", "spans": "marks"}
    with pytest.raises(ConfigError, match=r"corpora\.pairs: `text` and `spans` cannot be combined with `pairs`"):
        load_recipe(values)
    values["corpora"] = {"pairs": {"path": "p.tsv", "pairs": {"a": "query", "b": "query"}}}
    with pytest.raises(ConfigError, match=r"corpora\.pairs\.pairs: a, b and label must name three columns"):
        load_recipe(values)
    values["corpora"] = {"pairs": {"path": "p.tsv", "pairs": {"lable": "y"}}}
    with pytest.raises(ConfigError, match=r"Did you mean 'label'\?"):
        load_recipe(values)


def test_the_feed_forward_width_is_four_times_hidden_by_default():
    assert EncoderSettings(hidden=96, heads=4).ffn_width == 384
    assert EncoderSettings(hidden=96, heads=4, ffn=100).ffn_width == 100


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        load_recipe("demo-en").train.peak_lr = 1.0


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_shipped_recipe_can_be_loaded(name):
    assert load_recipe(name).name == name


TEXT, PAIRS, MORE = {"path": "a.txt"}, {"path": "a.tsv", "pairs": {}}, {"path": "b.tsv", "pairs": {}}


@pytest.mark.parametrize(
    ("corpora", "tasks", "message"),
    [
        (
            {"wiki": TEXT},
            {"discourse_relation": {}},
            r"'discourse_relation' reads labelled pairs, and no corpus of the recipe holds any\. Add one",
        ),
        ({"log": PAIRS}, {"knowledge_masking": {}}, r"'knowledge_masking' reads documents, and no corpus"),
        (
            {"wiki": TEXT, "log": PAIRS},
            {"sentence_reordering": {"corpora": ["log"]}},
            r"reads documents, but corpus 'log' holds labelled pairs\. Remove 'log' from",
        ),
        (
            {"wiki": TEXT, "log": PAIRS},
            {"ir_relevance": {"corpora": ["wiki"]}},
            r"reads labelled pairs, but corpus 'wiki' holds documents",
        ),
        (
            {"log": PAIRS, "moods": MORE},
            {"ir_relevance": {}, "discourse_relation": {"corpora": ["moods"]}},
            r"'ir_relevance': discourse_relation reads labelled pairs too\. .*of each task \(log, moods\) under",
        ),
    ],
)
def test_a_task_whose_corpora_cannot_serve_it_is_refused_before_any_work(corpora, tasks, message):
    recipe = yaml.safe_load(shipped_recipes()["demo-en"])
    with pytest.raises(ConfigError, match=message):
        load_recipe({**recipe, "corpora": corpora, "tasks": tasks, "stages": {}})


def test_a_token_task_may_name_labelled_pairs():
    recipe = yaml.safe_load(shipped_recipes()["demo-en"])
    tasks = {"knowledge_masking": {"corpora": ["log"]}}
    assert load_recipe({**recipe, "corpora": {"log": PAIRS}, "tasks": tasks, "stages": {}}).tasks == tasks


def test_a_wrong_override_is_named_and_not_the_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(shipped_recipes()["demo-en"], encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"^override 'train\.peak_rl=1': 1 problem:\n  - train\.peak_rl: there is no such"
    ):
        load_recipe(file, ["train.peak_rl=1", "stages.patience=null"])
    file.write_text("nmae: x\n" + shipped_recipes()["demo-en"], encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.yaml with override 'train\.peak_rl=1': 2 problems:"):
        load_recipe(file, ["train.peak_rl=1"])
    with pytest.raises(ConfigError, match=r"mine\.yaml: 1 problem:\n  - nmae: "):
        load_recipe(file, ["train.peak_lr=1.0e-4"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.clip=2", "train.clip: this key is now train.max_grad_norm."),
        ("train.sinks=[wandb]", "train.sinks: this key is now train.trackers."),
        ("stages.plain_share=0.2", "stages.plain_share: this key is now stages.token_only_share."),
    ],
)
def test_a_renamed_key_is_refused_with_its_new_name(override, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_recipe("demo-en", [override])
