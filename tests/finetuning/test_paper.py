"""Settings of Tables 3 and 4, row by row, and those that only the scripts contain. Results of the paper are shown with
model, size and split, and never for other data."""

from __future__ import annotations

import pytest

from ernie2.datasets.examples import LabelledData, Provenance, Split
from ernie2.datasets.registry import DATASETS
from ernie2.finetuning.paper import (
    default_settings,
    paper_comparison,
    paper_rows,
    settings_for,
    settings_origin,
    size_for,
)

TABLES_3_AND_4 = """
cola 3 3e-5 64 5 3e-5 32
sst2 4 2e-5 256 4 2e-5 64
mrpc 4 3e-5 32 4 3e-5 16
stsb 3 5e-5 128 3 5e-5 128
qqp 3 3e-5 256 3 5e-5 256
mnli 3 3e-5 512 3 3e-5 256
qnli 4 2e-5 256 4 2e-5 256
rte 4 2e-5 4 5 3e-5 16
wnli 4 2e-5 8 4 2e-5 8
cmrc2018 2 3e-5 64 2 3e-5 64
drcd 2 5e-5 64 2 3e-5 64
dureader 2 5e-5 64 2 2e-5 64
msra_ner 6 5e-5 16 6 1e-5 16
xnli 3 1e-4 512 3 4e-5 512
chnsenticorp 10 5e-5 24 10 1e-5 24
lcqmc 3 2e-5 32 3 5e-6 32
bq 3 3e-5 64 3 1.5e-5 64
dbqa 3 2e-5 64 3 1e-5 64
""".strip().splitlines()
PAPER_SETS = [name for name, dataset in DATASETS.items() if dataset.settings]


@pytest.mark.parametrize("line", TABLES_3_AND_4)
def test_every_row_is_the_papers(line: str) -> None:
    name, *figures = line.split()
    for size, (epochs, rate, batch) in (("base", figures[:3]), ("large", figures[3:])):
        settings = settings_for(name, size)  # type: ignore[arg-type]
        assert (settings.epochs, settings.peak_lr, settings.batch_size) == (int(epochs), float(rate), int(batch))


def test_no_other_dataset_has_settings_of_the_paper() -> None:
    assert [line.split()[0] for line in TABLES_3_AND_4] == PAPER_SETS


def test_settings_that_only_the_scripts_contain() -> None:
    glue, chinese = settings_for("rte", "base"), settings_for("drcd", "large")
    assert (glue.schedule, glue.warmup_ratio, glue.weight_decay, glue.summary) == ("linear", 0.1, 0.0, "median")
    assert (chinese.schedule, chinese.warmup_ratio, chinese.weight_decay) == ("constant", 0.0, 0.01)
    assert (chinese.summary, chinese.runs, chinese.max_grad_norm, glue.decay_from_zero) == ("mean", 5, 1.0, True)
    assert (chinese.stride, chinese.max_query_length, chinese.max_answer_length, chinese.n_best) == (128, 64, 100, 20)
    assert settings_for("lcqmc", "base").weight_decay == 0.0
    lengths = {name: settings_for(name, "base").max_length for name in PAPER_SETS}
    assert {name for name, length in lengths.items() if length == 256} == {"msra_ner", "chnsenticorp"}
    long = {"wnli", "cmrc2018", "drcd", "dureader", "xnli", "dbqa"}
    assert {name for name, length in lengths.items() if length == 512} == long
    assert {name for name in PAPER_SETS if settings_for(name, "base").task_id} == {"bq"}
    assert not any(settings_for(name, "large").task_id for name in PAPER_SETS)


def test_stand_ins_and_ax_share_settings_and_24_layers_are_large() -> None:
    assert settings_for("ax", "large") == settings_for("mnli", "large")
    assert settings_for("dureader_robust", "base") == settings_for("dureader", "base")
    assert settings_for("para_rank", "base") == settings_for("dbqa", "base")
    assert [size_for(layers) for layers in (6, 12, 23, 24, 48)] == ["base", "base", "base", "large", "large"]


def test_a_dataset_without_settings_gets_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "mine", DATASETS["msra_ner"].model_copy(update={"settings": {}}))
    assert settings_for("mine", "base") == default_settings("tagging")


