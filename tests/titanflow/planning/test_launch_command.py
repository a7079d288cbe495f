"""How each stage's process is started."""

import os
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from titanflow.config.keys.launcher import Kubernetes, Launcher
from titanflow.planning.launch import MODULES, by_hand, command, environment
from titanflow.runs import torchrun
from titanflow.runs.contract import StageRun


def argv(stage: str, **launcher: object) -> list[str]:
    config = {"launcher": asdict(Launcher(**launcher))} if stage != "publish" else {}  # type: ignore[arg-type]
    return command(StageRun(stage=stage, experiment="e", run="r", folder=Path("/runs/e/r"), config=config))  # type: ignore[arg-type]


@pytest.mark.parametrize("stage", ["pretrain", "sft", "evaluate", "publish"])
def test_every_stage_is_torchrun_s_on_one_process_too(stage: str) -> None:
    alone = ["--nproc_per_node=1", "--standalone", "--local_addr=127.0.0.1"]
    assert argv(stage)[1:] == ["-m", "torch.distributed.run", *alone, "-m", MODULES[stage], "/runs/e/r/run.yaml"]


def test_ranks_of_one_machine_meet_where_its_name_means_nothing(tmp_path: Path) -> None:
    """In a container the machine's name may be in no list of names; each rank would look for it for minutes."""
    program = tmp_path / "rank.py"
    program.write_text("import os; print('met at', os.environ['MASTER_ADDR'])")
    launcher = [sys.executable, "-m", torchrun.MODULE, *torchrun.arguments({}), str(program)]
    assert "met at 127.0.0.1" in subprocess.run(launcher, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("launcher", [{"nproc_per_node": 2}, {"nnodes": 2, "rdzv_endpoint": "head:29500"}])
def test_an_evaluation_on_several_processes_is_torchrun_s(launcher: dict[str, object]) -> None:
    assert argv("evaluate", **launcher)[1:3] == ["-m", "torch.distributed.run"]
    assert argv("evaluate", **launcher)[-3:] == ["-m", "titan.evaluate.evaluate", "/runs/e/r/run.yaml"]


def test_the_preparation_of_data_is_no_stage_and_a_process_of_its_own() -> None:
    assert argv("prepare")[1:] == ["-m", "titanflow.data.prepare", "/runs/e/r/run.yaml"]


@pytest.mark.parametrize(
    ("python", "expected"), [("/opt/venv/bin/python", "/opt/venv/bin/python"), (None, sys.executable)]
)
def test_an_image_s_interpreter_goes_before_this_one_s(python: str | None, expected: str) -> None:
    section = Kubernetes(image="titanflow", python=python)
    assert argv("sft", kind="kubernetes", kubernetes=section)[0] == expected
    # What runs beside the flow has the flow's.
    assert argv("publish")[0] == argv("prepare", kind="kubernetes", kubernetes=section)[0] == sys.executable


def test_secrets_stay_out_of_the_log() -> None:
    line = by_hand(["python", "a b.py"], {"HF_TOKEN": "hf_x", "WANDB_API_KEY": "y", "WANDB_NAME": "my run"})
    assert shlex.split(line)[-5:] == ["&&", "env", "WANDB_NAME=my run", "python", "a b.py"]
    assert "hf_x" not in line


def test_wandb_is_offline_in_the_experiments_project_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = StageRun(stage="publish", experiment="e", run="r", folder=Path("/runs/e/r"))
    config = SimpleNamespace(exp_name="stdlib", path=Path("configs/experiments/stdlib.yaml"))
    found = environment(run, config)  # type: ignore[arg-type]
    assert {name: value for name, value in found.items() if name.startswith("WANDB_")} == {
        "WANDB_MODE": "offline",
        "WANDB_PROJECT": "stdlib",
        "WANDB_NOTES": "experiment configs/experiments/stdlib.yaml",
    }
    monkeypatch.setenv("WANDB_MODE", "online")
    assert environment(run, config)["WANDB_MODE"] == "online"  # type: ignore[arg-type]


def test_the_folder_one_stands_in_takes_no_librarys_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a Latin-1 locale, too: a stage's files and its log are UTF-8."""
    for name in ("datasets.py", "flows.py", "yaml.py"):
        (tmp_path / name).write_text("raise RuntimeError('the user own')")
    (tmp_path / "family.py").write_text("")
    monkeypatch.chdir(tmp_path)
    config = SimpleNamespace(exp_name="e", path=Path("e.yaml"))
    run = StageRun(stage="pretrain", experiment="e", run="r", folder=tmp_path / "pretrain")
    reach = "import yaml, flows, titanflow.architectures.custom_code as own; own.reach_own_code()"
    code = f"{reach}; import family; print('ä ✓')"
    env = {**os.environ, "LC_ALL": "en_US.ISO-8859-1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    env |= environment(run, config)  # type: ignore[arg-type]
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=False)
    assert done.stdout.decode() == "ä ✓\n", done.stderr.decode()
