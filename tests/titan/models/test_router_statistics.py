"""What routers tell of themselves, by the names that the documentation has."""

import re
from pathlib import Path

import pytest
from routed_models import KINDS, family_of, small_model, some_tokens

from titan.models.routers import RouterStatistics

PAGE = Path(__file__).parents[3] / "docs" / "logging.md"


def documented(family):
    """The names of a family's statistics: in backquotes in the first cell, the families in the second."""
    rows = re.findall(r"^\| (`[^|]*`) \| ([a-z, ]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {name for names, families in rows if family in families.split(", ") for name in re.findall("`(.*?)`", names)}


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_by_name(kind):
    model = small_model(kind)
    model(some_tokens())
    statistics = dict(model.router_statistics())
    assert {name.partition("/")[2] for name in statistics} == documented(family_of(kind))
    assert all(value.ndim == 0 and value.isfinite() and not value.requires_grad for value in statistics.values())
    for layer_id in (1, 3):
        assert statistics[f"layer_{layer_id}/selected_fraction"] == 0.5
    model.eval()(some_tokens(seed=7))
    assert model.router_statistics() == statistics


@pytest.mark.parametrize("kind", ["dtf", "tdtf"])
def test_the_sources_names_are_averages_over_layers(kind):
    model = small_model(kind)
    statistics = RouterStatistics([model], mesh=None)
    statistics.begin_step()
    model(some_tokens())
    statistics.add_microbatch()
    found = statistics.read()
    for name in ("S_CE", "S_CU", "G_cont"):
        assert found[name] == pytest.approx((found[f"layer_1/{name}"] + found[f"layer_3/{name}"]) / 2)
        assert 0 < found[name] < 1
