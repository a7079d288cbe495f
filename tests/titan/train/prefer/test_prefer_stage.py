"""Preference stages as processes: the same losses on one and two ranks, with adapters, packed, and after a kill."""

from __future__ import annotations

import json
import math
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import killed_in
import numpy as np
import pytest
from tiny_adapters import finished_base
from tiny_stages import (
    BASE_CONFIG,
    MODEL,
    SEQ_LEN,
    Workbench,
    records,
    write_pair_rows,
    write_tokenizer,
)

from titan.models.registry import train_spec
from titanflow.data.mixture import open_rows
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
UNDROPPED = {"lora": {**LORA["lora"], "dropout": 0.0}, "training": {"steps": 4}}


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


def without_references(data: Path, place: Path) -> Path:
    """A copy of the stages' data, for a stage that makes the reference itself."""
    return Path(shutil.copytree(data, place, ignore=shutil.ignore_patterns("reference-*")))


def kept_references(data: Path) -> dict[str, Any]:
    """The log-probabilities that are kept, by the name of their rows."""
    return {facts(one)["rows"]: np.load(one / "logps.npy") for one in data.glob("reference-*")}


def test_killed_anywhere_and_resumed_it_is_equal_to_the_bit(
    workbench: Workbench, stage: Stage, trained: StageRun, tmp_path: Path
) -> None:
    data = without_references(workbench.data, tmp_path / "data")
    run = stage("killed", data=data, tokenizer=workbench.data / "tokenizer")
    for place in ("reference", "step 1", "step 5", "save 6"):
        died = workbench.run(run, script=killed_in.__file__, env={killed_in.PLACE: place})
        assert died == -signal.SIGKILL, log_of(run)
        assert bool(kept_references(data)) == (place != "reference")
    assert workbench.run(run) == 0, log_of(run)
    starts = [line.rpartition(" ")[2] for line in log_of(run).splitlines() if "Training starts at step" in line]
    assert starts == ["1", "1", "4", "4"]
    assert told(run) == told(trained)
    assert read_result(run.folder).export_digests == read_result(trained.folder).export_digests
    before, again = kept_references(workbench.data), kept_references(data)
    assert all(np.array_equal(again[rows], before[rows]) for rows in ("pairs", "dev"))
    assert not list(data.glob(".*reference*"))


TWO_RANKS = {
    "fsdp": {"training": {"local_batch_size": 2}},
    "ddp": {"training": {"local_batch_size": 4}, "parallelism": DDP},
    "tp": {"parallelism": {"tensor_parallel_degree": 2}},
}


@pytest.mark.parametrize("way", TWO_RANKS)
def test_two_ranks_train_as_one(workbench: Workbench, stage: Stage, trained: StageRun, way: str) -> None:
    run = stage(way, TWO_RANKS[way])
    assert workbench.run(run, ranks=2) == 0, log_of(run)
    assert close(run, trained)
    for ours, theirs in zip(told(run), told(trained), strict=True):
        # Before the first step a pair's two rewards differ by rounding alone.
        names = [name for name in ours.get("rewards", {}) if name != "accuracies" or ours["step"] > 1]
        assert {name: ours["rewards"][name] for name in names} == pytest.approx(
            {name: theirs["rewards"][name] for name in names}, rel=1e-3, abs=1e-4
        )


@pytest.fixture(scope="module")
def adapted(workbench: Workbench, stage: Stage) -> StageRun:
    """A stage with adapters on one rank; two ranks would draw other dropout."""
    run = stage("adapted", UNDROPPED)
    assert workbench.run(run) == 0, log_of(run)
    return run


@pytest.mark.parametrize("way", ["fsdp", "tp"])
def test_two_ranks_train_adapters_as_one(
    workbench: Workbench, stage: Stage, adapted: StageRun, way: str, tmp_path: Path
) -> None:
    """Each makes the reference itself, from its part of the base or of the rows."""
    data = without_references(workbench.data, tmp_path / "data")
    run = stage(f"adapted-{way}", UNDROPPED, TWO_RANKS[way], data=data)
    assert workbench.run(run, ranks=2) == 0, log_of(run)
    assert close(run, adapted)
    before, again = kept_references(workbench.data), kept_references(data)
    for rows in ("pairs", "dev"):
        np.testing.assert_allclose(again[rows], before[rows], rtol=0, atol=1e-4)


def test_packed_pairs_on_two_ranks_are_trained_as_pairs_with_a_row_each(workbench: Workbench, stage: Stage) -> None:
    """The ranks have as many rows, and not as many pairs: gradients are divided by those of both."""
    rows = open_rows(workbench.data / "packed", SEQ_LEN)
    count = len(rows)
    assert count < PAIRS
    halves = rows.order(BASE_CONFIG["debug"]["seed"]).at(np.arange(count)).reshape(2, -1).tolist()
    first, second = (sum(len(rows.row(row).pairs) for row in half) for half in halves)
    assert first != second
    alone = stage("alone", {"training": {"steps": 3, "local_batch_size": PAIRS, "global_batch_size": PAIRS}})
    size = {"steps": 3, "local_batch_size": count // 2, "global_batch_size": count}
    packed = stage("packed", {"training": size}, {"data": {"packing": "best_fit"}}, train="packed")
    assert workbench.run(alone) == 0, log_of(alone)
    assert workbench.run(packed, ranks=2) == 0, log_of(packed)
    assert close(packed, alone)


def test_with_adapters_it_resumes_to_the_bit_and_begins_at_the_base_without_them(
    workbench: Workbench, stage: Stage
) -> None:
    """The last validation is that of the adapters' moving mean, which resumes, too."""
    averaged = {"training": {"ema": 0.9}}
    whole = stage("adapters", LORA, averaged)
    assert workbench.run(whole) == 0, log_of(whole)
    assert told(whole)[0]["rewards"]["margins"] == pytest.approx(0, abs=1e-5)
    assert told(whole)[-2]["rewards"]["margins"] > 0.01
    cut = stage("adapters-resumed", LORA, averaged, {"training": {"steps": 6}})
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
