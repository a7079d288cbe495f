import json
from collections.abc import Callable
from pathlib import Path

import pytest

from titanflow.cli.values import resolved_values, value_lines
from titanflow.common.errors import ConfigError
from titanflow.config.experiment import Experiment

Write, Load = Callable[..., Path], Callable[..., Experiment]
ODD = {
    "a list": ["x" * 50] * 40,
    "lines": "one\ntwo\r\nthree\tfour",
    "a separator of lines": "a\u2028b\u0085c\x1b[31md",
    "Größe": "größer als 1 €, 猫",
    "half a character": "\ud800",
    "key\nof two lines": 1,
}


@pytest.mark.parametrize("origins", [False, True])
def test_each_value_is_one_line_and_whole(origins: bool) -> None:
    lines = list(value_lines({key: (value, "exp.yaml:3") for key, value in ODD.items()}, origins))
    assert [len(line.splitlines()) for line in lines] == [1] * len(ODD)
    for line, (key, value) in zip(lines, ODD.items(), strict=True):
        name, _, rest = line.partition("  ")
        text = rest.strip().removesuffix("exp.yaml:3").strip()
        assert (json.loads(f'"{name}"'), json.loads(text)) == (key, value)
        assert line.endswith("exp.yaml:3") is origins
    assert "größer als 1 €, 猫" in lines[3]


def test_what_follows_a_long_key_stands_apart() -> None:
    (line,) = value_lines({"k" * 90: (1, "here")}, origins=True)
    assert line.split() == ["k" * 90, "1", "here"]


def test_the_framework_and_the_files_of_a_module(write: Write, load: Load) -> None:
    path = write()
    root, experiment = path.parents[1], load(path)
    values = resolved_values(experiment)
    named = {key: value for key, (value, _) in values.items() if key.startswith("modules.")}
    assert named == {
        "modules.pretrain.framework": "torchtitan",
        "modules.pretrain.config": str(root / "modules" / "pretrain.yaml"),
        "modules.pretrain.model": str(root / "models" / "tiny.yaml"),
        "modules.sft.framework": "torchtitan",
        "modules.sft.config": str(root / "modules" / "sft.yaml"),
    }
    assert values["modules.pretrain.model"][1].endswith("exp.yaml:6")
    assert values["modules.sft.framework"][1] == "default"
    assert resolved_values(experiment, "sft")["modules.sft.config"] == values["modules.sft.config"]
    assert "modules.pretrain.config" not in resolved_values(experiment, "sft")


def test_another_model_file_is_the_one_that_is_shown(write: Write, load: Load) -> None:
    path = write(models__other="model: {name: llama3, flavor: debugmodel}")
    value, origin = resolved_values(load(path, "modules.pretrain.model=other.yaml"))["modules.pretrain.model"]
    assert (Path(value).name, origin) == ("other.yaml", "--set modules.pretrain.model=other.yaml")


def test_the_experiment_s_own_keys_are_shown(write: Write, load: Load) -> None:
    values = resolved_values(load(write(), "retries.lost=5"))
    assert values["exp_name"][0] == "tiny"
    assert values["retries.lost"] == (5, "--set retries.lost=5")
    assert values["on_stale"] == ("error", "default")


def test_a_module_that_is_not_there(write: Write, load: Load) -> None:
    with pytest.raises(ConfigError, match="did you mean pretrain"):
        resolved_values(load(write()), "pretran")
