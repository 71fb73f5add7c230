from __future__ import annotations

import pytest

from ernie2.errors import DataError
from ernie2.storage import listing
from ernie2.storage.files import read_lines
from ernie2.storage.listing import file_format, file_stems, list_files

FORMATS = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz")


def test_the_matches_of_a_glob_are_sorted_and_no_file_comes_twice(tmp_path):
    for name in ("b.txt", "a.txt", "c.jsonl"):
        (tmp_path / name).write_text("x")
    result = list_files([f"{tmp_path}/c.jsonl", f"{tmp_path}/*.txt", f"{tmp_path}/*.jsonl"], FORMATS)
    assert [file.rpartition("/")[2] for file in result] == ["c.jsonl", "a.txt", "b.txt"]


def test_a_name_that_exists_is_not_read_as_a_glob(tmp_path):
    (tmp_path / "a[1].txt").write_text("x")
    assert list_files([f"{tmp_path}/a[1].txt"], FORMATS) == [f"{tmp_path}/a[1].txt"]


def test_files_are_found_and_read_by_url():
    import fsspec

    with fsspec.open("memory://corpus/a.txt", "wb") as file:
        file.write(b"one\ntwo")
    assert list_files(["memory://corpus/*.txt"], FORMATS) == ["memory:///corpus/a.txt"]
    assert list(read_lines("memory://corpus/a.txt")) == [b"one", b"two"]


def test_what_is_not_there_is_named_with_its_nearest_neighbour(tmp_path):
    (tmp_path / "corpus.txt").write_text("x")
    (tmp_path / "b2.jsonl.gz").touch()  # near by its endings alone
    with pytest.raises(DataError, match=r"no such file: '.*enwiki.jsonl.gz'. Check the path"):
        list_files([f"{tmp_path}/enwiki.jsonl.gz"], FORMATS)
    with pytest.raises(DataError, match=r"no such file: '.*corpsu.txt'. Did you mean 'corpus.txt'\?"):
        list_files([f"{tmp_path}/corpsu.txt"], FORMATS)
    with pytest.raises(DataError, match="is a directory"):
        list_files([str(tmp_path)], FORMATS)
    with pytest.raises(DataError, match="no file matches"):
        list_files([f"{tmp_path}/*.jsonl"], FORMATS)
    with pytest.raises(DataError, match=r"nothere://a.txt cannot be read: .*nothere"):
        list_files(["nothere://a.txt"], FORMATS)


@pytest.mark.parametrize(
    ("name", "hint"), [("a.json", "'.jsonl'"), ("a.tar.gz", "'.tar.gz' files"), ("a", "without an")]
)
def test_an_unknown_extension_is_refused_with_the_known_ones(tmp_path, name, hint):
    (tmp_path / name).write_text("x")
    with pytest.raises(DataError, match=r"Known: .txt, .txt.gz") as caught:
        list_files([f"{tmp_path}/{name}"], FORMATS)
    assert hint in str(caught.value)


def test_an_included_corpus_is_listed_by_name_and_a_wrong_name_lists_the_others(tmp_path, monkeypatch):
    (tmp_path / "demo-en.jsonl").write_text("{}")
    (tmp_path / "NOTICE").write_text("")
    monkeypatch.setattr(listing, "bundled_data_folder", lambda: tmp_path)
    assert list_files(["package:demo-en.jsonl"], FORMATS) == [str(tmp_path / "demo-en.jsonl")]
    with pytest.raises(DataError, match=r"Did you mean 'demo-en.jsonl'\? Included: demo-en.jsonl."):
        list_files(["package:demo-em.jsonl"], FORMATS)


def test_formats_are_known_in_any_case():
    assert file_format("s3://b/A.JSONL.gz", FORMATS) == ".jsonl.gz"
    assert file_format("https://host/a.txt?key=1", FORMATS) == ".txt"


def test_stems_have_as_many_folders_as_make_them_unique():
    assert list(file_stems(["x/a.txt", "x/b.jsonl.gz"], FORMATS).values()) == ["a", "b"]
    assert list(file_stems(["x/a.txt", "y/a.txt"], FORMATS).values()) == ["x/a", "y/a"]
    assert list(file_stems(["x/a.txt", "x/a.jsonl"], FORMATS).values()) == ["x/a.txt", "x/a.jsonl"]


def test_a_glob_over_much_of_the_disk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "MAX_FOLDERS", 20)
    for number in range(30):
        (tmp_path / f"{number}" / "a").mkdir(parents=True)
    (tmp_path / "1" / "a" / "x.txt").write_text("x")
    for glob in ("**/x.txt", "*/*/x.txt"):
        with pytest.raises(DataError, match="searches more than 20 folders below"):
            list_files([f"{tmp_path}/{glob}"], (".txt",))
    assert list_files([f"{tmp_path}/1/**/x.txt"], (".txt",)) == [f"{tmp_path}/1/a/x.txt"]
    assert list_files([f"{tmp_path}/1/*/*.txt"], (".txt",)) == [f"{tmp_path}/1/a/x.txt"]
