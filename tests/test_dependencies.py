"""The lock and the ranges: what a clone installs lies within what the package admits."""

import ast
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
OPTIONAL = [line for name, lines in EXTRAS.items() if name != "dev" for line in lines]
RUN = [Requirement(line) for line in (*PROJECT["dependencies"], *OPTIONAL)]
DEVELOP = [Requirement(line) for line in EXTRAS["dev"] if not line.startswith("titanflow[")]
LINES = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.lstrip().startswith("#")]
PINS = [Requirement(line) for line in LINES if line.strip()]


def versions(name: str) -> list[str]:
    """Of a package, one for each marker."""
    found = [pin for pin in PINS if canonicalize_name(pin.name) == canonicalize_name(name)]
    return [specifier.version for pin in found for specifier in pin.specifier]


@pytest.mark.parametrize("wanted", [*RUN, *DEVELOP], ids=lambda wanted: wanted.name)
def test_what_is_asked_for_is_pinned_within_its_range(wanted: Requirement) -> None:
    assert versions(wanted.name)
    assert all(wanted.specifier.contains(version) for version in versions(wanted.name))


def test_everything_is_pinned_to_one_version_that_every_index_has() -> None:
    assert len(PINS) > 150
    for pin in PINS:
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        assert "+" not in specifier.version, "a local version is of one index alone"


def test_every_range_begins_somewhere() -> None:
    # `make test-oldest` takes what it begins with.
    for wanted in [*RUN, *DEVELOP]:
        assert any(specifier.operator in (">=", "==") for specifier in wanted.specifier), wanted.name


def test_nothing_that_runs_imports_what_only_tests_need() -> None:
    only_tests = {wanted.name.replace("-", "_") for wanted in DEVELOP} - {wanted.name for wanted in RUN} - {"starlette"}
    for package in ("flows", "tasks", "titan", "titanflow", "deployments"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not {name.partition(".")[0] for name in names} & only_tests, path
