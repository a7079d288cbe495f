import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from titanflow.config.experiment import load_experiment

ROOT = Path(__file__).parents[3]


def test_the_layers_go_over_each_other_in_order(write, load) -> None:
    path = write()
    pretrain = load(path).modules["pretrain"]
    assert pretrain.config["metrics"]["log_freq"] == 5
    assert pretrain.config["training"]["local_batch_size"] == 32
    assert pretrain.config["training"]["steps"] == 300
    assert load(path, "pretrain.training.steps=7").modules["pretrain"].config["training"]["steps"] == 7


def test_every_value_has_an_origin(write, load) -> None:
    values = load(write(), "pretrain.training.steps=7").modules["pretrain"].values()
    origin = {key: where for key, (_, where) in values.items()}
    assert origin["metrics.log_freq"].endswith("configs/modules/base.yaml:1")
    assert origin["training.seq_len"].endswith("configs/modules/pretrain.yaml:5")
    assert origin["model.name"].endswith("configs/models/tiny.yaml:2")
    assert origin["model.n_layers"].endswith("configs/experiments/exp.yaml:10")
    assert origin["training.steps"] == "--set pretrain.training.steps=7"
    assert origin["optimizer.lr"] == "torchtitan 0.2.2"
    assert origin["training.mock_data"] == "default"
    assert origin["model.n_heads"] == "llama3/debugmodel of torchtitan 0.2.2"
    assert all(origin.values())


def test_what_is_not_set_has_torchtitans_default(write, load) -> None:
    config = load(write()).modules["pretrain"].config
    assert config["optimizer"]["lr"] == 8e-4
    assert config["lr_scheduler"]["decay_type"] == "linear"


