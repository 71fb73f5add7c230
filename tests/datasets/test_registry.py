"""Declared datasets: names, groups, stand-ins, and official row counts of all available files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ernie2.datasets.registry import DATASETS, GROUPS, find_available, find_dataset, load_dataset
from ernie2.errors import DataError

SHARED = Path(os.environ.get("ERNIE2_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
FOLDERS = {"glue": SHARED / "en" / "glue", "chinese": SHARED / "zh"}

AT_HAND = {
    "cola": {"train": (8551, "official"), "dev": (1043, "official"), "test": (1063, "official")},
    "sst2": {"train": (67349, "official"), "dev": (872, "official"), "test": (1821, "official")},
    "mrpc": {"train": (3668, "official"), "dev": (408, "official"), "test": (1725, "official")},
    "stsb": {"train": (5749, "official"), "dev": (1500, "official"), "test": (1379, "official")},
    "qqp": {"train": (8999, "subset"), "dev": (1000, "stand-in")},
    "mnli": {"train": (8999, "subset"), "dev_matched": (1000, "subset"), "dev_mismatched": (1000, "subset")},
    "qnli": {"train": (9999, "subset"), "dev": (5463, "official")},
    "rte": {"train": (2490, "official"), "dev": (277, "official"), "test": (3000, "official")},
    "wnli": {"train": (635, "official"), "dev": (71, "official"), "test": (146, "official")},
    "ax": {"test": (1104, "official")},
    "cmrc2018": {"train": (1002, "stand-in"), "dev": (3219, "official")},
    "drcd": {"dev": (3524, "official"), "test": (3493, "official")},
    "dureader_robust": {"train": (100, "subset"), "dev": (1417, "stand-in")},
    "msra_ner": {"train": (20000, "subset"), "dev": (2318, "official"), "test": (4636, "official")},
    "xnli": {"train": (9747, "stand-in"), "dev": (2490, "official"), "test": (5010, "official")},
    "chnsenticorp": {"train": (9600, "official"), "dev": (1200, "official"), "test": (1200, "official")},
    "lcqmc": {"train": (40000, "subset"), "dev": (8802, "official"), "test": (12500, "official")},
    "bq": {"dev": (10000, "official"), "test": (10000, "official")},
    "para_rank": {"train": (1401, "stand-in"), "dev": (1471, "stand-in")},
}
LABELS = {  # of the development split, or the only labelled one
    "rte": {"entailment": 146, "not_entailment": 131},
    "chnsenticorp": {"0": 607, "1": 593},
    "lcqmc": {"0": 4400, "1": 4402},
    "bq": {"0": 5000, "1": 5000},
    "xnli": {"contradiction": 830, "entailment": 830, "neutral": 830},
    "para_rank": {"0": 1300, "1": 171},
}


@pytest.mark.parametrize("name", AT_HAND)
def test_every_file_at_hand_is_read_to_its_row_count(name: str) -> None:
    group = "glue" if name in GROUPS["glue"] else "chinese"
    folder = FOLDERS[group]
    if not folder.is_dir():
        pytest.skip("the datasets are not available")
    data = load_dataset(name, str(folder))
    assert {split: (len(one.examples), one.provenance) for split, one in data.splits.items()} == AT_HAND[name]
    for split, one in data.splits.items():
        hidden = split == "test" and group == "glue"
        assert one.labelled == (not hidden), split
        assert len({example.id for example in one.examples}) == len(one.examples), split
    if name in LABELS:
        counted = [example.label for example in data.splits["dev"].examples]
        assert {label: counted.count(label) for label in data.labels} == LABELS[name]


@pytest.mark.skipif(not FOLDERS["chinese"].is_dir(), reason="the Chinese datasets are not available")
def test_answers_of_the_real_files_are_located_and_errors_counted() -> None:
    dev = load_dataset("cmrc2018", str(FOLDERS["chinese"])).splits["dev"]
    answers = [answer for example in dev.examples for answer in example.label or ()]  # type: ignore[union-attr]
    assert len(answers) == 9657
    assert sum(answer.start < 0 for answer in answers) == 193
    assert [note.split(": ")[1].split(" answers")[0] for note in dev.notes] == ["7 of 9657", "193 of 9657"]
    for name in ("cmrc2018", "drcd", "dureader_robust"):
        for split in load_dataset(name, str(FOLDERS["chinese"])).splits.values():
            for example in split.examples:
                for answer in example.label or ():  # type: ignore[union-attr]
                    assert answer.start < 0 or (example.pair or "").startswith(answer.text, answer.start)


@pytest.mark.skipif(not FOLDERS["chinese"].is_dir(), reason="the Chinese datasets are not available")
def test_the_entities_of_msra_ner_are_as_many_as_its_source_says() -> None:
    from ernie2.datasets.tag_schemes import entities

    data = load_dataset("msra_ner", str(FOLDERS["chinese"]))
    for split, expected in (("dev", 3819), ("test", 7707)):
        tagged = [example.label for example in data.splits[split].examples]
        assert sum(len(entities(tags)) for tags in tagged if isinstance(tags, tuple)) == expected


def test_the_groups_hold_all_of_glue_and_the_nine_chinese_sets() -> None:
    assert GROUPS["glue"] == ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli", "ax")
    stand_ins = {name for name, dataset in DATASETS.items() if dataset.stands_for}
    assert stand_ins == {"dureader_robust", "para_rank"}
    assert len(set(GROUPS["chinese"]) - stand_ins) == 9


@pytest.mark.parametrize("name", DATASETS)
def test_every_declaration_is_complete(name: str) -> None:
    dataset = DATASETS[name]
    assert set(dataset.settings) == (set() if dataset.stands_for or dataset.trained_on else {"base", "large"})
    assert not list(dataset.problems())
    assert (dataset.head == "tagging") == (dataset.scheme is not None)
    assert (dataset.head == "span") == (dataset.answer_rules is not None)


@pytest.mark.parametrize("name", DATASETS)
def test_the_documentation_names_folder_files_and_sizes_as_declared(name: str) -> None:
    dataset = DATASETS[name]
    lines = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if line.startswith((f"| `{dataset.folders[0]}`", f"| `{name}` |"))]
    for split, files in dataset.splits.items():
        assert dataset.tolerance or any(f"{rows:,}" in line for rows in files.rows), split
        assert files.official[0].split("/")[-1] in line, split


def test_names_are_found_in_common_spellings() -> None:
    assert find_dataset("MRPC").name == find_dataset("mrpc").name == "mrpc"
    assert find_dataset("SST-2").name == "sst2"
    assert find_dataset("CMRC 2018").name == "cmrc2018"
    assert find_dataset("NLPCC-DBQA").name == "dbqa"
    with pytest.raises(DataError, match=r"no dataset is called 'mrcp'. Did you mean 'mrpc'\?"):
        find_dataset("mrcp")


def rte(folder: Path, rows: int) -> None:
    lines = ["index\tsentence1\tsentence2\tlabel", *(f"{i}\tA{i}.\tB.\tentailment" for i in range(rows))]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dev.tsv").write_text("\n".join(lines), encoding="utf-8")


def test_a_set_is_official_by_its_size_as_well_as_its_name(tmp_path: Path) -> None:
    for rows, provenance in ((277, "official"), (276, "subset"), (278, "stand-in")):
        rte(tmp_path / "RTE", rows)
        assert load_dataset("rte", str(tmp_path)).splits["dev"].provenance == provenance
        assert load_dataset("rte", files={"dev": str(tmp_path / "RTE/dev.tsv")}).splits["dev"].provenance == provenance


def test_extracts_in_several_files_are_read_together_under_new_ids(tmp_path: Path) -> None:
    for name in ("train_subset_a.tsv", "train_subset_b.tsv"):
        rte(tmp_path, 2)
        (tmp_path / "dev.tsv").rename(tmp_path / name)
    data = load_dataset("rte", str(tmp_path))
    assert [example.id for example in data.splits["train"].examples] == ["0", "1", "2", "3"]
    assert data.provenance == "subset"


def test_a_split_that_is_missing_is_named_with_the_files_that_would_do(tmp_path: Path) -> None:
    rte(tmp_path / "RTE", 3)
    data = load_dataset("rte", str(tmp_path))
    with pytest.raises(DataError, match=r"rte has no train split; there is: dev.*train.tsv, train_subset\*.tsv"):
        data.require_split("train")
    with pytest.raises(DataError, match=r"holds no file of MRPC\. Looked in the folder itself and in MRPC, mrpc"):
        load_dataset("mrpc", str(tmp_path))
    with pytest.raises(DataError, match=r"rte has no split 'dv'. Did you mean 'dev'\?"):
        load_dataset("rte", files={"dv": str(tmp_path / "RTE/dev.tsv")})


def test_a_group_says_what_is_there_and_what_is_not(tmp_path: Path) -> None:
    rte(tmp_path / "RTE", 3)
    there, missing = find_available("glue", str(tmp_path))
    assert there == ("rte",)
    assert len(missing) == 9
    with pytest.raises(DataError, match="no group is called 'gleu'"):
        find_available("gleu", str(tmp_path))
