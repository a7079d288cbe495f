"""Muon for matrices and AdamW for the rest: against torch's own two optimizers, on one rank and on four."""

import copy
import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from forked_ranks import run_forked
from muon_models import MATRICES, built, gradients, model_of
from torch import nn
from torchtitan.components.lr_scheduler import build_lr_schedulers
from torchtitan.components.optimizer import build_optimizers_with_moe_load_balancing
from torchtitan.config import JobConfig
from watching import PATIENCE

from titanflow.common.errors import ConfigError


def train(model, container, steps, begin=0):
    for step in range(begin, begin + steps):
        for name, gradient in gradients(model, step).items():
            model.get_parameter(name).grad = gradient
        container.step()


def by_hand(model, steps, lr, muon_lr, **muon):
    """The same steps by torch's own optimizers, with each expert's matrix as a parameter of its own."""
    named = dict(model.named_parameters())
    plain = {name: [one] if one.ndim == 2 else list(one.detach()) for name, one in named.items() if name in MATRICES}
    settings = {"weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw", **muon}
    first = torch.optim.Muon([one for members in plain.values() for one in members], lr=muon_lr, **settings)
    others = [one for name, one in named.items() if name not in MATRICES]
    second = torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, foreach=True)
    for step in range(steps):
        for name, gradient in gradients(model, step).items():
            named[name].grad = gradient
            for member, part in zip(plain.get(name, []), gradient if gradient.ndim == 3 else [gradient], strict=False):
                member.grad = part
        first.step()
        second.step()
    return named


@pytest.mark.parametrize(
    ("settings", "muon"),
    [
        ({}, {}),
        ({"muon_adjust_lr_fn": "original"}, {"adjust_lr_fn": "original"}),
        ({"muon_nesterov": False, "muon_momentum": 0.5}, {"nesterov": False, "momentum": 0.5}),
        ({"muon_ns_steps": 3, "weight_decay": 0.1}, {"ns_steps": 3}),
    ],
)
@torch.no_grad()
def test_steps_are_those_of_torchs_muon_and_adamw(settings, muon):
    model = model_of()
    train(model, built(model, muon_lr=0.05, **settings), 3)
    for name, expected in by_hand(model_of(), 3, lr=0.02, muon_lr=0.05, **muon).items():
        assert torch.equal(model.get_parameter(name), expected), name


@torch.no_grad()
def test_weights_in_bfloat16_keep_a_momentum_that_the_step_leaves_alone():
    """torch's Muon divides it in place there, if Nesterov is off."""
    model = nn.ModuleDict({"layers": nn.ModuleDict({"0": nn.Linear(4, 4, bias=False)})}).bfloat16()
    container = built(model, muon_nesterov=False, muon_momentum=0.5)
    (weight,) = model.parameters()
    weight.grad = torch.full_like(weight, 8.0)
    container.step()
    (optimizer,) = container
    assert optimizer.state[weight]["momentum_buffer"].unique().tolist() == [4.0]


def test_which_weights_muon_takes(caplog):
    """Not embeddings and output, no vectors, no single row, no experts' biases."""
    model = model_of()
    with caplog.at_level(logging.INFO):
        (optimizer,) = built(model)
    names = {one: name for name, one in model.named_parameters()}
    groups = [group for group in optimizer.param_groups if "momentum" in group]
    assert {names[one] for group in groups for one in group["params"]} == MATRICES
    assert {one for group in optimizer.param_groups for one in group["params"]} == set(names)
    matrices = sum(model.get_parameter(name).numel() for name in MATRICES)
    whole = sum(one.numel() for one in names)
    assert f"Muon: 8 tensors of {matrices} parameters; AdamW: {len(names) - 8} tensors of {whole - matrices}" in (
        caplog.text.replace(",", "")
    )


def test_the_state_is_one_momentum_for_muon_and_two_moments_for_adamw():
    model = model_of()
    container = built(model)
    train(model, container, 1)
    (optimizer,) = container
    for name, one in model.named_parameters():
        expected = {"momentum_buffer"} if name in MATRICES else {"step", "exp_avg", "exp_avg_sq"}
        assert set(optimizer.state[one]) == expected, name


def test_a_groups_rate_is_that_of_its_matrices_and_the_schedule_is_everyones():
    model = model_of()
    container = built(model, lr=0.02, muon_lr=0.05, group_lr={"router": 0.5})
    (optimizer,) = container
    assert [group["lr"] for group in optimizer.param_groups] == [0.02, 0.05, 0.5]
    config = JobConfig().lr_scheduler
    config.warmup_steps = 4
    build_lr_schedulers(container, config, 20)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.005, 0.0125, 0.125])


def test_a_resumed_training_is_the_whole_one_to_the_bit():
    model, whole = model_of(), model_of()
    train(whole, built(whole, muon_lr=0.05), 4)
    first = built(model, muon_lr=0.05)
    train(model, first, 2)
    saved = copy.deepcopy(first.state_dict())
    resumed = built(model, muon_lr=0.05)
    resumed.zero_grad()
    resumed.load_state_dict(saved)
    train(model, resumed, 2, begin=2)
    for name, one in model.named_parameters():
        assert torch.equal(one, whole.get_parameter(name)), name


def test_frozen_weights_are_nobodys():
    model = model_of()
    model.requires_grad_(False)
    model.layers["0"].wide.weight.requires_grad_(True)
    container = built(model)
    (optimizer,) = container
    assert [len(group["params"]) for group in optimizer.param_groups] == [1]
    train(model, container, 1)


def test_what_a_family_adds_to_a_step_stays():
    """The balance of experts hangs on the container that the family builds."""
    model = model_of()
    for layer in model.layers.values():
        layer.moe_enabled, layer.moe = True, SimpleNamespace(load_balance_coeff=0.5, expert_bias=torch.zeros(2))
        layer.moe.tokens_per_expert = torch.tensor([3.0, 1.0])
    parallel = SimpleNamespace(get_optional_mesh=lambda name: None)

    def build(parts, config, parallel_dims, *others):
        return build_optimizers_with_moe_load_balancing(parts, config, parallel, *others)

    built(model, build).step()
    assert model.layers["1"].moe.expert_bias.tolist() == [-0.5, 0.5]


def test_a_part_without_a_matrix_is_refused():
    with pytest.raises(ConfigError, match=r"optimizer\.name: found Muon, and a part of the model has no matrix"):
        built(nn.ModuleDict({"output": nn.Linear(4, 4)}))


def test_four_ranks_step_as_one_process_to_the_bit(tmp_path):
    """FSDP, HSDP, experts shared out or cut, tensor parallelism with sizes that don't divide, and DDP's shared work."""
    log, here = tmp_path / "log.txt", Path(__file__).parent
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    assert run_forked([str(here / "muon_ranks.py")], 4, env, log, PATIENCE, here) == 0, log.read_text()
