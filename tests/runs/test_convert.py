"""`ernie2.convert`: checkpoints of all formats to a folder of Hugging Face or ernie2, with tokeniser."""

from __future__ import annotations

import errno
import json
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import ernie2
import paddle_files
import tiny
import tiny_run
from ernie2.errors import CheckpointError, ConfigError, StorageError
from ernie2.model.formats.loading import load_model
from ernie2.shards.tokenizer import SubwordTokenizer, load_tokenizer
from ernie2.training.checkpoints import newest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, BertTokenizer, ErnieForMaskedLM

VOCABULARY = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", *[f"w{i}" for i in range(4, 204)], "[UNK]"]
"""205 tokens in the order of ERNIE's Chinese vocabulary: [PAD] first, [UNK] last."""


def ernie_vocabulary(folder):
    (folder / "vocab.txt").write_text("".join(f"{token}\t{i}\n" for i, token in enumerate(VOCABULARY)))


def same_weights(one, other):
    before, after = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return before.keys() == after.keys() and all(torch.equal(tensor, after[name]) for name, tensor in before.items())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("converting")
    tiny_run.write_shards(folder / "shards")
    return ernie2.pretrain(tiny_run.recipe(folder).model_dump(mode="json"))


@pytest.mark.parametrize("name", paddle_files.LAYOUTS)
def test_a_model_of_paddle_becomes_one_that_transformers_runs_with_paddlenlps_outputs(name, tmp_path):
    made = ernie2.convert(paddle_files.FOLDER / name, tmp_path / "hf")
    assert made.folder == tmp_path / "hf"
    assert made.layout == paddle_files.LAYOUTS[name]
    assert made.report.new == made.report.left_out == ()
    model, info = ErnieForMaskedLM.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not info["missing_keys"]
    with np.load(paddle_files.FOLDER / name / "reference.npz") as reference:
        theirs = dict(reference)
    kinds = ["input_ids", "token_type_ids", "attention_mask"] + ["task_type_ids"] * bool(model.config.use_task_id)
    with torch.no_grad():
        logits = model.eval()(**{kind: torch.from_numpy(theirs[kind]) for kind in kinds}).logits.numpy()
    real = theirs["attention_mask"].astype(bool)
    assert np.abs(logits - theirs["logits"])[real].max() < 5e-6


@pytest.mark.parametrize("name", paddle_files.LAYOUTS)
def test_from_paddle_to_ours_to_hugging_face_and_back_changes_no_bit(name, tmp_path):
    ernie2.convert(paddle_files.FOLDER / name, tmp_path / "hf")
    ernie2.convert(tmp_path / "hf", tmp_path / "ours", to="ernie2")
    ernie2.convert(tmp_path / "ours", tmp_path / "again")
    assert same_weights(tmp_path / "hf", tmp_path / "again")
    assert (tmp_path / "hf/config.json").read_bytes() == (tmp_path / "again/config.json").read_bytes()


def test_a_run_becomes_what_it_left_as_hf_by_way_of_ours(run, tmp_path):
    ernie2.convert(run, tmp_path / "ours", to="ernie2")
    ernie2.convert(tmp_path / "ours", tmp_path / "hf")
    for name in ("model.safetensors", "task_heads.safetensors"):
        before, after = load_file(run / "hf" / name), load_file(tmp_path / "hf" / name)
        assert before.keys() == after.keys()
        assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())
    assert json.loads((run / "hf/config.json").read_text()) == json.loads((tmp_path / "hf/config.json").read_text())
    assert (run / "hf/tokenizer.json").read_bytes() == (tmp_path / "hf/tokenizer.json").read_bytes()
    card = (run / "hf/README.md").read_bytes()
    assert [(tmp_path / folder / "README.md").read_bytes() for folder in ("ours", "hf")] == [card, card]
    back = load_model(tmp_path / "ours")
    assert all(torch.equal(back.model.state_dict()[k], t) for k, t in newest(run).parameters().items())
    assert list(ernie2.evaluate(tmp_path / "ours", run.parent / "shards")) == list(tiny.FOUR)


