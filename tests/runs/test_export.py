import pytest
import yaml

import tiny
import tiny_run
from ernie2.errors import CheckpointError
from ernie2.runs.build import build
from ernie2.runs.convert import convert
from ernie2.runs.export import export_hf, model_card
from ernie2.runs.load import load_checkpoint, warm_start
from ernie2.shards.tokenizer import load_tokenizer
from ernie2.training.run_record import RunRecord

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    shards = tiny_run.write_shards(folder / "shards")
    made = build(tiny_run.recipe(folder, about="Only a test."), shards)
    figures = made.trainer.heldout.evaluate(made.trainer.model, made.trainer.group.device, "fp32")
    tokenizer = load_tokenizer(folder / "shards" / "tokenizer.json")
    export_hf(folder / "hf", made.trainer.model, tokenizer, made.record, figures, {"knowledge_masking": 9})
    return folder / "hf", made, figures


def test_transformers_loads_the_folder_with_tokeniser_task_ids_and_counts(exported):
    folder, made, _ = exported
    model = transformers.ErnieForMaskedLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert model.config.ernie2_task_ids == {name: row for row, name in enumerate(tiny.FOUR)}
    assert model.config.ernie2_task_instances == {**dict.fromkeys(tiny.FOUR, 0), "knowledge_masking": 9}
    assert model.config.vocab_size == made.trainer.model.vocab_size == len(tokenizer)
    assert tokenizer("w7 w8")["input_ids"] == [tiny.CLS, 7, 8, tiny.SEP]
    rows = model.config.max_position_embeddings
    assert len(tokenizer("w7 " * 2 * rows, truncation=True)["input_ids"]) == tokenizer.model_max_length == rows


def test_the_model_card_names_corpora_licences_tasks_and_figures(exported):
    folder, made, figures = exported
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card == model_card(made.record, figures)
    for message in ("Only a test.", "| text | en | test |", "sentence_reordering", "number of segments"):
        assert message in card
    assert f"{figures['knowledge_masking']['accuracy']:.3f}" in card
    assert card.count("| too few instances to tell |") == len(tiny.FOUR), "8 held-out instances each"


def test_what_users_wrote_becomes_neither_front_matter_nor_markup_of_the_card(exported):
    _, made, _ = exported
    values = made.record.as_json()
    values |= {"name": "x\n---\nlicense: evil", "about": "<script>alert(1)</script>\x1b[31m | # big"}
    corpora = values["data"]["corpora"]
    (corpus,) = corpora.values()
    corpora["evil"] = {**corpus, "language": "en]\nlicense: evil\nx: [", "licence": "[click](http://evil)"}
    card = model_card(RunRecord.model_validate(values), {})
    matter, body = card.removeprefix("---\n").split("\n---\n", 1)
    assert yaml.safe_load(matter) == {
        "library_name": "transformers",
        "tags": ["ernie", "ernie2", "continual-pre-training"],
        "language": ["en"],
        "pipeline_tag": "fill-mask",
    }
    assert body.startswith("# x --- license: evil\n")
    assert "<script>" not in body
    assert "\x1b" not in body
    assert "\\[click\\](http://evil)" in body


def test_the_model_card_calls_no_task_learned_below_the_best_constant_answer(exported):
    _, made, figures = exported
    chance = {**figures["sentence_reordering"], "instances": 128, "accuracy": 0.547, "low": 0.46, "high": 0.633}
    chance |= {"majority_baseline": {"accuracy": 0.453}, "constant_baseline": {"accuracy": 0.547}}
    chance["feature_baseline"] = {"feature": "number of segments", "accuracy": 0.453}
    row = "| 0.547 (0.460 to 0.633) | 0.453 | 0.547 | 0.453 (number of segments) | not learned |"
    assert row in model_card(made.record, {"sentence_reordering": chance})


def test_the_model_card_names_tasks_without_held_out_documents(exported):
    _, made, _ = exported
    assert "no held-out documents" in model_card(made.record, {})


def test_a_recurrent_encoder_becomes_a_folder_of_ours_that_can_be_measured_and_started_from(tmp_path):
    shards = tiny_run.write_shards(tmp_path / "shards")
    recipe = tiny_run.recipe(tmp_path, encoder={"kind": "gru"})
    made = build(recipe, shards)
    tokenizer = load_tokenizer(shards.folder / "tokenizer.json")
    folder = export_hf(tmp_path / "run/hf", made.trainer.model, tokenizer, made.record, {}, {"knowledge_masking": 9})
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "ernie2.json",
        "ernie2.safetensors",
        "ernie2_checksums.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ]
    card = (folder / "README.md").read_text()
    assert "load_model" in card
    assert "Names are in `ernie2.json` under `ernie2_task_ids`" in card
    assert not any(word in card for word in ("task_type_ids", "config.json", "library_name"))
    assert [task.name for task in load_checkpoint(folder, shards).tasks] == list(tiny.FOUR)
    specs = list(made.trainer.model.specs.values())
    started = warm_start(folder, recipe.encoder, specs, seed=1, shards=shards)
    assert started.report.new == started.report.left_out == ()
    with pytest.raises(CheckpointError, match=r"does not support kind=gru.*--to ernie2"):
        convert(folder, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()
