"""Each of this project's families, trained as a stage on one process and on two."""

import pytest
from tiny_stages import VOCAB, records

from titanflow.families import OWN_FAMILIES, PARAMETER_GROUPS
from titanflow.stage import read_result

ARGS = {"vocab_size": VOCAB}
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


def trained(bench, family, name, *configs, ranks):
    model = {"model": {"name": family, "flavor": "debugmodel"}}
    run = bench.stage(
        f"{family}-{name}", model, STEPS, CHECKED, *configs, model_overrides=ARGS, tokenizer=bench.data / "tokenizer"
    )
    assert bench.run(run, ranks) == 0, (run.folder / "log.txt").read_text()
    return run


@pytest.mark.parametrize("kind", ["fsdp", "ddp"])
@pytest.mark.parametrize("family", OWN_FAMILIES)
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


def test_tensor_parallel_qwen2_has_the_losses_of_one_process(shared_bench, one_process):
    two = trained(shared_bench, "qwen2", "tp", PARALLEL["tp"], ranks=2)
    for key in ("loss", "validation_loss"):
        assert records(two, key) == pytest.approx(records(one_process("qwen2"), key), rel=2e-5)


@pytest.mark.parametrize("family", OWN_FAMILIES)
def test_a_stage_exports_what_it_trained(one_process, family):
    result = read_result(one_process(family).folder)
    assert result.export is not None
    assert result.parity["relative_error"] < 1e-4
    assert result.parity["greedy_agreement"] == 1
