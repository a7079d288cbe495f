import subprocess
from pathlib import Path

import pytest

from titanflow.planning.cluster import slurm_script
from titanflow.planning.cluster.resources import Resources, job_name, resources
from titanflow.runs.contract import StageRun
from titanflow.runs.torchrun import PATIENCE

SLURM = {
    **dict.fromkeys(("partition", "account", "qos", "time", "gres", "constraint", "mem", "container")),
    "setup": [],
    "export": [],
    "save_seconds": 120,
    "extra": [],
}


def asked(folder: Path, environment: dict[str, str], device: str = "auto", **settings: object) -> Resources:
    launcher = {"kind": "slurm", "nnodes": 2, "nproc_per_node": 8, "device": device, "slurm": SLURM | settings}
    run = StageRun(stage="pretrain", experiment="e", run="r", folder=folder, config={"launcher": launcher})
    return resources(run, environment)


def test_options_are_those_asked_for(tmp_path: Path) -> None:
    given = asked(tmp_path, {}, partition="gpu", time="4:00:00", mem="64G", extra=["--exclusive"])
    command = slurm_script.submission(given)
    assert command[:2] == ["sbatch", "--parsable"]
    options = {"--nodes=2", "--ntasks-per-node=1", "--partition=gpu", "--time=4:00:00", "--mem=64G", "--exclusive"}
    assert options <= set(command)
    assert "--signal=TERM@120" in command
    assert not any(option.startswith(("--account", "--qos", "--gres")) for option in command)


def test_a_stage_on_gpus_asks_for_as_many_as_it_has_processes(tmp_path: Path) -> None:
    assert "--gres=gpu:8" in slurm_script.submission(asked(tmp_path, {}, device="cuda"))
    assert "--gres=gpu:h100:4" in slurm_script.submission(asked(tmp_path, {}, device="cuda", gres="gpu:h100:4"))


def test_all_of_a_node_s_memory_is_asked_for_by_none(tmp_path: Path) -> None:
    assert "--mem=0" in slurm_script.submission(asked(tmp_path, {}, mem=0))


def test_of_a_stage_s_jobs_one_runs_at_a_time(tmp_path: Path) -> None:
    assert "--dependency=singleton" in slurm_script.submission(asked(tmp_path, {}))


@pytest.mark.parametrize(
    ("folder", "written"), [("50%j of", r"50\%j of"), (r"a\b", r"a\\b"), (r"a\%x", r"a\\\%x"), ("a $b 'c'", "a $b 'c'")]
)
def test_a_log_s_name_is_no_pattern_of_slurm(tmp_path: Path, folder: str, written: str) -> None:
    given = slurm_script.submission(asked(tmp_path / folder, {}))
    assert f"--output={tmp_path}/{written}/pretrain.log" in given


def test_what_a_plan_shows_can_be_pasted_and_submits_the_script(tmp_path: Path) -> None:
    given = asked(tmp_path, {"NAME": "it's $HOME"}, setup=["cat <<END", "END"])
    (tmp_path / "sbatch").write_text('#!/bin/sh\nfor word; do echo "$word"; done; cat\n')
    (tmp_path / "sbatch").chmod(0o755)
    line = slurm_script.submitted(["train"], given)
    done = subprocess.run(
        ["bash"], input=line, capture_output=True, text=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}
    )
    assert done.stderr == ""
    assert done.stdout == "\n".join([*slurm_script.submission(given)[1:], slurm_script.script(["train"], given)])


def test_ranks_may_save_as_long_as_their_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATIENCE, asked(tmp_path, {}, save_seconds=300).variables[PATIENCE])
    run = pytest.importorskip("torch.distributed.run")
    found = vars(run.parse_args(["train.py"]))
    if "shutdown_timeout" not in found:
        pytest.skip("this torch gives ranks 30 s, whatever it is told")
    assert found["shutdown_timeout"] == 300


