from math import prod
from typing import Any

import pytest

from titanflow.config.checks.module import check_module, overruled
from titanflow.config.module import Module


@pytest.fixture
def loaded(write: Any, load: Any) -> Any:
    return load(write())


def module(loaded: Any, packing: Any = "best_fit", model: str = "llama3", **parallelism: int) -> Module:
    """A plain module of an experiment, to which a key is added that says that its rows are packed."""
    pretrain: Module = loaded.modules["pretrain"]
    pretrain.config["data"]["packing"] = packing
    pretrain.config["model"]["name"] = model
    pretrain.config["parallelism"] |= parallelism
    pretrain.config["launcher"]["nproc_per_node"] = prod(parallelism.values())
    return pretrain


@pytest.mark.parametrize("packing", [None, False, "best_fit"])
def test_one_process_may_pack(loaded: Any, packing: Any) -> None:
    assert check_module(module(loaded, packing)) == []


@pytest.mark.parametrize("model", ["qwen3", "deepseek_v3"])
def test_so_may_tensor_and_data_parallel_ranks_of_the_families_that_can(loaded: Any, model: str) -> None:
    parallel = {"tensor_parallel_degree": 2, "data_parallel_shard_degree": 2}
    assert check_module(module(loaded, model=model, **parallel)) == []


@pytest.mark.parametrize(
    ("model", "parallelism", "key", "reason"),
    [
        ("llama4", {}, "model.name", "found llama4, and data.packing: llama4 can't keep the documents of a row apart"),
        ("gpt_oss", {}, "model.name", "it takes no positions"),
        (
            "llama3",
            {"context_parallel_degree": 2},
            "parallelism.context_parallel_degree",
            "found 2, and data.packing: the ranks cut each row",
        ),
        (
            "llama3",
            {"pipeline_parallel_degree": 4},
            "parallelism.pipeline_parallel_degree",
            "found 4, and data.packing: torchtitan gives a row's positions to the pipeline's first stage only",
        ),
    ],
)
def test_what_would_mix_documents_is_refused(
    loaded: Any, model: str, parallelism: dict[str, int], key: str, reason: str
) -> None:
    packed = module(loaded, model=model, **parallelism)
    (problem,) = check_module(packed)
    assert problem.key == f"{packed.name}.{key}"
    assert problem.origin == packed.origins[key]
    assert reason in problem.message
    assert "data.packing" in problem.hint
    packed.config["data"]["packing"] = None
    assert check_module(packed) == []


@pytest.mark.parametrize(
    ("data", "is_idle"),
    [
        ({}, True),
        ({"kind": "chat"}, False),
        ({"kind": "chat", "packing": "best_fit"}, True),
        ({"kind": "chat", "streaming": True}, True),
    ],
)
def test_grouping_rows_that_are_all_full_or_streamed_has_no_effect(
    write: Any, load: Any, data: dict[str, Any], is_idle: bool
) -> None:
    pretrain: Module = load(write(), "pretrain.training.group_by_length=true").modules["pretrain"]
    pretrain.config["data"] |= data
    assert any("training.group_by_length" in line for line in overruled(pretrain)) is is_idle
