"""Adapters that Muon trains beside a frozen base, as processes: whole, killed and resumed, on one rank and on two."""

from dataclasses import replace
from pathlib import Path

import dies_in_muon
import pytest
import torch
from tiny_adapters import finished_base
from tiny_stages import MODEL, SEQ_LEN, Workbench, records
from transformers import AutoModelForCausalLM

from titan.export.export import export_checkpoint
from titan.models.registry import train_spec
from titanflow.runs.checkpoints import read_contents
from titanflow.runs.contract import PreparedData, StageRun
from titanflow.runs.results import read_result

pytestmark = pytest.mark.slow

STEPS = 4
CONFIG = {
    "training": {"steps": STEPS},
    "optimizer": {"name": "Muon", "muon_lr": 2e-2},
    "lora": {"rank": 4, "alpha": 8.0, "modules_to_save": ["norm"]},
    "checkpoint": {"interval": 2, "last_save_model_only": False},
}
ADAPTERS = 2 * 7 * 2
"""In each of two layers an A and a B for four projections of attention and three of the feed-forward."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Workbench:
    """A workbench whose stage ``base`` is finished, and exported."""
    bench = Workbench(tmp_path_factory.mktemp("lora"), shared_data)
    args = replace(train_spec("llama3").model_args["debugmodel"], max_seq_len=SEQ_LEN, **MODEL)
    base = finished_base(bench.folder / "base", "llama3", args, config={"training": {"seq_len": SEQ_LEN}})
    export_checkpoint(base, base / "export", shared_data / "tokenizer")
    return bench


def stage(bench: Workbench, name: str, *settings: dict[str, dict[str, object]]) -> StageRun:
    return bench.stage(
        name,
        CONFIG,
        *settings,
        stage="sft",
        base=bench.folder / "base",
        model_overrides={},
        data=PreparedData(train=bench.data / "chats"),
        tokenizer=bench.data / "tokenizer",
    )


def train(bench: Workbench, run: StageRun, ranks: int | None = None) -> StageRun:
    assert bench.run(run, ranks) == 0, (run.folder / "log.txt").read_text()
    return run


@pytest.fixture(scope="module")
def whole(bench: Workbench) -> StageRun:
    return train(bench, stage(bench, "whole"))


def test_muon_takes_each_adapter_and_adamw_the_modules_that_are_saved(whole: StageRun) -> None:
    assert f"Muon: {ADAPTERS} tensors of " in (whole.folder / "log.txt").read_text()
    kept = read_contents(whole.folder / "checkpoint" / f"step-{STEPS}").shapes
    momenta = [key for key in kept if key.endswith(".momentum_buffer")]
    assert len(momenta) == ADAPTERS
    assert all(key.rsplit(".", 2)[1] in ("lora_a", "lora_b") for key in momenta)
    assert {key for key in kept if "exp_avg_sq" in key} == {"optimizer.state.norm.weight.exp_avg_sq"}


def test_it_learns_and_the_export_has_what_it_learned(whole: StageRun, bench: Workbench) -> None:
    losses = records(whole)
    assert losses[STEPS] < losses[1]
    result = read_result(whole.folder)
    exports = bench.folder / "base" / "export", result.export
    base, merged = (AutoModelForCausalLM.from_pretrained(one, dtype=torch.float32).state_dict() for one in exports)
    changed = {name for name in base if not torch.equal(base[name], merged[name])}
    assert {name for name in changed if "_proj" in name} == {name for name in base if "_proj" in name}
    assert "model.embed_tokens.weight" not in changed


def test_killed_within_a_step_it_ends_as_the_whole_one_to_the_bit(whole: StageRun, bench: Workbench) -> None:
    run = stage(bench, "killed")
    # Its matrices have stepped, and what AdamW steps has not.
    assert bench.run(run, script=dies_in_muon.__file__, env={dies_in_muon.DIES_IN: "4"}) == -9
    assert max(records(run)) == 3
    train(bench, run)
    assert "Training starts at step 3" in (run.folder / "log.txt").read_text()
    for key in ("loss", "grad_norm"):
        assert records(run, key) == records(whole, key)
    assert read_result(run.folder).export_digests == read_result(whole.folder).export_digests


@pytest.mark.parametrize("replicas", [1, 2])
def test_two_ranks_have_the_losses_of_one_process(whole: StageRun, bench: Workbench, replicas: int) -> None:
    """FSDP, and DDP, whose replicas share the work."""
    parallelism = {"data_parallel_replicate_degree": replicas, "data_parallel_shard_degree": 2 // replicas}
    two = train(bench, stage(bench, f"two-{replicas}", {"parallelism": parallelism}), ranks=2)
    assert records(two)[1] == pytest.approx(records(whole)[1], rel=1e-6)
    assert records(two) == pytest.approx(records(whole), rel=2e-4)
