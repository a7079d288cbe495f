"""An experiment is called as its file, unless it says otherwise."""

from pathlib import Path

import pytest
import yaml

from titanflow.cli.values import resolved_values
from titanflow.common.errors import ConfigError
from titanflow.config.experiment import experiment_name, load_experiment
from titanflow.config.files.tree import SHIPPED
from titanflow.config.overrides import parse_settings

MODULES = "modules: {pretrain: {model: {name: llama3, flavor: debugmodel}}}\n"


@pytest.mark.parametrize("name", ["mine", "Mine", "mine.v2", "2-mine_x"])
def test_its_name_is_the_file_s(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.yaml"
    path.write_text(MODULES)
    (tmp_path / "link.yaml").symlink_to(path)
    assert load_experiment(str(path)).exp_name == experiment_name(str(path)) == name
    assert resolved_values(load_experiment(str(path)))["exp_name"] == (name, f"the name of {path}")
    assert load_experiment(str(tmp_path / "link.yaml")).exp_name == "link"
    path.write_text(f"exp_name: 012\n{MODULES}")
    settings = parse_settings(["exp_name=other"])
    assert load_experiment(str(path)).exp_name == experiment_name(str(path)) == "012"
    assert load_experiment(str(path), None, settings).exp_name == experiment_name(str(path), None, settings) == "other"


@pytest.mark.parametrize(
    ("name", "fit"),
    [("my exp", "my-exp"), (".mine", "mine"), ("größe", "gro-e"), ("漢", "mine"), ("a" * 101, "a" * 101)],
)
def test_a_file_s_name_that_fits_no_folder_and_tag_is_refused_with_what_to_write(
    tmp_path: Path, name: str, fit: str
) -> None:
    path = tmp_path / f"{name}.yaml"
    path.write_text(MODULES)
    with pytest.raises(ConfigError) as raised:
        load_experiment(str(path))
    message = str(raised.value)
    assert f"{path}:1: exp_name: found '{name}'" in message
    assert f"rename the file, or write `exp_name: {fit[:100]}` into it" in message
    path.write_text(f"exp_name: {fit[:100]}\n{MODULES}")
    assert load_experiment(str(path)).exp_name == fit[:100]


@pytest.mark.parametrize("path", sorted((SHIPPED / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
@pytest.mark.usefixtures("shipped_bases")
def test_a_copy_of_a_shipped_experiment_shares_no_folder_with_it(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "mine.yaml"
    copy.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    mine, shipped = load_experiment(str(copy)), load_experiment(str(path))
    assert (mine.exp_name, shipped.exp_name) == ("mine", path.stem)
    folders = [one.modules["publish"].config["folder"] for one in (mine, shipped) if "publish" in one.modules]
    assert folders in ([], [None, None], ["./runs/published/mine", f"./runs/published/{path.stem}"])
    assert "exp_name" not in yaml.safe_load(path.read_text(encoding="utf-8"))
