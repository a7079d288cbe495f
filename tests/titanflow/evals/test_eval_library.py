"""lm-eval's names without lm-eval: as its own index has them, kept, and read again for a name that is missing."""

import json
from pathlib import Path

import pytest
from small_library import forget

from titanflow.evals import library
from titanflow.evals.library import index, installed_library, package_folder, read_again

QUIRKS = (
    "arc",
    "mmlu",
    "kbl",
    "glue",
    "super_glue",
    "eus_exams",
    "noreval",
    "bbh",
    "flores",
    "french_bench",
    "benchmarks",
)
"""Folders with tags in lists and in what is included, bases without an ending, groups of groups, quoted keys."""


def test_names_files_kinds_and_tags_are_those_of_lm_evals_own_index() -> None:
    from lm_eval.tasks._index import TaskIndex

    folder = package_folder()
    assert folder is not None
    for name in QUIRKS:
        root = folder / "tasks" / name
        if not root.is_dir():
            continue
        theirs, ours = TaskIndex.build([root]), index(root)
        assert set(ours) == set(theirs), name
        for entry in theirs.values():
            assert (entry.name in ours.groups) == (entry.kind.name == "GROUP")
            if entry.kind.name == "TAG":
                assert set(ours.tags[entry.name]) == entry.tags
            else:
                assert ours.file(entry.name) == entry.yaml_path


@pytest.mark.slow
def test_the_whole_library_is_that_of_lm_evals_own_index() -> None:
    from lm_eval.tasks import TaskManager

    found = installed_library()
    assert found is not None
    assert set(found) == set(TaskManager().all_tasks)


def test_names_are_kept_for_the_next_plan(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = installed_library()
    assert first is not None
    assert set(first) == {"quiz_easy", "quiz_hard", "all_quizzes", "sums", "quizzes"}
    forget()
    monkeypatch.setattr(library, "index", lambda root: pytest.fail("read again"))
    assert installed_library() == first


def test_another_version_is_read_anew(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed_library()
    (installed / "tasks" / "new.yaml").write_text("task: new\n")
    forget()
    monkeypatch.setattr(library, "version", lambda package: "99")
    assert "new" in (installed_library() or ())


def test_files_changed_in_place_are_read_by_whoever_asks_again(installed: Path) -> None:
    installed_library()
    (installed / "tasks" / "new.yaml").write_text("task: new\n")
    forget()
    assert "new" not in (installed_library() or ())
    assert "new" in (read_again() or ())
    forget()
    assert "new" in (installed_library() or ())


@pytest.mark.parametrize("kept", ["", "{", "[]", '{"root": 1, "more": 2}'])
def test_a_damaged_cache_is_made_anew(installed: Path, tmp_path: Path, kept: str) -> None:
    installed_library()
    (file,) = (tmp_path / "cache" / "titanflow").iterdir()
    file.write_text(kept)
    forget()
    assert "sums" in (installed_library() or ())
    assert "sums" in json.loads(file.read_text())["tasks"]


def test_where_nothing_can_be_kept_the_files_are_read(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    assert "sums" in (installed_library() or ())


def test_without_lm_eval_there_is_no_library(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "package_folder", lambda: None)
    assert installed_library() is None


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("task: plain\n", {"plain"}),
        ("task: 'quoted' # why\n", {"quoted"}),
        ('{"task": "flow", "tag": ["a", "b"]}\n', {"flow", "a", "b"}),
        ("tag: [a, 'b']\ntask: listed\n", {"listed", "a", "b"}),
        ("tag:\n- a\ntask: below\n", {"below", "a"}),
        ("x: &x {task: anchored}\n<<: *x\n", {"anchored"}),
        ("group: many\ntask:\n  - one\n  - two\n", {"many"}),
        ("task: broken\ntag: [\n", {"broken"}),
        ("# task: none\nmetadata:\n  task: inner\n", set()),
        ("- task: a list\n", set()),
        ("include: itself.yaml\ntask: loop\n", {"loop"}),
        ("include: missing.yaml\ntask: alone\n", {"alone"}),
    ],
)
def test_a_files_names(tmp_path: Path, text: str, names: set[str]) -> None:
    (tmp_path / "itself.yaml").write_text(text)
    assert set(index(tmp_path)) == names
