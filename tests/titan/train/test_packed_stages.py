"""Whole stages on packed rows, as processes."""

import pytest
from tiny_stages import MODEL, SEQ_LEN, records, write_chat_rows

from titan.models.documents import DOCUMENT_ATTENTION
from titanflow.runs.contract import PreparedData
from titanflow.runs.errors import StageError

pytestmark = pytest.mark.slow

SETTINGS = {
    "training": {"steps": 5, "seq_len": SEQ_LEN},
    "model": {"converters": [DOCUMENT_ATTENTION]},
    "validation": {"enable": True, "freq": 3, "local_batch_size": 4},
    "lr_scheduler": {"warmup_steps": 0},
    "optimizer": {"lr": 1e-3},
}
HEADS = {"llama3": {**MODEL, "n_kv_heads": 2}}
HEADS["qwen2"] = {**HEADS["llama3"], "hidden_dim": 64}
HEADS["qwen3"] = {**HEADS["llama3"], "head_dim": 16, "hidden_dim": 64, "enable_weight_tying": False}


@pytest.fixture
def packed_run(bench, tmp_path):
    """Runs a stage on packed chats; returns the stage and its exit status."""
    chats = write_chat_rows(tmp_path / "chats", 200, seed=2, packed=True)
    validation = write_chat_rows(tmp_path / "validation", 30, seed=3, packed=True)

    def run(name, *settings, ranks=None, family="llama3"):
        config = [SETTINGS, {"model": {"name": family}}, *settings]
        data = PreparedData(train=chats, validation=validation)
        stage = bench.stage(f"{family}-{name}", *config, model_overrides=HEADS[family], data=data)
        return stage, bench.run(stage, ranks)

    return run


@pytest.mark.parametrize(
    ("family", "parallel"),
    [
        ("llama3", {"training": {"local_batch_size": 2}}),
        ("qwen3", {"parallelism": {"tensor_parallel_degree": 2}}),
        ("qwen2", {"parallelism": {"tensor_parallel_degree": 2}}),
    ],
    ids=["llama3-fsdp", "qwen3-tp", "qwen2-tp"],
)
def test_two_ranks_have_the_losses_of_one_process_on_packed_rows(packed_run, family, parallel):
    """With accumulated gradients and recomputed activations, too."""
    one, status = packed_run("one", family=family)
    assert status == 0, (one.folder / "log.txt").read_text()
    recomputed = {"activation_checkpoint": {"mode": "selective", "selective_ac_option": "op"}}
    two, status = packed_run("two", parallel, recomputed, ranks=2, family=family)
    assert status == 0, (two.folder / "log.txt").read_text()
    assert list(records(one)) == [1, 2, 3, 4, 5]
    assert list(records(one, "validation_loss")) == [1, 3, 5]
    for key in ("loss", "validation_loss"):
        assert records(two, key) == pytest.approx(records(one, key), abs=1e-6, rel=1e-6)


def test_a_stage_whose_model_would_mix_documents_ends_with_a_reason(packed_run):
    run, status = packed_run("mixing", {"model": {"converters": []}})
    assert status == 2
    error = StageError.model_validate_json((run.folder / "error.json").read_text())
    assert "the rows are packed, and the model would let their documents see each other" in error.message
