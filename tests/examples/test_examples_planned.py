"""Each example is planned as it is, with its bases as published, and fits the GPU that it names."""

import re
from pathlib import Path

import pytest
from example_bases import publish_bases
from example_files import EXAMPLES
from local_hub import LocalHub
from tiny_experiment import ROOT
from tiny_hub import talk_to

from titanflow.planning.forecast.forecast import model_forecast
from titanflow.planning.plan import make_plan

GIB = 1 << 30
MARGIN = 0.9
"""The share of a GPU's memory that a forecast may take."""
PARAMETERS = {
    "hub_sft": 494_032_768,
    "hub_lora": 7_615_616_512,
    "hub_tools": 1_543_714_304,
    "hub_thinking": 596_049_920,
}
"""As published."""


@pytest.fixture(autouse=True)
def here(files: Path, hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    talk_to(hub, monkeypatch, tmp_path / "cache")
    publish_bases(hub, is_tiny=False)


def text_of(name: str) -> str:
    return (ROOT / "configs" / "experiments" / f"{name}.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_planned_as_it_is(name: str, files: Path, hub: LocalHub) -> None:
    before = sorted(files.iterdir())
    plan = make_plan(name, runs_here=False)
    training = "sft" if name.startswith("hub") else "pretrain"
    assert [stage.stage for stage in plan.stages] == ["prepare", training, "evaluate", "publish"]
    assert {stage.state for stage in plan.stages} == {"RUN"}
    # A test has not the memory and the disk of those who train such a model.
    assert [line for line in plan.config.warnings if "forecast to " not in line] == []
    assert sorted(files.iterdir()) == before
    assert hub.requests("resolve/.*safetensors") == 0
    if name in PARAMETERS:
        assert plan.stage(training).forecast.as_json()["parameters"] == PARAMETERS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_it_fits_the_gpu_that_it_names(name: str) -> None:
    named = int(re.search(r"For one GPU of (\d+) GB", text_of(name))[1])
    module = make_plan(name, runs_here=False).config.modules["sft"]
    memory = model_forecast(module, "cuda")[1]
    assert 0.3 * named * GIB < memory.total <= MARGIN * named * GIB


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short_and_the_page_has_it(name: str) -> None:
    lines = text_of(name).splitlines()
    assert len(lines) <= 30
    assert lines[0].startswith("# ")
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    assert f"[{name}](../configs/experiments/{name}.yaml)" in page
