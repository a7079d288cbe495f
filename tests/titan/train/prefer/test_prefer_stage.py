"""Preference stages as processes: the same losses on one and two ranks, with adapters, packed, and after a kill."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_adapters import finished_base
from tiny_stages import (
    MODEL,
    SEQ_LEN,
    Workbench,
    closing,
    kill_family,
    last_step,
    records,
    wait_for,
    write_pair_rows,
    write_tokenizer,
)

from titan.models.registry import train_spec
from titanflow.runs.contract import PreparedData, StageRun
from titanflow.runs.results import read_result

pytestmark = pytest.mark.slow

PAIRS, STEPS = 32, 12
PREFER = {
    "training": {"steps": STEPS, "local_batch_size": 8, "global_batch_size": 8},
    "validation": {"enable": True, "freq": 100, "local_batch_size": 4},
    "checkpoint": {"last_save_model_only": False, "interval": 3},
    "optimizer": {"lr": 1e-3},
    "prefer": {"beta": 0.3, "label_smoothing": 0.05},
}
DDP = {"data_parallel_replicate_degree": 2, "data_parallel_shard_degree": 1}
LORA = {"lora": {"rank": 4, "alpha": 16.0, "dropout": 0.1}}


@pytest.fixture(scope="module")
def workbench(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Workbench:
    """A workbench whose stage ``base`` is finished, with data of its own."""
    folder = tmp_path_factory.mktemp("prefer")
    data = folder / "workspace"
    write_pair_rows(data / "pairs", PAIRS, seed=0)
    write_pair_rows(data / "packed", PAIRS, seed=0, packed=True)
    write_pair_rows(data / "dev", 10, seed=1)
    write_tokenizer(data / "tokenizer")
    args = replace(train_spec("llama3").model_args["debugmodel"], max_seq_len=SEQ_LEN, **MODEL)
    finished_base(folder / "base", "llama3", args, config={"training": {"seq_len": SEQ_LEN}})
    return Workbench(folder, data)


Stage = Callable[..., StageRun]


@pytest.fixture(scope="module")
def stage(workbench: Workbench) -> Stage:
    def make(name: str, *configs: Any, train: str = "pairs", data: Path | None = None, **fields: Any) -> StageRun:
        place = data or workbench.data
        rows = PreparedData(train=place / train, validation=place / "dev")
        base = workbench.folder / "base"
        fields |= {"stage": "prefer", "base": base, "model_overrides": {}, "data": rows}
        return workbench.stage(name, PREFER, *configs, **fields)

    return make


@pytest.fixture(scope="module")
def trained(workbench: Workbench, stage: Stage) -> StageRun:
    run = stage("trained", tokenizer=workbench.data / "tokenizer")
    assert workbench.run(run) == 0, log_of(run)
    return run


def log_of(run: StageRun) -> str:
    return (run.folder / "log.txt").read_text(encoding="utf-8")


def told(run: StageRun) -> list[dict[str, Any]]:
    """The records of the steps, without times."""
    lines = (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    return [
        {key: one[key] for key in ("step", "loss", "grad_norm", "rewards", "logps", "validation_loss") if key in one}
        for one in found
    ]


def close(run: StageRun, other: StageRun) -> bool:
    """Whether each step's loss and gradient are the same but for the order of sums."""
    keys = ("loss", "grad_norm")
    return all(
        math.isclose(records(run, key)[step], value, rel_tol=2e-4, abs_tol=1e-6)
        for key in keys
        for step, value in records(other, key).items()
    )


def test_it_begins_at_its_base_and_learns_what_is_preferred(trained: StageRun) -> None:
    first, *_, last = [one for one in told(trained) if "loss" in one]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["rewards"] == pytest.approx({"chosen": 0, "rejected": 0, "margins": 0, "accuracies": 0}, abs=1e-5)
    assert first["logps"]["kl"] == pytest.approx(0, abs=1e-5)
    assert last["loss"] < 0.6
    assert last["rewards"]["accuracies"] == 1
    assert last["rewards"]["margins"] == pytest.approx(last["rewards"]["chosen"] - last["rewards"]["rejected"])
    assert "perplexity" not in json.loads((trained.folder / "metrics.jsonl").read_text().splitlines()[0])
    result = read_result(trained.folder)
    assert (result.stage, result.step) == ("prefer", STEPS)
    assert result.validation_loss < math.log(2)
    assert (result.export / "model.safetensors").is_file()


