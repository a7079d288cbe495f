from pathlib import Path

import pytest
import yaml

from titanflow.common.errors import ConfigError
from titanflow.files.yaml_source import Leaf, leaves, merge, parse_scalar, plain, read_tree, set_leaf

TEXT = """
training:
  steps: 300
  lr: 1e-4
  names:
    - a
    - b
empty: {}
nothing:
"""


def test_values_are_pyyamls_and_each_leaf_knows_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(TEXT)
    tree = read_tree(path)
    expected = yaml.safe_load(TEXT.replace("1e-4", "1.0e-4"))
    assert plain(tree) == expected
    lines = {key: leaf.origin.rsplit(":", 1)[1] for key, leaf in leaves(tree) if leaf.value != {}}
    assert lines == {"training.steps": "3", "training.lr": "4", "training.names": "6", "nothing": "9"}


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("1E5", 1e5), ("-2.5e+3", -2500.0), ("3", 3), (".5", 0.5), ("1.", 1.0), ("", None)],
)
def test_numbers_follow_yaml_1_2(text: str, value: object) -> None:
    assert parse_scalar(text) == value
    assert type(parse_scalar(text)) is type(value)


@pytest.mark.parametrize("text", ["1.2.3", "e5", "1e", "0x", "v1e5", "2026-11-20a"])
def test_what_only_looks_like_a_number_stays_text(text: str) -> None:
    assert parse_scalar(text) == text


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("x: 1\ny: {steps:5, b: 1}\n", 2, r"found {steps:5}, a key without a value[\s\S]*{steps: 5}"),
        ("a: 1\nb: 2\na: 3\n", 3, "second time"),
        ("a: [1\nb: 2", 2, "not YAML"),
        ("- a\n- b\n", 1, "isn't a mapping"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as raised:
        read_tree(path)
    assert f"broken.yaml:{line}" in str(raised.value)


@pytest.mark.parametrize("text", ["{'a:b': }", "{a:b: 1}", "{a:b: {}}", "{a:b: ''}", "{a:b: null}", "{a: , b}", "a:b:"])
def test_a_key_with_a_colon_and_a_value_is_read_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    assert plain(read_tree(path)) == yaml.safe_load(text)


def test_anchors_and_merge_keys_are_read(tmp_path: Path) -> None:
    text = "base: &base {a: 1, b: 2}\nover:\n  <<: *base\n  b: 3\n"
    path = tmp_path / "a.yaml"
    path.write_text(text)
    assert plain(read_tree(path)) == yaml.safe_load(text)


def test_what_is_merged_within_a_list_is_merged_once_however_often_it_is_read(tmp_path: Path) -> None:
    text = "base: &base {a: 1, b: 2}\nlisted: [&over {<<: *base, b: 3}]\nagain: *over\n"
    for name in ("a.yaml", "b.yaml"):
        path = tmp_path / name
        path.write_text(text)
        tree = read_tree(path)
        assert plain(tree) == yaml.safe_load(text)
        assert tree["again"]["b"].origin == f"{path}:2"


def test_a_list_of_modules_is_read_by_name_again(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("modules:\n- {name: sft, steps: 1}\n")
    assert plain(read_tree(path)) == plain(read_tree(path)) == {"modules": {"sft": {"steps": 1}}}


def test_merge_replaces_leaves_and_keeps_what_it_does_not_name() -> None:
    base = {"a": {"x": Leaf(1, "f:1"), "y": Leaf(2, "f:2")}, "b": Leaf([1, 2], "f:3")}
    over = {"a": {"y": Leaf(3, "g:1")}, "b": Leaf([9], "g:2")}
    merged = merge(base, over)
    assert plain(merged) == {"a": {"x": 1, "y": 3}, "b": [9]}
    assert merged["a"]["y"].origin == "g:1"
    assert plain(base) == {"a": {"x": 1, "y": 2}, "b": [1, 2]}


def test_a_leaf_is_set_below_sections_that_do_not_exist_yet() -> None:
    tree: dict = {"a": Leaf(1, "")}
    set_leaf(tree, "a.b.c", Leaf(5, "here"))
    assert plain(tree) == {"a": {"b": {"c": 5}}}
