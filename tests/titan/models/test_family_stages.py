"""Each family, trained as a stage on one process and on two."""

import pytest
from tiny_stages import VOCAB, records

from titanflow.architectures.families.registry import OWN_FAMILIES, PARAMETER_GROUPS
from titanflow.runs.checkpoints import stored_model
from titanflow.runs.contract import PreparedData
from titanflow.runs.results import read_result

pytestmark = pytest.mark.slow

TITANS = {"n_layers": 2, "dim": 64, "n_heads": 4, "n_kv_heads": 2, "vocab_size": VOCAB}
ARGS = {family: {"vocab_size": VOCAB} for family in OWN_FAMILIES} | {
    "llama3": TITANS,
    "qwen3": {**TITANS, "head_dim": 16, "hidden_dim": 64, "enable_weight_tying": False},
}
STEPS = {"training": {"steps": 5, "local_batch_size": 4}, "lr_scheduler": {"warmup_steps": 0}}
CHECKED = {"validation": {"enable": True, "freq": 4, "local_batch_size": 4}}
PARALLEL = {
    "fsdp": {},
    "ddp": {"parallelism": {"data_parallel_replicate_degree": 2, "data_parallel_shard_degree": 1}},
    "tp": {"parallelism": {"tensor_parallel_degree": 2}},
}


@pytest.fixture(scope="module")
def one_process(shared_bench):
    """Each family's run on one process, made when first asked for."""
    runs = {}

    def run(family):
        if family not in runs:
            runs[family] = trained(shared_bench, family, "one", ranks=None)
        return runs[family]

    return run


def named(family):
    return {"model": {"name": family, "flavor": "debugmodel"}}


def trained(bench, family, name, *configs, ranks):
    run = bench.stage(
        f"{family}-{name}",
        named(family),
        STEPS,
        CHECKED,
        *configs,
        model_overrides=ARGS[family],
        tokenizer=bench.data / "tokenizer",
    )
    assert bench.run(run, ranks) == 0, (run.folder / "log.txt").read_text()
    return run


@pytest.mark.parametrize("kind", ["fsdp", "ddp"])
@pytest.mark.parametrize("family", [*OWN_FAMILIES, "qwen3"])
def test_two_processes_have_the_losses_of_one(shared_bench, one_process, family, kind):
    """With activation checkpointing, too, which changes nothing."""
    recomputed = {"activation_checkpoint": {"mode": "full"}}
    two = trained(shared_bench, family, kind, PARALLEL[kind], recomputed, ranks=2)
    for key, tolerance in {"loss": 2e-6, "validation_loss": 2e-6, "grad_norm": 1e-4}.items():
        assert records(two, key) == pytest.approx(records(one_process(family), key), rel=tolerance)
    statistics = records(one_process(family), "router")
    assert len(statistics) == (5 if family in PARAMETER_GROUPS else 0)
    for step, expected in statistics.items():
        assert records(two, "router")[step] == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("family", ["llama3", "qwen3", "qwen2"])
def test_tensor_parallel_processes_have_the_losses_of_one(shared_bench, one_process, family):
    two = trained(shared_bench, family, "tp", PARALLEL["tp"], ranks=2)
    for key in ("loss", "validation_loss"):
        assert records(two, key) == pytest.approx(records(one_process(family), key), rel=2e-5)


@pytest.mark.parametrize("family", OWN_FAMILIES)
def test_a_stage_exports_what_it_trained(one_process, family):
    result = read_result(one_process(family).folder)
    assert result.export is not None
    assert result.parity["relative_error"] < 1e-4
    assert result.parity["greedy_agreement"] == 1


@pytest.mark.parametrize("family", OWN_FAMILIES)
def test_adapters_are_trained_beside_each_family_and_its_routers_whole(shared_bench, one_process, family):
    base, has_routers = one_process(family), family in PARAMETER_GROUPS
    lora = {"lora": {"rank": 2, "modules_to_save": ["router"] if has_routers else []}}
    run = shared_bench.stage(
        f"{family}-lora", named(family), STEPS, lora, stage="sft", base=base.folder, model_overrides={},
        data=PreparedData(train=shared_bench.data / "chats"), tokenizer=shared_bench.data / "tokenizer",
    )  # fmt: skip
    assert shared_bench.run(run) == 0, (run.folder / "log.txt").read_text()
    result, kept = read_result(run.folder), stored_model(read_result(run.folder).checkpoint)
    saved = {name for name in kept if name.rpartition(".")[2] not in ("lora_a", "lora_b")}
    assert all(".router." in name for name in saved)
    assert bool(saved) is has_routers
    assert not any(part in name for name in kept for part in ("causal_router", "prior", "transition", "student"))
    assert result.trainable_parameters < 0.1 * result.parameters
    assert result.parity["relative_error"] < 1e-4
