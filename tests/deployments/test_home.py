from pathlib import Path

import pytest
import yaml

from deployments.home import CODE, home
from deployments.nightly import DEPLOYMENTS
from deployments.stage_pool import ENTRYPOINT
from flows.pretrain_sft import pretrain_sft
from flows.stage import run_stage
from titanflow.common.errors import ConfigError


def test_runs_start_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (tmp_path, CODE):
        monkeypatch.chdir(place)
        assert home() == place


@pytest.mark.parametrize("name", ["flows.py", "titan/__init__.py"])
def test_a_folder_that_hides_the_flows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    # A folder alone hides no package.
    (tmp_path / "tasks").mkdir()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"found {name}, which Prefect would import"):
        home()


def test_a_flow_is_found_by_its_module_wherever_it_lies() -> None:
    deployed = yaml.safe_load(DEPLOYMENTS.read_text(encoding="utf-8"))["deployments"]
    modules = {f"{flow.fn.__module__}.{flow.fn.__name__}" for flow in (pretrain_sft, run_stage)}
    assert {*(one["entrypoint"] for one in deployed), ENTRYPOINT} == modules
