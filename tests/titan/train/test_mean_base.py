"""A training that starts from a mean begins with its weights, on any number of ranks."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_stages import Workbench, records

from titanflow.runs.contract import PreparedData, StageRun
from titanflow.runs.results import TrainResult, read_result
from titanflow.runs.training import read_training

pytestmark = pytest.mark.slow

LEFT_ALONE = {"optimizer": {"lr": 0.0}, "training": {"steps": 2, "local_batch_size": 4}}


def test_it_begins_with_the_fp64_mean_on_one_rank_and_on_two(bench: Workbench) -> None:
    tokenizer = bench.data / "tokenizer"
    stages: dict[str, Path] = {}
    for name, seed in (("a", 1), ("b", 2)):
        short = {"training": {"steps": 2}, "debug": {"seed": seed}}
        run = bench.stage(name, short, kind="pretrain", stage=name, tokenizer=tokenizer)
        assert bench.run(run) == 0, (run.folder / "log.txt").read_text()
        stages[name] = run.folder
    found: list[StageRun] = []
    for name, ranks in (("one", 1), ("two", 2)):
        run = bench.stage(
            name,
            LEFT_ALONE,
            {"base": {"mean": ["a", "b"], "weights": [0.25, 0.75]}},
            kind="sft",
            stage=name,
            base=stages["a"],
            stages=stages,
            model_overrides={},
            data=PreparedData(train=bench.data / "chats", validation=bench.data / "validation"),
        )
        assert bench.run(run, ranks=ranks) == 0, (run.folder / "log.txt").read_text()
        found.append(run)
    parts = [load_file(stages[name] / "export" / "model.safetensors") for name in ("a", "b")]
    made = load_file(found[0].folder / "export" / "model.safetensors")
    for key, value in made.items():
        assert torch.equal(value, (parts[0][key].double() * 0.25 + parts[1][key].double() * 0.75).float()), key
    assert records(found[1]) == pytest.approx(records(found[0]), abs=1e-4)
    result = read_result(found[0].folder)
    assert isinstance(result, TrainResult)
    assert {row.key: row.here for row in result.inheritance}["weights"] == "the mean of a (0.25) and b (0.75)"
    base = read_training(found[0].folder).base
    assert base is not None
    assert base.run.folder == found[0].folder.with_name("one.base")
    made_of = json.loads((base.run.folder / "result.json").read_text())["mean_of"]
    assert [(part["stage"], part["weight"]) for part in made_of] == [("a", 0.25), ("b", 0.75)]
