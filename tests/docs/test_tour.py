"""docs/tour.md and CONTRIBUTING.md name files that are there, and README's tree the rooms that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from imports_of import PACKAGES

ROOT = Path(__file__).parents[2]
TOUR = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = [f"/{path.relative_to(ROOT)}" for room in (*PACKAGES, "tests") for path in (ROOT / room).rglob("*.py")]


@pytest.mark.parametrize("page", [TOUR, CONTRIBUTING], ids=["tour", "contributing"])
def test_a_page_names_files_that_are_there(page: str) -> None:
    """Often by the end of the path alone, where the sentence before names the folder."""
    named = set(re.findall(r"`([\w/]+\.py)`", page))
    assert len(named) > 10
    assert {name for name in named if not any(path.endswith(f"/{name}") for path in FILES)} == set()


def test_the_tour_and_the_tree_name_every_room() -> None:
    rooms = {path.parent.name for path in (ROOT / "titanflow").glob("*/__init__.py")}
    inside = {path.parent.name for path in (ROOT / "titan").glob("*/__init__.py")}
    assert {room for room in rooms if f"`titanflow/{room}/`" not in TOUR} == set()
    assert {room for room in rooms | inside if not re.search(rf"\b{room}/", README)} == set()
