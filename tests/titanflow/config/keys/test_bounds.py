import math

import pytest

from titanflow.config.files.schema import accepts, describe
from titanflow.config.keys import bounds
from titanflow.config.keys.bounds import bounded
from titanflow.config.module import stage_schema

SCHEMA = {
    "properties": {
        "a": {"properties": {"b": {"type": "integer"}, "c": {"type": "string"}}},
        "d": {"anyOf": [{"type": "number"}, {"type": "null"}]},
    }
}


def test_a_bounded_copy_leaves_the_schema_as_it_was():
    copy = bounded(SCHEMA, {"a.b": {"minimum": 1}, "d": {"exclusiveMaximum": 2}})
    assert copy["properties"]["a"]["properties"] == {"b": {"type": "integer", "minimum": 1}, "c": {"type": "string"}}
    assert copy["properties"]["d"]["anyOf"] == [{"type": "number", "exclusiveMaximum": 2}, {"type": "null"}]
    assert "minimum" not in SCHEMA["properties"]["a"]["properties"]["b"]
    with pytest.raises(KeyError):
        bounded(SCHEMA, {"a.z": {"minimum": 1}})


@pytest.mark.parametrize("value", [0, 0.5, 1, None])
def test_what_is_within(value):
    assert accepts(value, {"anyOf": [{"type": "number", **bounds.SHARE}, {"type": "null"}]})


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf, True])
def test_what_is_not(value):
    assert not accepts(value, {"type": "number", **bounds.SHARE})


def test_bounds_in_words():
    assert describe({"type": "integer", **bounds.SEED}) == "a whole number, at least 0 and at most 4294967295"
    assert describe({"type": "number", **bounds.BELOW_ONE}) == "a number, at least 0 and below 1"
    assert describe({"type": "integer", "exclusiveMinimum": 0}) == "a whole number, more than 0"


@pytest.mark.parametrize("stage", ["pretrain", "sft", "evaluate", "publish"])
def test_every_default_is_within_its_bounds(stage):
    def outside(schema, above=""):
        for key, field in schema.get("properties", {}).items():
            if "properties" in field:
                yield from outside(field, f"{above}{key}.")
            elif "default" in field and not accepts(field["default"], field):
                yield f"{above}{key}"

    assert list(outside(stage_schema(stage))) == []


def test_a_value_out_of_bounds_is_refused_with_its_line(write, load):
    from titanflow.common.errors import ConfigError

    settings = ["pretrain.training.steps=0", "sft.lr_scheduler.min_lr_factor=2", "pretrain.launcher.nproc_per_node=0"]
    with pytest.raises(ConfigError) as refused:
        load(write(), *settings)
    said = str(refused.value)
    for setting, expected in zip(settings, ("at least 1", "at most 1", "at least 1"), strict=True):
        assert f"--set {setting}: {setting.partition('=')[0]}: found" in said
        assert expected in said


def test_rows_to_skip_are_counted_from_0(write, load, mistakes):
    path = write()
    assert load(path, "pretrain.training.skip_rows=0").modules["pretrain"].config["training"]["skip_rows"] == 0
    message = mistakes(path, "pretrain.training.skip_rows=-1")
    assert "pretrain.training.skip_rows: found -1 (int)\n    expected: a whole number, at least 0" in message
