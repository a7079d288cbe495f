"""Experiments of Primus's shape: what only Primus reads is left out under one name."""

from pathlib import Path
from textwrap import dedent

import pytest
from typer.testing import CliRunner

from titanflow.cli.main import app
from titanflow.common.errors import ConfigError
from titanflow.config.experiment import Experiment, load_experiment
from titanflow.config.overrides import parse_settings

FILES = {
    "configs/modules/module_base.yaml": """
        trainable: false
        sink_level: null
        file_sink_level: DEBUG
        stderr_sink_level: INFO
        """,
    "configs/modules/torchtitan/pre_trainer.yaml": """
        extends: [../module_base.yaml]
        training: {mock_data: true, steps: 10}
        experimental:
          custom_args_module: primus.backends.torchtitan.primus_turbo_extensions.config_extension
        primus_turbo: {enable_primus_turbo: true}
        """,
    "configs/models/torchtitan/moe.yaml": """
        model:
          name: deepseek_v3
          flavor: debugmodel
          n_layers: 3
          converters:
            - primus_turbo
            - document_attention
        """,
    "examples/exp.yaml": """
        work_group: ${PRIMUS_TEAM:amd}
        workspace: ./output
        modules:
          pre_trainer:
            framework: torchtitan
            config: pre_trainer.yaml
            model: moe.yaml
            trainable: true
            overrides:
              sink_level: null
              parallelism: {expert_parallel_degree: 8}
              primus_turbo: {use_turbo_attention: false}
        """,
}
IGNORED = [
    "pre_trainer.trainable",
    "pre_trainer.model.converters:",
    "pre_trainer.experimental.custom_args_module:",
    "pre_trainer.trainable",
    "pre_trainer.sink_level",
    "pre_trainer.file_sink_level",
    "pre_trainer.stderr_sink_level",
    "pre_trainer.primus_turbo",
]


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text).lstrip("\n"))
    return tmp_path / "examples" / "exp.yaml"


def load(experiment: Path, *settings: str, starts: bool = False) -> Experiment:
    return load_experiment(str(experiment), experiment.parents[1] / "configs", parse_settings(settings), starts)


@pytest.mark.parametrize("ignore", ["primus", "[primus]", "[primus, training.fancy]"])
def test_what_only_primus_reads_is_left_out_by_its_name_and_said(experiment: Path, ignore: str) -> None:
    loaded = load(experiment, f"ignore={ignore}")
    assert [line.split(" ")[0] for line in loaded.ignored] == IGNORED
    assert all("yaml:" in line for line in loaded.ignored)
    module = loaded.modules["pre_trainer"]
    assert module.config["model"]["converters"] == ["document_attention"]
    assert module.origins["model.converters"].endswith("moe.yaml:6, without primus_turbo")
    assert module.config["experimental"]["custom_args_module"] == ""
    assert module.config["training"]["mock_data"] is True
    assert module.model_args["n_layers"] == 3
    assert "primus_turbo" not in module.config


def test_a_key_beside_the_list_is_left_out_with_it(experiment: Path) -> None:
    fancy = "pre_trainer.training.fancy=1"
    loaded = load(experiment, "ignore=[training.fancy, primus]", fancy)
    assert [line.split(" ")[0] for line in loaded.ignored][3:] == ["pre_trainer.training.fancy", *IGNORED[3:]]
    with pytest.raises(ConfigError, match=r"training\.fancy: unknown key"):
        load(experiment, "ignore=primus", fancy)


def test_without_the_list_each_is_refused(experiment: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)pre_trainer\.trainable: unknown key.*primus_turbo: unknown key"):
        load(experiment)


def test_the_list_leaves_what_the_project_knows(experiment: Path) -> None:
    loaded = load(experiment, "ignore=primus", "pre_trainer.model.converters=[quantize.linear.float8]")
    assert loaded.modules["pre_trainer"].config["model"]["converters"] == ["quantize.linear.float8"]


def test_a_config_is_read_where_it_is_never_run_and_a_plan_asks_for_its_processes(experiment: Path) -> None:
    lack = "expert_parallel_degree: found 8, with 1 of the processes"
    (warning,) = [line for line in load(experiment, "ignore=primus").warnings if "a run would be refused" in line]
    assert lack in warning
    with pytest.raises(ConfigError, match=lack) as raised:
        load(experiment, "ignore=primus", starts=True)
    assert "launcher.nproc_per_node: 8" in str(raised.value)
    enough = ("ignore=primus", "launcher.nproc_per_node=8")
    assert not any("refused" in line for line in load(experiment, *enough, starts=True).warnings)


def test_machines_that_cannot_meet_are_a_plans_matter_too(experiment: Path) -> None:
    settings = ("ignore=primus", "launcher.nproc_per_node=8", "launcher.nnodes=2")
    assert any("rdzv_endpoint" in line for line in load(experiment, *settings).warnings)
    with pytest.raises(ConfigError, match="rdzv_endpoint"):
        load(experiment, *settings, starts=True)


def test_the_command_prints_such_a_config(experiment: Path) -> None:
    configs = str(experiment.parents[1] / "configs")
    arguments = ["config", str(experiment), "--configs", configs, "--set", "ignore=primus", "--module", "pre_trainer"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert done.output.count("ignored: ") == len(IGNORED)
    assert "a run would be refused" in done.output


LIST = """
    modules:
      - name: pretrain
        config: pretrain.yaml
        model: tiny.yaml
        overrides:
          training: {steps: 7}
      - config: sft.yaml
        name: sft
    """


def test_modules_may_be_a_list_of_mappings_with_names(write, load) -> None:
    loaded = load(write(experiments__exp=LIST), "sft.training.steps=9")
    assert list(loaded.modules) == ["pretrain", "sft"]
    assert loaded.modules["pretrain"].config["training"]["steps"] == 7
    assert loaded.modules["pretrain"].origins["training.steps"].endswith("exp.yaml:6")
    assert loaded.modules["sft"].config["training"]["steps"] == 9


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (LIST.replace("name: sft", "name: pretrain"), "exp.yaml:8: pretrain: stands here a second time"),
        (LIST.replace("name: sft", "framework: torchtitan"), "exp.yaml:2: modules: found a list"),
        (LIST.replace("steps: 7", "stepss: 7"), "exp.yaml:6: pretrain.training.stepss: unknown key"),
        ("modules: [pretrain, sft]", "exp.yaml:1: modules: found a list"),
        ("modules: []", "exp.yaml:1: modules: found a list"),
    ],
)
def test_a_list_of_modules_without_names_is_refused(write, mistakes, files: str, expected: str) -> None:
    assert expected in mistakes(write(experiments__exp=files))


def test_a_stages_other_name_leads_to_the_modules_own(experiment: Path) -> None:
    with pytest.raises(ConfigError, match=r"did you mean `pre_trainer\.training\.steps`\?"):
        load(experiment, "ignore=primus", "pretrain.training.steps=5")
    with pytest.raises(ConfigError, match=r"did you mean `pre_trainer\.model`\?"):
        load(experiment, "ignore=primus", "modules.pretrain.model=moe.yaml")
