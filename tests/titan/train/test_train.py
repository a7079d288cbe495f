"""Whole stages, as processes: what a task starts and what it finds afterwards."""

import json
import math
import re
import resource
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from tiny_stages import (
    LONG,
    MODEL,
    PATIENCE,
    SEQ_LEN,
    STEPS,
    closing,
    last_step,
    records,
    wait_for,
)
from torch.distributed.checkpoint import FileSystemReader

from titanflow.runs.contract import INTERRUPTED_EXIT, METRICS_FILE, PreparedData
from titanflow.runs.errors import StageError
from titanflow.runs.metrics import BATCHES_FILE, RECORD_BATCHES, read_metrics
from titanflow.runs.results import read_result

pytestmark = pytest.mark.slow

ASYNC = {"checkpoint": {"async_mode": "async"}}
TWO_RANKS = {"training": {"local_batch_size": 4}}
DDP = {"parallelism": {"data_parallel_replicate_degree": 2, "data_parallel_shard_degree": 1}}


def log_of(run):
    return (run.folder / "log.txt").read_text()


def error_of(run):
    return StageError.model_validate_json((run.folder / "error.json").read_text())


def steps_of(run):
    return sorted(
        int(path.parent.name.removeprefix("step-")) for path in run.folder.glob("checkpoint/step-*/.metadata")
    )


def test_a_stage_leaves_its_result_metrics_and_export(uninterrupted):
    result = read_result(uninterrupted.folder)
    losses = records(uninterrupted)
    assert result.step == STEPS
    assert result.checkpoint == uninterrupted.folder / "checkpoint" / f"step-{STEPS}"
    assert list(losses) == list(range(1, STEPS + 1))
    assert result.first_loss == losses[1] == pytest.approx(math.log(256), abs=0.6)
    assert result.loss == pytest.approx(np.mean([losses[step] for step in range(STEPS - 9, STEPS + 1)]))
    assert result.loss < 2.0 < result.first_loss
    assert result.tokens == STEPS * 8 * SEQ_LEN
    assert result.model_args["n_layers"] == 2
    assert result.model_args["max_seq_len"] == SEQ_LEN
    assert result.parameters == 164_160
    assert result.validation_loss == records(uninterrupted, "validation_loss")[STEPS]
    assert (result.export / "model.safetensors").is_file()
    assert "config.json" in result.export_digests
    assert not (uninterrupted.folder / "error.json").exists()


def test_each_record_has_the_documented_keys(uninterrupted):
    lines = [json.loads(line) for line in (uninterrupted.folder / "metrics.jsonl").read_text().splitlines()]
    training = next(line for line in lines if line["step"] == 7)
    assert set(training) == {
        "step",
        "loss",
        "perplexity",
        "max_loss",
        "learning_rate",
        "grad_norm",
        "tokens",
        "tokens_per_second",
        "system",
        "seconds",
    }
    assert training["perplexity"] == pytest.approx(math.exp(training["loss"]))
    assert training["tokens"] == 7 * 8 * SEQ_LEN
    validation = [line for line in lines if "validation_loss" in line]
    assert [line["step"] for line in validation] == [1, 100, 200, STEPS]
    assert validation[0]["validation_perplexity"] == pytest.approx(math.exp(validation[0]["validation_loss"]))
    assert [line["seconds"] for line in lines] == sorted(line["seconds"] for line in lines)


def test_no_mfu_and_no_colors_on_a_cpu(uninterrupted):
    text = log_of(uninterrupted) + (uninterrupted.folder / "metrics.jsonl").read_text()
    assert not re.search("mfu", text, re.IGNORECASE)
    assert "\x1b[" not in text
    assert "A100" not in text


def test_no_warning_comes_with_every_step(uninterrupted):
    assert log_of(uninterrupted).count("Warning") < 5


