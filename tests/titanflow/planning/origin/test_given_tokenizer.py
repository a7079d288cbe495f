"""A tokenizer that a config names and that isn't there is named by its own key and line."""

import json

import pytest

from titanflow.common.errors import ConfigError
from titanflow.planning.plan import make_plan

MODULE = {"config": None, "model": {"name": "llama3", "flavor": "debugmodel"}}


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ({"tokenizer": {"path": "nowhere"}}, "tokenizer.path"),
        ({"model": {"hf_assets_path": "nowhere"}}, "model.hf_assets_path"),
    ],
)
def test_the_key_that_names_it_is_named(tmp_path, monkeypatch: pytest.MonkeyPatch, overrides: dict, key: str) -> None:
    monkeypatch.chdir(tmp_path)
    overrides["data"] = {"source": "stdlib"}
    experiment = {"workspace": "runs", "modules": {"pretrain": {**MODULE, "overrides": overrides}}}
    (tmp_path / "exp.yaml").write_text(json.dumps(experiment))
    with pytest.raises(ConfigError, match=rf"exp\.yaml:1: pretrain\.{key}: nowhere isn't there \(looked for it in "):
        make_plan("exp.yaml")
    assert not (tmp_path / "runs").exists()