def test_secrets_and_proxies_are_handed_on_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {"HF_TOKEN": "hf_abc", "WANDB_API_KEY": "key", "https_proxy": "http://me:pass@proxy", "MINE": "mine"}
    secrets |= {"TRITON_CACHE_DIR": "/of/a-kernel", "TORCHINDUCTOR_CACHE_DIR": "/of/a-graph"}
    secrets |= {"all_proxy": "http://me:other@proxy", "XDG_CACHE_HOME": "/of/all-caches"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("UNRELATED", "unrelated")
    # A path of this machine need not be there on a node.
    monkeypatch.setenv("TMPDIR", "/tmp/of-the-login-node")
    given = asked(tmp_path, {"HF_TOKEN": "hf_other", "WANDB_PROJECT": "stdlib"}, export=["MINE"])
    script, command = slurm_script.script(["python", "-m", "train"], given), slurm_script.submission(given)
    for value in (*secrets.values(), "hf_other", "unrelated"):
        assert value not in script + " ".join(command)
    (export,) = (option for option in command if option.startswith("--export="))
    assert set(secrets) <= set(export.removeprefix("--export=").split(","))
    assert "UNRELATED" not in export
    assert "TMPDIR" not in export
    # What the stage itself is given goes before what the shell has.
    assert given.handed_on["HF_TOKEN"] == "hf_other"
    assert "export WANDB_PROJECT=stdlib\n" in script


def test_the_script_runs_one_command_on_each_node_and_notes_its_status(tmp_path: Path) -> None:
    """With stand-ins for Slurm's commands, in a folder whose name a shell would take apart."""
    folder = tmp_path / "a run's $folder"
    folder.mkdir()
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (
        ("scontrol", "echo node7; echo node8"),
        ("srun", 'echo "$PET_RDZV_ENDPOINT $PET_RDZV_ID $OMP_NUM_THREADS $READY $@"; exit 3'),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    given = asked(folder, {"NAME": "it's $HOME"}, setup=["READY=yes", "export READY"])
    (folder / "run.yaml").touch()
    (tmp_path / "job.sh").write_text(slurm_script.script(["train", "a b"], given))
    env = {"PATH": f"{programs}:/usr/bin:/bin", "SLURM_JOB_ID": "20017", "SLURM_CPUS_ON_NODE": "64"}
    done = subprocess.run(["bash", str(tmp_path / "job.sh")], capture_output=True, text=True, env=env)
    assert done.returncode == 3
    assert done.stdout == "node7:20017 20017 8 yes --export=ALL --kill-on-bad-exit=1 train a b\n"
    assert (folder / "job-20017.status").read_text() == "3\n"
    (folder / "run.yaml").unlink()
    assert subprocess.run(["bash", str(tmp_path / "job.sh")], capture_output=True, env=env).returncode == 74


@pytest.mark.parametrize(
    ("setup", "failed"),
    [
        (["module load cuda"], "module load cuda"),
        (["source nowhere/bin/activate", "true"], "source nowhere/bin/activate"),
        (["false || true", "if false; then", "false", "fi", "[ -z 1 ] && false || true", "source venv"], ""),
    ],
)
def test_a_line_of_setup_that_fails_ends_the_job(tmp_path: Path, setup: list[str], failed: str) -> None:
    (tmp_path / "run.yaml").touch()
    (tmp_path / "venv").write_text("false\ntrue\n")
    (tmp_path / "srun").write_text("#!/bin/sh\necho trains; exit 1\n")
    (tmp_path / "srun").chmod(0o755)
    (tmp_path / "job.sh").write_text(slurm_script.script(["train"], asked(tmp_path, {}, setup=setup)))
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "1"}
    done = subprocess.run(["bash", "job.sh"], capture_output=True, text=True, env=env, cwd=tmp_path)
    assert (f"launcher.slurm.setup: '{failed}' failed on" in done.stderr) is bool(failed)
    assert (done.returncode, done.stdout) == ((78, "") if failed else (1, "trains\n"))


def test_jobs_of_other_folders_have_other_names(tmp_path: Path) -> None:
    names = {job_name(stage, tmp_path / run) for stage in ("pretrain", "sft") for run in ("a", "b")}
    assert len(names) == 4


def test_data_is_prepared_with_the_cores_of_its_processes(tmp_path: Path) -> None:
    launcher = {"kind": "slurm", "nnodes": 2, "nproc_per_node": 16, "slurm": SLURM}
    run = StageRun(stage="prepare", experiment="e", run="r", folder=tmp_path, config={"launcher": launcher})
    command = slurm_script.submission(resources(run, {}))
    assert {"--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=16"} <= set(command)
    launcher["nproc_per_node"] = None
    given = resources(run, {})
    assert not any(option.startswith("--cpus") for option in slurm_script.submission(given))
    assert "/ 1))" in slurm_script.script(["prepare"], given)
