"""The house: which room may import which, that no circle exists, and that a folder and a file fit in a head."""

from __future__ import annotations

import ast
import shutil
import subprocess
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from imports_of import PACKAGES, imported_names, imports, names_imported, source_files

ROOT = Path(__file__).parent.parent
FLOORS = (
    ("titanflow/__main__.py",),
    ("titanflow/cli", "titanflow/api"),
    ("deployments",),
    ("flows",),
    ("tasks", "titan"),
    ("titanflow/report", "titanflow/draft"),
    ("titanflow/planning",),
    ("titanflow/publish",),
    ("titanflow/nightly",),
    ("titanflow/data",),
    ("titanflow/config",),
    ("titanflow/evals",),
    ("titanflow/architectures",),
    ("titanflow/runs",),
    ("titanflow/files",),
    ("titanflow/common",),
    ("titanflow/__init__.py",),
)
"""The rooms from the top down. A room imports from floors below its own; of those on one floor none knows the other."""
NO_ROOMS = ("benchmarks", "configs", "docs", "hatch_build.py", "tests")
"""Folders whose Python files nothing imports: programs, tests, and the functions of evaluation tasks."""
FACE, BEHIND_FACE = Path("titanflow/__init__.py"), (Path("titanflow/api"), Path("titanflow/common/errors.py"))
"""The one exception: the bottom file names the functions of a top room, and their errors, for callers in Python.

It does so for type checkers, and in a ``__getattr__``. A program that imports the package imports nothing of them
(tests/test_imports.py), so that no room stands on them. Every other import of the bottom file that runs up is a fault.
"""
FILES_IN_A_FOLDER, LINES_OF_A_FILE, LINES_OF_A_TEST = 14, 350, 450


def floor_of(path: Path) -> tuple[int, str]:
    """The number of a file's floor, from the top, and its room."""
    for number, rooms in enumerate(FLOORS):
        for room in rooms:
            if path.is_relative_to(room):
                return number, room
    raise AssertionError(f"{path} is in no room: give it one, or FLOORS a new one")


def climbing(root: Path) -> list[str]:
    """Every import that runs up, or to another room of the same floor."""
    found = []
    for path, imported in standing_on(root).items():
        floor, room = floor_of(path)
        for other in sorted(imported):
            its_floor, its_room = floor_of(other)
            if room != its_room and its_floor <= floor:
                found.append(f"{path} imports {other}")
    return found


def standing_on(root: Path) -> dict[Path, set[Path]]:
    """File → the files that it imports, without what the package's face only names."""
    return {
        path: {other for other in imported if not (path == FACE and any(map(other.is_relative_to, BEHIND_FACE)))}
        for path, imported in imports(root).items()
    }


def test_no_room_imports_from_a_floor_above() -> None:
    assert climbing(ROOT) == []


@pytest.mark.parametrize(
    "planted",
    [
        "from titanflow.planning.plan import make_plan",
        "def later():\n    from titanflow.planning import plan",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from titanflow.planning.plan import make_plan",
        "import titanflow.planning.plan",
        "import titanflow.planning.plan as below",
        "from titanflow.planning.plan import *",
        "from ..planning.plan import make_plan",
        "from ..planning import plan",
        "try:\n    import titanflow.planning.plan\nexcept ImportError:\n    pass",
        "import importlib\nplan = importlib.import_module('titanflow.planning.plan')",
        "from importlib import import_module\nplan = import_module('titanflow.planning.plan')",
        "plan = __import__('titanflow.planning.plan')",
    ],
)
def test_a_planted_import_is_found(tmp_path: Path, planted: str) -> None:
    plant(tmp_path, "titanflow/runs/contract.py", planted)
    assert climbing(tmp_path) == ["titanflow/runs/contract.py imports titanflow/planning/plan.py"]


