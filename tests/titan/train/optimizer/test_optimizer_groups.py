import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchtitan.components.lr_scheduler import build_lr_schedulers
from torchtitan.components.optimizer import build_optimizers
from torchtitan.config import JobConfig

from titan.train.optimizer.groups import with_parameter_groups

GROUPS = {"prior": ("prior", "prior_norm"), "router": ("router",)}
RATES = {"router": 1e-2, "prior": 1e-3}


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.Linear(2, 2)
        self.prior = nn.Linear(2, 2)
        self.prior_norm = nn.Linear(2, 2)
        self.router = nn.Linear(2, 1, bias=False)
        self.router_like = nn.Linear(2, 2)


def model_of(layers=2, seed=0):
    torch.manual_seed(seed)
    return nn.ModuleDict({"layers": nn.ModuleList(Layer() for _ in range(layers))})


def config_of(**settings):
    config = JobConfig()
    config.optimizer.lr, config.optimizer.implementation = 1e-4, "for-loop"
    for name, value in settings.items():
        setattr(config.optimizer, name, value)
    return config


def built(model, rates=RATES, **settings):
    config = config_of(group_lr=rates, **settings).optimizer
    return with_parameter_groups(build_optimizers, config, GROUPS)([model], config, SimpleNamespace(), None)


def rates_of(model, container):
    names = {parameter: name for name, parameter in model.named_parameters()}
    (optimizer,) = container
    return {names[parameter]: group["lr"] for group in optimizer.param_groups for parameter in group["params"]}


def test_each_group_has_its_rate_and_all_else_the_optimizers():
    """A group's modules are found by their whole names, at any depth."""
    model = model_of()
    for name, rate in rates_of(model, built(model)).items():
        module = name.split(".")[2]
        assert rate == {"router": 1e-2, "prior": 1e-3, "prior_norm": 1e-3}.get(module, 1e-4), name


def test_every_parameter_that_is_trained_is_in_one_group():
    model = model_of()
    model["layers"][0].attention.requires_grad_(False)
    assert set(rates_of(model, built(model))) == {n for n, p in model.named_parameters() if p.requires_grad}


def test_a_wrapped_layers_parameters_are_found():
    model = model_of(1)
    model["layers"][0].prior = torch.compile(model["layers"][0].prior, backend="eager")
    assert {rate for name, rate in rates_of(model, built(model)).items() if ".prior." in name} == {1e-3}


def test_without_rates_the_familys_own_builder_stays():
    config = config_of(group_lr={}).optimizer
    assert with_parameter_groups(build_optimizers, config, GROUPS) is build_optimizers


def test_the_other_settings_are_all_groups():
    (optimizer,) = built(model_of(), beta1=0.8, weight_decay=0.03, eps=1e-6, name="Adam")
    assert type(optimizer) is torch.optim.Adam
    assert len(optimizer.param_groups) == 3
    for group in optimizer.param_groups:
        assert (group["betas"][0], group["weight_decay"], group["eps"]) == (0.8, 0.03, 1e-6)


def test_the_rate_of_the_optimizer_itself_comes_first():
    """It is what is logged."""
    (optimizer,) = built(model_of())
    assert optimizer.param_groups[0]["lr"] == 1e-4


def test_the_schedule_multiplies_every_rate():
    model, config = model_of(), config_of()
    config.lr_scheduler.warmup_steps = 4
    container = built(model)
    schedulers = build_lr_schedulers(container, config.lr_scheduler, 20)
    (optimizer,) = container
    full = [1e-4, 1e-3, 1e-2]
    for step in range(4):
        # torchtitan's first step has a quarter of the rate already.
        found = sorted(group["lr"] for group in optimizer.param_groups)
        assert found == pytest.approx([rate * (step + 1) / 4 for rate in full])
        optimizer.step()
        schedulers.step()


def train(model, container, steps):
    for _ in range(steps):
        container.zero_grad()
        sum((parameter**2).sum() for parameter in model.parameters()).backward()
        container.step()


def test_a_step_with_groups_is_that_of_an_optimizer_for_each():
    model, other = model_of(), model_of()
    train(model, built(model), 3)
    parameters = dict(other.named_parameters())
    for rate in (1e-4, 1e-3, 1e-2):
        names = [name for name, found in rates_of(model, built(model)).items() if found == rate]
        alone = built(other, {}, lr=rate)
        (optimizer,) = alone
        optimizer.param_groups[0]["params"] = [parameters[name] for name in names]
        train(other, alone, 3)
    torch.testing.assert_close(dict(model.named_parameters()), parameters)


def test_the_state_survives_saving_and_loading():
    """Moments and rates: two steps, a new container with what was saved, and one more are three."""
    model, whole = model_of(), model_of()
    train(whole, built(whole), 3)
    container = built(model)
    train(model, container, 2)
    saved = copy.deepcopy(container.state_dict())
    resumed = built(model)
    resumed.zero_grad()
    resumed.load_state_dict(saved)
    assert rates_of(model, resumed) == rates_of(model, container)
    train(model, resumed, 1)
    torch.testing.assert_close(dict(model.named_parameters()), dict(whole.named_parameters()))
