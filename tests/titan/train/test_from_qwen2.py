"""Weights in the format of Qwen/Qwen2.5-0.5B from the local Hub: planned, prepared and trained on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import qwen2_repository
import torch
from local_hub import LocalHub
from qwen2_repository import REPO, TINY, TINY_ARGS
from safetensors.torch import load_file
from tiny_experiment import ROOT
from tiny_hub import talk_to
from tiny_stages import Workbench

from titanflow.data.prepare import prepare
from titanflow.planning.begin import begin_stage
from titanflow.planning.plan import make_plan
from titanflow.runs.contract import StageRun
from titanflow.runs.results import TrainResult, read_result

pytestmark = pytest.mark.slow


@pytest.fixture(params=["1GB", "60KB"], ids=["one file", "shards"])
def published(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files of the repository, in which it lies."""
    folder = qwen2_repository.write_tokenizer(tmp_path / "published")
    qwen2_repository.write_weights(folder, request.param)
    assert (folder / "model.safetensors.index.json").is_file() == (request.param != "1GB")
    with LocalHub() as hub:
        talk_to(hub, monkeypatch, tmp_path / "cache")
        qwen2_repository.upload(hub, folder, **TINY)
        yield folder


def trained(bench: Workbench, root: Path, family: str) -> StageRun:
    """The shipped experiment's pretraining at the repository's size, of one step that teaches nothing."""
    (root / "text.txt").write_text("The stone is red. I saw 1 of them.\n" * 200)
    (root / "text.yaml").write_text(f"kind: text\npath: {root / 'text.txt'}\n")
    settings = [f"workspace={root / 'runs'}", f"pretrain.model={family}_0.5B.yaml", "pretrain.validation.enable=false"]
    settings += [f"pretrain.model.{name}={value}" for name, value in TINY_ARGS.items()]
    settings += [f"pretrain.data={root / 'text.yaml'}"]
    settings += ["pretrain.optimizer.lr=0", "pretrain.optimizer.group_lr=null", "pretrain.training.steps=1"]
    settings += ["pretrain.training.seq_len=32", "pretrain.metrics.enable_wandb=false"]
    settings += ["pretrain.training.mixed_precision_param=float32"]
    plan = make_plan("from_qwen2", ROOT / "configs", overrides=settings)
    begin_stage(prepared := plan.stage("prepare"))
    prepare(prepared.run)
    begin_stage(stage := plan.stage("pretrain"))
    assert bench.run(stage.run) == 0, (stage.run.folder / "log.txt").read_text()
    return stage.run


@pytest.mark.parametrize("family", ["qwen2", "mod"])
def test_what_was_published_is_what_is_trained_on(
    bench: Workbench, tmp_path: Path, published: Path, family: str
) -> None:
    run = trained(bench, tmp_path, family)
    result = read_result(run.folder)
    assert isinstance(result, TrainResult)
    assert result.base_model == REPO
    given: dict[str, torch.Tensor] = {}
    for path in published.glob("*.safetensors"):
        given |= load_file(path)
    exported = load_file(result.export / "model.safetensors")
    new = {name for name in exported if name not in given}
    assert given.keys() <= exported.keys()
    assert all(torch.equal(exported[name].float(), tensor.float()) for name, tensor in given.items())
    assert bool(new) == (family == "mod")
    assert all(".router." in name or ".causal_router." in name for name in new)