def test_the_environment_names_the_experiment(write, load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXP_NAME", raising=False)
    assert load(write()).exp_name == "tiny"
    monkeypatch.setenv("EXP_NAME", "other")
    assert load(write()).exp_name == "other"


def test_sft_has_its_bases_architecture_and_its_own_training(write, load) -> None:
    sft = load(write()).modules["sft"]
    assert sft.model_args["n_layers"] == 2
    assert sft.model_args["dim"] == 64
    assert sft.config["model"]["name"] == "llama3"
    assert sft.config["training"]["local_batch_size"] == 16
    assert sft.values()["model.name"] == ("llama3", "inherited from pretrain")


def test_several_mistakes_are_reported_together(write, mistakes) -> None:
    path = write(
        modules__pretrain="""
            training:
              local_batch_sizes: 3
              seq_len: "300"
            optimizer:
              learning_rate: 1e-4
            """
    )
    message = mistakes(path, "sft.training.nosuch=1")
    assert "4 problems" in message
    assert "pretrain.yaml:2: pretrain.training.local_batch_sizes: unknown key" in message
    assert "did you mean `pretrain.training.local_batch_size`?" in message
    assert "pretrain.yaml:3: pretrain.training.seq_len: found '300' (text)" in message
    assert "expected: a whole number" in message
    assert "take the quotes off: 300" in message
    assert "pretrain.optimizer.learning_rate: unknown key" in message
    assert "--set sft.training.nosuch=1: sft.training.nosuch: unknown key" in message


@pytest.mark.parametrize(
    ("files", "settings", "expected"),
    [
        ({}, ["pretrain.training.steps=many"], ["found 'many' (text)", "expected: a whole number"]),
        ({}, ["pretrain.training.steps=1.5"], ["found 1.5", "expected: a whole number"]),
        ({}, ["pretrain.training.steps=true"], ["found True", "expected: a whole number"]),
        ({}, ["pretrain.compile.enable=1"], ["found 1", "expected: true or false"]),
        ({}, ["pretrain.lr_scheduler.decay_type=cosin"], ["expected: one of linear, sqrt, cosine"]),
        ({}, ["pretrain.compile.components=[model, 3]"], ["expected: a list, each item text"]),
        ({}, ["pretrain.training=3"], ["pretrain.training: found 3", "expected: a mapping"]),
        ({}, ["training.steps=3"], ["starts with the module: pretrain.training.steps, sft.training.steps"]),
        ({}, ["steps=3"], ["starts with the module: pretrain.training.steps, sft.training.steps"]),
        ({}, ["pretrain.lr=3"], ["did you mean `pretrain.optimizer.lr`?"]),
        ({}, ["zzz.steps=3"], ["starts with the module: pretrain, sft"]),
        ({}, ["launcher.nproc_per_nod=2"], ["unknown key", "did you mean `launcher.nproc_per_node`"]),
        ({}, ["pretrain"], ["expected: dotted.key=value"]),
        ({}, ["modules.pretrian.training.steps=3"], ["unknown key", "did you mean pretrain?"]),
        ({}, ["modules.pretrain.model=nosuch"], ["pretrain.model", "did you mean tiny.yaml?"]),
        ({}, ["pretrain.config=pretran.yaml"], ["no file 'pretran.yaml'", "did you mean pretrain.yaml?"]),
        ({}, ["pretrain.model=nosuch"], ["pretrain.model", "did you mean tiny.yaml?"]),
        ({}, ["pretrain.model.flavor=9B"], ["flavor '9B' not found in model_args for 'llama3'", "debugmodel"]),
        ({}, ["pretrain.model.name=lama3"], ["no model 'lama3'", "did you mean llama3?"]),
        ({}, ["pretrain.model.n_layer=3"], ["pretrain.model.n_layer: unknown key"]),
        ({}, ["pretrain.model.n_layers=three"], ["found 'three'", "expected: a whole number"]),
        ({}, ["sft.model.n_layers=3"], ["found 3, and pretrain has 2", "keeps its base's architecture"]),
        ({}, ["sft.model.name=qwen3"], ["found 'qwen3', and pretrain has 'llama3'"]),
        ({}, ["pretrain.training.seq_len=200000"], ["found 200000, and pretrain.model.max_seq_len", "is 131072"]),
        (
            {},
            ["sft.training.seq_len=128"],
            ["found 128, and pretrain was trained with 64", "or raise pretrain.training.seq_len"],
        ),
        ({}, ["pretrain.data.path=a.txt", "pretrain.data.dataset=b"], ["two sources: path and dataset"]),
        ({}, ["sft.data.kind=text"], ["sft.data.kind", "takes conversations"]),
        ({}, ["sft.data.path=null"], ["sft.data: fine-tuning has nothing to train on", "modules.sft.data"]),
        ({"modules__base": "extends: [pretrain.yaml]"}, [], ["a cycle", "base.yaml → ", "pretrain.yaml"]),
        ({"modules__base": "extends: [nosuch.yaml]"}, [], ["extends: no file 'nosuch.yaml'", "a file in "]),
        ({"modules__base": "extends: 3"}, [], ["base.yaml:1: extends: takes a list of files"]),
        ({"modules__base": "training: {gc_freq: '${NOT_SET_ANYWHERE}'}"}, [], ["NOT_SET_ANYWHERE", "no default"]),
        ({"experiments__exp": "exp_name: x"}, [], ["the experiment has no modules"]),
        (
            {"experiments__exp": "modules: {pretrian: {config: pretrain.yaml}}"},
            [],
            ["the module's name says no kind of stage"],
        ),
        ({"experiments__exp": "modules: {pretrain: {confg: pretrain.yaml}}"}, [], ["confg", "did you mean"]),
        (
            {"experiments__exp": "modules: {pretrain: {config: pretrain.yaml}}"},
            [],
            ["model.name is required", "expected: a model file"],
        ),
    ],
)
def test_a_mistake_is_named_with_what_would_be_right(
    write, mistakes, files: dict[str, str], settings: list[str], expected: list[str]
) -> None:
    message = mistakes(write(**files), *settings)
    for part in expected:
        assert part in message, message


def test_an_override_outside_of_model_is_primuss_error(write, mistakes) -> None:
    path = write(
        experiments__exp="""
            modules:
              pretrain:
                config: pretrain.yaml
                model: tiny.yaml
                params: {model_overrides: {n_layers: 4}}
            """
    )
    message = mistakes(path)
    assert "Invalid override keys detected: ['n_layers']" in message
    assert "exp.yaml:5" in message
    assert "expected: model.n_layers" in message


def test_model_overrides_flat_nested_and_in_the_model_section_are_the_same(write, load) -> None:
    spellings = [
        "params: {model_overrides: {model.dim: 96, model.rope_scaling_args.scaling_factor: 2.0}}",
        "params: {model_overrides: {model: {dim: 96, rope_scaling_args: {scaling_factor: 2.0}}}}",
        "overrides: {model: {dim: 96, rope_scaling_args: {scaling_factor: 2.0}}}",
    ]
    experiment = "modules:\n  pretrain:\n    config: pretrain.yaml\n    model: tiny.yaml\n    {}\n"
    modules = [load(write(experiments__exp=experiment.format(line))).modules["pretrain"] for line in spellings]
    for module in modules:
        assert module.model_overrides == {"dim": 96, "rope_scaling_args.scaling_factor": 2.0}
        assert module.model_args["rope_scaling_args"]["scaling_factor"] == 2.0
        assert module.model_args["rope_scaling_args"]["low_freq_factor"] == 1.0


def test_ignore_lets_unknown_keys_pass_and_says_so(write, load, mistakes) -> None:
    experiment = """
        {ignore}
        platform: rack-7
        modules:
          pretrain:
            config: pretrain.yaml
            model: tiny.yaml
            overrides:
              sink_level: null
              turbo: {{enable: true, depth: 3}}
              training: {{fancy: 1}}
        """
    message = mistakes(write(experiments__exp=experiment.format(ignore="")))
    for key in ("platform", "pretrain.sink_level", "pretrain.turbo", "pretrain.training.fancy"):
        assert f"{key}: unknown key" in message
    ignore = "ignore: [platform, sink_level, turbo, pretrain.training.fancy]"
    loaded = load(write(experiments__exp=experiment.format(ignore=ignore)))
    assert [line.split(" ")[0] for line in loaded.ignored] == [
        "platform",
        "pretrain.sink_level",
        "pretrain.turbo",
        "pretrain.training.fancy",
    ]
    assert "turbo" not in loaded.modules["pretrain"].config


def test_ignore_does_not_unset_a_key_that_is_known(write, load) -> None:
    path = write()
    path.write_text("ignore: [training.steps]\n" + path.read_text())
    loaded = load(path)
    assert loaded.modules["pretrain"].config["training"]["steps"] == 300
    assert loaded.ignored == []


@pytest.mark.parametrize("key", ["modules.sft", "modules.sft.config", "modules.pretrain.overrides.training.steps"])
def test_ignore_takes_no_part_of_an_entry_away(write, load, key: str) -> None:
    path = write()
    path.write_text(f"ignore: [{key}]\n{path.read_text()}")
    loaded = load(path)
    assert (list(loaded.modules), loaded.ignored) == (["pretrain", "sft"], [])
    assert loaded.modules["pretrain"].config["training"]["steps"] == 300
    assert loaded.modules["sft"].config["training"]["local_batch_size"] == 16
    assert any("leaves nothing out" in line for line in loaded.warnings)


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        (["pretrain.training={}"], "pretrain.training.steps"),
        (["pretrain.model={}", "sft.metrics={}"], "sft.metrics.log_freq"),
        (["sft.lora.rank=4", "sft.lora={}"], "sft.lora.rank"),
        (["launcher.nproc_per_node=2", "launcher={}"], "launcher.nproc_per_node"),
    ],
)
def test_an_empty_setting_of_a_section_is_told(write, mistakes, settings: list[str], keys: str) -> None:
    key = settings[-1].partition("=")[0]
    message = mistakes(write(), *settings)
    told = f"{key}: an empty value changes nothing of a section\n    null clears it; or set the keys in it: {keys}"
    assert told in message


