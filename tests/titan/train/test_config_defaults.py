"""What a config's key is when nobody writes it: as the dataclass that a stage reads it into has it."""

from dataclasses import asdict

import pytest
from torchtitan.config.job_config import JobConfig

from titanflow.config.files.schema import dataclass_schema, defaults
from titanflow.config.keys.after_training import Evaluate, Publish
from titanflow.config.keys.experiment import ExperimentSpec
from titanflow.config.keys.training import TRAINING_SECTIONS
from titanflow.config.module import stage_schema
from titanflow.files.yaml_source import flatten

SCHEMAS = {
    JobConfig: stage_schema("pretrain"),
    Evaluate: stage_schema("evaluate"),
    Publish: stage_schema("publish"),
    ExperimentSpec: dataclass_schema(ExperimentSpec),
    TRAINING_SECTIONS: dataclass_schema(TRAINING_SECTIONS),
}


@pytest.mark.parametrize("read_into", SCHEMAS)
def test_a_plan_has_the_defaults_of_what_a_stage_reads(read_into: type) -> None:
    planned, own = flatten(defaults(SCHEMAS[read_into])), flatten(asdict(read_into()))
    assert {key: planned[key] for key in own} == own


def test_the_lists_that_a_factory_makes_are_there() -> None:
    planned = flatten(defaults(stage_schema("pretrain")))
    assert planned["compile.components"] == ["model", "loss"]
    assert planned["activation_checkpoint.per_op_sac_force_recompute_mm_shapes_by_fqns"] == ["moe.router.gate"]
