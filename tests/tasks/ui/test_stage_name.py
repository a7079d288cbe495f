from pathlib import Path

import pytest

from tasks.ui.labels import stage_name
from titanflow.runs.contract import KIND_OF, StageRun

TRAINING = {"model": {"name": "llama3"}, "training": {"steps": 1500}}


@pytest.mark.parametrize(
    ("stage", "config", "name"),
    [
        ("prepare", {"datasets": [{}, {}]}, "prepare 2 datasets"),
        ("pretrain", TRAINING, "pretrain llama3"),
        ("sft", {**TRAINING, "lora": {"rank": 8}}, "sft llama3 LoRA 8"),
        ("sft", {**TRAINING, "lora": {"rank": 0}}, "sft llama3"),
        ("evaluate", {"models": ["base", "sft"], "tasks": ["kind"]}, "evaluate 1 task"),
        ("publish", {"target": "hub", "repo_id": "a/b"}, "push_to_hub a/b"),
        ("publish", {"target": "folder", "repo_id": None}, "push_to_hub"),
        ("publish_b", {"target": "hub", "repo_id": "a/b"}, "publish_b a/b"),
        ("pretrain", {}, "pretrain"),
    ],
)
def test_a_stage_in_a_few_words(stage, config, name):
    kind = KIND_OF[stage.partition("_")[0]]
    run = StageRun(stage=stage, kind=kind, experiment="e", run="r", folder=Path("/f"), config=config)
    assert stage_name(run) == name