def test_missing_tensors_are_reported_and_not_initialised(tmp_path, capsys):
    sizes = {"vocab_size": 64, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3}
    BertForMaskedLM(BertConfig(**sizes, intermediate_size=40)).save_pretrained(tmp_path / "bert")
    made = ernie2.convert(tmp_path / "bert", tmp_path / "hf")
    assert made.report.new == ()
    assert made.report.notes == (
        "the checkpoint lacks encoder.pooler.bias, encoder.pooler.weight; they were not written",
    )
    assert not [name for name in load_file(tmp_path / "hf/model.safetensors") if "pooler" in name]
    shown = capsys.readouterr()
    assert "note: the checkpoint lacks encoder.pooler.bias" in shown.err
    assert "bert.encoder.layer.0.output.dense.weight" in shown.out


def test_ernies_vocabulary_becomes_a_tokeniser_that_transformers_reads(tmp_path):
    source = paddle_files.copied("fluid", tmp_path)
    ernie_vocabulary(source)
    ernie2.convert(source, tmp_path / "hf")
    assert (tmp_path / "hf/vocab.txt").read_text().splitlines() == VOCABULARY
    assert AutoTokenizer.from_pretrained(tmp_path / "hf")("w7 w200 what")["input_ids"] == [1, 7, 200, 204, 2]


def test_rows_beyond_the_vocabulary_go_when_asked_and_no_others(tmp_path):
    source = paddle_files.copied("fluid", tmp_path)  # 211 rows
    with pytest.raises(CheckpointError, match="has 211 rows and no vocabulary file"):
        ernie2.convert(source, tmp_path / "hf", vocabulary=205)
    ernie_vocabulary(source)
    with pytest.raises(CheckpointError, match="has 205 tokens, too many for 204 rows"):
        ernie2.convert(source, tmp_path / "hf", vocabulary=204)
    assert load_model(source).model.vocab_size == 211
    made = ernie2.convert(source, tmp_path / "hf", vocabulary=205)
    assert made.report.left_out == ("mask_lm_out_fc.b_0[205:]", "word_embedding[205:]")
    assert load_file(tmp_path / "hf/model.safetensors")["ernie.embeddings.word_embeddings.weight"].shape == (205, 32)
    assert json.loads((tmp_path / "hf/config.json").read_text())["vocab_size"] == 205


def test_tables_grow_when_asked_and_new_rows_are_named(tmp_path):
    made = ernie2.convert(
        paddle_files.FOLDER / "dygraph", tmp_path / "hf", task_ids=16, segment_types=6, position_rows=64, vocabulary=220
    )
    assert made.report.new == (
        "encoder.embeddings.position.weight[40:]",
        "encoder.embeddings.segment.weight[4:]",
        "encoder.embeddings.task.weight",
        "encoder.embeddings.token.weight[211:]",
        "heads.knowledge_masking.bias[211:]",
    )
    weights = load_file(tmp_path / "hf/model.safetensors")
    assert not weights["ernie.embeddings.task_type_embeddings.weight"].any()
    grown = ernie2.convert(paddle_files.FOLDER / "fluid", tmp_path / "grown", task_ids=7)
    assert grown.report.new == ("encoder.embeddings.task.weight[5:]",)
    table = load_file(tmp_path / "grown/model.safetensors")["ernie.embeddings.task_type_embeddings.weight"]
    assert torch.equal(table[5:], table[:1].expand(2, -1))


def test_the_files_of_a_tokeniser_of_ours_come_out_as_they_were(run, tmp_path):
    ernie2.convert(run / "hf", tmp_path / "hf")
    for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json"):
        assert (tmp_path / "hf" / name).read_bytes() == (run / "hf" / name).read_bytes()


def test_files_next_to_a_vocabulary_are_copied_and_ignored_ones_reported(tmp_path, capsys):
    source = paddle_files.copied("fluid", tmp_path)
    lines = [*VOCABULARY, "für", VOCABULARY[-1], ""]
    (source / "vocab.txt").write_text("".join(f"{token}\n" for token in lines))
    (source / "tokenizer_config.json").write_text('{"do_lower_case": true, "strip_accents": false}')
    (source / "added_tokens.json").write_text('{"tower-bridge": 207}')
    ernie2.convert(source, tmp_path / "hf")
    assert f"1 line repeats a token: {VOCABULARY[-1]!r} (lines 205 and 207)" in capsys.readouterr().err
    theirs, after = BertTokenizer.from_pretrained(source), AutoTokenizer.from_pretrained(tmp_path / "hf")
    texts = ["Für w7 TOWER-bridge", f"w200 {VOCABULARY[-1]}", "fur"]
    assert theirs(texts).input_ids == after(texts).input_ids
    assert after.convert_tokens_to_ids(["für", VOCABULARY[-1], "tower-bridge"]) == [205, 206, 207]
    assert after.model_max_length == 40