@pytest.mark.parametrize("parallelism", [{}, DDP], ids=["fsdp", "ddp"])
def test_two_ranks_have_the_losses_of_one_process(bench, uninterrupted, parallelism):
    run = bench.stage("two", TWO_RANKS, parallelism)
    assert bench.run(run, ranks=2, env={RECORD_BATCHES: "1"}) == 0, log_of(run)
    assert read_metrics(run.folder / BATCHES_FILE) == read_metrics(uninterrupted.folder / BATCHES_FILE)[:20]
    losses, norms = records(run), records(run, "grad_norm")
    assert list(losses) == list(range(1, 21))
    expected, expected_norms = records(uninterrupted), records(uninterrupted, "grad_norm")
    assert losses == pytest.approx({step: expected[step] for step in losses}, abs=1e-4)
    assert norms == pytest.approx({step: expected_norms[step] for step in losses}, rel=1e-3)
    assert records(run, "tokens")[20] == 20 * 8 * SEQ_LEN


def test_killed_in_the_middle_it_resumes_on_the_same_losses(killed, uninterrupted):
    assert records(killed) == records(uninterrupted)
    assert records(killed, "validation_loss") == records(uninterrupted, "validation_loss")
    first, second = map(int, re.findall(r"Training starts at step (\d+)$", log_of(killed), re.MULTILINE))
    assert first == 1
    # After the newest checkpoint, one of every 25 steps, at the time of the kill, which comes after step 60.
    assert second in range(26, STEPS, 25)


