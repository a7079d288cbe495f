"""The moving mean of a stage's weights, against its closed form and over whole stages."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_stages import Workbench, records
from torch import nn
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torchtitan.components.checkpoint import MODEL, ModelWrapper

from titan.weights.moving_mean import MovingMean
from titanflow.runs.checkpoints import TRAINED, newest_step
from titanflow.runs.contract import StageRun
from titanflow.runs.results import read_result

pytestmark = pytest.mark.slow

DECAY = 0.8
STEPS = 12
EMA = {
    "training": {"steps": STEPS, "ema": DECAY},
    "checkpoint": {"interval": 1, "keep_latest_k": 0, "last_save_model_only": False},
    "validation": {"enable": True, "freq": 6, "local_batch_size": 4},
}


def closed_form(weights: list[torch.Tensor], decay: float) -> torch.Tensor:
    """The weighted mean of each step's weights, in fp64."""
    factors = decay ** torch.arange(len(weights) - 1, -1, -1, dtype=torch.float64)
    return torch.einsum("i,i...->...", factors / factors.sum(), torch.stack([one.double() for one in weights]))


def trained(model: nn.Module, steps: int, mean: MovingMean) -> list[torch.Tensor]:
    """The first weight after each of ``steps`` steps, which the mean takes in."""
    seen = []
    weight = next(model.parameters())
    for step in range(1, steps + 1):
        with torch.no_grad():
            weight.add_(torch.randn_like(weight))
        mean.update(step)
        seen.append(weight.detach().clone())
    return seen


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_the_mean_is_its_closed_form_in_double_precision(decay: float) -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 4).double()
    mean = MovingMean([model], ModelWrapper(model), decay)
    seen = trained(model, 200, mean)
    found = mean.states[MODEL].state_dict()["weight"]
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, closed_form(seen, decay), rtol=1e-12, atol=1e-13)


def test_of_weights_in_bfloat16_the_mean_is_kept_in_fp32() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 4).bfloat16()
    mean = MovingMean([model], ModelWrapper(model), 0.99)
    seen = trained(model, 50, mean)
    found = mean.states[MODEL].state_dict()["weight"]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), closed_form(seen, 0.99), rtol=1e-5, atol=1e-6)


def test_the_first_step_is_the_mean_whatever_training_began_with() -> None:
    model = nn.Linear(3, 4)
    mean = MovingMean([model], ModelWrapper(model), 0.999)
    (seen,) = trained(model, 1, mean)
    assert torch.equal(mean.states[MODEL].state_dict()["weight"], seen)


def test_frozen_weights_and_buffers_are_the_models_own() -> None:
    model = nn.BatchNorm1d(3)
    model.bias.requires_grad_(False)
    mean = MovingMean([model], ModelWrapper(model), 0.5)
    trained(model, 3, mean)
    model.running_mean.fill_(7.0)
    model.bias.fill_(5.0)
    found = mean.states[MODEL].state_dict()
    assert found["running_mean"].tolist() == [7.0] * 3
    assert found["bias"].tolist() == [5.0] * 3
    assert not torch.equal(found["weight"], model.weight)


def test_a_tied_weight_has_one_mean() -> None:
    model = nn.ModuleDict({"tokens": nn.Linear(3, 3, bias=False), "output": nn.Linear(3, 3, bias=False)})
    model.output.weight = model.tokens.weight
    mean = MovingMean([model], ModelWrapper(model), 0.5)
    seen = trained(model, 5, mean)
    found = mean.states[MODEL].state_dict()
    assert found["tokens.weight"] is found["output.weight"]
    torch.testing.assert_close(found["tokens.weight"].double(), closed_form(seen, 0.5))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_in_place_the_model_computes_with_the_mean_and_has_its_own_weights_afterwards(kind: torch.dtype) -> None:
    model = nn.Linear(3, 4).to(kind)
    mean = MovingMean([model], ModelWrapper(model), 0.5)
    *_, last = trained(model, 5, mean)
    expected = mean.states[MODEL].state_dict()["weight"].clone()
    with contextlib.suppress(KeyboardInterrupt), mean.in_place():
        assert torch.equal(model.weight, expected.to(kind))
        raise KeyboardInterrupt
    assert torch.equal(model.weight, last)
    assert torch.equal(mean.states[MODEL].state_dict()["weight"], expected)


