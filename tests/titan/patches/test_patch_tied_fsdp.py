"""A qwen3 whose embeddings are its output head's, on two ranks."""

import inspect

import pytest
from tiny_stages import VOCAB, records

from titan.patches.tied_fsdp import PATCH

pytestmark = pytest.mark.slow

QWEN3 = {"model": {"name": "qwen3", "flavor": "debugmodel"}, "lr_scheduler": {"warmup_steps": 0}}
ARGS = {"vocab_size": VOCAB, "n_layers": 2, "dim": 64, "hidden_dim": 96, "n_heads": 4, "n_kv_heads": 2, "head_dim": 16}


def test_torchtitan_makes_two_groups_of_one_weight():
    from torchtitan.models.llama4.infra import parallelize

    assert PATCH.needed()
    source = inspect.getsource(inspect.unwrap(parallelize.apply_fsdp))
    assert "model.tok_embeddings," in source
    assert "[model.norm, model.output]," in source


@pytest.mark.parametrize(("tied", "ranks", "tensor"), [(True, 2, 1), (False, 2, 1), (True, 4, 2)])
def test_ranks_have_the_losses_of_one(bench, tied, ranks, tensor):
    losses = []
    for count, degree in ((None, 1), (ranks, tensor)):
        batch = {"training": {"steps": 4, "local_batch_size": 4, "global_batch_size": 8}}
        parallelism = {"parallelism": {"tensor_parallel_degree": degree}}
        arguments = {**ARGS, "enable_weight_tying": tied}
        run = bench.stage(f"on-{count}", QWEN3, batch, parallelism, model_overrides=arguments)
        assert bench.run(run, count) == 0, (run.folder / "log.txt").read_text()
        losses.append(records(run))
    one, others = losses
    assert list(others) == [1, 2, 3, 4]
    assert others == pytest.approx(one, abs=1e-5)