@pytest.mark.parametrize("package", ["titanflow", "titanflow/runs"])
def test_a_planted_import_of_a_package_is_found(tmp_path: Path, package: str) -> None:
    plant(tmp_path, f"{package}/__init__.py", "from titanflow.planning.plan import make_plan")
    assert climbing(tmp_path) == [f"{package}/__init__.py imports titanflow/planning/plan.py"]


@pytest.mark.parametrize(
    "planted", ["from titanflow import planning", "from .. import planning", "import titanflow.planning"]
)
def test_a_planted_import_of_a_room_is_found(tmp_path: Path, planted: str) -> None:
    plant(tmp_path, "titanflow/runs/contract.py", planted)
    assert climbing(tmp_path) == ["titanflow/runs/contract.py imports titanflow/planning/__init__.py"]


def plant(root: Path, importer: str, planted: str) -> None:
    """A house of two files; one of them imports as ``planted`` says."""
    for name in (importer, "titanflow/planning/__init__.py", "titanflow/planning/plan.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    with (root / importer).open("a") as file:
        file.write(f"\n{planted}\n")


def test_every_file_is_in_a_room() -> None:
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {Path(name).parts[0] for name in tracked.splitlines()} - {*PACKAGES, *NO_ROOMS} == set()


def test_every_folder_is_a_package() -> None:
    """Otherwise its files aren't found by those that collect them: checks, measures, families."""
    folders = {path.parent for path in source_files(ROOT)}
    assert {str(folder) for folder in folders if not (ROOT / folder / "__init__.py").is_file()} == set()


def test_no_package_imports_what_it_promises_not_to() -> None:
    """Not in a function either."""
    heavy = {"titanflow": {"torch", "torchtitan", "prefect"}, "titan": {"prefect"}, "deployments": set()}
    outside = {*NO_ROOMS, *(path.stem for path in (ROOT / "tests").glob("*.py"))}
    assert {
        str(path): names[0]
        for path in source_files(ROOT)
        for names in names_imported(ROOT / path, path.parent.parts)
        if names[0].partition(".")[0] in outside | heavy.get(path.parts[0], {"torch", "torchtitan"})
    } == {}


def test_no_files_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter(standing_on(ROOT)).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(str(path) for path in reversed(error.args[1])))


def test_a_folder_fits_in_a_head() -> None:
    folders = Counter(path.parent for path in source_files(ROOT))
    assert {str(folder): files for folder, files in folders.items() if files > FILES_IN_A_FOLDER} == {}


@pytest.mark.parametrize(("places", "most"), [(PACKAGES, LINES_OF_A_FILE), (("tests",), LINES_OF_A_TEST)])
def test_a_file_fits_in_a_head(places: tuple[str, ...], most: int) -> None:
    paths = [path for place in places for path in (ROOT / place).rglob("*.py")]
    lines = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n") for path in paths}
    assert {path: count for path, count in lines.items() if count > most} == {}


def test_no_two_files_of_tests_have_one_name() -> None:
    # They are modules without a package: pytest would refuse to collect the second.
    found = Counter(path.name for path in (ROOT / "tests").rglob("*.py"))
    assert [name for name, count in found.items() if count > 1 and name not in ("conftest.py", "__init__.py")] == []


def test_tests_stand_where_their_room_is() -> None:
    """Below ``tests/`` the folders are those of the source."""
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    own = {Path(name) for name in ("", "docs", "examples", "survival", "cluster", "kubernetes", "team", "deployments")}
    assert sorted(str(folder) for folder in folders - own if not (ROOT / folder).is_dir()) == []


def test_what_another_room_uses_says_what_it_is_for() -> None:
    """A room's face: functions and classes that a file of another room imports."""
    used: dict[Path, set[str]] = {}
    for path, names in imported_names(ROOT).items():
        for other, name in names:
            if floor_of(path)[1] != floor_of(other)[1]:
                used.setdefault(other, set()).add(name)
    silent = [
        f"{path}: {node.name}"
        for path, names in sorted(used.items())
        for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in names and not ast.get_docstring(node)
    ]
    assert silent == []