def test_sigterm_saves_the_step_and_resumes_to_the_bit(bench, uninterrupted):
    run = bench.stage("interrupted", LONG, ASYNC, {"checkpoint": {"interval": 1000}})
    with closing(bench.start(run)) as process:
        wait_for(lambda: last_step(run) > 40, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == INTERRUPTED_EXIT
    # What is saved in the background was waited for.
    assert steps_of(run) == [last_step(run)]
    assert not (run.folder / "error.json").exists()
    assert not (run.folder / "result.json").exists()
    assert bench.run(run) == 0
    assert records(run) == records(uninterrupted)


def test_sigterm_under_torchrun_saves_on_all_ranks_and_one_rank_can_go_on(bench, uninterrupted):
    # A validation after each step: it leaves FSDP's last modules gathered, of which nothing can be saved.
    validated = {"validation": {"enable": True, "freq": 1}}
    run = bench.stage("two-interrupted", LONG, TWO_RANKS, {"checkpoint": {"interval": 1000}}, validated)
    with closing(bench.start(run, ranks=2)) as process:
        wait_for(lambda: last_step(run) > 5, process)
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
    (saved,) = steps_of(run)
    assert saved == last_step(run)
    assert not (run.folder / "error.json").exists()
    run.config["training"]["local_batch_size"] = 8
    run.config["training"]["steps"] = saved + 20
    run.write()
    assert bench.run(run) == 0, log_of(run)
    losses, expected = records(run), records(uninterrupted)
    assert list(losses) == list(range(1, saved + 21))
    assert losses == pytest.approx({step: expected[step] for step in losses}, abs=1e-4)
    last = read_metrics(run.folder / METRICS_FILE)[-2]
    assert (last["step"], last["tokens"]) == (saved + 20, (saved + 20) * 8 * SEQ_LEN)


def test_sigterm_while_it_starts_ends_it_at_once(bench):
    run = bench.stage("starting", LONG)

    def listens():
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16)
        return caught >> (signal.SIGTERM - 1) & 1

    with closing(bench.start(run)) as process:
        wait_for(listens, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == INTERRUPTED_EXIT
    assert not (run.folder / "error.json").exists()
    assert not (run.folder / "checkpoint").exists()


def test_a_finished_training_is_not_trained_again_though_only_the_model_is_left(uninterrupted, bench, copied):
    run = copied(uninterrupted)
    before = read_result(run.folder)
    (run.folder / "result.json").unlink()
    run.tokenizer = None
    run.write()
    assert bench.run(run) == 0
    after = read_result(run.folder)
    assert (after.step, after.loss, after.parameters) == (before.step, before.loss, before.parameters)
    assert "Training starts" not in log_of(run).split("Training completed")[1]


def test_killed_between_the_last_save_and_its_validation_it_catches_up(bench):
    whole = {"checkpoint": {"last_save_model_only": False}}
    run = bench.stage("short", whole, {"training": {"steps": 4}}, {"validation": {"enable": True, "freq": 4}})
    assert bench.run(run) == 0, log_of(run)
    metrics = run.folder / "metrics.jsonl"
    expected = records(run, "validation_loss")
    lines = metrics.read_text().splitlines(keepends=True)
    assert "validation_loss" in lines[-1]
    metrics.write_text("".join(lines[:-1]))
    (run.folder / "result.json").unlink()
    assert bench.run(run) == 0, log_of(run)
    assert records(run, "validation_loss") == expected
    assert max(expected) == 4


def test_a_full_disk_is_named_and_the_last_checkpoint_stays(bench, uninterrupted, copied):
    run = copied(uninterrupted)
    for step in steps_of(run):
        if step > 50:
            shutil.rmtree(run.folder / "checkpoint" / f"step-{step}")
    (run.folder / "result.json").unlink()
    limit = 400_000

    def no_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    shutil.rmtree(run.folder / "wandb")
    run.config["metrics"]["enable_wandb"] = False
    run.config["checkpoint"]["interval"] = 60
    run.write()
    assert bench.run_process(run, preexec_fn=no_room) == 1
    error = error_of(run)
    assert error.type == "StageFailed"
    assert "step-60" in error.message
    assert "disk is full" in error.message
    assert "step-50" in error.message
    assert 60 not in steps_of(run)
    assert not (run.folder / "checkpoint" / "step-60").exists()
    run.config["training"]["steps"] = 60
    run.write()
    assert bench.run(run) == 0, log_of(run)
    expected = records(uninterrupted)
    assert records(run) == {step: expected[step] for step in range(1, 61)}


def test_the_failing_ranks_own_exception_is_reported(bench, tmp_path):
    (tmp_path / "fails_on_one.py").write_text(
        "import os\nif os.environ['RANK'] == '1':\n    raise LookupError('rank one has its reasons')\n"
    )
    run = bench.stage("failing", TWO_RANKS, {"experimental": {"custom_import": "fails_on_one"}})
    # Rank 0 waits in C++ for a rank that will not come; torchrun would kill it after 30 s.
    assert bench.run_process(run, ranks=2, env={"PYTHONPATH": str(tmp_path)}) == 1
    assert "nothing to save" in log_of(run)
    error = error_of(run)
    assert (error.rank, error.type) == (1, "LookupError")
    assert error.message == "rank one has its reasons"
    assert "fails_on_one.py" in error.traceback


def test_sft_starts_from_its_bases_weights(bench, uninterrupted):
    run = bench.stage(
        "sft",
        {"training": {"steps": 1, "local_batch_size": 4}},
        {"optimizer": {"lr": 0.0}, "validation": {"enable": True, "local_batch_size": 4}},
        stage="sft",
        base=uninterrupted.folder,
        model_overrides={},
        data=PreparedData(train=bench.data / "chats", validation=bench.data / "validation"),
        origins={"training.local_batch_size": "/configs/modules/sft.yaml:12"},
    )
    assert bench.run(run) == 0, log_of(run)
    result = read_result(run.folder)
    base = read_result(uninterrupted.folder)
    assert result.validation_loss == pytest.approx(base.validation_loss, abs=1e-5)
    assert result.stage == "sft"
    assert result.model_args["n_layers"] == MODEL["n_layers"]
    table = [str(row) for row in result.inheritance]
    assert "Inherited model.n_layers: 2 from pretrain" in table
    assert "Changed training.local_batch_size: 8 → 4 from sft.yaml:12" in table
    assert table[0].startswith("Changed loss_mask: off → on, ")
    assert table[0].endswith(" tokens trained")
    assert "\n".join(table) in log_of(run)
    trained = json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[0])
    assert 0 < trained["trained_tokens_per_second"] < trained["tokens_per_second"]


