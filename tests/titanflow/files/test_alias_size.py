from pathlib import Path

import pytest

from titanflow.common.errors import ConfigError
from titanflow.evals.task_yaml import read_yaml
from titanflow.files.yaml_source import parse_scalar, plain, read_tree

pytestmark = pytest.mark.slow

LEVELS = 12
"""Each level has the one above ten times."""
BOMBS = {
    "lists": ("[x]", "[{}]", "*"),
    "mappings": ("{k: x}", "{{{}}}", "k{}: *"),
    "merged": ("{k: x}", "{{<<: [{}]}}", "*"),
}


def bomb(kind: str) -> str:
    first, around, item = BOMBS[kind]
    lines = [f"a0: &a0 {first}"]
    for level in range(1, LEVELS):
        items = ", ".join(f"{item.format(number)}a{level - 1}" for number in range(10))
        lines.append(f"a{level}: &a{level} {around.format(items)}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("kind", BOMBS)
@pytest.mark.parametrize("read", [read_tree, read_yaml])
def test_aliases_that_stand_for_too_much_are_refused_with_their_line(tmp_path: Path, kind: str, read) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text(bomb(kind), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"bomb\.yaml:6: not YAML: its aliases stand for more than 100,000 values"):
        read(path)


def test_a_text_that_is_a_bomb_stays_a_text() -> None:
    text = "[&a [x, x, x, x, x, x, x, x, x, x]" + "".join(
        f", &{new} [{', '.join([f'*{old}'] * 10)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert parse_scalar(f"{text}]") == f"{text}]"


def test_many_values_and_a_node_within_itself_are_read_or_told(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_text("a: &a [" + "1, " * 60_000 + "2]\nb: *a\n", encoding="utf-8")
    assert len(plain(read_tree(path))["b"]) == 60_001
    path.write_text("a: &a\n  b: *a\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="stands within itself"):
        read_tree(path)
