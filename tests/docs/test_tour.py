"""docs/tour.md names files that are there, and README's tree the rooms that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOUR = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`([\w/]+/[\w/]*\w+\.py)`", TOUR))))
def test_the_tour_passes_files_that_are_there(named: str) -> None:
    assert any((ROOT / below / named).is_file() for below in (".", "titanflow"))


def test_the_tour_and_the_tree_name_every_room() -> None:
    rooms = {path.parent.name for path in (ROOT / "titanflow").glob("*/__init__.py")}
    assert {room for room in rooms if f"`titanflow/{room}/`" not in TOUR} == set()
    assert {room for room in rooms if not re.search(rf"\b{room}/", README)} == set()
