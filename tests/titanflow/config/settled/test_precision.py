"""The number format that `mixed_precision_param: auto` stands for."""

from __future__ import annotations

from pathlib import Path

import pytest
from finished_without_training import finish, interrupt
from tiny_experiment import write_tiny_experiment

from titanflow.config.device import Device
from titanflow.config.experiment import load_experiment
from titanflow.config.overrides import parse_settings
from titanflow.config.settled import precision
from titanflow.config.settled.precision import KEY, Precision, cpu_precision
from titanflow.planning.plan import make_plan
from titanflow.runs.contract import StageRun
from titanflow.runs.manifest import Manifest

AUTO = [f"pretrain.{KEY}=auto", f"sft.{KEY}=auto"]
NARROW, WIDE = Precision("bfloat16", "it is fast"), Precision("float32", "it is slow")


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    return write_tiny_experiment(tmp_path)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """Plans from here on are made on a CPU of this kind."""

    def of(found: Precision, device: Device | None = None) -> None:
        monkeypatch.setattr(precision, "cpu_precision", lambda: found)
        if device is not None:
            monkeypatch.setattr(precision, "stage_device", lambda launcher: device)

    return of


def chosen(configs: Path, *settings: str) -> str:
    module = load_experiment("tiny", configs, parse_settings([*AUTO, *settings])).modules["pretrain"]
    return module.config["training"]["mixed_precision_param"]


@pytest.mark.parametrize(
    ("vendor", "flags", "expected"),
    [
        ("GenuineIntel", "avx512f avx512_bf16 amx_bf16 amx_tile", "bfloat16"),
        ("AuthenticAMD", "avx512f avx512_bf16", "bfloat16"),
        ("GenuineIntel", "avx512f avx512_bf16", "float32"),
        ("AuthenticAMD", "avx2 fma", "float32"),
    ],
)
def test_the_kernel_s_list_of_instructions_decides(tmp_path: Path, vendor: str, flags: str, expected: str) -> None:
    cores = [f"processor\t: {core}\nvendor_id\t: {vendor}\nflags\t\t: {flags}\n" for core in range(2)]
    file = tmp_path / "cpuinfo"
    file.write_text("\n".join(cores))
    assert cpu_precision(file).dtype == expected


def test_a_cpu_that_says_nothing_computes_in_float32(tmp_path: Path) -> None:
    arm = tmp_path / "arm"
    arm.write_text("processor\t: 0\nFeatures\t: fp asimd i8mm bf16\n\n")
    assert {cpu_precision(arm).dtype, cpu_precision(tmp_path / "none").dtype} == {"float32"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([], "float32"),
        (["pretrain.training.dtype=bfloat16"], "bfloat16"),
        (["pretrain.launcher.pool=gpus"], "bfloat16"),
        (["pretrain.launcher.pool=cpus", "pretrain.launcher.device=cpu"], "float32"),
        (["pretrain.launcher.device=cuda"], "bfloat16"),
    ],
)
def test_another_machine_s_cpu_is_not_asked(configs: Path, machine, settings: list[str], expected: str) -> None:
    machine(WIDE)
    assert chosen(configs, *settings) == expected


def test_gpus_compute_in_bfloat16(configs: Path, machine) -> None:
    machine(WIDE, Device("cuda", 1))
    assert chosen(configs) == "bfloat16"


def test_ranks_that_mix_no_formats_are_asked_for_none(configs: Path, machine) -> None:
    machine(NARROW)
    parted = ("pretrain.launcher.nproc_per_node=2", "pretrain.parallelism.tensor_parallel_degree=2")
    assert (chosen(configs), chosen(configs, *parted)) == ("bfloat16", "float32")
    config = load_experiment("tiny", configs, parse_settings([*AUTO, *parted]))
    assert not any("mixed_precision_param" in warning for warning in config.warnings)


def test_what_is_written_stays(configs: Path, machine) -> None:
    machine(WIDE)
    assert chosen(configs, f"pretrain.{KEY}=bfloat16") == "bfloat16"


def test_the_plan_and_the_config_say_what_was_chosen_and_why(configs: Path, machine) -> None:
    machine(NARROW)
    plan = make_plan("tiny", configs, overrides=AUTO)
    assert plan.stage("pretrain").reason.endswith("bfloat16 (auto: it is fast)")
    value, origin = plan.config.modules["pretrain"].values()[KEY]
    assert (value, origin) == ("bfloat16", f"--set {AUTO[0]}, auto: it is fast")


def test_another_cpu_changes_nothing_of_what_was_begun(configs: Path, machine) -> None:
    machine(NARROW)
    plan = finish(configs, overrides=AUTO, upto="pretrain")
    interrupt(plan.stage("sft"), Manifest.open(plan.folder))
    machine(WIDE)
    again = make_plan("tiny", configs, overrides=AUTO)
    assert [again.stage(name).state for name in ("pretrain", "sft")] == ["CACHED", "RESUME"]
    assert "bfloat16 (auto: the stage was begun with it)" in again.stage("sft").reason
    assert StageRun.read(again.folder / "sft" / "run.yaml").config["training"]["mixed_precision_param"] == "bfloat16"


def test_where_nothing_was_made_the_cpu_is_asked_again(configs: Path, machine) -> None:
    machine(NARROW)
    begun = make_plan("tiny", configs, overrides=AUTO).stage("pretrain").run
    begun.folder.mkdir(parents=True)
    begun.write()
    machine(WIDE)
    again = make_plan("tiny", configs, overrides=AUTO).stage("pretrain")
    assert again.run.config["training"]["mixed_precision_param"] == "float32"
