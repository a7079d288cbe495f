"""More of what people write: values that a stage would die of, and those that would be another folder or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from titanflow.common.errors import ConfigError, did_you_mean
from titanflow.config.checks.unusable_paths import named_by
from titanflow.config.experiment import Experiment, load_experiment
from titanflow.config.files.schema import BOUNDS, Schema, dataclass_schema
from titanflow.config.keys.bounds import EXPERIMENT, bounded
from titanflow.config.keys.experiment import ExperimentSpec
from titanflow.config.module import stage_schema
from titanflow.config.overrides import parameter_settings

Write = Callable[..., Path]
Load = Callable[..., Experiment]

DIED = {
    130: ("pretrain.training.gc_freq=0", "a whole number, at least 1"),
    131: ("pretrain.training.dataloader.num_workers=-1", "a whole number, at least 0"),
    132: ("pretrain.validation.seq_len=0", "a whole number, at least 1"),
    133: ("pretrain.comm.init_timeout_seconds=0", "a whole number, at least 1"),
    134: ("pretrain.activation_checkpoint.memory_budget=2", "a number, at least 0 and at most 1"),
    135: (
        "pretrain.debug.seed=18446744073709551616",
        "a whole number, at least 0 and at most 18446744073709551615",
    ),
    136: ("pretrain.profiling.profile_freq=0", "a whole number, at least 1"),
    137: ("pretrain.lr_scheduler.total_steps=0", "a whole number, at least 1"),
    138: ("pretrain.tokenizer.vocab_size=0", "a whole number, at least 1"),
    139: ("retries.lost=-1", "a whole number, at least 0"),
    140: ("nightly.keep=-5", "a whole number, at least 0"),
    141: ("pretrain.compile.backend=inductorx", "one of inductor, cudagraphs, eager"),
    142: ("pretrain.activation_checkpoint.selective_ac_option=²", "op, or every how many layers"),
    143: ("pretrain.parallelism.pipeline_parallel_schedule_csv=nosuch.csv", "a file with the schedule"),
    144: ("pretrain.checkpoint.load_step=7", "-1"),
    145: ("pretrain.checkpoint.folder=../../x", "checkpoint"),
    146: ('pretrain.job.description="\\ud800"', "text"),
}


@pytest.mark.parametrize("case", DIED)
def test_what_a_stage_would_die_of_is_an_error_of_the_plan(
    write: Write, mistakes: Callable[..., str], case: int
) -> None:
    setting, expected = DIED[case]
    said = mistakes(write(), setting)
    assert f"--set {setting}: {setting.partition('=')[0]}: " in said
    assert f"expected: {expected}" in said


def test_148_a_profile_fits_between_two(write: Write, mistakes: Callable[..., str], load: Load) -> None:
    on = "pretrain.profiling.enable_profiling=true"
    assert "found 10\n    expected: at least 23: p" in mistakes(write(), on, "pretrain.profiling.profiler_active=20")
    load(write(), on, "pretrain.profiling.profiler_active=7")
    load(write(), "pretrain.profiling.profiler_active=20")


def test_149_every_number_of_a_config_has_bounds() -> None:
    """Those without are compared with other values by a check, or any number serves."""
    degrees = ("context", "data_parallel_replicate", "data_parallel_shard", "pipeline", "tensor")
    checked = {
        *(f"parallelism.{one if 'data' in one else f'{one}_parallel'}_degree" for one in degrees),
        *(f"{section}.held_out.{part}" for section in ("data", "validation_data") for part in ("dev", "test")),
        *("data.limit", "validation_data.limit", "checkpoint.load_step", "gate.confidence"),
        "gate.margin",
    }
    schemas = [stage_schema(stage) for stage in ("pretrain", "sft", "evaluate", "publish")]
    schemas.append(bounded(dataclass_schema(ExperimentSpec), EXPERIMENT))
    assert {key for schema in schemas for key in _unbounded(schema)} == checked


def _unbounded(schema: Schema, above: str = "") -> Iterator[str]:
    for key, field in schema.get("properties", {}).items():
        for option in field.get("anyOf", [field]):
            if option.get("type") in ("integer", "number") and not BOUNDS.keys() & option.keys():
                yield f"{above}{key}"
        yield from _unbounded(field, f"{above}{key}.")


TAGS = {150: "!!bool x", 151: "!!timestamp x", 152: "!!int ''", 153: "!!float x", 154: "[!!bool x]"}


@pytest.mark.parametrize("case", TAGS)
def test_a_tag_that_does_not_fit_its_text_has_its_line(write: Write, mistakes: Callable[..., str], case: int) -> None:
    path = write()
    path.write_text(f"exp_name: tiny\nuser_name: {TAGS[case]}\n")
    assert "exp.yaml:2: not YAML: '" in (said := mistakes(path))
    assert "can't be read as" in said
    assert f"found {f'[{TAGS[case]}]'!r} (text)" in mistakes(write(), f"pretrain.training.steps=[{TAGS[case]}]")


SHELLS = {
    155: ("$HOME", "$HOME"),
    156: ("$HOME/runs", "$HOME"),
    157: ("/data/$USER/x", "$USER"),
    158: ("${NO_SUCH:$HOME/runs}", "$HOME"),
}


@pytest.mark.parametrize("case", SHELLS)
def test_a_shells_way_to_write_a_variable_is_an_error(write: Write, mistakes: Callable[..., str], case: int) -> None:
    value, found = SHELLS[case]
    expected = f"workspace: found {found}\n    expected: ${{NAME}} or ${{NAME:default}}"
    path = write()
    assert f"--set workspace={value}: {expected}" in mistakes(path, f"workspace={value}")
    path.write_text(f"workspace: {value}\n{path.read_text()}")
    assert f"exp.yaml:1: {expected}" in mistakes(path)


@pytest.mark.parametrize("text", ["${DOLLAR:$}HOME", "costs $5", "a$b", "$(date)", "$$"])
def test_159_other_texts_may_have_a_dollar(write: Write, load: Load, text: str) -> None:
    config = load(write(), f"pretrain.job.description={text}").modules["pretrain"].config
    assert config["job"]["description"] == text.replace("${DOLLAR:$}", "$")


def test_160_a_setting_may_name_a_variable(write: Write, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_X", "0100")
    monkeypatch.setenv("TF_Y", "${TF_X}")
    loaded = load(write(), "pretrain.training.steps=${TF_X}", "pretrain.data.path=[a, '${TF_X}']", "user_name=${TF_Y}")
    module = loaded.modules["pretrain"]
    assert (module.config["training"]["steps"], module.config["data"]["path"]) == (100, ["a", "0100"])
    assert module.origins["training.steps"] == "--set pretrain.training.steps=${TF_X} ($TF_X)"
    assert loaded.spec.user_name == "${TF_X}"
    given = parameter_settings({"pretrain.training": {"steps": "${TF_X}"}})
    assert load_experiment(str(write()), None, given).modules["pretrain"].config["training"]["steps"] == 100


def test_161_a_variable_that_is_not_there_is_told_with_the_whole_key(
    write: Write, mistakes: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TF_X", raising=False)
    assert "pretrain.training.steps: the environment has no TF_X" in mistakes(
        write(), "pretrain.training.steps=${TF_X}"
    )
    path = write(modules__base="metrics: {log_freq: '${TF_X}'}")
    assert "base.yaml:1: metrics.log_freq: the environment has no TF_X" in mistakes(path)


TWICE = {
    162: "params: {model_overrides: {model.n_layers: 3, model: {n_layers: 4}}}",
    163: "params: {model_overrides: {model: {n_layers: 4}, model.n_layers: 3}}",
    164: "params: {model_overrides: {model.n_layers: 3}}, overrides: {model: {n_layers: 4}}",
}


@pytest.mark.parametrize("case", TWICE)
def test_a_file_gives_an_argument_one_value(write: Write, load: Load, mistakes: Callable[..., str], case: int) -> None:
    entry = f"modules: {{pretrain: {{config: pretrain.yaml, model: tiny.yaml, {TWICE[case]}}}}}"
    said = mistakes(write(experiments__exp=entry))
    assert "exp.yaml:1: pretrain.model.n_layers: found " in said
    assert "expected: one of both" in said
    path = write(experiments__exp=entry.replace("4", "3"))
    assert load(path).modules["pretrain"].model_args["n_layers"] == 3
    assert load(path, "pretrain.model.n_layers=5").modules["pretrain"].model_args["n_layers"] == 5


FOLDERS = {
    165: ("workspace=''", "workspace: found '': an empty text would be the current folder"),
    166: ("workspace=~no.such.user/runs", "found '~no.such.user/runs': there is no user 'no.such.user'"),
    167: ("publish.folder=~no.such.user/x", "publish.folder: found '~no.such.user/x': there is no user"),
    168: ("pretrain.data.path=['']", "pretrain.data.path: found [''], and an empty text would be the current folder"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_name_that_would_be_another_folder_is_an_error(write: Write, mistakes: Callable[..., str], case: int) -> None:
    setting, message = FOLDERS[case]
    publish = "publish: {config: null, overrides: {model: pretrain}}"
    entry = f"modules: {{pretrain: {{config: pretrain.yaml, model: tiny.yaml}}, {publish}}}"
    assert message in mistakes(write(experiments__exp=entry), setting)


def test_169_a_refused_path_is_told_of_the_key_that_leads_to_it(write: Write, load: Load, tmp_path: Path) -> None:
    """``model`` of ``compile.components`` is a part of the file's name, and no path to it."""
    loaded = load(write(), f"pretrain.data.path={tmp_path}/texts/*.txt")
    with (
        pytest.raises(ConfigError, match=r"pretrain\.data\.path: found .*modeling\.txt: Permission denied"),
        named_by(loaded),
    ):
        raise PermissionError(13, "Permission denied", f"{tmp_path}/texts/modeling.txt")
    with pytest.raises(ConfigError, match=r"^found /elsewhere/model: "), named_by(loaded):
        raise PermissionError(13, "Permission denied", "/elsewhere/model")


def test_170_code_that_is_not_here_is_told_for_torchtitans_own_families_too(write: Write, load: Load) -> None:
    loaded = load(write(), "pretrain.experimental.custom_import=no_such_code")
    assert any("no module 'no_such_code' here" in line for line in loaded.warnings)


HINTS: dict[int, tuple[str, str]] = {
    171: ("pretrain.optimizer.name=adamw", "did you mean AdamW?"),
    172: ("pretrain.optimizer.implementation=Fused", "did you mean fused?"),
    173: ("PRETRAIN.training.steps=5", "did you mean pretrain?"),
}


@pytest.mark.parametrize("case", HINTS)
def test_upper_and_lower_case_are_seen_through(write: Write, mistakes: Callable[..., str], case: int) -> None:
    setting, hint = HINTS[case]
    assert hint in mistakes(write(), setting)


def test_174_what_is_meant_has_its_own_spelling() -> None:
    known: list[Any] = ["Adam", "AdamW"]
    assert did_you_mean("ADAM", known) == "did you mean Adam?"
    assert did_you_mean("zzz", known) == ""
