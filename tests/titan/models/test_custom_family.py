"""A family that comes in by ``experimental.custom_import`` and has what torchtitan's own lack: dropout."""

import textwrap

import pytest
from tiny_stages import VOCAB, records

from titanflow.runs.contract import PreparedData, StageRun
from titanflow.runs.results import read_result

pytestmark = pytest.mark.slow

FAMILY = f"""
    from dataclasses import dataclass

    from torch import nn
    from torchtitan.components.loss import build_cross_entropy_loss
    from torchtitan.components.lr_scheduler import build_lr_schedulers
    from torchtitan.components.optimizer import build_optimizers
    from torchtitan.components.tokenizer import build_hf_tokenizer
    from torchtitan.components.validate import build_validator
    from torchtitan.hf_datasets.text_datasets import build_text_dataloader
    from torchtitan.protocols.model import BaseModelArgs, ModelProtocol
    from torchtitan.protocols.train_spec import TrainSpec, register_train_spec


    @dataclass
    class BagArgs(BaseModelArgs):
        vocab_size: int = {VOCAB}
        dim: int = 16
        dropout: float = 0.0

        def update_from_config(self, job_config, **kwargs):
            pass

        def get_nparams_and_flops(self, model, seq_len):
            return sum(parameter.numel() for parameter in model.parameters()), 1


    class Bag(ModelProtocol):
        def __init__(self, model_args):
            super().__init__(model_args)
            self.embedding = nn.Embedding(model_args.vocab_size, model_args.dim)
            self.dropout = nn.Dropout(model_args.dropout)
            self.output = nn.Linear(model_args.dim, model_args.vocab_size)
            print("a layer that drops", self.dropout.p, flush=True)

        def init_weights(self, buffer_device=None):
            nn.init.normal_(self.embedding.weight)
            self.output.reset_parameters()

        def forward(self, tokens, **kwargs):
            return self.output(self.dropout(self.embedding(tokens)))


    def parallelize(model, parallel_dims, job_config):
        return model


    def get_train_spec():
        return TrainSpec(
            model_cls=Bag,
            model_args={{"small": BagArgs()}},
            parallelize_fn=parallelize,
            pipelining_fn=None,
            build_optimizers_fn=build_optimizers,
            build_lr_schedulers_fn=build_lr_schedulers,
            build_dataloader_fn=build_text_dataloader,
            build_tokenizer_fn=build_hf_tokenizer,
            build_loss_fn=build_cross_entropy_loss,
            build_validator_fn=build_validator,
        )


    register_train_spec("bag", get_train_spec)
    """
BAG = {
    "model": {"name": "bag", "flavor": "small"},
    "experimental": {"custom_import": "bag_family"},
    "training": {"steps": 2},
    "checkpoint": {"interval": 2},
}


@pytest.fixture
def run_stage(bench, tmp_path):
    """Runs a stage of the family; its log, whatever it came to."""
    (tmp_path / "bag_family.py").write_text(textwrap.dedent(FAMILY))

    def run(stage: StageRun) -> str:
        bench.run(stage, path=tmp_path)
        return (stage.folder / "log.txt").read_text()

    return run


def test_an_sft_may_set_its_own_dropout(bench, run_stage):
    pretrain = bench.stage("pretrain", BAG, model_overrides={"dropout": 0.1})
    assert "a layer that drops 0.1" in run_stage(pretrain)
    assert read_result(pretrain.folder).model_args["dropout"] == 0.1
    sft = bench.stage(
        "sft",
        BAG,
        stage="sft",
        base=pretrain.folder,
        model_overrides={"dropout": 0.0},
        data=PreparedData(train=bench.data / "chats"),
        origins={"model.dropout": "/configs/modules/sft.yaml:9"},
    )
    log = run_stage(sft)
    assert "a layer that drops 0.0" in log
    assert "a layer that drops 0.1" not in log
    result = read_result(sft.folder)
    assert (result.model_args["dropout"], result.model_args["dim"]) == (0.0, 16)
    dropout = [str(row) for row in result.inheritance if "dropout" in row.key]
    assert dropout == ["Changed model.dropout: 0.1 → 0.0 from sft.yaml:9"]


def test_a_resumed_run_drops_what_the_uninterrupted_one_drops(bench, run_stage):
    settings = {"training": {"steps": 6}, "checkpoint": {"interval": 3, "last_save_model_only": False}}
    whole = bench.stage("whole", BAG, settings, model_overrides={"dropout": 0.5})
    run_stage(whole)
    resumed = bench.stage("resumed", BAG, settings, {"training": {"steps": 3}}, model_overrides={"dropout": 0.5})
    run_stage(resumed)
    (resumed.folder / "result.json").unlink()
    resumed.config["training"]["steps"] = 6
    resumed.write()
    assert "Training starts at step 4" in run_stage(resumed)
    assert list(records(whole)) == [1, 2, 3, 4, 5, 6]
    assert records(resumed) == records(whole)