def test_an_sft_may_be_cut_into_a_pipelines_stages(bench, uninterrupted):
    """Each rank has some layers only, and the base's checkpoint is compared with those of all."""
    settings = {"training": {"steps": 3, "local_batch_size": 4, "global_batch_size": 4}, "optimizer": {"lr": 1e-3}}
    settings["validation"] = {"enable": True, "freq": 3, "local_batch_size": 4}
    fields = {"stage": "sft", "base": uninterrupted.folder, "model_overrides": {}}
    fields["data"] = PreparedData(train=bench.data / "chats", validation=bench.data / "chats")
    one = bench.stage("one-process", settings, **fields)
    two = bench.stage("pipeline", settings, {"parallelism": {"pipeline_parallel_degree": 2}}, **fields)
    assert bench.run(one) == 0, log_of(one)
    assert bench.run(two, ranks=2) == 0, log_of(two)
    assert list(records(two)) == [1, 2, 3]
    assert records(two) == pytest.approx(records(one), abs=1e-5)
    # Both ranks write into this log: only the one with the loss tells it.
    shown = [line for line in log_of(two).splitlines() if "step:  2" in line and "loss:" in line]
    assert len(shown) == 1
    assert f"{records(two)[2]:8.5f}" in shown[0]
    # Weighed by the tokens of each batch, which differ.
    assert list(records(two, "validation_loss")) == [1, 3]
    assert records(two, "validation_loss") == pytest.approx(records(one, "validation_loss"), abs=1e-5)


def test_sft_refuses_another_architecture_before_anything_runs(bench, uninterrupted):
    run = bench.stage(
        "other",
        stage="sft",
        base=uninterrupted.folder,
        model_overrides={"n_layers": 3},
        origins={"model.n_layers": "/configs/modules/sft.yaml:7"},
    )
    assert bench.run(run) == 2
    error = error_of(run)
    assert error.type == "ConfigError"
    assert error.exit_code == 2
    assert "sft.yaml:7: model.n_layers: found 3, but pretrain has 2" in error.message
    left = {path.name for path in run.folder.iterdir()}
    assert sorted(left) == ["error.json", "log.txt", "run.yaml"]


def test_rows_longer_than_the_model_and_a_larger_tokenizer_are_refused_together(bench):
    run = bench.stage(
        "mismatch",
        model_overrides={**MODEL, "max_seq_len": 16, "vocab_size": 20},
        tokenizer=bench.data / "tokenizer",
        origins={"training.seq_len": "pretrain.yaml:3"},
    )
    assert bench.run(run) == 2
    message = error_of(run).message
    assert "pretrain.yaml:3: training.seq_len: found 32, but the model's max_seq_len is 16" in message
    assert re.search(r"has \d+ tokens, but the model's vocab_size is 20", message)
    assert not (run.folder / "checkpoint").exists()


@pytest.mark.parametrize(("key", "stored"), [("dtype", "bfloat16"), ("mixed_precision_param", "float32")])
def test_the_weights_have_the_precision_that_the_config_names(bench, key, stored):
    # The last checkpoint has what checkpoint.export_dtype says (test_upstream_model_faults.py).
    run = bench.stage(key, {"training": {"steps": 2, key: "bfloat16"}, "checkpoint": {"interval": 1}})
    assert bench.run(run) == 0, log_of(run)
    metadata = FileSystemReader(run.folder / "checkpoint" / "step-1").read_metadata().state_dict_metadata
    assert str(metadata["output.weight"].properties.dtype) == f"torch.{stored}"
