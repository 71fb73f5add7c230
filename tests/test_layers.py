"""Layering: a package or module imports only from its own layer and the layers above. Checked on the source text."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "ernie2"
LAYERS = (
    {"escaping"},
    {"errors", "learned", "seed_interval", "version", "formatting"},
    {"console"},
    {"storage", "config", "processes"},
    {"corpora"},
    {"shards"},
    {"tasks"},
    {"batches"},
    {"model"},
    {"inspecting"},
    {"datasets"},
    {"training"},
    {"studies/analysis"},
    {"reporting"},
    {"runs"},
    {"finetuning"},
    {"studies", "benchmarking"},
    {"demonstration"},
    {"__init__"},
    {"cli"},
    {"__main__"},
)
LEVELS = {package: level for level, packages in enumerate(LAYERS) for package in packages}
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
NETWORK = [
    module
    for module in MODULES
    if module.startswith("model/") and module.split("/")[1] not in ("__init__.py", "multitask.py", "hf.py", "formats")
]
ANALYSIS = [module for module in MODULES if module.startswith("studies/analysis/")]
"""Modules that read the record of a study; the other modules of `studies` plan and collect its runs."""


def package_of(module: str) -> str:
    """'storage/files.py' -> 'storage', 'cli.py' -> 'cli'; 'studies/analysis' is separate from 'studies'."""
    parts = module.removesuffix(".py").split("/")
    return "/".join(parts[:2]) if parts[:2] == ["studies", "analysis"] else parts[0]


def imports(module: str, *, lazy: bool = True) -> Iterator[str]:
    """Yield the dotted names that a module imports; `lazy`: also those inside functions."""
    waiting: list[ast.AST] = [ast.parse((PACKAGE / module).read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute here"
            yield from (f"{node.module}.{name.name}" for name in node.names)
        if lazy or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting.extend(ast.iter_child_nodes(node))


def packages_imported(module: str, *, lazy: bool = True) -> set[str]:
    """Return the packages and modules of ernie2 that a module imports from; plain 'ernie2' counts as `__init__`."""
    parts = [name.split(".") for name in imports(module, lazy=lazy) if name.split(".")[0] == "ernie2"]
    packages = [package_of("/".join(part[1:3])) if len(part) > 1 else "__init__" for part in parts]
    return {package if package in LEVELS else "__init__" for package in packages}


@pytest.mark.parametrize("module", MODULES)
def test_every_module_imports_only_from_its_layer_and_layers_above(module: str) -> None:
    package = package_of(module)
    assert package in LEVELS, f"{package} is new: add it to LAYERS here and to the source tree in CONTRIBUTING.md"
    wrong = {other for other in packages_imported(module) if other != package and LEVELS[other] >= LEVELS[package]}
    assert not wrong, f"{module} imports {sorted(wrong)}, which are not in a layer above {package}"


@pytest.mark.parametrize("module", NETWORK)
def test_the_network_imports_only_torch_settings_and_batch(module: str) -> None:
    libraries = {name.split(".")[0] for name in imports(module)} - sys.stdlib_module_names - {"ernie2"}
    assert libraries <= {"torch", "numpy"}
    names = [name for name in imports(module) if name.startswith("ernie2.")]
    ours = {".".join(name.split(".")[:3]) for name in names if name != "ernie2.config.settings.EncoderSettings"}
    siblings = {f"ernie2.model.{module.removesuffix('.py').split('/')[1]}" for module in NETWORK}
    assert ours <= {"ernie2.batches.batch", *siblings}


@pytest.mark.parametrize("module", [module for module in MODULES if package_of(module) == "finetuning"])
def test_finetuning_imports_neither_tasks_nor_data_streams(module: str) -> None:
    assert "tasks" not in packages_imported(module)
    assert not any(name.startswith("ernie2.batches.streams") for name in imports(module))


@pytest.mark.parametrize("module", [module for module in MODULES if package_of(module) == "datasets"])
def test_datasets_import_files_and_examples_but_not_torch(module: str) -> None:
    assert packages_imported(module) <= {
        "errors",
        "config",
        "storage",
        "formatting",
        "corpora",
        "batches",
        "datasets",
    }
    assert {name for name in imports(module) if ".batches." in name} <= {"ernie2.batches.order.generator"}
    assert not any(name.split(".")[0] == "torch" for name in imports(module))


@pytest.mark.parametrize("module", [module for module in MODULES if package_of(module) == "reporting"])
def test_reporting_reads_records_only(module: str) -> None:
    assert packages_imported(module) <= {
        "config",
        "errors",
        "escaping",
        "learned",
        "seed_interval",
        "storage",
        "reporting",
        "studies/analysis",
        "training",
        "formatting",
    }
    files = {name for name in imports(module) if name.startswith("ernie2.training")}
    assert all(name.startswith(("ernie2.training.run_record.", "ernie2.training.records")) for name in files)


@pytest.mark.parametrize("module", ANALYSIS)
def test_the_analysis_of_a_study_reads_only_its_record(module: str) -> None:
    assert packages_imported(module) <= {
        "errors",
        "escaping",
        "learned",
        "seed_interval",
        "studies/analysis",
        "formatting",
    }
    assert not any(name.split(".")[0] == "torch" for name in imports(module))


@pytest.mark.parametrize("module", [module for module in MODULES if package_of(module) == "tasks"])
def test_tasks_do_not_import_torch(module: str) -> None:
    assert not any(name.split(".")[0] == "torch" for name in imports(module))


def test_the_command_line_imports_no_heavy_library() -> None:
    modules = [module for module in MODULES if package_of(module) == "cli"]
    ours = {name for module in modules for name in imports(module, lazy=False) if name.startswith("ernie2")}
    beyond = {name for name in ours if not name.startswith("ernie2.cli")}
    beyond = {
        name
        for name in beyond
        if not name.startswith(("ernie2.console.", "ernie2.errors.", "ernie2.learned.", "ernie2.formatting."))
    }
    assert beyond == {"ernie2", "ernie2.escaping.json_line"}


PATH_METHODS = {"write_text", "write_bytes", "touch", "mkdir", "unlink", "rmdir", "symlink_to", "hardlink_to", "rename"}
"""Methods of `Path` that always change the disk."""
WRITERS = {
    *(f"os.{name}" for name in ("replace", "rename", "renames", "remove", "unlink", "link", "symlink", "truncate")),
    *(f"os.{name}" for name in ("mkdir", "makedirs", "rmdir", "removedirs")),
    *(f"shutil.{name}" for name in ("copy", "copy2", "copyfile", "copyfileobj", "copytree", "move", "rmtree")),
    *(f"np.{name}" for name in ("save", "savez", "savez_compressed", "savetxt", "memmap")),
    *("torch.save", "save_file", "sqlite3.connect", "tempfile.mkdtemp", "tempfile.mkstemp"),
    *("tempfile.TemporaryDirectory", "tempfile.TemporaryFile", "tempfile.NamedTemporaryFile"),
}
WRITES_ELSEWHERE = {
    ("batches/loader.py", "tempfile.TemporaryFile"),  # unnamed shared memory
    ("finetuning/glue_submission.py", "zipfile.ZipFile"),  # in memory
    ("shards/prepare.py", "rmdir"),  # an empty folder after invalid input
}
"""(module, call): exceptions that may write without `storage`."""


def writes(source: str) -> Iterator[str]:
    """Yield the calls in source text that open a file for writing or change the disk in another way."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called, is_method = ast.unparse(node.func), isinstance(node.func, ast.Attribute)
        name = called.rpartition(".")[2]
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        if called == "os.open":
            written = ast.unparse(node)
            writing = any(flag in written for flag in ("O_WRONLY", "O_RDWR", "O_CREAT")) and "os.devnull" not in written
        elif name in ("open", "fdopen", "ZipFile"):
            texts = [one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            writing = any(len(text) < 4 and set(text) & set("wax+") for text in texts)
        elif is_method and name == "replace":
            writing = len(node.args) == 1 and not node.keywords  # `Path.replace`; `str.replace` has two arguments
        else:
            writing = called in WRITERS or (is_method and name in PATH_METHODS)
        if writing:
            yield called if called in WRITERS or "zip" in called else name


@pytest.mark.parametrize("module", [module for module in MODULES if package_of(module) != "storage"])
def test_files_are_written_only_through_storage(module: str) -> None:
    source = (PACKAGE / module).read_text(encoding="utf-8")
    assert {(module, call) for call in writes(source)} <= WRITES_ELSEWHERE


@pytest.mark.parametrize(
    ("source", "calls"),
    [
        ('open(path, "w")', ["open"]),
        ('path.open(mode="ab")', ["open"]),
        ("path.write_text(text)", ["write_text"]),
        ("source.replace(target)", ["replace"]),
        ("os.open(path, os.O_RDWR | os.O_CREAT)", ["open"]),
        ("np.savez(path, a=a)", ["np.savez"]),
        ('path.open("rb")', []),
        ('text.replace("a", "b")', []),
        ("os.open(os.devnull, os.O_WRONLY)", []),
        ("write_text(path, text)", []),
    ],
)
def test_calls_that_write_files_are_detected(source: str, calls: list[str]) -> None:
    assert list(writes(source)) == calls


@pytest.mark.parametrize("module", [module for module in MODULES if module != "console.py"])
def test_only_console_prints_so_that_all_messages_are_escaped(module: str) -> None:
    tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
    called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = {ast.unparse(func) for func in called}
    assert not names & {"print", "sys.stdout.write", "sys.stderr.write", "typer.echo", "traceback.print_exc"}