def test_the_references_log_probabilities_are_made_once(workbench: Workbench, stage: Stage, trained: StageRun) -> None:
    (kept,) = [one for one in workbench.data.glob("reference-*") if facts(one)["rows"] == "pairs"]
    assert (facts(kept)["pairs"], np.load(kept / "logps.npy").shape) == (PAIRS, (PAIRS, 2))
    before = (kept / "logps.npy").stat().st_mtime_ns
    again = stage("again", {"training": {"steps": 2}})
    assert workbench.run(again) == 0, log_of(again)
    assert f"The base's log-probabilities are those of {kept}" in log_of(again)
    assert told(again)[0] == told(trained)[0]
    assert (kept / "logps.npy").stat().st_mtime_ns == before


def facts(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "reference.json").read_text(encoding="utf-8")))


def test_a_reference_of_other_weights_is_refused(
    workbench: Workbench, stage: Stage, trained: StageRun, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(workbench.data, data)
    (kept,) = [one for one in data.glob("reference-*") if facts(one)["rows"] == "pairs"]
    np.save(kept / "logps.npy", np.load(kept / "logps.npy") - 1)
    run = stage("other", data=data)
    assert workbench.run(run) == 2
    error = (run.folder / "error.json").read_text(encoding="utf-8")
    assert "nats a token from those of now" in error
    assert f"remove the folder {kept}" in error


def test_killed_and_resumed_it_is_equal_to_the_bit(workbench: Workbench, stage: Stage, trained: StageRun) -> None:
    run = stage("killed")
    with closing(workbench.start(run, ranks=1)) as process:
        wait_for(lambda: last_step(run) > 6, process)
        kill_family(process)
    assert workbench.run(run) == 0, log_of(run)
    assert "Training starts at step 1\n" in log_of(run).replace("\r", "")
    assert told(run) == told(trained)


@pytest.mark.parametrize(
    "parallel",
    [
        {"training": {"local_batch_size": 4}},
        {"training": {"local_batch_size": 2}},
        {"training": {"local_batch_size": 4}, "parallelism": DDP},
        {"parallelism": {"tensor_parallel_degree": 2}},
    ],
    ids=["fsdp", "fsdp, accumulated", "ddp", "tp"],
)
def test_two_ranks_train_as_one(
    workbench: Workbench, stage: Stage, trained: StageRun, parallel: Any, request: pytest.FixtureRequest
) -> None:
    run = stage(f"two-{request.node.callspec.id.replace(', ', '-')}", parallel)
    assert workbench.run(run, ranks=2) == 0, log_of(run)
    assert close(run, trained)
    for ours, theirs in zip(told(run), told(trained), strict=True):
        # Before the first step a pair's two rewards differ by rounding alone.
        names = [name for name in ours.get("rewards", {}) if name != "accuracies" or ours["step"] > 1]
        assert {name: ours["rewards"][name] for name in names} == pytest.approx(
            {name: theirs["rewards"][name] for name in names}, rel=1e-3, abs=1e-4
        )


def test_packed_pairs_are_trained_as_pairs_with_a_row_each(workbench: Workbench, stage: Stage) -> None:
    rows = json.loads((workbench.data / "packed" / "dataset.json").read_text(encoding="utf-8"))["rows"]
    assert rows < PAIRS
    whole = [{"training": {"steps": 3, "local_batch_size": size, "global_batch_size": size}} for size in (PAIRS, rows)]
    alone = stage("alone", whole[0])
    packed = stage("packed", whole[1], {"data": {"packing": "best_fit"}}, train="packed")
    for run in (alone, packed):
        assert workbench.run(run) == 0, log_of(run)
    assert close(packed, alone)


def test_with_adapters_the_reference_is_the_base_without_them(workbench: Workbench, stage: Stage) -> None:
    whole = stage("adapters", LORA)
    assert workbench.run(whole) == 0, log_of(whole)
    assert told(whole)[0]["rewards"]["margins"] == pytest.approx(0, abs=1e-5)
    assert told(whole)[-2]["rewards"]["margins"] > 0.01
    cut = stage("adapters-resumed", LORA, {"training": {"steps": 6}})
    assert workbench.run(cut) == 0, log_of(cut)
    (cut.folder / "result.json").unlink()
    cut.config["training"]["steps"] = STEPS
    cut.write()
    assert workbench.run(cut) == 0, log_of(cut)
    # The first half validated at its end.
    assert [one for one in told(cut) if one["step"] != 6 or "loss" in one] == told(whole)


def test_ipo_trains_too(workbench: Workbench, stage: Stage) -> None:
    run = stage("ipo", {"prefer": {"loss": "ipo", "beta": 0.2, "label_smoothing": 0.0}})
    assert workbench.run(run) == 0, log_of(run)
    losses = records(run)
    assert losses[1] == pytest.approx((1 / 0.4) ** 2, rel=1e-5)
    assert losses[STEPS] < losses[1]
