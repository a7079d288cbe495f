import subprocess
import sys

import pytest
from pydantic import ValidationError

from flows.parameters.form import KEYS, Evaluate, Pretrain, Publish, Sft
from titanflow.config.module import stage_schema

FORMS = {"pretrain": Pretrain, "sft": Sft, "evaluate": Evaluate, "publish": Publish}


def shown(stage):
    """The form's fields, by their dotted keys."""
    schema = FORMS[stage].model_json_schema()
    fields = {}
    for key, field in schema["properties"].items():
        if "$ref" in field:
            inner = schema["$defs"][field["$ref"].rpartition("/")[2]]
            fields |= {f"{key}.{name}": one for name, one in inner["properties"].items()}
        else:
            fields[key] = field
    return fields


@pytest.mark.parametrize("stage", FORMS)
def test_the_form_is_the_config_s_schema(stage):
    fields = shown(stage)
    assert set(fields) == set(KEYS[stage])
    for key, field in fields.items():
        schema = {"properties": stage_schema(stage)["properties"]}
        for part in key.split("."):
            schema = schema["properties"][part]
        of_value = next((one for one in schema.get("anyOf", []) if one["type"] != "null"), schema)
        for word in ("type", "enum", "minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"):
            assert "anyOf" in field or field.get(word) == of_value.get(word), (key, word)
        assert "default" not in field, key


@pytest.mark.parametrize("stage", FORMS)
def test_fields_are_described(stage):
    undescribed = [key for key, field in shown(stage).items() if not field.get("description")]
    assert undescribed == []


def test_only_what_is_set_is_an_override():
    assert Pretrain().overrides() == {}
    filled = Sft.model_validate({"training": {"steps": 3}, "lora": {"rank": 4}, "optimizer": {}})
    assert filled.overrides("sft.") == {"sft.lora.rank": 4, "sft.training.steps": 3}
    assert Publish.model_validate({"tag": None, "dry_run": True}).overrides() == {"dry_run": True}
    assert Evaluate(tasks=["a"], batch_size="auto").overrides() == {"tasks": ["a"], "batch_size": "auto"}


@pytest.mark.parametrize(
    ("form", "bad", "message"),
    [
        (Pretrain, {"training": {"steps": 0}}, "found 0, expected a whole number, at least 1"),
        (Pretrain, {"training": {"steps": 1.5}}, "found 1.5"),
        (Pretrain, {"lr_scheduler": {"min_lr_factor": 2}}, "a number, at least 0 and at most 1"),
        (Sft, {"lora": {"dropout": 1}}, "below 1"),
        (Sft, {"training": {"stepz": 5}}, "Extra inputs are not permitted"),
        (Publish, {"target": "elsewhere"}, "one of folder, hub"),
    ],
)
def test_what_the_config_would_refuse_is_refused(form, bad, message):
    with pytest.raises(ValidationError, match=message):
        form.model_validate(bad)


def test_a_form_needs_no_torch():
    program = "import sys, flows.parameters.form; sys.exit('torch' in sys.modules or 'prefect' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
