import shutil

import numpy as np
import pytest
import torch

import minilm
import paddle_files
import tiny
import tiny_run
from ernie2.batches.batch import pack_sequences
from ernie2.errors import CheckpointError, ShardError
from ernie2.model.formats.loading import load_model
from ernie2.model.heads import HeadSpec
from ernie2.model.inputs import Inputs
from ernie2.runs.build import build, head_specs
from ernie2.runs.export import export_hf
from ernie2.runs.load import load_checkpoint, warm_start
from ernie2.shards.store import Shards
from ernie2.shards.tokenizer import load_tokenizer
from ernie2.training.checkpoints import newest
from ernie2.training.records import Records
from ernie2.training.run_record import read_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished tiny run with its Hugging Face folder: (run folder, shards, trainer)."""
    folder = tmp_path_factory.mktemp("loading")
    shards = tiny_run.write_shards(folder / "shards")
    made = build(tiny_run.recipe(folder), shards)
    made.trainer.train()
    run = folder / "run"
    Records(run).describe(made.record.updated(status="done"))
    tokenizer = load_tokenizer(shards.folder / "tokenizer.json")
    export_hf(run / "hf", made.trainer.model, tokenizer, made.record, {}, {})
    return run, shards, made.trainer


@pytest.mark.parametrize("which", ["run", "hf"])
def test_a_run_and_its_hugging_face_folder_give_the_same_model_tasks_and_ids(trained, which):
    run, shards, trainer = trained
    loaded = load_checkpoint(run if which == "run" else run / "hf", shards)
    for name, parameter in trainer.model.state_dict().items():
        assert torch.equal(parameter, loaded.model.state_dict()[name]), name
    assert [task.name for task in loaded.tasks] == list(tiny.FOUR)
    assert loaded.ids == {name: row for row, name in enumerate(tiny.FOUR)}
    assert (loaded.recipe is not None) == (which == "run")


@pytest.mark.parametrize("which", ["run", "hf"])
def test_a_warm_start_copies_matching_tensors_and_reports_the_others(trained, which):
    run, shards, trainer = trained
    source = run if which == "run" else run / "hf"
    specs = [*head_specs(load_checkpoint(run, shards).tasks)[:3], HeadSpec("news", "sentence", 5)]
    started = warm_start(source, trainer.model.settings, specs, seed=5, shards=shards)
    assert set(started.report.new) == {"heads.news.linear.weight", "heads.news.linear.bias"}
    assert {"heads.sentence_reordering.linear.weight", "heads.sentence_reordering.linear.bias"} <= set(
        started.report.left_out
    )
    ours = started.model.state_dict()
    for name, parameter in trainer.model.state_dict().items():
        if not name.startswith(("heads.sentence_reordering", "encoder.embeddings.task")):  # rows: the last test
            assert torch.equal(parameter, ours[name]), name


def test_a_warm_start_begins_a_new_schedule_with_the_old_parameters(trained, tmp_path):
    run, shards, trainer = trained
    specs = head_specs(load_checkpoint(run, shards).tasks)
    model = warm_start(run, trainer.model.settings, specs, seed=0, shards=shards).model
    made = build(tiny_run.recipe(tmp_path), shards, model)
    assert made.trainer.position.step == 0
    assert all((state["exp_avg"] == 0).all() for state in made.trainer.optimizer.state.values())


def test_shards_of_another_tokeniser_are_refused(trained, tmp_path):
    run, shards, _ = trained
    other = tmp_path / "shards"
    shutil.copytree(shards.folder, other)
    for described in [other / "shards.json", *other.glob("text/*/shard.json")]:
        tiny.change(described, tokenizer="f" * 64)
    with pytest.raises(ShardError, match="is not the tokeniser of these shards"):
        load_checkpoint(run, Shards(other))


def test_a_run_knows_its_tokeniser_where_no_file_of_it_is_left(trained, tmp_path):
    run, shards, trainer = trained
    bare = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(bare / "hf")
    data = read_run(bare).as_json()["data"] | {"shards": [str(tmp_path / "gone")], "tokenizer": "f" * 64}
    tiny_run.write_run_json(bare, data=data)
    with pytest.raises(ShardError, match="another tokeniser"):
        warm_start(bare, trainer.model.settings, [], seed=0, shards=shards)


def test_an_encoder_of_another_shape_is_refused_with_the_way_out(trained):
    run, shards, trainer = trained
    narrow = trainer.model.settings.model_copy(update={"hidden": 8})
    with pytest.raises(CheckpointError, match=r"encoder\.hidden=8, there 16; .*Set these as in the checkpoint"):
        warm_start(run, narrow, [], seed=0, shards=shards)


@pytest.mark.parametrize(("name", "message"), [("nowhere", "does not exist"), ("empty", "has neither")])
def test_a_folder_that_is_no_checkpoint_is_refused(trained, tmp_path, name, message):
    _, shards, _ = trained
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / name, shards)


@pytest.mark.parametrize("which", ["run", "hf"])
def test_a_warm_start_matches_task_rows_by_name_and_copies_row_0_for_a_new_task(trained, which):
    run, shards, trainer = trained
    specs = [HeadSpec("news", "sentence", 5), *reversed(head_specs(load_checkpoint(run, shards).tasks))]
    source = run if which == "run" else run / "hf"
    started = warm_start(source, trainer.model.settings, specs, seed=0, shards=shards)
    theirs = trainer.model.state_dict()["encoder.embeddings.task.weight"]
    ours = started.model.state_dict()["encoder.embeddings.task.weight"]
    # ours: masking 0, news 1, reordering 2, relation 3, capitalization 4; theirs: masking 0 … reordering 3
    assert torch.equal(ours[:5], theirs[[0, 0, 3, 2, 1]])
    assert torch.equal(ours[5:], theirs[5:])


def shards_of(folder, tokenizer):
    """Shards of random documents of tokens 5 to 199, made with a tokeniser."""
    drawn = np.random.default_rng(7).integers(5, 200, size=(20, 3, 6, 4)).tolist()  # paragraphs of sentences
    documents = [tiny.document(paragraphs, name=f"doc{i}", group=i) for i, paragraphs in enumerate(drawn)]
    shards = tiny_run.write_shards(folder / "shards", documents)
    tiny.give_tokenizer(shards.folder, tokenizer)
    return Shards(shards.folder)


def tokens_of_paddle(folder, ids=205):
    """A vocabulary put beside a tiny model of Paddle, and shards made with it."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *[f"w{i}" for i in range(5, ids)]]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens))
    return shards_of(folder, load_tokenizer(folder / "vocab.txt"))


