"""A pack is made aside and unpacked anew when it changed; neither touches what others put into a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ernie2
import gpu_shards

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def script(file: Path, text: str) -> Path:
    """Write an executable."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
    return file


def test_a_pack_is_unpacked_again_when_it_changed_and_names_its_commit(tmp_path: Path) -> None:
    pack, said = tmp_path / "pack", tmp_path / "said"
    (pack / "wheels").mkdir(parents=True)
    for name in ("wheels/a.whl", "shards.tar.xz", "project.tar.xz"):
        (pack / name).write_text(name)
    (pack / "commit.txt").write_text("abc\n")
    shutil.copyfile(BENCHMARKS / "unpack_gpu_run.sh", pack / "run.sh")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$ERNIE2_COMMIT $2 $3" >>{said}\n')
    python.chmod(0o755)
    names = {"ERNIE2_GPU": str(tmp_path / "place"), "PYTHON": str(python)}

    def unpacked() -> int:
        said.unlink(missing_ok=True)
        subprocess.run(["bash", str(pack / "run.sh")], env={**os.environ, **names}, check=True)
        assert said.read_text().splitlines()[-1].startswith("abc --shards")
        return said.read_text().count("tarfile -e")

    assert [unpacked(), unpacked()] == [2, 0]
    (pack / "project.tar.xz").write_text("changed")
    assert [unpacked(), unpacked()] == [2, 0]


@pytest.mark.parametrize("name", ["pack_gpu_run.sh", "unpack_gpu_run.sh"])
def test_a_folder_with_something_else_in_it_is_refused_and_stays_as_it_is(tmp_path: Path, name: str) -> None:
    home, corpus = tmp_path / "home", tmp_path / "corpus.jsonl"
    corpus.touch()
    files = [home / file for file in ("work/thesis.tex", "wheels/own.whl", "project/own.py", "shards/shards.json")]
    for file in files:
        file.parent.mkdir(parents=True)
        file.touch()
    python, here = script(tmp_path / "bin" / "python", "#!/bin/sh\n"), tmp_path / "pack"
    (here / "wheels").mkdir(parents=True)
    for file in ("wheels/a.whl", "project.tar.xz"):
        (here / file).touch()
    shutil.copyfile(BENCHMARKS / "unpack_gpu_run.sh", here / "unpack_gpu_run.sh")
    done = subprocess.run(
        [
            "bash",
            (BENCHMARKS if name.startswith("pack") else here) / name,
            *([corpus, "--out", home] if name.startswith("pack") else []),
        ],
        env={**os.environ, "ERNIE2_GPU": str(home), "PYTHON": str(python)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert f"{home} holds something that is" in done.stderr
    assert sorted(file for file in home.rglob("*") if file.is_file()) == sorted(files)


MAKES_EMPTY_FILES = f"""#!{sys.executable}
import sys, zipfile
from pathlib import Path
if "--dest" in sys.argv:
    name = sys.argv[-1].replace("==", "-")
    with zipfile.ZipFile(Path(sys.argv[sys.argv.index("--dest") + 1]) / f"{{name}}-2.whl", "w") as wheel:
        wheel.writestr("a/METADATA", "Requires-Dist: pydantic-core==2.1")
else:
    Path(sys.argv[-1]).mkdir()
"""


@pytest.mark.skipif(not (BENCHMARKS.parent / ".git").exists(), reason="needs a checkout")
@pytest.mark.skipif(shutil.which("unzip") is None, reason="needs unzip")
def test_a_pack_replaces_an_earlier_one_and_nothing_else_in_its_folder(tmp_path: Path) -> None:
    corpus, out = tmp_path / "corpus.jsonl", tmp_path / "pack"
    corpus.touch()
    python = script(tmp_path / "bin" / "python", MAKES_EMPTY_FILES)
    script(tmp_path / "bin" / "xz", "#!/bin/sh\ncat >/dev/null\n")
    environment = {**os.environ, "PYTHON": str(python), "PATH": f"{python.parent}:{os.environ['PATH']}"}

    def pack() -> set[str]:
        command = ["bash", BENCHMARKS / "pack_gpu_run.sh", corpus, "--out", out]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        return {file.name for file in out.iterdir()}

    made = {"wheels", "shards.tar.xz", "project.tar.xz", "commit.txt", "run.sh", "made_by_pack_gpu_run"}
    assert pack() == made
    (out / "results").mkdir()
    (out / "wheels" / "old.whl").touch()
    assert pack() == made | {"results"}
    assert not (out / "wheels" / "old.whl").exists()


def test_shards_are_made_of_exactly_the_files_that_were_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, folder = (str(tmp_path / name) for name in ("corpus.jsonl #2.jsonl", "sh: #2 “é\\"))
    recipes = []
    monkeypatch.setattr(ernie2, "prepare", recipes.append, raising=False)
    monkeypatch.setattr(sys, "argv", ["gpu_shards.py", corpus, folder])
    gpu_shards.main()
    assert [(recipe["corpora"]["wiki"]["path"], recipe["shards"]["folder"]) for recipe in recipes] == [(corpus, folder)]
