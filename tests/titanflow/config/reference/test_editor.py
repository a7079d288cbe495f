"""The JSON schemas for editors take every shipped config, and refuse a typo at each level."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from titanflow.config.experiment import load_experiment
from titanflow.config.reference.editor import editor_comment, editor_schema
from titanflow.config.reference.kinds import KINDS, Kind
from titanflow.files.yaml_source import plain, read_tree

CONFIGS = Path(__file__).parents[4] / "configs"
OF_MODULES: dict[str, Kind] = {"evaluate": "evaluate", "publish": "publish"}
OF_FOLDERS: dict[str, Kind] = {"experiments": "experiment", "models": "model", "data": "data"}
SHIPPED = [path.relative_to(CONFIGS) for path in sorted(CONFIGS.rglob("*.yaml")) if path.parent.name != "evals"]


@cache
def validator(kind: Kind) -> Draft202012Validator:
    return Draft202012Validator(editor_schema(kind))


def mistakes(kind: Kind, config: Any) -> list[str]:
    return [f"{list(error.absolute_path)}: {error.message}" for error in validator(kind).iter_errors(config)]


def kind_of(file: Path) -> Kind:
    return OF_FOLDERS.get(file.parts[0]) or OF_MODULES.get(file.stem, "training")


def read(file: Path) -> Any:
    return plain(read_tree(CONFIGS / file))


@pytest.mark.parametrize("file", SHIPPED, ids=str)
def test_a_shipped_config_is_valid(file: Path) -> None:
    assert mistakes(kind_of(file), read(file)) == []


def levels(config: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every mapping whose keys the schema knows."""
    yield above
    for key, value in config.items():
        # These map names that the user chooses, or that a backend knows.
        if isinstance(value, dict) and key not in (
            "models",
            "modules",
            "sources",
            "columns",
            "roles",
            "group_lr",
            "thresholds",
            "gen_kwargs",
            "models",
        ):
            yield from levels(value, (*above, key))
        elif key in ("modules", "sources"):
            for name, one in value.items():
                yield from levels(one, (*above, key, name))


@pytest.mark.parametrize("file", SHIPPED, ids=str)
def test_a_typo_at_any_level_is_not(file: Path) -> None:
    config = read(file)
    for path in levels(config):
        wrong = copy.deepcopy(config)
        section = wrong
        for key in path:
            section = section[key]
        section["tpyo"] = 1
        assert not validator(kind_of(file)).is_valid(wrong), path


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("training", {"training": {"steps": 0}}),
        ("training", {"training": {"steps": "many"}}),
        ("training", {"validation": {"enable": 1}}),
        ("model", {"model": {"name": "llama3", "n_layres": 4}}),
        ("model", {"model": {"moe_args": {"top_q": 1}}}),
        ("data", {"kind": "chats"}),
        ("data", {"mixture": {"sources": {"a": {"wieght": 2}}}}),
        ("experiment", {"modules": {"pretrian": {}}}),
        ("experiment", {"modules": {"sft": {"overrides": {"lora": {"rnak": 8}}}}}),
        ("experiment", {"modules": {"publish": {"model": {"name": "llama3"}}}}),
        ("experiment", {"modules": {"pretrain": {"params": {"model_overrides": {"n_layers": 4}}}}}),
    ],
)
def test_a_wrong_value_or_place_is_not(kind: Kind, config: dict[str, Any]) -> None:
    assert mistakes(kind, config)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("training", {"training": {"steps": "${STEPS:300}"}, "optimizer": None}),
        ("training", {"launcher": {"slurm": {"time": 90, "partition": 7}}}),
        ("model", {"model": {"name": "qwen3", "moe_args": {"top_k": 2}, "moe_args.num_experts": 4}}),
        ("experiment", {"user_name": 1001, "modules": [{"name": "pretrain"}]}),
        ("experiment", {"modules": {"pretrain": {"model": {"name": "llama3", "flavor": "debugmodel"}, "data": {}}}}),
        ("experiment", {"modules": {"pretrain": {"params": {"model_overrides": {"model.n_layers": 4}}}}}),
    ],
)
def test_what_the_reader_takes_is_valid(kind: Kind, config: dict[str, Any]) -> None:
    assert mistakes(kind, config) == []


@pytest.mark.parametrize("experiment", ["stdlib", "families"])
def test_every_value_of_a_resolved_module_is_valid(experiment: str) -> None:
    for module in load_experiment(experiment, starts=False).modules.values():
        assert mistakes(OF_MODULES.get(module.kind, "training"), module.config) == []


# The others are made of the same parts, and an experiment's takes ten seconds.
@pytest.mark.parametrize("kind", ["model", "evaluate", "data"])
def test_a_schema_is_one_itself(kind: Kind) -> None:
    Draft202012Validator.check_schema(editor_schema(kind))


def test_each_kind_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    from titanflow.cli.show import config

    for kind in KINDS:
        config(json_schema=kind)
    assert capsys.readouterr().out.count('"$schema": "https://json-schema.org/draft/2020-12/schema"') == len(KINDS)


def test_an_editor_is_sent_to_a_schema_that_is_there(tmp_path: Path) -> None:
    assert editor_comment(tmp_path) == ""
    (tmp_path / "experiment.schema.json").write_text("{}", encoding="utf-8")
    assert editor_comment(tmp_path) == "# yaml-language-server: $schema=experiment.schema.json\n"
