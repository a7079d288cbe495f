"""Every value does something, or is an error: what people write, each case with its right value or its message."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from titanflow.common.errors import ConfigError
from titanflow.config.experiment import Experiment, load_experiment
from titanflow.config.overrides import parameter_settings, parse_settings
from titanflow.files.yaml_source import plain, read_tree

Write = Callable[..., Path]
Load = Callable[..., Experiment]
MODULE = "config: pretrain.yaml, model: tiny.yaml"


@pytest.fixture(autouse=True)
def no_name_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXP_NAME", raising=False)


def experiment(module: str, top: str = "exp_name: tiny") -> str:
    return f"{top}\nmodules:\n  pretrain: {{{MODULE}, {module}}}\n"


def config_of(loaded: Experiment, key: str) -> Any:
    value: Any = loaded.modules["pretrain"].config
    for part in key.split("."):
        value = value[part]
    return value


SECTIONS = {
    1: ("overrides: [training]", "modules.pretrain.overrides: found ['training'] (list)\n    expected: a mapping"),
    2: ("overrides: fast", "modules.pretrain.overrides: found 'fast' (text)\n    expected: a mapping"),
    3: ("params: foo", "modules.pretrain.params: found 'foo' (text)\n    expected: a mapping"),
    4: (
        "params: {model_overrides: [n_layers]}",
        "pretrain.params.model_overrides: found ['n_layers']\n    expected: a m",
    ),
    5: ("params: {model_overrides: deep}", "pretrain.params.model_overrides: found 'deep'\n    expected: a mapping"),
    6: ("overrides: {training: 5}", "pretrain.training: found 5 (int)\n    expected: a mapping"),
    7: ("overrides: {training: [5]}", "pretrain.training: found [5] (list)\n    expected: a mapping"),
    8: ("overrides: {model: tiny}", "pretrain.model: found 'tiny' (text)\n    expected: a mapping"),
    9: ("overrides: {experimental: x}", "pretrain.experimental: found 'x' (text)\n    expected: a mapping"),
    10: ("overrides: {job: true}", "pretrain.job: found True (bool)\n    expected: a mapping"),
    11: ("overrides: {data: corpus.txt}", "pretrain.data: found 'corpus.txt' (text)\n    expected: a mapping"),
}


@pytest.mark.parametrize("case", SECTIONS)
def test_what_stands_in_place_of_a_section_is_an_error(write: Write, mistakes: Callable[..., str], case: int) -> None:
    module, message = SECTIONS[case]
    said = mistakes(write(experiments__exp=experiment(module)))
    assert f"exp.yaml:3: {message}" in said


def test_12_an_empty_section_changes_nothing(write: Write, load: Load) -> None:
    path = write(
        modules__pretrain="training: {steps: 7, seq_len: 64}\noptimizer: {lr: 1e-3}\ndebug: {seed: 3}",
        models__tiny="model: {name: llama3, flavor: debugmodel}\nmetrics: {log_freq: 9}",
        experiments__exp=experiment("overrides: {optimizer: , debug: null, metrics: ~, training: {}}"),
    )
    loaded = load(path)
    found = {
        key: config_of(loaded, key) for key in ("training.steps", "optimizer.lr", "debug.seed", "metrics.log_freq")
    }
    assert found == {"training.steps": 7, "optimizer.lr": 1e-3, "debug.seed": 3, "metrics.log_freq": 9}
    assert "pretrain.yaml:2" in loaded.modules["pretrain"].origins["optimizer.lr"]


KEYS = {
    13: ("modules.pretrain.overrides.training.steps=5", "training.steps", 5),
    14: ("pretrain.overrides.training.steps=5", "training.steps", 5),
    15: ("pretrain.training={steps: 5}", "training.steps", 5),
    16: ("modules.pretrain.training={steps: 5, seq_len: 128}", "training.seq_len", 128),
    17: ("pretrain.training={seq_len: 128}", "training.steps", 300),
    18: ("pretrain.training.steps=0100", "training.steps", 100),
    19: ("pretrain.training.steps=0o17", "training.steps", 15),
    20: ("pretrain.training.steps=1_000", "training.steps", 1000),
    21: ("pretrain.data.path=*.txt", "data.path", "*.txt"),
    22: ("pretrain.data.path=/data #1", "data.path", "/data #1"),
    23: ("pretrain.data.path=a: b: c", "data.path", "a: b: c"),
    24: ("pretrain.data.path=@x", "data.path", "@x"),
    25: ("pretrain.data.path=[a, b]", "data.path", ["a", "b"]),
    26: ("pretrain.data.path=012", "data.path", "012"),
    27: ("pretrain.data.text_column=no", "data.text_column", "no"),
    28: ("pretrain.data.text_column=10:30", "data.text_column", "10:30"),
    29: ('pretrain.data.text_column="7"', "data.text_column", "7"),
    30: ("pretrain.data.limit=", "data.limit", None),
}


@pytest.mark.parametrize("case", KEYS)
def test_a_value_set_from_outside_is_what_its_key_wants(write: Write, load: Load, case: int) -> None:
    setting, key, value = KEYS[case]
    loaded = load(write(), setting)
    assert config_of(loaded, key) == value
    assert loaded.modules["pretrain"].origins[key if key in loaded.modules["pretrain"].origins else "data"]
    # A run in this process hands its settings on as a flow's parameters.
    parameters = {one.key: one.parameter for one in parse_settings([setting])}
    assert config_of(load_experiment(str(write()), None, parameter_settings(parameters)), key) == value


def test_null_from_outside_clears_a_section(write: Write, load: Load) -> None:
    path = write(
        modules__pretrain="training: {steps: 7, seq_len: 64}\noptimizer: {lr: 1e-3}",
        experiments__exp=experiment("overrides: {optimizer: {eps: 1e-6}}"),
    )
    default = load(path, "pretrain.optimizer=null").modules["pretrain"]
    assert (
        default.config["optimizer"]
        == load(write(modules__pretrain="training: {seq_len: 64}")).modules["pretrain"].config["optimizer"]
    )
    again = load(path, "pretrain.optimizer=null", "pretrain.optimizer.lr=3e-3")
    assert config_of(again, "optimizer.lr") == 3e-3


def test_31_a_models_arguments_may_be_set_at_once(write: Write, load: Load) -> None:
    for setting in (
        "pretrain.params={model_overrides: {model.n_layers: 5}}",
        "pretrain.params.model_overrides={model.n_layers: 5}",
    ):
        assert load(write(), setting).modules["pretrain"].model_args["n_layers"] == 5


def test_32_which_model_is_published_can_be_set(write: Write, load: Load) -> None:
    path = write(
        modules__publish="target: folder\nfolder: out",
        experiments__exp=f"modules:\n  pretrain: {{{MODULE}}}\n  publish: {{config: publish.yaml}}\n",
    )
    assert load(path, "publish.model=pretrain").modules["publish"].config["model"] == "pretrain"


def test_33_a_name_is_a_text(write: Write, load: Load) -> None:
    assert load(write(), "exp_name=012").exp_name == "012"
    assert load(write(), "user_name=1001").spec.user_name == "1001"
    assert load(write(experiments__exp=experiment("", "exp_name: 012\nuser_name: no"))).spec.user_name == "no"


SET_MISTAKES = {
    34: ("pretrain.training.steps=[1", "pretrain.training.steps: found '[1' (text)\n    expected: a whole number"),
    35: ("pretrain.training.steps=1:00", "found '1:00' (text)\n    expected: a whole number"),
    36: ("pretrain.training.steps=10:30", "found '10:30' (text)\n    expected: a whole number"),
    37: ("pretrain.training.steps=5 # five", "found '5 # five' (text)"),
    38: ("pretrain.training.steps=\t", "pretrain.training.steps: found null"),
    39: ("pretrain.training.steps={a: 1}", "found {'a': 1} (dict)\n    expected: a whole number"),
    40: ("pretrain.training=5", "pretrain.training: found 5 (int)\n    expected: a mapping"),
    41: ("pretrain.job=5", "pretrain.job: found 5 (int)\n    expected: a mapping"),
    42: ("pretrain.optimizer.lr=.inf", "pretrain.optimizer.lr: found inf (float)\n    expected: a finite number"),
    43: ("pretrain.optimizer.lr=.nan", "pretrain.optimizer.lr: found nan (float)\n    expected: a finite number"),
    44: ("pretrain.training.foo=3", "pretrain.training.foo: unknown key\n    if nothing needs"),
    45: (
        "training.foo=3",
        "training.foo: unknown key\n    a module's key starts with the module: pretrain.training.foo",
    ),
    46: ("pretrain=5", "pretrain: names a module, not a value in it"),
    47: ("modules=5", "modules: unknown key"),
    48: ("exp_name=../../evil", "exp_name: found '../../evil'\n    expected: at most 100 letters"),
    49: ("exp_name=/etc/x", "exp_name: found '/etc/x'"),
    50: ("exp_name=..", "exp_name: found '..'"),
    51: (f"exp_name={'x' * 300}", "expected: at most 100 letters"),
    52: ("pretrain.overrides=5", "pretrain.overrides: unknown key"),
    53: ("pretrain.params=5", "modules.pretrain.params: found 5 (int)\n    expected: a mapping"),
    108: ("publish.repo_id=me/x", "the experiment has no publish: modules: {publish: {…}} adds the stage"),
}


@pytest.mark.parametrize("case", SET_MISTAKES)
def test_a_setting_that_means_nothing_is_an_error(write: Write, mistakes: Callable[..., str], case: int) -> None:
    setting, message = SET_MISTAKES[case]
    assert message in mistakes(write(), setting)


FILES: dict[int, tuple[bytes, str]] = {
    54: (b"exp_name: tiny\nuser_name: Gr\xf6\xdfe\n", "exp.yaml:2: not UTF-8: invalid start byte at byte 28"),
    55: ("exp_name: tiny\n".encode("utf-16"), "exp.yaml:1: not UTF-8"),
    56: (b"exp_name: a\0b\n", "exp.yaml:1: not YAML: the character '\\x00' may not stand in it"),
    57: (b"exp_name: tiny\nmodules: !include x.yaml\n", "exp.yaml:2: not YAML: could not determine a constructor for"),
    58: (b"modules:\n  pretrain: !module {config: x}\n", "exp.yaml:2: found the tag !module\n    expected: no tag"),
    59: (b"? [a]\n: 3\n", "exp.yaml:1: a key is a text, not a list or a mapping"),
    60: (b"modules: &m\n  pretrain: *m\n", "exp.yaml:2: pretrain: stands within itself"),
    61: (b"ignore: &m [*m]\n", "exp.yaml:1: not YAML: found unconstructable recursive node"),
    62: (b"ignore: " + b"[" * 600 + b"]" * 600, "exp.yaml: too many levels, one within another"),
    63: (b"modules: " + b"{a: " * 600 + b"1" + b"}" * 600, "exp.yaml: too many levels, one within another"),
    64: (
        b"modules: [{config: x}]\n",
        "exp.yaml:1: modules: found a list\n    expected: each module under its name",
    ),
    65: (b"exp_name: tiny\nmodules: 5\n", "exp.yaml:2: modules: the experiment has no modules"),
    66: (b"exp_name: tiny\n\tx: 1\n", "exp.yaml:2: not YAML: found character '\\t'"),
    67: (b"<<: 5\n", "exp.yaml:1: <<: << takes a mapping, or a list of them"),
    68: (b"- a\n", "exp.yaml:1: the top of the file isn't a mapping"),
    69: (b"modules: {publish: {overrides: {evaluation: scores}}}\n", "publish.evaluation: found 'scores', which is no"),
    70: (b"%YAML 9.9\n---\na: 1\n", "exp.yaml:1: not YAML: found incompatible YAML document"),
    71: (b"a: 1\n---\nb: 2\n", "exp.yaml:2: not YAML: but found another document"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_cannot_be_read_is_an_error(write: Write, mistakes: Callable[..., str], case: int) -> None:
    raw, message = FILES[case]
    path = write()
    path.write_bytes(raw)
    assert message in mistakes(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_72_a_file_that_may_not_be_read_is_an_error(write: Write, mistakes: Callable[..., str]) -> None:
    path = write()
    path.chmod(0)
    assert "exp.yaml: can't be read: Permission denied" in mistakes(path)


@pytest.mark.parametrize("first", [True, False])
def test_73_a_merge_key_means_the_same_wherever_it_stands(tmp_path: Path, first: bool) -> None:
    lines = ["training: {steps: 5}", "<<: [*over, *base]"]
    path = tmp_path / "a.yaml"
    path.write_text(
        "base: &base {training: {steps: 7, seq_len: 64}, metrics: {log_freq: 3}}\n"
        "over: &over {metrics: {log_freq: 4}}\n"
        + "merged:\n  {}\n  {}\n".format(*(reversed(lines) if first else lines))
    )
    assert plain(read_tree(path))["merged"] == {"training": {"steps": 5}, "metrics": {"log_freq": 4}}


TYPES = {
    88: ("training: {steps: '${TF_X:3}'}", "training.steps", "0100", 100),
    89: ("optimizer: {lr: '${TF_X:3}'}", "optimizer.lr", "1e-4", 1e-4),
    90: ("checkpoint: {enable: '${TF_X:3}'}", "checkpoint.enable", "false", False),
    91: ("data: {path: '${TF_X:3}'}", "data.path", "[a, b]", ["a", "b"]),
    92: ("data: {path: ['${TF_X:3}', b]}", "data.path", "1001", ["1001", "b"]),
    93: ("data: {limit: '${TF_X:3}'}", "data.limit", "", None),
    94: ("optimizer: {lr: '${TF_X: -1}'}", "optimizer.lr", "2", 2),
}


@pytest.mark.parametrize("case", TYPES)
def test_a_variable_has_its_keys_type(write: Write, load: Load, monkeypatch: pytest.MonkeyPatch, case: int) -> None:
    overrides, key, said, value = TYPES[case]
    monkeypatch.setenv("TF_X", said)
    found = config_of(load(write(experiments__exp=experiment(f"overrides: {{{overrides}}}"))), key)
    assert found == value
    assert type(found) is type(value)


REPLACED = {
    105: ("optimizer: 1e-4", "{lr: 1e-3}", "pretrain.yaml:1: pretrain.optimizer: found 0.0001 (float)"),
    106: ("optimizer: [AdamW]", "{lr: 1e-3}", "pretrain.yaml:1: pretrain.optimizer: found ['AdamW'] (list)"),
    107: ("data: {columns: text}", "{}", "pretrain.yaml:1: pretrain.data.columns: found 'text' (text)"),
}


@pytest.mark.parametrize("case", REPLACED)
def test_what_a_section_is_laid_over_is_looked_at(write: Write, mistakes: Callable[..., str], case: int) -> None:
    below, optimizer, message = REPLACED[case]
    overrides = f"overrides: {{optimizer: {optimizer}, data: {{path: x.txt, columns: {{text: t}}}}}}"
    said = mistakes(write(modules__pretrain=below, experiments__exp=experiment(overrides)))
    assert f"{message}\n    expected: a mapping" in said


def test_108_what_a_file_extends_is_looked_at_too(write: Write, mistakes: Callable[..., str]) -> None:
    path = write(experiments__exp=experiment("overrides: {training: {steps: 3}}", "extends: below.yaml"))
    (path.parent / "below.yaml").write_text("nightly: often\nmodules: {pretrain: {overrides: {training: 5}}}\n")
    said = mistakes(path, "nightly.keep=2")
    assert "below.yaml:1: nightly: found 'often' (text)\n    expected: a mapping" in said
    assert "below.yaml:2: pretrain.training: found 5 (int)\n    expected: a mapping" in said


def test_109_so_is_what_another_setting_is_laid_over(write: Write, mistakes: Callable[..., str]) -> None:
    said = mistakes(write(), "pretrain.training=5", "pretrain.training.steps=3")
    assert "--set pretrain.training=5: pretrain.training: found 5 (int)\n    expected: a mapping" in said


@pytest.mark.parametrize("nothing", ["{}", "null", ""])
def test_110_an_empty_section_of_the_models_arguments_changes_nothing(write: Write, load: Load, nothing: str) -> None:
    model = f"model: {{name: llama3, flavor: 8B, rope_scaling_args: {nothing}}}\njob: {nothing}"
    loaded = load(write(models__tiny=model, experiments__exp=experiment("overrides: {training: {mock_data: true}}")))
    assert loaded.modules["pretrain"].model_overrides == {}
    assert loaded.modules["pretrain"].model_args["rope_scaling_args"]["scaling_factor"] == 8.0


NAMES = {111: "[llama3]", 112: "{x: 1}"}


@pytest.mark.parametrize("case", NAMES)
def test_a_name_is_a_text(write: Write, mistakes: Callable[..., str], case: int) -> None:
    said = mistakes(write(models__tiny=f"model: {{name: {NAMES[case]}, flavor: debugmodel}}"))
    assert "tiny.yaml:1: pretrain.model.name: found" in said


def test_113_no_argument_of_a_model_is_an_empty_mapping(write: Write, mistakes: Callable[..., str]) -> None:
    said = mistakes(write(models__tiny="model: {name: llama3, flavor: debugmodel, n_heads: {}}"))
    assert "pretrain.model.n_heads: found {}\n    expected: a whole number" in said


def test_114_a_nul_is_no_text(write: Write) -> None:
    with pytest.raises(ConfigError, match=r"pretrain\.job\.description: found 'a\\x00b'"):
        load_experiment(str(write()), None, parameter_settings({"pretrain.job.description": "a\0b"}))


def test_115_an_sft_of_a_module_without_a_model_is_no_traceback(write: Write, mistakes: Callable[..., str]) -> None:
    said = mistakes(
        write(
            experiments__exp="""
                modules:
                  pretrain: {config: pretrain.yaml}
                  sft:
                    config: sft.yaml
                    model: {name: llama3, flavor: 8B, rope_scaling_args: {scaling_factor: 2.0}}
                """
        )
    )
    assert "pretrain.model: model.name is required" in said


def test_116_a_framework_without_a_name_is_an_error(write: Write, mistakes: Callable[..., str]) -> None:
    said = mistakes(write(experiments__exp="modules: {pretrain: {config: pretrain.yaml, framework: ''}}"))
    assert "modules.pretrain.framework: found ''\n    expected: torchtitan" in said


@pytest.mark.parametrize("key", ["experimental.custom_args_module", "job.custom_config_module"])
@pytest.mark.parametrize("code", ["x = 1", "raise RuntimeError('no')", "def f(:", "JobConfig = 5"])
def test_117_a_module_of_ones_own_arguments_that_has_none_is_an_error(
    write: Write, mistakes: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str, code: str
) -> None:
    (tmp_path / "own_arguments_117.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_arguments_117", raising=False)
    setting = f"pretrain.{key}=own_arguments_117"
    said = mistakes(write(), setting)
    assert f"--set {setting}: pretrain.experimental.custom_args_module: own_arguments_117: " in said


@pytest.mark.parametrize("name", ["training.steps", "nonesuch"])
def test_118_an_ignored_key_that_leaves_nothing_out_is_said(write: Write, load: Load, name: str) -> None:
    loaded = load(write(), f"ignore=[{name}, primus]")
    assert [line for line in loaded.warnings if line.startswith(f"ignore: {name} (--set ")]
    assert loaded.ignored == []