def test_null_clears_a_mapping_of_any_names(write, load) -> None:
    loaded = load(write(), "pretrain.optimizer.group_lr.router=1e-2", "pretrain.optimizer.group_lr=null")
    assert loaded.modules["pretrain"].config["optimizer"]["group_lr"] == {}


def test_an_empty_setting_of_what_has_no_values_is_nothing(write, load) -> None:
    assert load(write(), "sft.lora=null", "launcher={}").modules["sft"].config["lora"]["rank"] == 0


def test_a_tree_with_a_folder_per_framework(tmp_path: Path) -> None:
    """The layout of Primus: modules and models by framework, a module base above them."""
    files = {
        "configs/modules/module_base.yaml": "trainable: false\nsink_level: null\n",
        "configs/modules/torchtitan/pre_trainer.yaml": (
            "extends:\n  - ../module_base.yaml\ntraining:\n  mock_data: true\n  steps: 10000\n"
            "experimental:\n  custom_args_module: 'not.here'\nprimus_turbo:\n  enable_primus_turbo: true\n"
        ),
        "configs/models/torchtitan/llama3.1_8B.yaml": (
            "job:\n  dump_folder: './outputs'\n"
            "model:\n  name: 'llama3'\n  flavor: '8B'\n  converters: [document_attention]\n"
        ),
        "examples/exp.yaml": (
            "exp_name: llama\nmodules:\n  pre_trainer:\n    framework: torchtitan\n    config: pre_trainer.yaml\n"
            "    model: llama3.1_8B.yaml\n    overrides:\n      training:\n        seq_len: 8192\n"
        ),
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    experiment = tmp_path / "examples/exp.yaml"
    with pytest.raises(Exception, match=r"(?s)trainable: unknown key.*primus_turbo: unknown key"):
        load_experiment(str(experiment), tmp_path / "configs")
    experiment.write_text(experiment.read_text() + "ignore: [trainable, sink_level, primus_turbo]\n")
    loaded = load_experiment(str(experiment), tmp_path / "configs")
    module = loaded.modules["pre_trainer"]
    assert module is not None
    assert (module.name, module.model_args["dim"], module.config["training"]["seq_len"]) == ("pre_trainer", 4096, 8192)
    assert "not.here" in loaded.warnings[0]


def test_a_users_own_config_module_adds_keys(write, load, mistakes, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "my_additions.py").write_text(
        "from dataclasses import dataclass, field\n"
        "@dataclass\nclass Extra:\n    depth: int = 3\n"
        "@dataclass\nclass JobConfig:\n    extra: Extra = field(default_factory=Extra)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = ["pretrain.experimental.custom_args_module=my_additions", "pretrain.extra.depth=5"]
    assert load(write(), *settings).modules["pretrain"].config["extra"] == {"depth": 5}
    assert "found 'x'" in mistakes(write(), settings[0], "pretrain.extra.depth=x")
    sys.modules.pop("my_additions", None)


def test_an_experiment_is_found_by_name_and_a_wrong_name_names_the_nearest(write) -> None:
    path = write()
    assert load_experiment("exp", path.parents[1]).exp_name == "tiny"
    with pytest.raises(Exception, match=r"no experiment 'expp'(?s:.*)did you mean exp\?"):
        load_experiment("expp", path.parents[1])


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "configs" / "experiments").glob("*.yaml")))
@pytest.mark.usefixtures("shipped_bases")
def test_every_experiment_that_ships_resolves(name: str) -> None:
    loaded = load_experiment(name, ROOT / "configs")
    assert loaded.modules


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "models").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_model_file_that_ships_resolves(path: Path, write, load: Callable) -> None:
    tree = write(
        models__tiny=path.read_text(),
        experiments__exp="modules: {pretrain: {config: pretrain.yaml, model: tiny.yaml}}",
    )
    module = load(tree, "pretrain.model.n_layers=2").modules["pretrain"]
    assert module.model_args["n_layers"] == 2


def test_a_dotted_key_says_where_it_stands(write, mistakes) -> None:
    path = write()
    path.write_text("modules:\n  pretrain: {overrides: {training.steps: 5}}\n")
    assert "pretrain.training.steps: unknown key\n    write it in its section: training: {steps: …}" in mistakes(path)


def test_a_module_has_one_name(write, mistakes) -> None:
    path = write()
    path.write_text("modules:\n- name: pretrain\n  name: sft\n")
    assert f"{path}:3: modules.pretrain.name: unknown key" in mistakes(path)


def test_a_workspace_may_lie_in_the_home_folder(write, load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(write(), "workspace=~/runs").workspace == tmp_path / "runs"
