import pytest

from flows.parameters.form import Pretrain, Sft
from flows.parameters.settings import run_title, settings_from_parameters
from titanflow.common.errors import ConfigError


def test_only_what_is_set_becomes_an_override():
    forms = {"pretrain": Pretrain(training={"steps": 5}), "sft": Sft()}
    knobs = {"pretrain_steps": None, "sft_steps": 7}
    assert settings_from_parameters(knobs, forms, {"evaluate.limit": 2}) == {
        "sft.training.steps": 7,
        "pretrain.training.steps": 5,
        "evaluate.limit": 2,
    }
    assert settings_from_parameters({}, {}, None) == {}


def test_one_key_that_is_set_twice_is_refused_unless_both_say_the_same():
    form = {"pretrain": Pretrain(training={"steps": 5})}
    assert settings_from_parameters({"pretrain_steps": 5}, form, None) == {"pretrain.training.steps": 5}
    with pytest.raises(ConfigError, match="set to 6 by pretrain_steps and to 5 by pretrain"):
        settings_from_parameters({"pretrain_steps": 6}, form, None)
    with pytest.raises(ConfigError, match="set to 5 by pretrain and to 7 by overrides"):
        settings_from_parameters({}, form, {"pretrain.training.steps": 7})


def test_a_run_is_called_what_it_is():
    assert run_title("stdlib", "2026-11-21", {}) == "stdlib/2026-11-21"
    settings = {"pretrain.training.steps": 200, "on_stale": "rerun", "sft.lora.rank": 8, "evaluate.limit": 3}
    assert (
        run_title("stdlib", "main", settings)
        == "stdlib/main pretrain.steps=200 on_stale=rerun sft.lora.rank=8 and 1 more"
    )


def test_a_name_has_values_as_the_command_line_takes_them():
    settings = {"modules.publish": None, "only": ["sft"], "publish.dry_run": True}
    assert run_title("chain", "main", settings) == 'chain/main modules.publish=null only=["sft"] publish.dry_run=true'
