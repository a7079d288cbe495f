import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from finished_stage import write_checkpoint

from titanflow.common.errors import ConfigError
from titanflow.planning.forecast import forecasts
from titanflow.planning.forecast.device import DeviceSpec
from titanflow.planning.forecast.forecast import Forecast
from titanflow.planning.forecast.forecasts import add_forecasts, device_of
from titanflow.planning.plan import make_plan

GIB = 1 << 30
LARGE = ["pretrain.model.dim=2048", "pretrain.model.n_layers=16", "pretrain.model.n_heads=16"]
"""0.8 B parameters: 12 GiB of weights, gradients and moments."""


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets every stage run on a device of so many GiB."""

    def has(gib: float | None, kind: Any = "cuda", name: str = "NVIDIA A100-SXM4") -> None:
        spec = DeviceSpec(kind, name, None if gib is None else int(gib * GIB), 2)
        monkeypatch.setattr(forecasts, "device_of", lambda launcher: spec)

    return has


def forecast(configs: Path, stage: str, *settings: str, runs_here: bool = True) -> Forecast:
    found = make_plan("tiny", configs, overrides=settings, runs_here=runs_here).stage(stage)
    assert found is not None
    assert found.forecast is not None
    return found.forecast


def test_parameters_operations_and_tokens(configs: Path) -> None:
    found = forecast(configs, "pretrain")
    # Embedding and head 2 × 320 × 32, two blocks of 4 × 32² and 3 × 32 × 96, norms 5 × 32.
    parameters = 20_480 + 2 * (4_096 + 9_216) + 160
    a_token = 6 * (parameters - 10_240) + 6 * 2 * 2 * 2 * 16 * 48
    tokens = 12 * 4 * 48
    assert (found.parameters, found.trained_parameters) == (parameters, parameters)
    assert (found.tokens, found.flops) == (tokens, a_token * tokens)
    assert forecast(configs, "evaluate").parameters is None


def test_adapters(configs: Path) -> None:
    found = forecast(configs, "sft", "sft.lora.rank=4")
    assert found.parameters == 47_264
    assert found.trained_parameters == 2 * 4 * (4 * 64 + 3 * 128)


def test_of_a_training_that_goes_on_only_the_rest(configs: Path, tmp_path: Path) -> None:
    plan = make_plan("tiny", configs)
    stage = plan.stage("pretrain")
    assert stage is not None
    write_checkpoint(stage.run.folder / "checkpoint" / "step-8")
    (stage.run.folder / "checkpoint" / "step-11").mkdir()
    stage.state = "RESUME"
    add_forecasts([stage], plan.config, tmp_path / "runs", runs_here=True)
    assert stage.forecast is not None
    assert stage.forecast.tokens == (12 - 8) * 4 * 48


def test_what_is_done_has_no_forecast(configs: Path, tmp_path: Path) -> None:
    plan = make_plan("tiny", configs)
    for stage in plan.stages:
        stage.state, stage.forecast = "CACHED", None
    add_forecasts(plan.stages, plan.config, tmp_path / "runs", runs_here=True)
    assert [stage.forecast for stage in plan.stages] == [None] * 5


def test_a_price(configs: Path) -> None:
    found = forecast(configs, "pretrain", "price_per_hour=3.6", "pretrain.launcher.nproc_per_node=2")
    assert found.seconds is not None
    assert found.cost == pytest.approx(found.seconds * 2 * 3.6 / 3600)
    assert forecast(configs, "pretrain").cost is None


def test_what_can_t_fit_is_refused_before_anything_is_written(
    configs: Path, tmp_path: Path, device: Callable[..., None]
) -> None:
    device(10)
    with pytest.raises(ConfigError) as refused:
        make_plan("tiny", configs, overrides=LARGE)
    pretrain, sft = refused.value.problems
    assert "weights, gradients and optimizer take 12.0 GiB a rank" in pretrain.message
    assert "it has 10.0 GiB (NVIDIA A100-SXM4)" in pretrain.message
    assert pretrain.key == "pretrain.model.flavor"
    assert "models/tiny.yaml:1" in pretrain.origin
    assert "launcher.nproc_per_node: 2 (FSDP" in pretrain.hint
    assert "lora" not in pretrain.hint
    assert "lora.rank: 16" in sft.hint
    assert not (tmp_path / "runs").exists()


def test_on_another_machine_it_may_fit(configs: Path, device: Callable[..., None]) -> None:
    device(10)
    plan = make_plan("tiny", configs, overrides=LARGE, runs_here=False)
    assert any("on this machine a run would be refused" in line and "GiB" in line for line in plan.config.warnings)


def test_what_may_not_fit_is_a_warning_that_says_what_would(configs: Path, device: Callable[..., None]) -> None:
    settings = [f"{stage}.training.seq_len=4096" for stage in ("pretrain", "sft")]
    settings += ["pretrain.training.local_batch_size=64", "pretrain.training.global_batch_size=64"]
    device(2)
    warnings = make_plan("tiny", configs, overrides=settings).config.warnings
    (warning,) = [line for line in warnings if "forecast to take" in line]
    assert "pretrain.training.local_batch_size" in warning
    # 32 would still be too many; four ranks share the rows of the global batch, 16 each.
    assert "it fits with training.local_batch_size: 16, or launcher.nproc_per_node: 4" in warning
    device(200)
    assert not [line for line in make_plan("tiny", configs, overrides=settings).config.warnings if "GiB" in line]


def test_the_ranks_of_a_machine_share_its_memory(configs: Path, device: Callable[..., None]) -> None:
    ddp = ["pretrain.launcher.nproc_per_node=2", "pretrain.parallelism.data_parallel_replicate_degree=2"]
    ddp += ["pretrain.parallelism.data_parallel_shard_degree=1"]
    sizes = [*LARGE, *(line.replace("pretrain", "sft") for line in ddp)]
    device(24, "cpu", "two cores")
    make_plan("tiny", configs, overrides=LARGE)
    with pytest.raises(ConfigError, match=r"it has 12\.0 GiB \(two cores\)"):
        make_plan("tiny", configs, overrides=[*sizes, *ddp])


def test_a_device_that_isn_t_known_refuses_nothing(configs: Path, device: Callable[..., None]) -> None:
    device(None)
    assert make_plan("tiny", configs, overrides=LARGE).stages


def test_a_family_of_one_s_own_has_no_formula(tmp_path: Path, configs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_family.py").write_text("")
    (configs / "models" / "tiny.yaml").write_text(
        "model: {name: mine, flavor: small}\nexperimental: {custom_import: my_family}\n"
    )
    (configs / "experiments" / "tiny.yaml").write_text(
        (configs / "experiments" / "tiny.yaml").read_text().split("  sft:")[0] + "      tokenizer: {vocab_size: 320}\n"
    )
    found = forecast(configs, "pretrain")
    assert (found.parameters, found.memory, found.seconds) == (None, None, None)
    assert found.unknown == "no formula for the family mine"
    assert found.tokens == 12 * 4 * 48


def test_the_plan_as_json_has_it(configs: Path) -> None:
    plan = make_plan("tiny", configs)
    found = json.loads(json.dumps(plan.as_json()))["stages"][1]["forecast"]
    assert found["parameters"] == 47_264
    assert found["memory"]["total"] > found["memory"]["certain"] > 0


def test_the_device_of_a_launcher() -> None:
    assert device_of({"device": "cpu"}).kind == "cpu"
    assert device_of({"device": "cuda"}, {}).kind == "cuda"


@pytest.mark.parametrize(
    ("gres", "device", "kind", "peak"),
    [
        ("gpu:h100:8", "auto", "cuda", 989e12),
        ("gpu:a100:4", "cuda", "cuda", 312e12),
        ("gpu:8", "auto", "cuda", None),
        (None, "cuda", "cuda", None),
    ],
)
def test_a_job_is_forecast_on_the_gpus_that_it_asks_for(
    gres: str | None, device: str, kind: str, peak: float | None
) -> None:
    found = device_of({"kind": "slurm", "device": device, "slurm": {"gres": gres}}, {})
    assert (found.kind, found.peak_flops) == (kind, peak)


@pytest.mark.parametrize(
    ("labels", "peak"),
    [
        ({"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}, 989e12),
        ({"nvidia.com/gpu.product": "NVIDIA-H100-PCIe"}, 756e12),
        ({"cloud.google.com/gke-accelerator": "nvidia-tesla-a100"}, 312e12),
        ({"pool": "h100"}, None),
    ],
)
def test_a_job_of_kubernetes_is_forecast_on_the_nodes_that_it_selects(
    labels: dict[str, str], peak: float | None
) -> None:
    found = device_of({"kind": "kubernetes", "device": "cuda", "kubernetes": {"node_selector": labels}}, {})
    assert (found.kind, found.peak_flops) == ("cuda", peak)
