"""What a module of an experiment may have in place of a file's name, and where a file isn't named."""

from pathlib import Path

import pytest

from titanflow.config.experiment import load_experiment
from titanflow.config.files.tree import SHIPPED


def module(line: str) -> str:
    return f"modules:\n  pretrain:\n    config: pretrain.yaml\n    {line}\n"


def test_a_model_may_stand_in_place_of_its_file(write, load) -> None:
    pretrain = load(write(experiments__exp=module("model: {name: llama3, flavor: debugmodel, n_layers: 3}")))
    found = pretrain.modules["pretrain"]
    assert (found.config["model"]["flavor"], found.model_args["n_layers"]) == ("debugmodel", 3)
    assert found.origins["model.n_layers"].endswith("exp.yaml:4")


def test_what_is_set_goes_over_such_a_model(write, load) -> None:
    path = write(experiments__exp=module("model: {name: llama3, flavor: debugmodel, n_layers: 3}"))
    assert load(path, "pretrain.model.n_layers=2").modules["pretrain"].model_args["n_layers"] == 2
    whole = load(path, "modules.pretrain.model={name: qwen3, flavor: debugmodel}").modules["pretrain"]
    assert (whole.config["model"]["name"], whole.model_args["n_layers"]) == ("qwen3", 3)
    assert load(path, "modules.pretrain.model=tiny.yaml").modules["pretrain"].model_args["n_layers"] == 6


def test_data_may_stand_in_place_of_its_file(write, load) -> None:
    lines = "model: tiny.yaml\n    data: {kind: text, path: a.txt}\n    validation_data: {kind: text, path: b.txt}"
    pretrain = load(write(experiments__exp=module(lines))).modules["pretrain"]
    assert (pretrain.config["data"]["path"], pretrain.config["validation_data"]["path"]) == ("a.txt", "b.txt")
    assert pretrain.origins["data.path"].endswith("exp.yaml:5")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("model: {name: llama3}", ["model.flavor is required"]),
        ("model: {name: llama3, flavor: tiny}", ["exp.yaml:4: pretrain.model.flavor: flavor 'tiny' not found"]),
        ("model: {name: llama3, flavor: debugmodel, n_layer: 2}", ["exp.yaml:4: pretrain.model.n_layer: unknown key"]),
        ("model: [llama3]", ["exp.yaml:4: modules.pretrain.model: found ['llama3']"]),
        ("data: {paths: a.txt}", ["exp.yaml:4: pretrain.data.paths: unknown key", "did you mean"]),
        (
            "model: tiny.yaml\n    params: {training: {steps: 5}}",
            ["exp.yaml:5: pretrain.params.training: unknown key", "write `overrides: {training: {steps: 5}}`"],
        ),
        (
            "model: tiny.yaml\n    params: {model: {n_layers: 4}}",
            ["pretrain.params.model", "write `params: {model_overrides: {model: {n_layers: 4}}}`"],
        ),
        (
            "model: tiny.yaml\n    params: {model.n_layers: 4}",
            ["pretrain.params.model.n_layers", "write `params: {model_overrides: {model.n_layers: 4}}`"],
        ),
    ],
)
def test_what_is_wrong_in_it_is_named_with_what_to_write(write, mistakes, line: str, expected: list[str]) -> None:
    message = mistakes(write(experiments__exp=module(line)))
    for part in expected:
        assert part in message, message


def test_a_config_in_place_of_a_module_file_is_refused_with_the_line_to_write(write, mistakes) -> None:
    path = write(experiments__exp="modules:\n  pretrain:\n    model: tiny.yaml\n    config: {training: {steps: 5}}\n")
    message = mistakes(path)
    assert "exp.yaml:4: modules.pretrain.config: found a mapping" in message
    assert "`overrides: {training: {steps: 5}}`" in message
    assert message.count("modules.pretrain.config") == 1


@pytest.mark.parametrize(("stage", "key"), [("evaluate", "limit"), ("publish", "repo_id")])
def test_params_of_a_stage_that_has_none_are_refused(write, mistakes, stage: str, key: str) -> None:
    spec = f"modules: {{{stage}: {{config: null, params: {{{key}: 4}}}}}}"
    message = mistakes(write(experiments__exp=spec))
    assert f"{stage}.params.{key}: unknown key" in message
    assert f"write `overrides: {{{key}: 4}}`" in message


def test_a_module_without_a_file_has_its_stages_and_says_so(write, load) -> None:
    loaded = load(write(experiments__exp="modules: {pretrain: {model: tiny.yaml}}"))
    assert loaded.modules["pretrain"].config["training"]["local_batch_size"] == 32
    assert loaded.modules["pretrain"].origins["training.local_batch_size"].endswith("configs/modules/pretrain.yaml:4")
    (warning,) = loaded.warnings
    assert "modules.pretrain.config isn't set" in warning
    assert "configs/modules/pretrain.yaml is taken" in warning


def test_null_takes_no_file(write, load) -> None:
    loaded = load(write(experiments__exp="modules: {pretrain: {config: null, model: tiny.yaml}}"))
    assert loaded.modules["pretrain"].config["training"]["local_batch_size"] == 8
    assert loaded.warnings == []


def test_a_tree_without_the_stages_file_has_the_one_that_comes_with_the_project(tmp_path: Path) -> None:
    path = tmp_path / "exp.yaml"
    path.write_text("modules: {pre_trainer: {model: {name: llama3, flavor: debugmodel}}}")
    (tmp_path / "tree").mkdir()
    loaded = load_experiment(str(path), tmp_path / "tree")
    origin = loaded.modules["pre_trainer"].origins["training.local_batch_size"]
    assert Path(origin.partition(":")[0]).resolve() == SHIPPED / "modules" / "pretrain.yaml"
    assert "modules.pre_trainer.config isn't set" in loaded.warnings[0]


def test_a_name_too_long_for_a_file_is_no_file(write, mistakes) -> None:
    assert "no file 'aaa" in mistakes(write(), f"pretrain.config={'a' * 5000}")
    assert "no experiment 'aaa" in mistakes("a" * 5000)


def test_an_evaluation_s_data_is_named_as_any_module_s(write, load) -> None:
    modules = "modules:\n  evaluate:\n    overrides: {tasks: [a]}\n    data: mine.yaml\n"
    path = write(experiments__exp=modules, data__mine="kind: evals\npath: a.jsonl\n", data__other="path: b.jsonl\n")
    assert load(path, "evaluate.data=other.yaml").modules["evaluate"].config["data"]["path"] == "b.jsonl"
    assert load(path, "evaluate.data={path: c.jsonl}").modules["evaluate"].config["data"]["path"] == "c.jsonl"


def test_a_section_that_is_set_goes_over_the_file_that_is_named(write, load) -> None:
    path = write(experiments__exp=module("model: tiny.yaml\n    data: mine.yaml"), data__mine="path: a\nlimit: 3\n")
    pretrain = load(path, "pretrain.data={path: b}", "pretrain.model={n_layers: 2}").modules["pretrain"]
    assert (pretrain.config["data"]["path"], pretrain.config["data"]["limit"]) == ("b", 3)
    assert pretrain.model_args["n_layers"] == 2


def test_all_files_that_are_not_there_are_named_at_once(write, mistakes) -> None:
    message = mistakes(
        write(experiments__exp=module("model: tinny.yaml\n    data: dta.yaml")), "pretrain.config=p.yaml"
    )
    for name in ("config: no file 'p.yaml'", "model: no file 'tinny.yaml'", "data: no file 'dta.yaml'"):
        assert f"modules.pretrain.{name}" in message
