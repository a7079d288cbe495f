"""Qwen2.5 as stages: dropout in a resumed run, and a base in transformers' format over a pipeline."""

import pytest
from tiny_hugging_face import write_hugging_face
from tiny_stages import VOCAB, records, write_chat_rows

from titan.models.documents import DOCUMENT_ATTENTION
from titanflow.runs.contract import PreparedData
from titanflow.runs.results import read_result

pytestmark = pytest.mark.slow

QWEN2 = {"model": {"name": "qwen2", "flavor": "debugmodel"}, "lr_scheduler": {"warmup_steps": 0}}


def log_of(run):
    return (run.folder / "log.txt").read_text()


def test_a_resumed_run_on_packed_rows_drops_what_the_uninterrupted_one_does(bench, tmp_path):
    """With recomputed activations, too."""
    settings = {
        "model": {"converters": [DOCUMENT_ATTENTION]},
        "training": {"steps": 4},
        "activation_checkpoint": {"mode": "full"},
        "checkpoint": {"interval": 2, "last_save_model_only": False},
    }
    chats = write_chat_rows(tmp_path / "chats", 200, seed=2, packed=True)
    fields = {"model_overrides": {"vocab_size": VOCAB, "dropout": 0.3}, "data": PreparedData(train=chats)}
    whole = bench.stage("whole", QWEN2, settings, **fields)
    assert bench.run(whole) == 0, log_of(whole)
    resumed = bench.stage("resumed", QWEN2, settings, {"training": {"steps": 2}}, **fields)
    assert bench.run(resumed) == 0, log_of(resumed)
    (resumed.folder / "result.json").unlink()
    resumed.config["training"]["steps"] = 4
    resumed.write()
    assert bench.run(resumed) == 0, log_of(resumed)
    assert "Training starts at step 3" in log_of(resumed)
    assert list(records(whole)) == [1, 2, 3, 4]
    assert records(resumed) == records(whole)


def test_a_base_in_transformers_format_is_trained_on_a_pipelines_two_processes(bench, tmp_path):
    base = tmp_path / "base"
    write_hugging_face(base, "Qwen2ForCausalLM", tie_word_embeddings=False, use_sliding_window=False)
    settings = {"training": {"steps": 3, "local_batch_size": 4, "global_batch_size": 4}, "optimizer": {"lr": 1e-3}}
    fields = {"stage": "sft", "base": base, "tokenizer": base, "model_overrides": {}}
    fields["data"] = PreparedData(train=bench.data / "chats")
    one = bench.stage("one", QWEN2, settings, **fields)
    two = bench.stage("two", QWEN2, settings, {"parallelism": {"pipeline_parallel_degree": 2}}, **fields)
    assert bench.run(one) == 0, log_of(one)
    assert bench.run(two, ranks=2) == 0, log_of(two)
    assert list(records(two)) == [1, 2, 3]
    assert records(two) == pytest.approx(records(one), abs=1e-5)
    assert read_result(two.folder).parity["relative_error"] < 1e-4
