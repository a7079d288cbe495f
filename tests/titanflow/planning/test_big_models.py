"""Models that no test machine could train are planned on random tokens, with no Hub to ask: docs/qwen3-8b.md."""

import re
from pathlib import Path

import pytest
import yaml
from tiny_experiment import ROOT

from titanflow.planning.plan import make_plan
from titanflow.planning.stage_plan import Plan

PAGE = (ROOT / "docs" / "qwen3-8b.md").read_text()
SHIPPED = sorted(path.name for path in (ROOT / "configs" / "models").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens there, and nothing is cached."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "no-cache"))


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """A folder of configs with the page's two files, beside the modules that are shipped."""
    root = tmp_path / "configs"
    for name in re.findall(r"`configs/((?:models|experiments)/\w+\.yaml)`", PAGE):
        text = PAGE[PAGE.index(f"`configs/{name}`") :]
        (path := root / name).parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.partition("```yaml\n")[2].partition("```")[0])
    (root / "modules").symlink_to(ROOT / "configs" / "modules")
    return root


def planned(configs: Path, workspace: Path, *settings: str) -> Plan:
    return make_plan("qwen3", configs, overrides=[f"workspace={workspace}", *settings], runs_here=False)


def test_the_page_s_qwen3_8b_is_planned(configs: Path, tmp_path: Path) -> None:
    plan = planned(configs, tmp_path / "runs")
    (pretrain,) = plan.stages
    assert (pretrain.state, pretrain.run.tokenizer) == ("RUN", None)
    assert pretrain.run.config["model"]["hf_assets_path"] == "Qwen/Qwen3-8B"
    assert pretrain.forecast is not None
    assert round(pretrain.forecast.as_json()["parameters"] / 1e9, 1) == 8.2
    written = yaml.safe_load((configs / "models" / "my_qwen3_8b.yaml").read_text())["model"]
    shipped = yaml.safe_load((ROOT / "configs" / "models" / "qwen3_8B.yaml").read_text())["model"]
    assert written == shipped


@pytest.mark.parametrize("model", SHIPPED)
def test_every_shipped_model_is_planned(configs: Path, tmp_path: Path, model: str) -> None:
    (configs / "models" / model).write_text((ROOT / "configs" / "models" / model).read_text())
    settings = [f"modules.pretrain.model={model}", "pretrain.launcher.nproc_per_node=1"]
    assert [stage.stage for stage in planned(configs, tmp_path / "runs", *settings).stages] == ["pretrain"]
