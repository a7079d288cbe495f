"""Files of a config that lie in the home folder."""

from pathlib import Path

import pytest

from titanflow.config.experiment import load_experiment


def test_a_tree_an_experiment_and_what_it_extends_may_lie_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "tree" / "modules").mkdir(parents=True)
    (tmp_path / "tree" / "modules" / "mine.yaml").write_text("training: {steps: 7}\n")
    (tmp_path / "common.yaml").write_text("work_group: ours\n")
    (tmp_path / "e.yaml").write_text(
        "extends: ['~/common.yaml']\nexp_name: e\nmodules: {pretrain: {framework: torchtitan, config: '~/p.yaml'}}\n"
    )
    (tmp_path / "p.yaml").write_text(
        "model: {name: llama3, flavor: debugmodel}\nextends: ['~/tree/modules/mine.yaml']\n"
    )
    found = load_experiment("~/e.yaml", configs="~/tree")
    assert (found.spec.work_group, found.modules["pretrain"].config["training"]["steps"]) == ("ours", 7)
