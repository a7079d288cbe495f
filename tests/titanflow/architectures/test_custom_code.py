import subprocess
import sys
from pathlib import Path

import pytest

from titanflow.architectures.custom_code import code_digests, custom_import, source_files

FILES = {
    "alone.py": "x = 1",
    "family/__init__.py": "raise RuntimeError('never imported')",
    "family/model/model.py": "x = 1",
    "family/model/notes.md": "x",
    "family/other.py": "x = 1",
    "bare/one.py": "",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(name: str | None) -> dict:
    return {"experimental": {"custom_import": name}}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alone", ["alone.py"]),
        ("family", ["family/__init__.py", "family/model/model.py", "family/other.py"]),
        ("family.other", ["family/other.py"]),
        ("family.model", ["family/model/model.py"]),
        ("bare", ["bare/one.py"]),
        ("family.nowhere", []),
        ("alone.below", []),
        ("nowhere", []),
        ("", []),
    ],
)
def test_the_files_of_a_module_are_found_and_nothing_is_imported(here: Path, name: str, expected: list[str]) -> None:
    assert [path.relative_to(here).as_posix() for path in source_files(name)] == expected
    assert not name or name not in sys.modules


def test_a_module_on_the_python_path_is_found() -> None:
    (path,) = source_files("titanflow.common.errors")
    assert path == Path(sys.modules["titanflow"].__file__ or "").parent / "common" / "errors.py"


def test_this_projects_own_families_are_no_users_code() -> None:
    assert custom_import(config("titan.models.qwen2")) == ""
    assert custom_import(config(None)) == custom_import({}) == ""
    assert custom_import(config("family")) == "family"
    assert code_digests(config("titan.models.qwen2")) == []


def test_an_edit_is_another_digest(here: Path) -> None:
    before = code_digests(config("family"))
    assert [name for name, _ in before] == ["family/__init__.py", "family/model/model.py", "family/other.py"]
    (here / "family" / "model" / "model.py").write_text("x = 2")
    after = code_digests(config("family"))
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]


def test_it_needs_no_torch() -> None:
    code = "import sys, titanflow.architectures.custom_code; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