@pytest.mark.parametrize("name", paddle_files.LAYOUTS)
def test_pre_training_starts_from_a_model_of_paddle(tmp_path, name):
    source = paddle_files.copied(name, tmp_path)
    shards = tokens_of_paddle(source)
    theirs = load_model(source)
    settings = theirs.model.settings.model_copy(update={"task_ids": 16, "segment_types": 4})
    specs = [HeadSpec("knowledge_masking", "token", None), HeadSpec("sentence_distance", "sentence", 3)]
    grow = ["segment_types"] if name == "paddlenlp-plain" else []
    started = warm_start(source, settings, specs, seed=0, shards=shards, grow=grow)
    assert started.stored.layout == paddle_files.LAYOUTS[name]
    assert started.model.vocab_size == 205
    assert any(left.endswith("[205:]") for left in started.report.left_out)
    assert {name for name in started.report.new if name.startswith("heads.")} == {
        "heads.sentence_distance.linear.weight",
        "heads.sentence_distance.linear.bias",
    }
    assert any(new.startswith("encoder.embeddings.task.weight") for new in started.report.new)
    for key, tensor in theirs.model.encoder.layers.state_dict().items():
        assert torch.equal(tensor, started.model.encoder.layers.state_dict()[key]), key
    recipe = tiny_run.recipe(tmp_path, encoder=settings.model_dump(), batch={"sequence_tokens": 40})
    heads = [*build(recipe, shards).trainer.model.specs.values()]
    build(recipe, shards, warm_start(source, settings, heads, 0, shards, grow=grow).model).trainer.train()
    assert newest(tmp_path / "run").state["step"] > 0


