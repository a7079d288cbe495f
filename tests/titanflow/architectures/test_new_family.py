"""A family that comes with the project is one file here and one folder in ``titan/models``, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from copied_packages import copy_packages, run_there
from tiny_experiment import write_tiny_experiment

RECORD = '''"""A family of one's own, which computes what qwen2 does."""

from titanflow.architectures.families.qwen2 import qwen2_block
from titanflow.architectures.family import Family

FAMILY = Family(
    name="mine",
    block=qwen2_block,
    module="titan.models.mine",
    architecture="Qwen2ForCausalLM",
    words="qwen2",
    parts_width=True,
)
'''
SPEC = '''"""The same for torchtitan."""

from torchtitan.protocols.train_spec import get_train_spec, register_train_spec

import titan.models.qwen2  # noqa: F401 it registers
from titan.models.huggingface import HuggingFaceModel, register_hugging_face_model
from titan.models.qwen2 import make_qwen2_config

register_train_spec("mine", get_train_spec("qwen2"))
register_hugging_face_model("mine", HuggingFaceModel("Qwen2ForCausalLM", make_qwen2_config))
'''


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The packages with the new family in them."""
    copy_packages(tmp_path)
    (tmp_path / "titanflow/architectures/families/mine.py").write_text(RECORD)
    folder = tmp_path / "titan/models/mine"
    folder.mkdir()
    (folder / "__init__.py").write_text(SPEC)
    return tmp_path


def test_a_new_family_is_a_file_and_a_folder(project: Path, tmp_path: Path) -> None:
    configs = write_tiny_experiment(tmp_path / "tiny")
    (configs / "models/mine.yaml").write_text("model: {name: mine, flavor: debugmodel, vocab_size: 300}\n")

    run_there(project, "-m", "titan.models.snapshot")
    settings = ["--set", "modules.pretrain.model=mine.yaml", "--set", "sft.lora.rank=2"]
    command = ["-m", "titanflow.cli.main", "plan", "tiny", "--configs", str(configs), "--json"]
    plan = json.loads(run_there(project, *command, *settings))
    forecasts = {stage["stage"]: stage["forecast"] for stage in plan["stages"]}
    assert forecasts["pretrain"]["parameters"] == forecasts["sft"]["parameters"] > 0
    assert 0 < forecasts["sft"]["trained_parameters"] < forecasts["sft"]["parameters"]
    built = "from titan.models.registry import train_spec; import torch; spec = train_spec('mine'); "
    built += "args = spec.model_args['debugmodel']; args.vocab_size = 300; torch.set_default_device('meta'); "
    built += "print(len({id(p): p for p in spec.model_cls(args).parameters()}), sum(p.numel() for p in "
    built += "{id(p): p for p in spec.model_cls(args).parameters()}.values()))"
    assert int(run_there(project, "-c", built).split()[-1]) == forecasts["pretrain"]["parameters"]
