"""Faults of torchtitan 0.2.2 in models and checkpoints: by the number of the pull request that mended them.

Each test fails where this project has the fault.
"""

import dataclasses
import json
import math
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from safetensors import safe_open
from tiny_exports import model_at, save_checkpoint, sensitised, tiny_args, write_byte_tokenizer
from tiny_stages import VOCAB
from torch import nn
from torchtitan.components.checkpoint import CheckpointManager
from torchtitan.config import JobConfig
from torchtitan.models.deepseek_v3.model.model import DeepSeekV3Model
from torchtitan.models.moe.moe import MoE, MoEArgs
from transformers import AutoModelForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

import titan.export.export
from titan.export.export import export_model
from titan.export.files import SpecialTokens, make_config
from titan.models.registry import train_spec
from titan.patches import apply_patches
from titan.train.job_config import apply_stage_defaults, build_job_config
from titan.train.trainer import Trainer
from titan.weights.saver import CheckpointSaver
from titanflow.common.errors import ConfigError
from titanflow.runs.contract import StageRun

apply_patches(["experts_on_cpu"])


@pytest.mark.parametrize("family", ["qwen3", "qwen2"])
def test_3764_tied_weights_are_written_once_and_read_back(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base's index that names the output layer made torchtitan write a file with an empty entry for it."""
    monkeypatch.setattr(titan.export.export, "SHARD_SIZE", 100_000)
    args = tiny_args(family, enable_weight_tying=True)
    native = sensitised(family, args)
    assets = write_byte_tokenizer(tmp_path / "tokenizer")
    names = train_spec(family).state_dict_adapter(args, None).to_hf(native.state_dict())
    index = {**dict.fromkeys(names, "model-00001-of-00002.safetensors"), "lm_head.weight": "model-00002-of-00002"}
    (assets / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))

    checkpoint = save_checkpoint(native, tmp_path / "step-1")
    folder = export_model(model_at(checkpoint, family, args, assets), tmp_path / "out").folder

    written = []
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            assert all(opened.get_slice(key).get_shape() for key in list(opened.keys()))
            written += [(key, file.name) for key in list(opened.keys())]
    assert sorted(key for key, _ in written) == sorted(set(names) - {"lm_head.weight"})
    assert json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"] == dict(written)
    loaded, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(loaded.lm_head.weight, native.output.weight)


