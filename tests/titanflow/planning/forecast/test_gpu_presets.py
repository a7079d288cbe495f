"""The presets for GPUs fit the models that they are for, by the forecast, and the page says what that is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from titanflow.common.errors import ConfigError
from titanflow.config.experiment import load_experiment
from titanflow.config.module import Module
from titanflow.config.overrides import parse_settings
from titanflow.config.settled import precision
from titanflow.draft.fitting import MARGIN
from titanflow.planning.forecast import forecasts
from titanflow.planning.forecast.device import DeviceSpec
from titanflow.planning.forecast.forecast import model_forecast
from titanflow.planning.plan import make_plan

GIB = 1 << 30
MIB = 1 << 20
H100 = DeviceSpec("cuda", "NVIDIA H100 80GB HBM3", 81559 * MIB)
H200 = DeviceSpec("cuda", "NVIDIA H200", 143771 * MIB)
"""As nvidia-smi tells their memory."""
PRESETS = {
    ("qwen3_0.6B", "gpu_1b"): (1, 8),
    ("qwen3_1.7B", "gpu_2b"): (1, 8),
    ("llama3_8B", "gpu_8b"): (8,),
}
"""The GPUs for which a model's preset is meant."""
ROWS = [(model, preset, gpus) for (model, preset), counts in PRESETS.items() for gpus in counts]
PAGE = Path(__file__).parents[4] / "docs" / "gpus.md"


@pytest.fixture
def experiment(tmp_path: Path) -> Callable[..., Path]:
    """An experiment that trains a model of the project's own by module files that extend each other."""

    def written(model: str, *files: str) -> Path:
        (tmp_path / "own.yaml").write_text(f"extends: [{', '.join(f'{one}.yaml' for one in files)}]\n")
        path = tmp_path / "presets.yaml"
        path.write_text(
            f"workspace: {tmp_path / 'runs'}\nmodules:\n  pretrain:\n    config: own.yaml\n    model: {model}.yaml\n"
            "    overrides: {training: {mock_data: true, steps: 10}}\n"
        )
        return path

    return written


def loaded(path: Path, *settings: str) -> Module:
    return load_experiment(str(path), settings=parse_settings(settings), starts=False).modules["pretrain"]


def bytes_of(module: Module) -> int:
    needed = model_forecast(module, "cuda")[1]
    assert needed is not None
    return needed.total


@pytest.mark.parametrize(("model", "preset", "gpus"), ROWS)
def test_a_preset_fits_an_h100_with_room_to_spare(experiment: Any, model: str, preset: str, gpus: int) -> None:
    path, processes = experiment(model, "pretrain", preset), f"pretrain.launcher.nproc_per_node={gpus}"
    assert H100.memory is not None
    assert bytes_of(loaded(path, processes)) <= MARGIN * H100.memory


def test_the_page_has_the_forecasts(experiment: Any) -> None:
    rows = []
    for model, preset, gpus in ROWS:
        path, processes = experiment(model, "pretrain", preset), f"pretrain.launcher.nproc_per_node={gpus}"
        module = loaded(path, processes)
        training, mode = module.config["training"], module.config["activation_checkpoint"]["mode"]
        needed, whole = (
            bytes_of(one) / GIB for one in (module, loaded(path, processes, "pretrain.training.loss_chunks=1"))
        )
        batch = f"{training['local_batch_size']} × {training['seq_len']:,}"
        rows.append(f"| `{model}` | `{preset}` | {gpus} | {batch} | {mode} | {needed:.0f} GiB | {whole:.0f} GiB |")
    table = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if "GiB |" in line]
    assert table == rows, "write into docs/gpus.md:\n" + "\n".join(rows)


@pytest.mark.parametrize(("model", "preset"), PRESETS)
def test_a_preset_is_what_its_comment_says(experiment: Any, model: str, preset: str) -> None:
    config = loaded(experiment(model, "pretrain", preset)).config
    assert config["compile"]["enable"]
    assert config["training"]["loss_chunks"] == 8
    assert config["validation"]["seq_len"] == config["training"]["seq_len"]
    # The stage's own file stays what it was.
    assert config["optimizer"]["name"] == "AdamW"
    assert config["lr_scheduler"]["decay_type"] == "cosine"


def on(device: DeviceSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecasts, "device_of", lambda launcher: device)
    monkeypatch.setattr(precision, "stage_device", lambda launcher: device)


def test_an_8b_on_one_h100_is_refused_with_what_would_fit(experiment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    on(H100, monkeypatch)
    path = experiment("llama3_8B", "pretrain", "gpu_8b")
    with pytest.raises(ConfigError) as refused:
        make_plan(str(path), overrides=["pretrain.launcher.nproc_per_node=1", "pretrain.launcher.device=auto"])
    (problem,) = refused.value.problems
    assert "weights, gradients and optimizer take 120 GiB a rank, and it has 79.6 GiB" in problem.message
    assert "launcher.nproc_per_node: 2 (FSDP" in problem.hint


def test_a_larger_model_than_a_preset_is_for_is_warned_of(experiment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    on(H100, monkeypatch)
    settings = ["pretrain.launcher.nproc_per_node=8", "pretrain.launcher.device=auto"]
    path, found = experiment("llama3_8B", "pretrain", "gpu_1b"), {}
    for device in (H100, H200):
        on(device, monkeypatch)
        warnings = make_plan(str(path), overrides=settings, runs_here=False).config.warnings
        found[device] = [line for line in warnings if "forecast to take" in line]
    (warning,) = found[H100]
    assert "a rank is forecast to take 105 GiB, and it has 79.6 GiB" in warning
    assert "it fits with activation_checkpoint.mode: full, or training.local_batch_size: 2" in warning
    assert found[H200] == []


def test_float8_leaves_the_head_as_it_is(experiment: Any) -> None:
    config = loaded(experiment("llama3_8B", "pretrain", "gpu_8b", "gpu_float8")).config
    assert config["model"]["converters"] == ["quantize.linear.float8"]
    assert config["quantize"]["linear"]["float8"]["filter_fqns"] == ["output"]
    assert config["training"]["local_batch_size"] == 1


@pytest.mark.parametrize("model", ["llama3_8B", "qwen3_0.6B"])
def test_packed_chats_have_varlen_attention(experiment: Any, model: str) -> None:
    path = experiment(model, "pretrain", "gpu_1b")
    (path.parent / "tune.yaml").write_text("extends: [sft.yaml, gpu_1b.yaml, gpu_varlen.yaml]\n")
    with path.open("a") as file:
        file.write("  sft: {config: tune.yaml, data: {kind: chat, path: chats.jsonl, packing: best_fit}}\n")
    module = load_experiment(str(path), starts=False).modules["sft"]
    assert module.model_args["attn_type"] == "varlen"
    assert module.config["training"]["loss_chunks"] == 8
