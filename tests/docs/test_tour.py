"""The pages name files and folders that are there, and README's tree the rooms that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from doc_blocks import PAGES
from imports_of import PACKAGES

ROOT = Path(__file__).parents[2]
TOUR = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
HOUSES = (*PACKAGES, "tests", "docs", "benchmarks")
FILES = [f"/{path.relative_to(ROOT)}" for room in HOUSES for path in (ROOT / room).rglob("*.py")] + ["/hatch_build.py"]
OWN = {"docs/adding-a-model.md", "docs/qwen3-8b.md"}
"""Pages by which a reader writes files of their own."""


@pytest.mark.parametrize("page", sorted({*PAGES, "CONTRIBUTING.md"} - OWN))
def test_a_page_names_files_and_folders_that_are_there(page: str) -> None:
    """Often by the end of the path alone, where the sentence before names the folder."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"`([\w/]+\.py)`", text))
    assert {name for name in named if not any(path.endswith(f"/{name}") for path in FILES)} == set()
    placed = set(re.findall(rf"`((?:{'|'.join(HOUSES)}|configs)/[\w/.-]+)`", text))
    assert {name for name in placed if not (ROOT / name).exists()} == set()
    assert len(named) > 10 or page not in ("docs/tour.md", "CONTRIBUTING.md")


def test_the_tour_and_the_tree_name_every_room() -> None:
    rooms = {path.parent.name for path in (ROOT / "titanflow").glob("*/__init__.py")}
    inside = {path.parent.name for path in (ROOT / "titan").glob("*/__init__.py")}
    assert {room for room in rooms if f"`titanflow/{room}/`" not in TOUR} == set()
    assert {room for room in rooms | inside if not re.search(rf"\b{room}/", README)} == set()