def stored(run: StageRun, step: int) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint, by key."""
    whole = run.folder / f"step-{step}.pt"
    dcp_to_torch_save(run.folder / "checkpoint" / f"step-{step}", whole)
    return flat(torch.load(whole, weights_only=False))


def flat(state: dict, above: str = "") -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        if isinstance(value, dict):
            found |= flat(value, f"{above}{key}.")
        elif torch.is_tensor(value):
            found[f"{above}{key}"] = value
    return found


def log_of(run: StageRun) -> str:
    return (run.folder / "log.txt").read_text()


@pytest.fixture(scope="module")
def averaged(shared_bench: Workbench) -> StageRun:
    run = shared_bench.stage("averaged", EMA, tokenizer=shared_bench.data / "tokenizer")
    assert shared_bench.run(run, 1) == 0, log_of(run)
    return run


def test_a_stages_checkpoints_hold_the_mean_and_the_trained_weights(averaged: StageRun) -> None:
    steps = [stored(averaged, step) for step in range(1, STEPS + 1)]
    names = [key.removeprefix(f"{TRAINED}.") for key in steps[0] if key.startswith(f"{TRAINED}.")]
    assert "layers.0.attention.wq.weight" in names
    for name in names:
        of_steps = [one[f"{TRAINED}.{name}"] for one in steps]
        torch.testing.assert_close(steps[-1][name].double(), closed_form(of_steps, DECAY), rtol=1e-5, atol=1e-7)
        assert steps[-1][name].dtype == torch.float32


def test_the_mean_is_exported_and_validated_and_training_is_as_without_it(
    averaged: StageRun, shared_bench: Workbench
) -> None:
    plain = shared_bench.stage("plain", EMA, {"training": {"ema": None}}, tokenizer=shared_bench.data / "tokenizer")
    assert shared_bench.run(plain, 1) == 0, log_of(plain)
    assert records(averaged) == records(plain)
    assert records(averaged, "grad_norm") == records(plain, "grad_norm")
    last, own = stored(averaged, STEPS), stored(plain, STEPS)
    assert all(torch.equal(last[f"{TRAINED}.{key}"], own[key]) for key in own if not key.startswith("optimizer"))
    exported = load_file(averaged.folder / "export" / "model.safetensors")
    assert torch.equal(exported["model.norm.weight"], last["norm.weight"])
    assert not torch.equal(exported["model.norm.weight"], last[f"{TRAINED}.norm.weight"])
    result = read_result(averaged.folder)
    assert result.ema == DECAY
    assert read_result(plain.folder).ema is None
    # The last validation is that of the model that transformers loads.
    assert result.validation_loss == pytest.approx(validated(averaged, shared_bench.data / "validation"), abs=1e-4)
    assert result.validation_loss != read_result(plain.folder).validation_loss


def validated(run: StageRun, rows: Path) -> float:
    from transformers import AutoModelForCausalLM

    from titanflow.data.prepared import PreparedRows

    model = AutoModelForCausalLM.from_pretrained(run.folder / "export", dtype=torch.float32)
    read = PreparedRows.open(rows, 32)
    batch = [read.row(index) for index in range(len(read))]
    with torch.no_grad():
        logits = model(torch.from_numpy(np.stack([row.input_ids for row in batch]))).logits
    labels = torch.from_numpy(np.stack([row.labels for row in batch]))
    return float(nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()))


def test_a_resumed_mean_is_the_same_to_the_bit(averaged: StageRun, bench: Workbench) -> None:
    run = bench.stage("resumed", EMA, {"training": {"steps": 5}}, tokenizer=bench.data / "tokenizer")
    assert bench.run(run, 1) == 0, log_of(run)
    assert newest_step(run.folder) == 5
    run = bench.stage("resumed", EMA, tokenizer=bench.data / "tokenizer")
    assert bench.run(run, 1) == 0, log_of(run)
    assert_equal(stored(run, STEPS), stored(averaged, STEPS))


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [key for key in expected if not torch.equal(found[key], expected[key])] == []


def test_two_ranks_keep_their_part_of_the_mean_and_another_number_resumes_it(
    averaged: StageRun, bench: Workbench
) -> None:
    two = {"training": {"local_batch_size": 4}}
    run = bench.stage("two", EMA, two, tokenizer=bench.data / "tokenizer")
    assert bench.run(run, 2) == 0, log_of(run)
    expected = stored(averaged, STEPS)
    for key, value in stored(run, STEPS).items():
        if not key.startswith("optimizer"):
            torch.testing.assert_close(value, expected[key], rtol=1e-3, atol=1e-4)
    for step in range(6, STEPS + 1):
        (run.folder / "checkpoint" / f"step-{step}" / ".metadata").unlink()
    run = bench.stage("two", EMA, tokenizer=bench.data / "tokenizer")
    assert bench.run(run, 1) == 0, log_of(run)
    for key, value in stored(run, STEPS).items():
        if not key.startswith("optimizer"):
            torch.testing.assert_close(value, expected[key], rtol=1e-3, atol=1e-4)


def test_with_lora_the_adapters_have_a_mean(averaged: StageRun, bench: Workbench) -> None:
    run = bench.stage("lora", EMA, {"lora": {"rank": 4}}, stage="sft", base=averaged.folder)
    assert bench.run(run, 1) == 0, log_of(run)
    last, steps = stored(run, STEPS), [stored(run, step) for step in range(1, STEPS + 1)]
    name = "layers.0.attention.wq.lora_b"
    of_steps = [one[f"{TRAINED}.{name}"] for one in steps]
    torch.testing.assert_close(last[name].double(), closed_form(of_steps, DECAY), rtol=1e-5, atol=1e-8)
    assert "layers.0.attention.wq.weight" not in last
    assert (read_result(run.folder).export / "model.safetensors").is_file()
