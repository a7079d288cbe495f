"""torchtitan's TOML files as module files, each value with its line."""

from pathlib import Path

import pytest

from titanflow.common.errors import ConfigError
from titanflow.files.toml_source import read_toml
from titanflow.files.yaml_source import leaves, plain

TRAINING = """\
# a run of torchtitan's
[job]
description = "small"

[model]
name = "llama3"
flavor = "debugmodel"
n_layers = 2

[training]
steps = 9          # few
local_batch_size = 4

[quantize.linear.float8]
filter_fqns = [
    "output",      # not = this
    "[training]",
]
[activation_checkpoint]
mode = "none"
"""
EXPERIMENT = "modules: {pretrain: {config: run.toml}}\n"


@pytest.fixture
def experiment(write) -> Path:
    path = write(experiments__exp=EXPERIMENT)
    (path.parents[1] / "modules" / "run.toml").write_text(TRAINING)
    return path


def test_torchtitans_own_file_is_a_module_file(experiment: Path, load) -> None:
    pretrain = load(experiment, "pretrain.training.local_batch_size=2").modules["pretrain"]
    assert pretrain.config["training"]["steps"] == 9
    assert pretrain.config["training"]["local_batch_size"] == 2
    assert pretrain.config["quantize"]["linear"]["float8"]["filter_fqns"] == ["output", "[training]"]
    assert pretrain.model_args["n_layers"] == 2
    lines = {
        "job.description": 3,
        "model.n_layers": 8,
        "training.steps": 11,
        "quantize.linear.float8.filter_fqns": 15,
        "activation_checkpoint.mode": 20,
    }
    for key, line in lines.items():
        assert pretrain.origins[key].endswith(f"configs/modules/run.toml:{line}"), key


def test_its_mistakes_have_their_line(experiment: Path, mistakes) -> None:
    path = experiment.parents[1] / "modules" / "run.toml"
    path.write_text(TRAINING.replace("steps = 9 ", 'step = "many" '))
    assert "run.toml:11: pretrain.training.step: unknown key" in mistakes(experiment)


def test_a_file_of_the_folder_one_stands_in_may_be_named(
    experiment: Path, load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.toml").write_text(TRAINING.replace("steps = 9", "steps = 5"))
    monkeypatch.chdir(tmp_path)
    pretrain = load(experiment, "modules.pretrain.config=mine.toml").modules["pretrain"]
    assert (pretrain.config["training"]["steps"], pretrain.origins["training.steps"]) == (5, "mine.toml:11")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_value_has_the_line_that_it_begins_on(tmp_path: Path, end: str) -> None:
    text = end.join(
        [
            'top = """',
            "a = 1",
            '"""',
            "day = 2026-11-21",
            "in.line = {a = 1, b = {c = 2}}",
            '["a b".c]',
            "'x.y' = [",
            " [1, 2],",
            "]",
            "empty = {}",
            "[[rows]]",
            "n = 1",
            "[[rows]]",
            "n = 2",
        ]
    )
    path = tmp_path / "x.toml"
    path.write_bytes(text.encode())
    tree = read_toml(path)
    found = {key: int(leaf.origin.rpartition(":")[2]) for key, leaf in leaves(tree) if leaf.value != {}}
    assert found == {"top": 1, "day": 4, "in.line.a": 5, "in.line.b.c": 5, "a b.c.x.y": 7, "rows": 11}
    assert plain(tree["top"]) == "a = 1\n"
    assert plain(tree["day"]) == "2026-11-21"
    assert plain(tree["rows"]) == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"[training]\nsteps = \n", r"x\.toml:2: not TOML: Invalid value"),
        (b"[training]\nsteps = 1\nsteps = 2\n", r"x\.toml:3: not TOML: Cannot overwrite a value"),
        (b'a = """\n\nb = 1\n', r"x\.toml:4: not TOML: Unterminated string"),
        (b"a = 1\nb = '\xff'\n", r"x\.toml:2: not UTF-8"),
        (b"a = " + b"[" * 5000, r"x\.toml: too many levels"),
    ],
)
def test_what_is_no_toml_is_refused_with_its_line(tmp_path: Path, text: bytes, expected: str) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=expected):
        read_toml(path)


def test_a_toml_file_is_no_experiment(tmp_path: Path, mistakes) -> None:
    path = tmp_path / "run.toml"
    path.write_text(TRAINING)
    message = mistakes(path)
    assert "run.toml: a TOML file is a module's config, not an experiment" in message
    assert f"`modules: {{pretrain: {{config: {path}}}}}`" in message


def test_the_key_that_torchtitans_command_line_has_for_it_is_refused(write, mistakes) -> None:
    message = mistakes(write(), "pretrain.job.config_file=run.toml")
    assert "pretrain.job.config_file: found 'run.toml', which a stage doesn't read" in message
    assert "write `modules: {pretrain: {config: run.toml}}`" in message


def test_its_dataset_gives_way_to_data_of_ones_own_once_it_is_empty(experiment: Path, load, mistakes) -> None:
    path = experiment.parents[1] / "modules" / "run.toml"
    path.write_text(TRAINING.replace("steps = 9 ", 'dataset = "c4_test" '))
    data = "pretrain.data.path=a.txt"
    message = mistakes(experiment, data)
    assert "run.toml:11: pretrain.training.dataset: two sources: training.dataset and data" in message
    assert 'set pretrain.training.dataset: "" to leave it out' in message
    pretrain = load(experiment, data, 'pretrain.training.dataset=""', "pretrain.training.dataset_path=null")
    assert pretrain.modules["pretrain"].config["training"]["dataset"] == ""


def test_an_empty_dataset_is_nothing_to_fine_tune_on(write, mistakes) -> None:
    settings = ("sft.data.path=null", 'sft.training.dataset=""')
    assert "fine-tuning has nothing to train on" in mistakes(write(), *settings)