def test_settings_origin_describes_the_settings_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    (base, _) = DATASETS["mrpc"].settings.values()
    monkeypatch.setitem(DATASETS, "mine", DATASETS["mrpc"].model_copy(update={"settings": {"base": base}}))
    assert (settings_for("mine", "base"), settings_origin("mine", "base")) == (base, "settings of the base model")
    assert settings_for("mine", "large") == default_settings("classification")
    assert settings_origin("mine", "large") == "settings for own data, as mine declares none for a large model"
    assert settings_origin("own", "large") == "settings for own data"
    assert settings_origin("ax", "large") == "settings of the large model"


BASE, LARGE = (12, 768), (24, 1024)


def data(name: str = "mrpc", **provenances: Provenance) -> LabelledData:
    splits = {split: Split((), (), provenance) for split, provenance in provenances.items()}
    return LabelledData(name, "classification", ("0", "1"), ("accuracy",), splits)


def test_rows_name_model_size_and_split() -> None:
    (bert, ernie) = paper_rows("mrpc", "base", "test")
    assert bert.describe() == "BERT base, test: 84.8 / 88.9 (accuracy / f1)"
    assert ernie.describe() == "ERNIE 2.0 base, test: 86.1 / 89.9 (accuracy / f1)"
    assert [row.describe() for row in paper_rows("mrpc", "large", "dev")] == [
        "BERT large, dev: 88.0 (accuracy)",
        "XLNet large, dev: 89.2 (accuracy)",
        "ERNIE 2.0 large, dev: 89.7 (accuracy)",
    ]
    assert paper_rows("dbqa", "large", "test")[0].describe() == "ERNIE 2.0 large, test: 95.8 / 85.8 (mrr / f1)"
    assert [row.model for row in paper_rows("xnli", "base", "dev")] == ["BERT", "ERNIE 1.0", "ERNIE 2.0"]


def test_a_dash_in_the_paper_gives_no_row() -> None:
    assert not paper_rows("wnli", "large", "dev")
    assert not paper_rows("mrpc", "base", "dev")
    assert not paper_rows("cmrc2018", "base", "test")
    # Table 5: 10 tasks × 7 columns less 6 dashes; Table 6: 9 sets × 8 columns less 8 dashes
    assert sum(len(dataset.reported) for dataset in DATASETS.values()) == 10 * 7 - 6 + 9 * 8 - 8


def test_full_data_is_compared_and_a_subset_is_not_comparable() -> None:
    rows, words = paper_comparison(data(train="official", dev="official"), LARGE, "dev")
    assert len(rows) == 3
    assert words == "Full data."
    rows, words = paper_comparison(data(train="subset", dev="official"), LARGE, "dev")
    assert len(rows) == 3
    assert words == "Not comparable: only a subset of train was used."


def test_an_encoder_of_another_shape_than_the_papers_is_not_comparable() -> None:
    rows, words = paper_comparison(data(train="official", dev="official"), (24, 512), "dev")
    assert len(rows) == 3
    assert words == "Not comparable: this encoder has 24 layers × 512, the paper's 24 × 1024."
    _, words = paper_comparison(data("xnli", train="subset", dev="official"), (4, 256), "dev")
    assert "only a subset of train was used; this encoder has 4 layers × 256, the paper's 12 × 768." in words


@pytest.mark.parametrize(
    "provenances", [{"train": "stand-in", "dev": "official"}, {"train": "official", "dev": "stand-in"}]
)
def test_stand_ins_are_never_compared(provenances: dict[str, Provenance]) -> None:
    rows, words = paper_comparison(data(**provenances), LARGE, "dev")
    assert not rows
    assert "not shown" in words
    assert paper_comparison(data("own", train="own", dev="own"), LARGE, "dev")[0] == ()


def test_each_half_of_mnli_has_its_own_result() -> None:
    mnli = data("mnli", train="official", test_mismatched="official", dev_mismatched="official")
    assert [row.values for row in paper_comparison(mnli, BASE, "test_mismatched")[0]] == [(83.4,), (85.5,)]
    rows, words = paper_comparison(mnli, LARGE, "dev_mismatched")
    assert not rows
    assert words == "The paper reports no result for mnli, large model, dev_mismatched."