@pytest.mark.parametrize(
    ("trained", "asked"), [("bfloat16", "float32"), ("float32", "bfloat16"), ("bfloat16", "bfloat16")]
)
def test_4166_the_last_checkpoint_has_the_type_that_was_asked_for(
    trained: str, asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    model = nn.Linear(3, 2, dtype=getattr(torch, trained))
    config = JobConfig().checkpoint
    config.enable, config.last_save_model_only, config.export_dtype, config.keep_latest_k = True, True, asked, 0
    manager = CheckpointManager(None, [model], None, None, {}, config, None, str(tmp_path))  # type: ignore[arg-type]

    CheckpointSaver(manager, tmp_path / config.folder, config).save(3, last=True)

    stored = {key: torch.empty(value.shape, dtype=getattr(torch, asked)) for key, value in model.state_dict().items()}
    reader = dist.checkpoint.FileSystemReader(tmp_path / config.folder / "step-3")
    kinds = {key: item.properties.dtype for key, item in reader.read_metadata().state_dict_metadata.items()}
    assert kinds == {key: value.dtype for key, value in stored.items()}
    dist.checkpoint.load(stored, storage_reader=reader)
    for key, value in model.state_dict().items():
        assert value.dtype == getattr(torch, trained)
        assert torch.equal(stored[key], value.to(stored[key].dtype))
    assert manager.states["model"].state_dict()["weight"].dtype == getattr(torch, trained)


def test_4148_a_validation_moves_no_count_of_an_experts_tokens() -> None:
    layer = MoE(MoEArgs(num_experts=4, top_k=2), dim=8, hidden_dim=16)
    with torch.no_grad():
        layer.init_weights(init_std=0.1, buffer_device=torch.device("cpu"))
    layer(torch.randn(1, 6, 8))
    before = layer.tokens_per_expert.clone()

    def validate(model_parts: list[nn.Module], step: int) -> None:
        with torch.no_grad():
            model_parts[0].eval()(torch.randn(1, 6, 8))
        assert layer.tokens_per_expert.sum() == 24

    trainer = Trainer.__new__(Trainer)
    trainer.model_parts, trainer.step, trainer._mean = [nn.Sequential(layer)], 1, None
    trainer.validator = SimpleNamespace(validate=validate)  # type: ignore[assignment]
    trainer._validate()

    assert before.sum() == 12
    assert torch.equal(layer.tokens_per_expert, before)


@pytest.mark.parametrize(
    ("excluded", "refused"),
    [
        (["optimizer"], "found 'optimizer' without 'lr_scheduler'"),
        (["optimizer", "dataloader"], "found 'optimizer' without 'lr_scheduler'"),
        (["model"], "found 'model'"),
        (["optimiser"], "found 'optimiser'"),
        (["optimizer", "lr_scheduler"], ""),
        (["lr_scheduler"], ""),
        ([], ""),
    ],
)
def test_4168_a_schedule_is_not_loaded_without_its_optimizer(excluded: list[str], refused: str, tmp_path: Path) -> None:
    config = {"model": {"name": "llama3"}, "checkpoint": {"exclude_from_loading": excluded}}
    origins = {"checkpoint.exclude_from_loading": "p.yaml:4"}
    run = StageRun(stage="pretrain", experiment="e", run="r", folder=tmp_path, config=config, origins=origins)
    with pytest.raises(ConfigError, match=rf"p\.yaml:4: .*{refused}") if refused else nullcontext():
        apply_stage_defaults(build_job_config(run), run, None)


@pytest.mark.parametrize("positions", [32, 64, 65])
def test_4117_rope_is_stretched_on_rows_of_any_length(positions: int) -> None:
    """64 is the original length; the table's angles are transformers', the softmax's scale DeepSeek's formula."""
    args = dataclasses.replace(tiny_args("deepseek_v3"), max_seq_len=positions)
    tokens = SpecialTokens(bos=None, eos=(0,), pad=None, vocabulary=VOCAB)
    config = make_config("deepseek_v3", args, tokens, positions)
    angles, _ = ROPE_INIT_FUNCTIONS["yarn"](config, "cpu")
    expected = torch.outer(torch.arange(positions), angles)
    model = train_spec("deepseek_v3").model_cls(args)

    for _ in range(2):
        assert torch.allclose(model.freqs_cis, torch.polar(torch.ones_like(expected), expected), atol=1e-5)
        with torch.no_grad():
            model.init_weights()
    mscale = 0.1 * args.mscale * math.log(args.rope_factor) + 1
    assert model.layers["0"].attention.softmax_scale == pytest.approx(32**-0.5 * mscale**2)
    assert (model.max_seq_len, model.model_args.max_seq_len, args.max_seq_len) == (positions,) * 3


def test_4117_shorter_rows_of_a_fine_tuning_have_the_bases_logits() -> None:
    base = sensitised("deepseek_v3", tiny_args("deepseek_v3"))
    tuned = train_spec("deepseek_v3").model_cls(dataclasses.replace(base.model_args, max_seq_len=32))
    tuned.load_state_dict(base.state_dict())
    tokens = torch.randint(VOCAB, (1, 32))
    with torch.no_grad():
        assert torch.allclose(tuned.eval()(tokens), base(tokens), atol=1e-5)


def test_4117_torchtitan_still_asks_for_long_rows() -> None:
    args = dataclasses.replace(tiny_args("deepseek_v3"), max_seq_len=64)
    plain = DeepSeekV3Model(dataclasses.replace(args, rope_factor=1.0))
    assert torch.equal(DeepSeekV3Model(args).freqs_cis, plain.freqs_cis)