def test_a_cased_vocabulary_stays_cased(tmp_path):
    source = paddle_files.copied("fluid", tmp_path)
    (source / "vocab.txt").write_text("".join(f"{token}\n" for token in [*VOCABULARY, "Anna", "anna"]))
    (source / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    ernie2.convert(source, tmp_path / "hf")
    assert [encoding.ids for encoding in load_tokenizer(tmp_path / "hf").encode_batch(["Anna anna"])] == [[205, 206]]


def test_a_folder_that_exists_is_not_written_over(tmp_path):
    (tmp_path / "hf").mkdir()
    with pytest.raises(StorageError, match="already exists"):
        ernie2.convert(paddle_files.FOLDER / "fluid", tmp_path / "hf")
    assert list((tmp_path / "hf").iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    source = paddle_files.copied("fluid", tmp_path)
    ernie_vocabulary(source)
    monkeypatch.setattr(SubwordTokenizer, "save", full)
    with pytest.raises(StorageError, match="No space left on device; nothing was changed"):
        ernie2.convert(source, tmp_path / "hf")
    assert [path.name for path in tmp_path.iterdir()] == ["fluid"]


def test_wrong_sizes_and_kinds_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="choose hf or ernie2"):
        ernie2.convert(paddle_files.FOLDER / "fluid", tmp_path / "x", to="onnx")
    with pytest.raises(ConfigError, match="position_rows"):
        ernie2.convert(paddle_files.FOLDER / "fluid", tmp_path / "x", position_rows=3)
    with pytest.raises(ConfigError, match=r"position_rows: must be at most 1,000,000 \(got 1000000000000\)"):
        ernie2.convert(paddle_files.FOLDER / "fluid", tmp_path / "x", position_rows=10**12)
    with pytest.raises(CheckpointError, match="position_rows=20, there 40"):
        ernie2.convert(paddle_files.FOLDER / "fluid", tmp_path / "x", position_rows=20)
    with pytest.raises(CheckpointError, match="does not exist"):
        ernie2.convert(tmp_path / "nowhere", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"])
def test_a_link_out_of_the_folder_is_not_read_into_what_is_written(tmp_path, name):
    source = paddle_files.copied("fluid", tmp_path)
    ernie_vocabulary(source)
    secret = tmp_path / "secret"
    secret.write_text((source / "vocab.txt").read_text() if name == "vocab.txt" else "{}")
    (source / name).unlink(missing_ok=True)
    (source / name).symlink_to(secret)
    with pytest.raises(
        CheckpointError, match=f"{name} is a link to a file outside its folder, {secret}, .*replace the link by a copy"
    ):
        ernie2.convert(source, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_a_snapshot_of_the_hub_is_converted_though_its_files_are_links(tmp_path):
    source = paddle_files.copied("fluid", tmp_path)
    ernie_vocabulary(source)
    ernie2.convert(source, tmp_path / "cache/blobs")
    snapshot = tmp_path / "cache/snapshots/0f"
    snapshot.mkdir(parents=True)
    for file in (tmp_path / "cache/blobs").iterdir():
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    ernie2.convert(snapshot, tmp_path / "hf")
    assert same_weights(snapshot, tmp_path / "hf")


def test_a_vocabulary_with_more_tokens_than_the_table_has_rows_is_refused(tmp_path):
    source = paddle_files.copied("fluid", tmp_path)  # 211 rows
    words = [*VOCABULARY, *(f"x{i}" for i in range(20))]
    (source / "vocab.txt").write_text("".join(f"{token}\t{i}\n" for i, token in enumerate(words)))
    with pytest.raises(CheckpointError, match="has 225 tokens, too many for 211 rows: use --vocabulary 225"):
        ernie2.convert(source, tmp_path / "hf")
    ernie2.convert(source, tmp_path / "hf", vocabulary=225)


def test_a_checkpoint_without_a_model_card_gets_one_without_claims(tmp_path):
    source = paddle_files.copied("fluid", tmp_path)
    ernie_vocabulary(source)
    (tmp_path / "secret").write_text("my secret")
    (source / "README.md").symlink_to(tmp_path / "secret")
    ernie2.convert(source, tmp_path / "hf")
    card = (tmp_path / "hf/README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "from a checkpoint in the format" in card
    assert "Training data, licence and scores are unknown" in card
    assert "my secret" not in card
