"""What a fine-tuning keeps and changes: which rows always stand in the table, and that it is the same everywhere."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tiny_experiment import write_tiny_experiment

from titanflow.architectures.base import BaseArchitecture
from titanflow.config.module import Module
from titanflow.planning.origin.inheritance import inheritance_table
from titanflow.planning.plan import make_plan
from titanflow.planning.stage_plan import Plan
from titanflow.planning.view import inheritance_tables
from titanflow.runs.contract import StageRun

ALWAYS = [
    *("loss_mask", "model.dropout", "optimizer.lr", "training.steps", "training.local_batch_size"),
    *("training.global_batch_size", "training.seq_len", "debug.seed", "launcher.device"),
]


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    return write_tiny_experiment(tmp_path)


@pytest.fixture
def rows(configs: Path) -> Callable[..., dict[str, str]]:
    """The table of the tiny experiment's sft with some settings: each key's line."""

    def table(*settings: str) -> dict[str, str]:
        plan = make_plan("tiny", configs, overrides=["launcher.device=cpu", *settings])
        return {row.key: str(row) for stage in plan.stages for row in plan.inheritance(stage)}

    return table


def sft_of(plan: Plan) -> tuple[BaseArchitecture, StageRun, Module]:
    stage, module = plan.stage("sft"), plan.config.modules["sft"]
    assert stage is not None
    assert module.base is not None
    return module.base, stage.run, module


def test_some_settings_always_stand_in_it_and_come_first(rows: Callable[..., dict[str, str]]) -> None:
    table = rows()
    assert list(table)[: len(ALWAYS)] == ALWAYS
    # Those that differ come behind, and what is inherited last.
    kinds = [line.partition(" ")[0] for line in table.values()]
    assert kinds == [*kinds[: len(ALWAYS)], *sorted(kinds[len(ALWAYS) :])]
    assert table["loss_mask"].startswith("Changed loss_mask: off → on from chats.yaml:")
    assert table["model.dropout"] == "Kept model.dropout: none, llama3 has no dropout"
    assert table["training.local_batch_size"] == "Kept training.local_batch_size: 4"
    assert table["launcher.device"] == "Kept launcher.device: cpu"
    assert table["training.steps"].startswith("Changed training.steps: 12 → 8 from tiny.yaml:")
    assert table["weights"] == "Inherited weights: its last checkpoint from pretrain"


@pytest.mark.parametrize(
    ("setting", "key", "line"),
    [
        ("optimizer.lr=0.5", "optimizer.lr", "Changed optimizer.lr: 0.01 → 0.5"),
        ("optimizer.eps=1e-6", "optimizer.eps", "Changed optimizer.eps: 1e-08 → 1e-06"),
        ("launcher.device=auto", "launcher.device", "Changed launcher.device: cpu → auto (cpu)"),
        ("training.local_batch_size=2", "training.local_batch_size", "Changed training.local_batch_size: 4 → 2"),
        ("debug.seed=7", "debug.seed", "Changed debug.seed: 0 → 7"),
    ],
)
def test_a_change_says_from_where(
    rows: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch, setting: str, key: str, line: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert rows(f"sft.{setting}")[key] == f"{line} from --set sft.{setting}"


def test_the_global_batch_follows_from_ranks_and_local_batch(rows: Callable[..., dict[str, str]]) -> None:
    free = [f"{stage}.training.global_batch_size=-1" for stage in ("pretrain", "sft")]
    line = rows(*free, "sft.training.local_batch_size=3", "sft.launcher.nproc_per_node=2")["training.global_batch_size"]
    assert line == "Changed training.global_batch_size: 4 → 6 from --set sft.training.local_batch_size=3"


def test_dropout_of_a_family_that_has_it_and_of_adapters(configs: Path) -> None:
    base, run, _ = sft_of(make_plan("tiny", configs, overrides=["sft.lora.rank=4"]))
    args = {**base.model_args, "dropout": 0.1}
    table = inheritance_table(dataclasses.replace(base, model_args=args), run)
    assert [str(row) for row in table if "dropout" in row.key] == ["Kept model.dropout: 0.1", "Kept lora.dropout: 0.0"]
    custom = dataclasses.replace(base, model_name="mine", model_args={})
    (line,) = (str(row) for row in inheritance_table(custom, run) if row.key == "model.dropout")
    assert line == "Kept model.dropout: unknown"


def test_of_an_outside_base_the_settings_are_not_known(configs: Path) -> None:
    base, run, _ = sft_of(make_plan("tiny", configs))
    table = inheritance_table(dataclasses.replace(base, config={}, folder=configs), run)
    assert [(row.key, row.how, row.base) for row in table if row.key in ALWAYS and "dropout" not in row.key] == [
        (key, "set", "unknown") for key in ALWAYS if "dropout" not in key
    ]
    assert next(str(row) for row in table if row.key == "loss_mask").startswith("Set loss_mask: on from chats.yaml:")


@pytest.mark.parametrize(
    ("data", "mask"),
    [
        ({"kind": "text"}, "off"),
        ({"kind": "chat"}, "on"),
        ({"kind": "chat", "mixture": {"sources": {"a": {"path": "x"}}}}, "on"),
        ({"kind": "text", "mixture": {"sources": {"a": {"kind": "text"}, "b": {"kind": "chat"}}}}, "on"),
        (None, "off"),
    ],
)
def test_a_mask_is_on_where_chats_are_read(configs: Path, data: dict[str, Any] | None, mask: str) -> None:
    base, run, _ = sft_of(make_plan("tiny", configs))
    row = inheritance_table(base, run.model_copy(update={"config": {**run.config, "data": data}}))[0]
    assert (row.key, row.base, row.here) == ("loss_mask", "off", mask)


def test_once_prepared_it_says_how_many_tokens_are_trained(configs: Path) -> None:
    base, run, _ = sft_of(make_plan("tiny", configs))
    assert run.data.train is not None
    run.data.train.mkdir(parents=True)
    (run.data.train / "dataset.json").write_text(
        json.dumps({"kind": "chat", "tokens": 45_678, "trained_tokens": 12_345})
    )
    assert inheritance_table(base, run)[0].here == "on, 12,345 of 45,678 tokens trained"


def test_the_plan_shows_the_whole_table_and_holds_it_as_json(configs: Path) -> None:
    plan = make_plan("tiny", configs)
    stages = {stage["stage"]: stage["inheritance"] for stage in plan.as_json()["stages"]}
    assert [row["key"] for row in stages["sft"]][: len(ALWAYS)] == ALWAYS
    assert stages["pretrain"] == stages["publish"] == []
    console = Console(width=300, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115
    console.print(inheritance_tables(plan))
    shown = [line.split("  ")[0].strip() for line in console.export_text().splitlines()]
    assert shown[1:-1] == [row["key"] for row in stages["sft"]]
    assert shown[-1] == "Not inherited: optimizer state, scheduler, step, data position"