@pytest.mark.skipif(minilm.folder() is None, reason=minilm.MISSING)
def test_pre_training_starts_from_the_real_minilm_with_its_outputs_unchanged(tmp_path):
    shards = shards_of(tmp_path, load_tokenizer(minilm.folder()))
    theirs = load_model(minilm.folder()).model
    settings = theirs.settings.model_copy(update={"task_ids": 16, "segment_types": 4})
    specs = [HeadSpec("knowledge_masking", "token", None)]
    started = warm_start(minilm.folder(), settings, specs, 0, shards, grow=["segment_types"])
    assert started.report.left_out == ("embeddings.position_ids",)
    assert set(started.report.new) == {
        "encoder.embeddings.segment.weight[2:]",
        "encoder.embeddings.task.weight",
        *(f"heads.knowledge_masking.{part}" for part in ("bias", "norm.bias", "norm.weight")),
        *(f"heads.knowledge_masking.transform.{part}" for part in ("bias", "weight")),
    }
    tokens = [np.array([101, 2023, 2003, 102]), np.array([101, 7592, 102])]
    segments = [np.zeros(4, np.int64), np.zeros(3, np.int64)]
    inputs = Inputs.from_batch(
        pack_sequences(tokens, segments, [0, 5], {}, size=7, longest=4, pad=0), "cpu", static=False
    )
    with torch.no_grad():
        assert torch.equal(theirs.eval().encoder(inputs), started.model.eval().encoder(inputs))


def test_a_cased_checkpoint_on_lower_cased_shards_is_warned_of(tmp_path, capsys):
    source = paddle_files.copied("fluid", tmp_path)
    shards = tokens_of_paddle(source)  # lower-cases: no token has a capital
    settings = load_model(source).model.settings
    warm_start(source, settings, [], seed=0, shards=shards)
    assert "warning" not in capsys.readouterr().err
    (source / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    warm_start(source, settings, [], seed=0, shards=shards)
    assert (
        f"warning: {shards.folder} was tokenised with do_lower_case=true strip_accents=null "
        "tokenize_chinese_chars=true, the checkpoint's tokeniser with do_lower_case=false"
    ) in capsys.readouterr().err


def test_more_segment_types_than_a_checkpoint_has_are_refused_unless_named(trained):
    run, shards, trainer = trained
    settings = trainer.model.settings.model_copy(update={"segment_types": 9})
    with pytest.raises(CheckpointError, match=r"segment_types=9, there 4.*by growing segment_types"):
        warm_start(run, settings, [], seed=0, shards=shards)
    started = warm_start(run, settings, [], seed=0, shards=shards, grow=["segment_types"])
    assert started.report.new == ("encoder.embeddings.segment.weight[4:]",)


def test_a_checkpoint_of_another_vocabulary_is_refused_with_the_first_token_that_differs(tmp_path):
    source = paddle_files.copied("fluid", tmp_path)
    shards = tokens_of_paddle(source)
    settings = load_model(source).model.settings
    lines = (source / "vocab.txt").read_text().splitlines()
    lines[7], lines[8] = lines[8], lines[7]
    (source / "vocab.txt").write_text("\n".join(lines) + "\n")
    with pytest.raises(ShardError, match=r"id 7 is 'w7' here and 'w8' there.*tokenizer\.file=.*vocab\.txt"):
        warm_start(source, settings, [], seed=0, shards=shards)


def test_tokens_a_checkpoint_does_not_have_are_refused_unless_the_vocabulary_may_grow(tmp_path):
    source = paddle_files.copied("fluid", tmp_path)
    shards = tokens_of_paddle(source, ids=215)
    settings = load_model(source).model.settings
    (source / "vocab.txt").unlink()
    with pytest.raises(ShardError, match=r"has 211 tokens, but the tokeniser of .* has 215"):
        warm_start(source, settings, [], seed=0, shards=shards)
    started = warm_start(source, settings, [], seed=0, shards=shards, grow=["vocabulary"])
    assert started.report.new == ("encoder.embeddings.token.weight[211:]",)
    assert started.model.vocab_size == 215


def test_a_checkpoint_without_heads_of_ours_is_not_evaluated(tmp_path):
    source = paddle_files.copied("fluid", tmp_path)
    shards = tokens_of_paddle(source)
    with pytest.raises(CheckpointError, match=r"\(Paddle fluid\) has no pre-training heads of ernie2.*--init-from"):
        load_checkpoint(source, shards)
