"""Files of a dataset: official folders, its own folder, the Hub's parquet files, extracts and stand-ins."""

from __future__ import annotations

from pathlib import Path

import pytest

from ernie2.datasets.official_files import find_files, match_given_file
from ernie2.datasets.registry import find_dataset
from ernie2.errors import DataError


def lay(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x", encoding="utf-8")
    return str(folder)


def found(name: str, folder: str, **options: bool) -> dict[str, tuple[tuple[str, ...], str]]:
    files = find_files(find_dataset(name), folder, **options)
    return {
        split: (tuple(file.removeprefix(folder + "/") for file in one.files), one.provenance)
        for split, one in files.items()
    }


def test_the_official_folder_and_the_folder_of_the_dataset_are_both_accepted(tmp_path: Path) -> None:
    root = lay(tmp_path, "MNLI/train.tsv", "MNLI/dev_matched.tsv.gz", "RTE/train.tsv", "diagnostic/diagnostic.tsv")
    expected = {"train": (("train.tsv",), "official"), "dev_matched": (("dev_matched.tsv.gz",), "official")}
    assert found("mnli", f"{root}/MNLI") == expected
    assert {split: files for split, (files, _) in found("mnli", root).items()} == {
        "train": ("MNLI/train.tsv",),
        "dev_matched": ("MNLI/dev_matched.tsv.gz",),
    }
    assert found("ax", root) == {"test": (("diagnostic/diagnostic.tsv",), "official")}


def test_a_set_without_a_folder_of_its_own_is_not_read_from_another(tmp_path: Path) -> None:
    root = lay(tmp_path, "train.tsv")
    assert found("rte", root)
    assert not found("rte", root, include_root=False)
    assert not found("rte", lay(tmp_path / "glue_data", "QNLI/train.tsv"))


def test_the_hubs_parquet_files_are_read_in_order(tmp_path: Path) -> None:
    names = ("validation_matched-00000-of-00001", "train-00001-of-00002", "train-00000-of-00002")
    root = lay(tmp_path, *(f"mnli/{name}.parquet" for name in names))
    assert found("mnli", root) == {
        "train": (("mnli/train-00000-of-00002.parquet", "mnli/train-00001-of-00002.parquet"), "official"),
        "dev_matched": (("mnli/validation_matched-00000-of-00001.parquet",), "official"),
    }
    assert found("rte", lay(tmp_path / "one", "data/train-00000-of-00001.parquet"))["train"][1] == "official"


def test_official_names_precede_extracts_and_extracts_precede_stand_ins(tmp_path: Path) -> None:
    root = lay(tmp_path, "QNLI/train_subset9k.tsv.gz", "QNLI/train_subset1k.tsv", "QNLI/dev_subset1k.tsv")
    assert found("qnli", root) == {
        "train": (("QNLI/train_subset1k.tsv", "QNLI/train_subset9k.tsv.gz"), "subset"),
        "dev": (("QNLI/dev_subset1k.tsv",), "stand-in"),
    }
    lay(tmp_path, "QNLI/train.tsv", "QNLI/dev.tsv")
    assert found("qnli", root) == {
        "train": (("QNLI/train.tsv",), "official"),
        "dev": (("QNLI/dev.tsv",), "official"),
    }


def test_official_training_files_of_chinese_sets_have_their_names(tmp_path: Path) -> None:
    root = lay(tmp_path, "cmrc2018/cmrc2018_train.json", "cmrc2018/cmrc2018_trial.json", "drcd/DRCD_training.json.gz")
    assert found("cmrc2018", root) == {"train": (("cmrc2018/cmrc2018_train.json",), "official")}
    assert found("drcd", root) == {"train": (("drcd/DRCD_training.json.gz",), "official")}
    (tmp_path / "cmrc2018/cmrc2018_train.json").unlink()
    assert found("cmrc2018", root)["train"] == (("cmrc2018/cmrc2018_trial.json",), "stand-in")


def test_folders_are_listed_by_url_too() -> None:
    import fsspec

    with fsspec.open("memory://glue/RTE/dev.tsv", "wb") as file:
        file.write(b"x")
    assert found("rte", "memory://glue") == {"dev": (("memory:///glue/RTE/dev.tsv",), "official")}


def test_what_is_no_folder_is_refused_and_a_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        find_files(find_dataset("rte"), f"{tmp_path}/none")
    with pytest.raises(DataError, match="no such file"):
        match_given_file(f"{tmp_path}/none.tsv")


def test_a_named_file_with_the_name_of_a_stand_in_is_not_official(tmp_path: Path) -> None:
    folder = lay(tmp_path, "train_from_lcqmc.tsv", "cmrc2018_trial.json", "train_subset9k.tsv", "mine.tsv")

    def provenance(name: str, file: str) -> str:
        return match_given_file(f"{folder}/{file}", find_dataset(name).splits["train"]).provenance

    assert provenance("bq", "train_from_lcqmc.tsv") == "stand-in"
    assert provenance("cmrc2018", "cmrc2018_trial.json") == "stand-in"
    assert provenance("mnli", "train_subset9k.tsv") == "subset"
    assert provenance("bq", "mine.tsv") == "official"  # its size decides then
