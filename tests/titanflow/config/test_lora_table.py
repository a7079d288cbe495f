"""The table of presets in docs/fine-tuning.md names the modules that each family has."""

import re
from pathlib import Path

import pytest

from titanflow.architectures.families.registry import PARAMETER_GROUPS
from titanflow.architectures.torchtitan import load_snapshot
from titanflow.architectures.weights import module_names
from titanflow.config.settled.lora_presets import ROUTED, expanded

PAGE = Path(__file__).parents[3] / "docs" / "fine-tuning.md"


def named_in_docs() -> dict[str, set[str]]:
    row = next(line for line in PAGE.read_text().splitlines() if line.startswith("| `[routed]` |"))
    families = (part.split(":", 1) for part in row.split("|")[2].split(";"))
    return {family.strip(): set(re.findall(r"`(\w+)`", names)) for family, names in families}


def saved(family: str, **args: str) -> set[str]:
    """The modules that the preset stands for, a whole one by its own name."""
    flavor = load_snapshot()["models"][family]["flavors"]["debugmodel"]
    linears, others = module_names(family, {**flavor, **args})
    return {name.partition(".")[0] for name in expanded([ROUTED], family, [*linears, *others])}


def test_every_family_with_routers_is_in_the_table() -> None:
    assert named_in_docs().keys() == PARAMETER_GROUPS.keys()


@pytest.mark.parametrize("family", PARAMETER_GROUPS)
def test_the_table_names_what_is_saved(family: str) -> None:
    kinds = [{"causal_router": one} for one in ("previous", "own")] if family != "tdtf" else [{}]
    assert named_in_docs()[family] == set().union(*(saved(family, **kind) for kind in kinds))


def test_the_table_says_what_another_causal_router_has() -> None:
    assert saved("mod", causal_router="own") == named_in_docs()["mod"] - {"causal_router"}
    assert saved("mod") == named_in_docs()["mod"] - {"predictor"}
    assert saved("dtf", causal_router="own") == named_in_docs()["dtf"] - {"causal_router"}
