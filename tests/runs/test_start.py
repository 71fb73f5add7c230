"""Runs that stop early, and invalid arguments of runs."""

import json
import re

import pytest
import torch

import ernie2
import tiny
import tiny_run
from ernie2.config.settings import EncoderSettings, TrainSettings
from ernie2.errors import CheckpointError, ConfigError, ShardError, StorageError
from ernie2.formatting import quantity
from ernie2.runs.folder import warn_about_settings
from ernie2.runs.recipes import load_recipe
from ernie2.studies.identity import is_done
from ernie2.training.distributed import ProcessGroup
from ernie2.training.evaluate import HeldOut
from ernie2.training.records import Records
from ernie2.training.run_record import read_run


@pytest.fixture
def recipe(tmp_path):
    tiny_run.write_shards(tmp_path / "shards")
    return tiny_run.recipe(tmp_path).model_dump(mode="json")


def full_disk(*_, **__):
    raise StorageError("no space")


def test_a_run_stopped_before_its_first_checkpoint_starts_again_with_the_same_command(recipe, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr(HeldOut, "evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ernie2.pretrain(recipe)
    run = tmp_path / "run"
    assert read_run(run).status == "stopped"
    Records(run).write("heldout", at="start")
    with pytest.raises(CheckpointError, match="start it again with the same `ernie2 pretrain`"):
        ernie2.resume(run)
    ernie2.pretrain(recipe)
    assert read_run(run).status == "done"
    assert [line["at"] for line in Records(run).read() if line["kind"] == "heldout"].count("start") == 1
    with pytest.raises(CheckpointError, match="contains a finished run"):
        ernie2.pretrain(recipe)


def test_a_run_whose_export_fails_is_stopped_and_resume_finishes_it(recipe, tmp_path, monkeypatch):
    with monkeypatch.context() as during:
        during.setattr("ernie2.runs.folder.export_hf", full_disk)
        with pytest.raises(StorageError, match="no space"):
            ernie2.pretrain(recipe)
    assert read_run(tmp_path / "run").status == "stopped"
    ernie2.resume(tmp_path / "run")
    assert read_run(tmp_path / "run").status == "done"
    assert (tmp_path / "run" / "hf" / "config.json").exists()


def test_a_run_is_done_only_when_its_results_are_there(recipe, tmp_path, monkeypatch):
    """Killed before every file that is written at the end."""
    run, results = tmp_path / "run", ("hf", "report.html")
    write = Records.describe

    def killed(self, record):
        if record.status == "done":
            assert all((run / name).exists() for name in results)
        if record.status != "running":
            raise KeyboardInterrupt
        write(self, record)

    with monkeypatch.context() as during:
        during.setattr(Records, "describe", killed)
        with pytest.raises(KeyboardInterrupt):
            ernie2.pretrain(recipe)
    assert read_run(run).status == "running"
    assert "<span>done " in (run / "report.html").read_text(encoding="utf-8")
    ernie2.resume(run)
    assert read_run(run).status == "done"


@pytest.mark.parametrize("name", ["hf", "report.html"])
def test_results_that_a_finished_run_lacks_are_written_by_resume(recipe, tmp_path, capsys, name):
    run = ernie2.pretrain(recipe)
    before = {path: path.read_bytes() for path in (run / "hf").iterdir()} | {run / "report.html": b""}
    (run / name).rename(tmp_path / "away")
    assert not is_done(run)  # as a study asks
    ernie2.resume(run)
    assert f"is finished, but {run / name} " in capsys.readouterr().err
    assert is_done(run)
    assert all(path.read_bytes() == content for path, content in before.items() if content)
    ernie2.resume(run)
    assert "nothing to resume" in capsys.readouterr().out


def test_a_run_whose_shards_were_replaced_is_neither_resumed_nor_evaluated(recipe, tmp_path, monkeypatch):
    def full(*_, **__):
        raise StorageError("no space")

    with monkeypatch.context() as during:
        during.setattr("ernie2.runs.folder.export_hf", full)
        with pytest.raises(StorageError, match="no space"):
            ernie2.pretrain(recipe)
    tiny.change(tmp_path / "shards" / "shards.json", fingerprint="another")
    run = tmp_path / "run"
    before = (run / "run.json").read_bytes()
    for use in (ernie2.resume, ernie2.evaluate):
        with pytest.raises(
            ShardError, match=r"contains other shards than those .* was trained on.*--data.*--init-from"
        ):
            use(run)
    assert (run / "run.json").read_bytes() == before


def test_evaluating_a_run_gives_the_figures_it_ended_with(recipe, tmp_path):
    run = ernie2.pretrain(recipe)
    last = [line for line in Records(run).read() if line["kind"] == "heldout"][-1]
    assert ernie2.evaluate(run, tmp_path / "shards") == last["tasks"]


def test_evaluating_on_shards_with_sentences_too_long_for_the_run_is_refused(recipe, tmp_path):
    run = ernie2.pretrain(recipe)
    long = [tiny.document([[[5 + i] * 70]], name=f"d{i}", group=i) for i in range(20)]
    tiny_run.write_shards(tmp_path / "longer", long)
    with pytest.raises(ShardError, match=r"longer has sentences of up to 70 tokens.*allows 59"):
        ernie2.evaluate(run, tmp_path / "longer")


def test_evaluating_what_is_not_there_says_so(tmp_path):
    with pytest.raises(ConfigError, match="nothing-here does not exist; name a run"):
        ernie2.evaluate(tmp_path / "nothing-here")


def test_a_plan_with_too_many_epochs_is_refused_before_any_work_unless_allowed(recipe, tmp_path):
    with pytest.raises(ConfigError, match=r"would read corpus 'text' \S+ times(?s:.*)stages\.max_epochs=\d"):
        ernie2.pretrain(recipe, ["stages.max_epochs=0.1"])
    assert not (tmp_path / "run").exists()
    ernie2.pretrain(recipe, ["stages.max_epochs=5"])


def test_a_run_that_began_is_resumed_whatever_it_repeats(recipe, tmp_path, monkeypatch):
    with monkeypatch.context() as during:
        during.setattr("ernie2.runs.folder.export_hf", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ernie2.pretrain(recipe)
    recipe = read_run(tmp_path / "run").recipe
    recipe["stages"]["max_epochs"] = 0.1
    tiny_run.write_run_json(tmp_path / "run", recipe=recipe)
    ernie2.resume(tmp_path / "run")
    assert read_run(tmp_path / "run").status == "done"


def test_a_file_where_the_run_folder_belongs_is_refused(recipe, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file cannot be created: it is a file\. Rename it; run=FOLDER"):
        ernie2.pretrain({**recipe, "run": str(tmp_path / "file")})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.steps=0", "stages.steps"),
        ("train.betas=[0.9, 1]", "train.betas.1"),
        ("stages.order=[knowledge_masking]", "stages.order lacks capitalization_prediction"),
        ("stages.order=[knowledge_masking, knowledge_masking]", "twice"),
        ("stages.order=[[]]", "empty list"),
    ],
)
def test_values_that_no_run_can_have_are_refused_by_name(override, message, recipe):
    with pytest.raises(ConfigError, match=message):
        load_recipe(recipe, [override])


def test_a_value_that_is_no_yaml_is_refused(recipe, tmp_path):
    with pytest.raises(ConfigError, match="give a path as text"):
        load_recipe({**recipe, "run": tmp_path})


@pytest.mark.parametrize("variant", ["kind=lstm", "norm=pre"])
def test_a_run_that_hugging_face_does_not_support_ends_and_can_be_continued(recipe, tmp_path, variant, capsys):
    run = ernie2.pretrain(recipe, [f"encoder.{variant}"])
    assert f"Note: Hugging Face's ErnieModel does not support {variant}" in capsys.readouterr().err
    assert read_run(run).status == "done"
    card = (run / "hf" / "README.md").read_text(encoding="utf-8")
    assert "library_name: transformers" not in card
    assert "in `transformers`" not in card
    assert "Names are in `ernie2.json` under `ernie2_task_ids`" in card
    assert "ernie2_task_ids" in (run / "hf" / "ernie2.json").read_text(encoding="utf-8")
    again = ernie2.pretrain({**recipe, "run": str(tmp_path / "again")}, [f"encoder.{variant}"], run / "hf")
    last = [line for line in Records(run).read() if line["kind"] == "heldout"][-1]["tasks"]
    first = next(line for line in Records(again).read() if line["kind"] == "heldout")["tasks"]
    measured = last["knowledge_masking"].keys() - {"trained", "verdict"}  # the second run has trained nothing yet
    assert {(name, key): first[name][key] for name in last for key in measured} == {
        (name, key): last[name][key] for name in last for key in measured
    }


def test_settings_without_effect_are_named(capsys):
    alone, encoder = ProcessGroup(device=torch.device("cpu")), EncoderSettings()
    warn_about_settings(TrainSettings(peak_lr=1e-3), encoder, alone)
    assert capsys.readouterr().err == ""
    warn_about_settings(TrainSettings(peak_lr=1e-3, precision="fp16", parallel="fsdp"), encoder, alone)
    fp16, fsdp = capsys.readouterr().err.splitlines()
    assert fp16.startswith("Note: train.precision=fp16 is slower on a CPU")
    assert fsdp.startswith("Note: train.parallel=fsdp has no effect on one rank")


def test_another_number_of_threads_is_warned_of_on_resume(recipe, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as during:
        during.setattr("ernie2.runs.folder.export_hf", full_disk)
        with pytest.raises(StorageError):
            ernie2.pretrain(recipe)
    threads = torch.get_num_threads()
    capsys.readouterr()
    try:
        torch.set_num_threads(threads + 1)
        ernie2.resume(tmp_path / "run")
    finally:
        torch.set_num_threads(threads)
    output = capsys.readouterr()
    assert f"used {quantity(threads, 'thread')}, now {threads + 1}" in output.err
    assert "Device: cpu" in output.out


def test_another_flash_attention_is_warned_of_on_resume(recipe, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as during:
        during.setattr("ernie2.runs.folder.export_hf", full_disk)
        with pytest.raises(StorageError):
            ernie2.pretrain(recipe)
    output = capsys.readouterr()
    assert "FA" not in output.out + output.err
    monkeypatch.setattr("ernie2.training.environment.active_flash", lambda: "FA3")
    ernie2.resume(tmp_path / "run")
    output = capsys.readouterr()
    assert "this run used FA2, now FA3 (FlashAttention)" in output.err
    assert re.search("Device: cpu .*, FA3\n", output.out)
    facts = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert facts["environment"]["flash_attention"] == "FA3"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "does not exist. Give the folder of a checkpoint"),
        ({"encoder": {"hidden": 64}}, r"encoder\.hidden=64, there \d+"),
        ({"encoder": {"position_rows": 4096}}, r"encoder\.position_rows=4096, there \d+.*growing position_rows"),
    ],
)
def test_a_checkpoint_that_cannot_start_a_run_is_refused_before_the_corpora_are_prepared(
    change, message, recipe, tmp_path, monkeypatch
):
    source = tmp_path / "absent"
    if change:
        source = ernie2.pretrain({**recipe, "run": str(tmp_path / "first")}) / "hf"
    prepared = []
    monkeypatch.setattr("ernie2.runs.start.prepare_shards", lambda *_: prepared.append(1))
    asked = {**recipe, "encoder": {**recipe["encoder"], **change.get("encoder", {})}}
    with pytest.raises(CheckpointError, match=message):
        ernie2.pretrain(asked, init_from=source)
    assert prepared == []
    assert not (tmp_path / "run").exists()


def test_a_vocabulary_larger_than_the_checkpoint_is_refused_before_the_corpora_are_prepared(
    recipe, tmp_path, monkeypatch
):
    source = ernie2.pretrain({**recipe, "run": str(tmp_path / "first")}) / "hf"
    lines = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"token{number}" for number in range(5000))]
    (tmp_path / "vocab.txt").write_text("\n".join(lines))
    monkeypatch.setattr("ernie2.runs.start.prepare_shards", None)
    tokenizer = {"file": str(tmp_path / "vocab.txt"), "train": None}
    with pytest.raises(CheckpointError, match=r"5005 tokens, there \d+\..*growing vocabulary"):
        ernie2.pretrain({**recipe, "tokenizer": tokenizer}, init_from=source)
