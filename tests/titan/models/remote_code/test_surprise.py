"""The equations of dynamic-compute models against closed forms, and a loop over tokens."""

import math
import subprocess
import sys

import pytest
import torch

from titan.models.remote_code import surprise
from titan.models.remote_code.surprise import (
    SmallSwiGLU,
    Surprise,
    SurpriseRouter,
    effective,
    mean_squared_difference,
    moving_average,
    shifted,
    small_width,
)

POSITIONS = torch.tensor([[0, 1, 2, 3, 0, 0, 1, 2], [0, 1, 2, 3, 4, 5, 6, 7]])


@pytest.mark.parametrize(
    ("dim", "factor", "expected"),
    [(896, 0.0625, 56), (384, 0.0625, 24), (100, 0.0625, 8), (72, 0.0625, 6), (16, 0.01, 2)],
)
def test_width_of_a_small_network(dim, factor, expected):
    """⌈100/16⌉ = 7 and ⌈72/16⌉ = 5 are odd, and 1 is too few."""
    assert small_width(dim, factor) == expected


def test_a_small_network_by_hand():
    torch.manual_seed(0)
    network, x = SmallSwiGLU(6, 0.5), torch.randn(2, 3, 6)
    gate, up, down = (getattr(network, name).weight for name in ("gate", "up", "down"))
    gated = x @ gate.T
    expected = (gated / (1 + torch.exp(-gated)) * (x @ up.T)) @ down.T
    torch.testing.assert_close(network(x), expected)
    assert list(network.state_dict()) == ["gate.weight", "up.weight", "down.weight"]
    assert gate.shape == (4, 6)


def test_a_small_networks_weights_are_drawn_with_a_deviation_of_a_fiftieth():
    torch.manual_seed(0)
    network = SmallSwiGLU(512, 0.5)
    network.init_weights()
    for weight in network.parameters():
        assert weight.std().item() == pytest.approx(0.02, rel=0.02)


def test_the_square_is_the_mean_over_the_width_in_single_precision():
    one, other = torch.full((1, 2, 4), 3.0, dtype=torch.bfloat16), torch.ones(1, 2, 4, dtype=torch.bfloat16)
    found = mean_squared_difference(one, other)
    assert (found.dtype, found.tolist()) == (torch.float32, [[4.0, 4.0]])


def test_shifted_by_a_token_with_zeros_where_a_document_starts():
    x = torch.arange(1.0, 9.0).expand(2, -1).unsqueeze(-1)
    assert shifted(x, POSITIONS)[..., 0].tolist() == [[0, 1, 2, 3, 0, 0, 6, 7], [0, 1, 2, 3, 4, 5, 6, 7]]
    assert torch.equal(shifted(x, None)[1], shifted(x, POSITIONS)[1])


@pytest.mark.parametrize("window", [1, 3, 100])
@pytest.mark.parametrize("positions", [None, POSITIONS])
def test_the_moving_average_is_the_mean_of_the_documents_last_tokens(window, positions):
    torch.manual_seed(0)
    values = torch.rand(2, 8)
    starts = torch.zeros(2, 8, dtype=int) if positions is None else torch.arange(8) - positions
    expected = [
        [values[row, max(int(starts[row, t]), t - window + 1) : t + 1].mean() for t in range(8)] for row in range(2)
    ]
    torch.testing.assert_close(moving_average(values, positions, window), torch.tensor(expected))


def test_the_moving_average_is_of_known_tokens_where_a_row_begins_within_a_document():
    values = torch.tensor([[1.0, 3.0, 8.0, 2.0]])
    assert moving_average(values, torch.tensor([[5, 6, 7, 0]]), 4).tolist() == [[1, 2, 4, 2]]


def test_the_average_of_a_constant_is_the_constant_from_the_first_token_on():
    assert moving_average(torch.ones(1, 4), None, 4).tolist() == [[1, 1, 1, 1]]


def test_the_average_of_a_long_row_loses_nothing():
    """What comes late is small beside the sum of all before it."""
    values = torch.cat([torch.full((1, 20_000), 1e4), torch.full((1, 200), 1e-3)], dim=1)
    assert moving_average(values, None, 100)[0, -1].item() == pytest.approx(1e-3, rel=1e-4)


def test_where_the_parameters_start():
    """1.025 and 1.1, through softplus."""
    router = SurpriseRouter(100)
    assert effective(router.o_ce).item() == pytest.approx(1.025, abs=1e-4)
    assert effective(router.m_cu).item() == pytest.approx(1.1, abs=1e-4)


def test_a_negative_offset_stays_a_number():
    router = SurpriseRouter(100)
    with torch.no_grad():
        router.o_ce.fill_(-200)
    found = router.surprise(torch.ones(1, 2), torch.ones(1, 2), torch.ones(()), torch.ones(()), None)
    assert found.score.isfinite().all()


def test_surprise_token_by_token():
    torch.manual_seed(0)
    static, change, window, beta_ce, beta_cu = torch.rand(2, 8), torch.rand(2, 8), 3, 0.7, 0.4
    router = SurpriseRouter(window)
    with torch.no_grad():
        router.o_ce.fill_(0.2)
        router.m_cu.fill_(-0.1)
    found = router.surprise(static, change, torch.tensor(beta_ce), torch.tensor(beta_cu), POSITIONS)
    o_ce, m_cu = math.log1p(math.exp(0.2)), math.log1p(math.exp(-0.1))
    for row in range(2):
        for t in range(8):
            first = max(t - int(POSITIONS[row, t]), t - window + 1)
            average = sum(static[row, first : t + 1].tolist()) / (t + 1 - first)
            ce = static[row, t].item() - (change[row, t].item() - math.log(o_ce + 1e-10))
            cu = static[row, t].item() - m_cu * average
            s_ce, s_cu = 1 / (1 + math.exp(-beta_ce * ce)), 1 / (1 + math.exp(-beta_cu * cu))
            assert found.expected[row, t].item() == pytest.approx(s_ce, rel=1e-5)
            assert found.unexpected[row, t].item() == pytest.approx(s_cu, rel=1e-5)
            assert found.score[row, t].item() == pytest.approx(s_ce + s_cu - s_ce * s_cu, rel=1e-5)


def test_the_score_is_that_one_of_two_happens():
    halves = Surprise(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([0.0, 0.5, 0.25]))
    assert halves.score.tolist() == [0.0, 0.75, 1.0]


def test_it_stands_beside_a_modelling_file():
    """Nothing but torch and the standard library is imported by it."""
    code = (
        "import importlib.util, sys; spec = importlib.util.spec_from_file_location('surprise', sys.argv[1]);"
        "module = importlib.util.module_from_spec(spec); sys.modules['surprise'] = module;"
        "spec.loader.exec_module(module);"
        "assert not {'titan', 'torchtitan', 'titanflow'} & set(sys.modules); module.SurpriseRouter(3)"
    )
    subprocess.run([sys.executable, "-c", code, surprise.__file__], check=True)
