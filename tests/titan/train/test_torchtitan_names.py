"""The names that a plan admits are those that the installed torchtitan and torch answer to."""

import pytest
import torch
from torch.distributed.pipelining.schedules import get_schedule_class
from torchtitan.components.optimizer import build_optimizers
from torchtitan.components.quantization import float8, mx  # noqa: F401  (they register their converters)
from torchtitan.config import JobConfig
from torchtitan.distributed import ParallelDims
from torchtitan.protocols.model_converter import _registry_model_converter_cls

import titan.models.documents  # noqa: F401  (it registers its converter)
from titan.train.chunked_loss import CHUNKED_LOSS, CHUNKED_TOKEN_LOSSES
from titanflow.config.checks.named_values import CONVERTERS, OPTIMIZERS, SCHEDULES


def optimizer(name: str) -> object:
    config = JobConfig().optimizer
    config.name, config.implementation = name, "foreach"
    return build_optimizers([torch.nn.Linear(2, 2)], config, ParallelDims(1, 1, 1, 1, 1, 1, 1, 1))


def test_optimizers() -> None:
    for name in OPTIMIZERS:
        optimizer(name)
    with pytest.raises(NotImplementedError, match="Adma"):
        optimizer("Adma")


def test_schedules() -> None:
    for name in SCHEDULES:
        get_schedule_class(name)
    with pytest.raises(ValueError, match="valid options") as error:
        get_schedule_class("1F2B")
    assert str(list(SCHEDULES)) in str(error.value)


def test_converters() -> None:
    by_keys = {"lora", CHUNKED_LOSS, CHUNKED_TOKEN_LOSSES}
    assert {*CONVERTERS} == {*_registry_model_converter_cls} - by_keys
