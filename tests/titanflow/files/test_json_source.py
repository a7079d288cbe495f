from typing import Any

import pytest

from titanflow.common.errors import ConfigError
from titanflow.files.json_source import GIVEN, is_json, parse_tree
from titanflow.files.yaml_source import leaves, plain


@pytest.mark.parametrize(("text", "expected"), [(' {"a": 1}', True), ("stdlib", False), ("[1]", False), ("", False)])
def test_only_a_mapping_is_an_experiment_and_no_name(text: str, expected: bool) -> None:
    assert is_json(text) is expected


def test_values_keep_their_types_and_have_one_origin() -> None:
    tree = parse_tree('{"a": {"b": 1e-4, "c": "1e-4", "d": null, "e": [1, {"f": "😀\\u2028"}], "g": {}}, "h": true}')
    assert plain(tree) == {"a": {"b": 1e-4, "c": "1e-4", "d": None, "e": [1, {"f": "😀\u2028"}], "g": {}}, "h": True}
    assert {leaf.origin for key, leaf in leaves(tree) if key != "a.g"} == {GIVEN}


def test_a_number_may_be_meant_as_a_text() -> None:
    assert parse_tree('{"user_name": 1001}')["user_name"].text == "1001"


def test_modules_may_be_a_list_by_name() -> None:
    listed = parse_tree('{"modules": [{"name": "sft", "config": "sft.yaml"}, {"name": "publish"}]}')
    assert plain(listed) == {"modules": {"sft": {"config": "sft.yaml"}, "publish": {}}}
    assert plain(parse_tree('{"modules": [{"config": "sft.yaml"}]}')) == {"modules": [{"config": "sft.yaml"}]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1', "not JSON: Expecting ',' delimiter"),
        ('{"a": {"b": 1, "b": 2}}', "b: stands here a second time"),
        ('{"modules": [{"name": "sft"}, {"name": "sft"}]}', "sft: stands here a second time"),
        ('{"a": NaN}', "found NaN"),
        ('{"a": -Infinity}', "found -Infinity"),
        ('{"a": "\udcff"}', "expected: a name or a text in UTF-8"),
        ('{"a": ' * 100_000, "too many levels"),
    ],
)
def test_what_no_config_can_be_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_tree(text)
    refusal: Any = str(caught.value)
    assert said in refusal
    assert refusal.startswith(GIVEN)
