"""Stages with a chunked loss as processes: each has the losses that it has with a whole one, however it is spread."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_adapters import finished_base
from tiny_stages import MODEL, SEQ_LEN, VOCAB, Workbench, records, write_chat_rows, write_pair_rows

from titan.models.registry import train_spec
from titanflow.runs.contract import PreparedData, StageRun

pytestmark = pytest.mark.slow

CHUNKED = {"training": {"loss_chunks": 3}}
STAGE = {
    "training": {"steps": 4, "local_batch_size": 4},
    "lr_scheduler": {"warmup_steps": 0},
    "validation": {"enable": True, "freq": 2, "local_batch_size": 4},
}
TIED = {
    **{"n_layers": 2, "dim": 64, "n_heads": 4, "n_kv_heads": 2, "vocab_size": VOCAB},
    **{"head_dim": 16, "hidden_dim": 64, "enable_weight_tying": True},
}
DDP = {"data_parallel_replicate_degree": 2, "data_parallel_shard_degree": 1}
WAYS = {
    "one process": (None, {}),
    "bfloat16": (None, {"training": {"mixed_precision_param": "bfloat16"}}),
    "compiled": (None, {"compile": {"enable": True}}),
    "fsdp": (2, {}),
    "fsdp, resharded": (2, {"parallelism": {"fsdp_reshard_after_forward": "always"}}),
    "ddp": (2, {"parallelism": DDP}),
    "tensor": (2, {"parallelism": {"tensor_parallel_degree": 2}}),
    "pipeline": (2, {"parallelism": {"pipeline_parallel_degree": 2}}),
}
TOLERANCE = {"bfloat16": 1e-3}


@pytest.fixture(scope="module")
def workbench(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Workbench:
    """A workbench whose stage ``base`` is finished, with pairs and packed chats of its own."""
    folder = tmp_path_factory.mktemp("chunked")
    write_pair_rows(folder / "pairs", 32, seed=0, packed=True)
    write_pair_rows(folder / "dev_pairs", 10, seed=1)
    write_chat_rows(folder / "chats", 60, seed=2, packed=True)
    args = replace(train_spec("llama3").model_args["debugmodel"], max_seq_len=SEQ_LEN, **MODEL)
    finished_base(folder / "base", "llama3", args, config={"training": {"seq_len": SEQ_LEN}})
    return Workbench(folder, shared_data)


def trained(bench: Workbench, name: str, *configs: Any, ranks: int | None = None, **fields: Any) -> StageRun:
    run = bench.stage(name, STAGE, *configs, **fields)
    assert bench.run(run, ranks) == 0, (run.folder / "log.txt").read_text()
    return run


def check_equal(found: StageRun, expected: StageRun, tolerance: float = 2e-6) -> None:
    for key, allowed in {"loss": tolerance, "validation_loss": tolerance, "grad_norm": 20 * tolerance}.items():
        assert records(expected, key)
        assert records(found, key) == pytest.approx(records(expected, key), rel=allowed)


@pytest.mark.parametrize("way", WAYS)
def test_a_pretraining_has_the_losses_of_a_whole_loss(workbench: Workbench, way: str) -> None:
    ranks, config = WAYS[way]
    whole = trained(workbench, f"whole {way}", config, ranks=ranks)
    found = trained(workbench, f"chunked {way}", config, CHUNKED, ranks=ranks)
    check_equal(found, whole, TOLERANCE.get(way, 2e-6))


@pytest.mark.parametrize("ranks", [None, 2])
def test_tied_embeddings_have_the_losses_of_a_whole_loss(workbench: Workbench, ranks: int | None) -> None:
    qwen3 = {"model": {"name": "qwen3", "flavor": "debugmodel"}}
    runs = [
        trained(workbench, f"tied {ranks} {len(config)}", qwen3, config, ranks=ranks, model_overrides=TIED)
        for config in ({}, CHUNKED)
    ]
    check_equal(*reversed(runs))


@pytest.mark.parametrize("ranks", [None, 2])
@pytest.mark.parametrize("lora", [{}, {"lora": {"rank": 2, "target_modules": ["wq", "output"]}}], ids=["", "lora"])
def test_a_fine_tuning_on_packed_chats_has_the_losses_of_a_whole_loss(
    workbench: Workbench, ranks: int | None, lora: Any
) -> None:
    data = PreparedData(train=workbench.folder / "chats", validation=workbench.data / "validation")
    fields: Any = {"stage": "sft", "base": workbench.folder / "base", "model_overrides": {}, "data": data}
    packed = {"data": {"packing": "best_fit"}}
    runs = [
        trained(workbench, f"sft {ranks} {len(lora)} {len(config)}", packed, lora, config, ranks=ranks, **fields)
        for config in ({}, CHUNKED)
    ]
    check_equal(*reversed(runs))


@pytest.mark.parametrize("way", ["one process", "fsdp", "fsdp, resharded", "tensor"])
def test_preferences_have_the_losses_of_a_whole_loss(workbench: Workbench, way: str) -> None:
    ranks, spread = WAYS[way]
    data = PreparedData(train=workbench.folder / "pairs", validation=workbench.folder / "dev_pairs")
    fields: Any = {"stage": "prefer", "base": workbench.folder / "base", "model_overrides": {}, "data": data}
    packed = {"data": {"packing": "best_fit"}, "optimizer": {"lr": 1e-3}}
    runs = [
        trained(workbench, f"prefer {way} {len(config)}", packed, spread, config, ranks=ranks, **fields)
        for config in ({}, CHUNKED)
    ]
    check_equal(*reversed(runs), 1e-5)
