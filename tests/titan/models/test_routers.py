from types import SimpleNamespace

import pytest
import torch
from torch import nn

from titan.models.routers import RoutedModel, RouterStatistics, routed_parts


class Part(nn.Module, RoutedModel):
    """Tells what it is given."""

    def __init__(self, **statistics):
        super().__init__()
        self.statistics = statistics

    def router_statistics(self):
        return {name.replace("__", "/"): torch.tensor(value) for name, value in self.statistics.items()}


def test_parts_with_routers_are_found():
    part = Part()
    assert routed_parts([nn.Linear(1, 1), part]) == [part]


def test_the_mean_over_microbatches_and_over_layers():
    part = Part(layer_1__gate=0.2, layer_3__gate=0.6, layer_0__prior_loss=1.0)
    statistics = RouterStatistics([part], None)
    statistics.begin_step()
    statistics.add_microbatch()
    part.statistics = {"layer_1__gate": 0.4, "layer_3__gate": 0.8, "layer_0__prior_loss": 3.0}
    statistics.add_microbatch()
    assert statistics.read() == pytest.approx(
        {
            "layer_1/gate": 0.3,
            "layer_3/gate": 0.7,
            "layer_0/prior_loss": 2.0,
            "gate": 0.5,
            "prior_loss": 2.0,
        }
    )


def test_a_step_forgets_the_one_before():
    part = Part(layer_1__gate=0.2)
    statistics = RouterStatistics([part], None)
    assert statistics.read() == {}
    statistics.add_microbatch()
    statistics.begin_step()
    assert statistics.read() == {}
    statistics.add_microbatch()
    assert statistics.read()["gate"] == pytest.approx(0.2)


def test_the_mean_over_ranks_in_one_exchange(monkeypatch):
    """The other rank has 0.1 more of each."""
    calls = []

    def all_reduce(tensor, group):
        calls.append(group)
        tensor.mul_(2).add_(0.1)

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    mesh = SimpleNamespace(get_group=lambda: "group", size=lambda: 2)
    statistics = RouterStatistics([Part(layer_1__gate=0.2), Part(layer_3__gate=0.4)], mesh)
    statistics.add_microbatch()
    found = statistics.read()
    assert calls == ["group"]
    assert found == pytest.approx({"layer_1/gate": 0.25, "layer_3/gate": 0.45, "gate": 0.35})


def test_a_model_without_a_schedule_takes_a_steps_number():
    assert Part().begin_step(1, 10) is None


@pytest.mark.parametrize("method", [lambda part: part.set_auxiliary_scale(1.0), RoutedModel.router_statistics])
def test_what_a_model_must_say_itself(method):
    with pytest.raises(NotImplementedError):
        method(RoutedModel())
