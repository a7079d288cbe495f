"""The gradient is the sum over the trained tokens of all ranks and microbatches, by their number."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import double_precision
import numpy as np
import pytest
import torch
from double_precision import FAMILY, double_loss
from global_batch import global_batch
from tiny_stages import SEQ_LEN, VOCAB, Workbench
from torchtitan.protocols.train_spec import get_train_spec

from titan.train.data_parallel import StageLoss
from titan.train.trainer import NothingToTrain, Trainer
from titanflow.data.order import Shuffled
from titanflow.data.prepared import PreparedRows
from titanflow.runs.contract import PreparedData

pytestmark = pytest.mark.slow

MODEL = {
    "dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 2,
    "head_dim": 8,
    "hidden_dim": 64,
    "vocab_size": VOCAB,
    "enable_weight_tying": False,
}
# The trained tokens of each row of a step's batch; of two ranks, the second has every other row.
TRAINED = {
    1: [10, 2, 0, 25, 1, 0, 7, 16],
    2: [10, 0, 2, 0, 0, 0, 25, 0],
    3: [0] * 8,
    4: [3, 4, 5, 6, 7, 8, 9, 10],
}
BATCH = 8
SETTINGS = {
    "model": {"name": FAMILY},
    "training": {
        "steps": len(TRAINED),
        "local_batch_size": 1,
        "dtype": "float64",
        "mixed_precision_param": "float64",
        "mixed_precision_reduce": "float64",
        "max_norm": 1e9,
    },
    # The weights stay, so that each step's gradient is one of the same function.
    "optimizer": {"lr": 0.0},
    "lr_scheduler": {"warmup_steps": 0},
}
WAYS = {
    "accumulation": (None, {}),
    "one-batch": (None, {"training": {"local_batch_size": BATCH}}),
    "fsdp": (2, {}),
    "ddp": (2, {"parallelism": {"data_parallel_replicate_degree": 2, "data_parallel_shard_degree": 1}}),
}


def write_rows(folder: Path, seed: int) -> Path:
    """Chats that the seed's order brings into the batches of :data:`TRAINED`."""
    counts = np.array([count for step in TRAINED for count in TRAINED[step]])
    shuffled = Shuffled(len(counts), seed)
    order = np.concatenate([global_batch(shuffled, step, BATCH) for step in range(len(TRAINED))])
    trained = np.zeros((len(counts), 30), dtype=bool)
    for row, count in zip(order, counts, strict=True):
        trained[row, 30 - count :] = True
    folder.mkdir()
    np.save(folder / "tokens.npy", np.random.default_rng(5).integers(4, VOCAB, size=trained.size).astype(np.uint16))
    np.save(folder / "offsets.npy", np.arange(0, trained.size + 1, 30, dtype=np.int64))
    np.save(folder / "trained.npy", trained.flatten())
    info = {"kind": "chat", "name": "uneven", "fingerprint": "0", "documents": len(counts), "rows": len(counts)}
    info |= {"tokens": trained.size, "trained_tokens": int(trained.sum()), "bytes": 0, "dtype": "uint16"}
    info |= {"vocab_size": VOCAB, "pad_id": 3, "seq_len": SEQ_LEN}
    (folder / "dataset.json").write_text(json.dumps(info))
    return folder


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("uneven") / "rows", seed=7)


@pytest.fixture(scope="module")
def left(tmp_path_factory, uneven):
    """What each way of going through the same batches left behind, and its folder."""
    bench = Workbench(tmp_path_factory.mktemp("ways"), uneven)
    found = {}
    for way, (ranks, settings) in WAYS.items():
        run = bench.stage(way, SETTINGS, settings, model_overrides=MODEL, data=PreparedData(train=uneven))
        assert bench.run(run, ranks, script=double_precision.__file__) == 0, (run.folder / "log.txt").read_text()
        found[way] = torch.load(run.folder / "left.pt", weights_only=False) | {"folder": run.folder}
    return found


@pytest.fixture(scope="module")
def direct(left, uneven):
    """Each step's gradient: the sum of its rows' losses, each row computed by itself, by their trained tokens."""
    spec = get_train_spec("qwen3")
    args = dataclasses.replace(spec.model_args["debugmodel"], **MODEL, max_seq_len=SEQ_LEN)
    model = spec.model_cls(args).double()
    with torch.no_grad():
        model.init_weights(buffer_device=torch.device("cpu"))
    model.load_state_dict(left["accumulation"]["weights"])
    rows = PreparedRows.open(uneven, SEQ_LEN)
    gradients = {}
    for step in TRAINED:
        model.zero_grad()
        for index in global_batch(Shuffled(len(rows), seed=7), step - 1, BATCH):
            tokens, labels = (torch.from_numpy(column.copy())[None] for column in rows.row(int(index))[:2])
            loss = double_loss(model(tokens), labels)
            (loss / max(sum(TRAINED[step]), 1)).backward()
        gradients[step] = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    return gradients


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", [1, 2, 4])
def test_case_29_every_way_through_a_batch_has_the_same_gradient(left, direct, way, step):
    """Accumulation, one batch and two ranks, with trained tokens as uneven as can be, against direct computation."""
    found = left[way]["gradients"][step]
    assert found.keys() == direct[step].keys()
    for name, gradient in found.items():
        assert gradient.dtype == torch.float64
        assert torch.allclose(gradient, direct[step][name], rtol=0, atol=1e-10), name
    assert max(gradient.abs().max() for gradient in found.values()) > 1e-3


@pytest.mark.parametrize("way", WAYS)
def test_case_23_30_a_rank_without_a_trained_token_makes_no_number_a_nan(left, way):
    """In step 2 the second rank has none, and one process has microbatches of none."""
    for metrics in left[way]["logged"].values():
        assert all(np.isfinite(value) for value in metrics.values())
    losses = {one: left[one]["logged"][2]["train/loss"] for one in WAYS}
    assert losses == pytest.approx(dict.fromkeys(WAYS, losses["accumulation"]), rel=1e-12)
    # The first rank has all of the tokens, and so its mean is that of all.
    assert left[way]["logged"][2]["train/max_loss"] == pytest.approx(losses[way], rel=1e-6)


def test_a_pipeline_is_told_before_it_divides_by_no_token():
    trainer = Trainer.__new__(Trainer)
    trainer.parallel_dims = SimpleNamespace(pp_enabled=True)
    trainer.loss_fn = StageLoss(double_loss)
    with pytest.raises(NothingToTrain):
        trainer.forward_backward_step(input_dict={}, labels=torch.full((1, 4), -100), global_valid_tokens=0.0)
    assert trainer.loss_fn.tokens == 1.0


@pytest.mark.parametrize("way", WAYS)
def test_a_batch_without_a_trained_token_is_skipped_on_all_ranks(left, way):
    """The step counts, as do data and schedule; the optimizer doesn't move, and the next step is trained."""
    found = left[way]
    assert sorted(found["gradients"]) == sorted(found["logged"]) == [1, 2, 4]
    assert found["optimizer_steps"] == {3}
    assert (found["step"], found["schedule"], found["rows_seen"]) == (4, 4, 4 * BATCH)
    assert (
        "step:  3  skipped: not one token of the global batch has a label" in (found["folder"] / "log.txt").read_text()
    )
