"""A pack is made aside and unpacked anew when it changed; neither touches what others put into a folder.

It brings what the project needs beyond a list, and says what a machine lacks before it unpacks anything.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ernie2
import gpu_shards
from gpu_parts import brought_packages

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"


def script(file: Path, text: str) -> Path:
    """Write an executable."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
    return file


def write_pack(pack: Path, *needs: str) -> None:
    """Write a pack without contents for a Python that has `needs`."""
    (pack / "wheels").mkdir(parents=True)
    for name in ("wheels/a.whl", "shards.tar.xz", "project.tar.xz"):
        (pack / name).write_text(name)
    (pack / "commit.txt").write_text("abc\n")
    (pack / "needs.txt").write_text("\n".join([HERE, *needs]))
    shutil.copyfile(BENCHMARKS / "unpack_gpu_run.sh", pack / "run.sh")


def test_a_pack_is_unpacked_again_when_it_changed_and_names_its_commit(tmp_path: Path) -> None:
    pack, said = tmp_path / "pack", tmp_path / "said"
    write_pack(pack)
    python = script(tmp_path / "bin" / "python", f'#!/bin/sh\necho "$ERNIE2_COMMIT $2 $3" >>{said}\n')
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
    for file in ("wheels/a.whl", "project.tar.xz", "needs.txt"):
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


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="a pack is for Linux on x86-64")
@pytest.mark.parametrize(
    ("needs", "said"),
    [
        (["9.9", "torch"], f"is Python {HERE}, and this pack is for 9.9: name another with PYTHON=…, or pack with "
                           f"--python {HERE}"),
        ([HERE, "torch>=99", "no-such-package", "numpy>=1.26"],
         f"lacks torch>=99 ({metadata.version('torch')} is there), no-such-package: install them, or name another "
         "Python with PYTHON=…"),
    ],
)  # fmt: skip
def test_what_the_machine_lacks_is_named_in_one_line_before_anything_is_unpacked(
    tmp_path: Path, needs: list[str], said: str
) -> None:
    write_pack(tmp_path / "pack")
    (tmp_path / "pack" / "needs.txt").write_text("\n".join(needs))
    names = {"ERNIE2_GPU": str(tmp_path / "place"), "PYTHON": sys.executable}
    command = ["bash", str(tmp_path / "pack" / "run.sh"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, env=os.environ | names, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.splitlines()) == (2, "", [f"{sys.executable} {said}"])
    assert [file.name for file in tmp_path.iterdir()] == ["pack"]


def test_a_python_that_is_not_there_is_named(tmp_path: Path) -> None:
    write_pack(tmp_path / "pack")
    environment = os.environ | {"PYTHON": "python9.9", "ERNIE2_GPU": str(tmp_path / "place")}
    done = subprocess.run(["bash", str(tmp_path / "pack" / "run.sh")], env=environment, capture_output=True, text=True)
    assert (done.returncode, "there is no python9.9 here" in done.stderr) == (2, True)


def test_failed_unpacking_leaves_no_partial_files(tmp_path: Path) -> None:
    write_pack(tmp_path / "pack")
    fails = script(tmp_path / "bin" / "python", '#!/bin/sh\ncase "$*" in *tarfile*project*) exit 3 ;; esac\n')
    environment = os.environ | {"PYTHON": str(fails), "ERNIE2_GPU": str(tmp_path / "place")}
    done = subprocess.run(["bash", str(tmp_path / "pack" / "run.sh")], env=environment, capture_output=True)
    assert done.returncode == 3
    assert [file.name for file in (tmp_path / "place").iterdir()] == ["made_by_gpu_run"]


def test_seconds_of_unpacking_are_subtracted_from_the_limit(tmp_path: Path) -> None:
    write_pack(tmp_path / "pack")
    said = tmp_path / "said"
    slow = f'#!/bin/sh\n[ "$2" != pip ] || sleep 2\necho "$@" >>{said}\n'
    python = script(tmp_path / "bin" / "python", slow)
    environment = os.environ | {"PYTHON": str(python), "ERNIE2_GPU": str(tmp_path / "place")}

    def limits(*options: str) -> list[str]:
        subprocess.run(["bash", str(tmp_path / "pack" / "run.sh"), *options], env=environment, check=True)
        return said.read_text().splitlines()[-1].split()[3:]

    option, limit = limits("--limit", "470")
    assert (option, 380 < float(limit) <= 468) == ("--limit", True)
    (limit,) = limits("--limit=470")
    assert 380 < float(limit.removeprefix("--limit=")) <= 470
    assert limits("--limit", "nan", "--only", "base") == ["--limit", "nan", "--only", "base"]


def test_what_is_brought_and_what_is_needed_follow_from_the_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    requires = {
        "torch": ["numpy"],
        "numpy": [],
        "reader": [
            "humanize",
            "numpy",
            "lxml; extra == 'html'",
            "old; python_version < '3.12'",
            "win; os_name == 'nt'",
        ],
        "humanize": [],
        "old": [],
    }
    monkeypatch.setattr(brought_packages.metadata, "requires", requires.__getitem__)
    monkeypatch.setattr(brought_packages, "ON_THE_MACHINE", ("torch",))
    monkeypatch.setattr(brought_packages, "BROUGHT_ANYWAY", ())
    monkeypatch.setattr(brought_packages, "declared", lambda: (["torch>=2.11", "Reader[html]>=1"], ["mypy"]))
    monkeypatch.setattr(brought_packages, "pinned", lambda: {"humanize": "humanize==4.17.0"})
    assert brought_packages.packages("3.12") == (["humanize==4.17.0", "reader"], ["numpy", "torch>=2.11"])
    assert brought_packages.packages("3.11")[0] == ["humanize==4.17.0", "old", "reader"]


def test_the_pack_brings_all_that_the_project_imports_beyond_the_listed_packages() -> None:
    brought, needs = brought_packages.packages("3.12")
    assert {"humanize", "loguru", "dill"} <= {each.split("==")[0] for each in brought}
    assert all("==" in each for each in brought)
    assert "torch>=2.11" in needs
    names, direct = (
        {canonicalize_name(Requirement(each).name) for each in requirements}
        for requirements in ([*brought, *needs], brought_packages.declared()[0])
    )
    assert direct <= names


DOES_WHAT_A_PACK_ASKS = f"""#!{sys.executable}
import sys
from pathlib import Path
*_, last = sys.argv
if "--dest" in sys.argv:
    place = Path(sys.argv[sys.argv.index("--dest") + 1])
    for name in sys.argv[sys.argv.index(str(place)) + 1 :]:
        (place / (name.replace("==", "-") + ".whl")).touch()
elif sys.argv[1].endswith("brought_packages.py"):
    Path(last).write_text("3.12")
    print("a==1\\nb==2")
else:
    Path(last).mkdir()
"""


@pytest.mark.skipif(not (BENCHMARKS.parent / ".git").exists(), reason="needs a checkout")
def test_a_pack_replaces_an_earlier_one_and_nothing_else_in_its_folder(tmp_path: Path) -> None:
    corpus, out = tmp_path / "corpus.jsonl", tmp_path / "pack"
    corpus.touch()
    python = script(tmp_path / "bin" / "python", DOES_WHAT_A_PACK_ASKS)
    script(tmp_path / "bin" / "xz", "#!/bin/sh\ncat >/dev/null\n")
    environment = {**os.environ, "PYTHON": str(python), "PATH": f"{python.parent}:{os.environ['PATH']}"}

    def pack() -> set[str]:
        command = ["bash", BENCHMARKS / "pack_gpu_run.sh", corpus, "--out", out]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        assert "1 of 4: fetching 2 wheels for CPython 3.12" in done.stdout
        return {file.name for file in out.iterdir()}

    made = {"wheels", "shards.tar.xz", "project.tar.xz", "commit.txt", "needs.txt", "run.sh", "made_by_pack_gpu_run"}
    assert pack() == made
    assert {file.name for file in (out / "wheels").iterdir()} == {"a-1.whl", "b-2.whl"}
    (out / "results").mkdir()
    (out / "wheels" / "old.whl").touch()
    assert pack() == made | {"results"}
    assert not (out / "wheels" / "old.whl").exists()


def test_shards_are_prepared_from_exactly_the_given_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, folder = (str(tmp_path / name) for name in ("corpus.jsonl #2.jsonl", "sh: #2 “é\\"))
    recipes = []
    monkeypatch.setattr(ernie2, "prepare", recipes.append, raising=False)
    monkeypatch.setattr(sys, "argv", ["gpu_shards.py", corpus, folder])
    assert gpu_shards.main() == 0
    assert [(recipe["corpora"]["wiki"]["path"], recipe["shards"]["folder"]) for recipe in recipes] == [(corpus, folder)]


@pytest.mark.parametrize(("options", "code", "shown"), [(["--help"], 0, "CORPUS"), (["corpus.jsonl"], 2, "FOLDER")])
def test_help_of_the_shards_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], code: int, shown: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_shards.py", *options])
    with pytest.raises(SystemExit, match=str(code)):
        gpu_shards.main()
    assert shown in "".join(capsys.readouterr())


def test_a_corpus_that_is_not_there_costs_one_plain_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_shards.py", str(tmp_path / "none.jsonl"), str(tmp_path / "shards")])
    assert gpu_shards.main() != 0
    said = capsys.readouterr().err
    assert "none.jsonl" in said
    assert "Traceback" not in said
