"""A finished training as a row in markdown."""

import json
from pathlib import Path

import pytest
from finished_without_training import finish
from tiny_experiment import write_tiny_experiment
from typer.testing import CliRunner

from titanflow.cli.main import app
from titanflow.common.errors import DataError
from titanflow.planning.forecast.device import cpu
from titanflow.report.benchmark_row import COLUMNS, benchmark_row, markdown_table
from titanflow.runs.contract import METRICS_FILE
from titanflow.runs.results import TrainResult, read_result, write_result


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    return write_tiny_experiment(tmp_path)


def measured(folder: Path, *records: dict[str, object], **fields: object) -> Path:
    """The stage with figures of its own."""
    lines = [json.dumps({"step": step, **record}) + "\n" for step, record in enumerate(records, 1)]
    (folder / METRICS_FILE).write_text("".join(lines))
    result = read_result(folder)
    assert isinstance(result, TrainResult)
    write_result(folder, result.model_copy(update=fields))
    return folder


def row(folder: Path) -> dict[str, str]:
    head, rule, *rows = markdown_table([benchmark_row(folder)]).splitlines()
    heads = [head for head, _ in COLUMNS.values()]
    assert head == f"| {' | '.join(heads)} |"
    assert set(rule) == set("| -")
    return dict(zip(heads, rows[0].strip("| ").split(" | "), strict=True))


def test_a_row_says_what_was_trained_on_what_and_what_it_took(configs: Path) -> None:
    folder = finish(configs, upto="pretrain").folder / "pretrain"
    fields = {"parameters": 1_430_000, "tokens_per_second": 3210.4, "loss": 2.3456, "peak_memory_bytes": 3 << 29}
    measured(folder, {"loss": 3.0}, **fields, versions={"torch": "2.13.0"})
    assert row(folder) == {
        "model": "llama3 debugmodel",
        "parameters": "1.43 M",
        "devices": f"1 × {cpu().name}",
        "techniques": "float32",
        "tokens a row": "48",
        "rows a step": "4",
        "steps": "8",
        "tokens/s a device": "3,210",
        "MFU": "–",
        "memory a rank": "1.5 GiB",
        "loss": "2.346",
        "torch": "2.13.0",
    }


def test_techniques_speed_and_memory_are_those_of_all_devices(configs: Path) -> None:
    settings = ["nproc_per_node=2", "device=cpu"]
    overrides = [f"pretrain.launcher.{one}" for one in settings]
    overrides += ["pretrain.activation_checkpoint.mode=full", "pretrain.training.mixed_precision_param=bfloat16"]
    folder = finish(configs, upto="pretrain", overrides=overrides).folder / "pretrain"
    system = [{"memory_reserved_gib": peak} for peak in (1.0, 3.0, 2.0)]
    records = [{"mfu": rate, "system": one} for rate, one in zip((1.0, 41.0, 40.0), system, strict=True)]
    measured(folder, *records, tokens_per_second=5000.0, peak_memory_bytes=1)
    found = row(folder)
    assert found["devices"].startswith("2 × ")
    assert found["techniques"] == "FSDP 2, bfloat16, full AC"
    assert (found["tokens/s a device"], found["MFU"], found["memory a rank"]) == ("2,500", "40.0 %", "3.0 GiB")


def test_the_command_prints_a_row_for_each_folder(configs: Path) -> None:
    folder = finish(configs, upto="sft").folder
    done = CliRunner().invoke(app, ["benchmark", str(folder / "pretrain"), str(folder / "sft")])
    assert done.exit_code == 0, done.output
    rows = [benchmark_row(folder / stage) for stage in ("pretrain", "sft")]
    assert done.output == markdown_table(rows) + "\n"
    assert len(done.output.splitlines()) == 4
    printed = CliRunner().invoke(app, ["benchmark", "--json", str(folder / "pretrain"), str(folder / "sft")])
    assert json.loads(printed.stdout) == rows


def test_a_folder_without_a_finished_training_is_refused(configs: Path, tmp_path: Path) -> None:
    folder = finish(configs).folder
    for other in (folder / "evaluate", folder, tmp_path / "nowhere"):
        with pytest.raises(DataError, match="expected: the folder of a training stage"):
            benchmark_row(other)


def test_files_that_cant_be_read_are_refused(configs: Path) -> None:
    folder = finish(configs, upto="pretrain").folder / "pretrain"
    for name, text in (("run.yaml", "{"), ("run.yaml", "[1]"), ("result.json", "{"), ("result.json", "{}")):
        kept = (folder / name).read_text()
        (folder / name).write_text(text)
        with pytest.raises(DataError, match=rf"{name}: (can't be read|another version of titanflow wrote it)"):
            benchmark_row(folder)
        (folder / name).write_text(kept)
    (folder / "run.yaml").unlink()
    with pytest.raises(DataError, match=r"no run\.yaml of a training"):
        benchmark_row(folder)
