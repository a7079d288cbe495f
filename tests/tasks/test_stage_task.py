import errno
import logging
import shlex
import sys
from dataclasses import asdict
from unittest.mock import Mock

import pytest
from tiny_experiment import ROOT

from tasks import stage_task
from tasks.jobs import follow
from tasks.jobs.job import Job
from tasks.stage_task import run_stage
from tasks.ui import progress
from titanflow.common.errors import ConfigError, NoAnswerError, StageCutShort, StageFailed
from titanflow.config.keys.launcher import Launcher
from titanflow.planning.cluster.resources import job_name
from titanflow.planning.stage_plan import StagePlan
from titanflow.runs.contract import StageRun
from titanflow.runs.manifest import Manifest
from titanflow.runs.results import GateDecision, PrepareResult, PublishResult, write_result

PREPARES = """
import sys
from pathlib import Path
from titanflow.runs.results import PrepareResult, write_result
write_result(Path(sys.argv[1]), PrepareResult(seconds=1))
"""


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """A prepare stage's plan, outside of any flow."""
    monkeypatch.setattr(stage_task, "get_run_logger", lambda: logging.getLogger("test"))
    # An artifact that is made outside of a flow has Prefect start a server.
    monkeypatch.setattr(progress, "Artifacts", Mock())
    run = StageRun(stage="prepare", experiment="tiny", run="main", folder=tmp_path / "run/prepare", fingerprint="f")
    return StagePlan("prepare", "RUN", "new", run, [sys.executable, "-c", PREPARES, str(run.folder)])


@pytest.fixture
def manifest(tmp_path):
    return Manifest.open(tmp_path / "run")


def test_a_stage_runs_and_is_recorded(prepare, manifest):
    assert run_stage(prepare, manifest) == PrepareResult(seconds=1)
    assert Manifest.open(manifest.folder).is_done("prepare", "f")
    assert (prepare.run.folder / "run.yaml").exists()


def test_a_cached_stage_gives_the_stored_result_and_starts_nothing(prepare, manifest):
    write_result(prepare.run.folder, PrepareResult(seconds=2))
    prepare.state, prepare.reason, prepare.command = "CACHED", "nothing changed", ["/must/not/run"]
    state = run_stage(prepare, manifest)
    assert (state.name, state.message, state.data) == ("Cached", "nothing changed", PrepareResult(seconds=2))
    assert not (prepare.run.folder / "run.yaml").exists()


def test_a_model_that_is_held_back_ends_its_stage_in_a_state_of_that_name(prepare, manifest):
    gate = GateDecision(passed=False, reason="no better than c0ffee")
    result = PublishResult(target="folder", location="/model", status="held back", gate=gate)
    imports = "from pathlib import Path; from titanflow.runs.results import *"
    program = f"{imports}; write_result(Path({str(prepare.run.folder)!r}), "
    prepare.command = [
        sys.executable,
        "-c",
        program + f"PublishResult.model_validate_json({result.model_dump_json()!r}))",
    ]
    state = run_stage(prepare, manifest)
    assert state.is_completed()
    assert (state.name, state.message, state.data) == ("Held back", "no better than c0ffee", result)
    assert Manifest.open(manifest.folder).is_done("prepare", "f")


def test_a_failed_stage_is_not_recorded_as_done(prepare, manifest):
    prepare.command = [sys.executable, "-c", "raise SystemExit(3)"]
    with pytest.raises(Exception, match="exit status 3"):
        run_stage(prepare, manifest)
    assert not Manifest.open(manifest.folder).is_done("prepare", "f")
    assert Manifest.open(manifest.folder).stages["prepare"].started


SUBMITS = """#!/bin/sh
# The first answer of each command is none.
[ -e {folder}/{name} ] || {{ touch {folder}/{name}; echo "{name}: Unable to contact slurm controller" >&2; exit 1; }}
{then}
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Commands of a Slurm that is away when each is called for the first time; the ids that it gave away."""
    folder = tmp_path / "bin"
    folder.mkdir()
    own = job_name("pretrain", tmp_path / "run/pretrain")
    trains = f"{sys.executable} -c {shlex.quote(PREPARES)} {tmp_path}/run/pretrain"
    (folder / "taken").write_text(f"#!/bin/sh\necho 7 >> {folder}/submitted\n{trains}\n")
    (folder / "taken").chmod(0o755)
    for name, then in {
        "squeue": f"cat {folder}/submitted || true",
        "sbatch": f"{folder}/taken; echo 7",
        "scontrol": f"echo JobId=7 JobName={own} JobState=COMPLETED ExitCode=0:0",
    }.items():
        (folder / name).write_text(SUBMITS.format(folder=tmp_path, name=name, then=then))
        (folder / name).chmod(0o755)
    (folder / "scancel").write_text(f'#!/bin/sh\necho "$@" >> {folder}/cancelled\n')
    (folder / "scancel").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(stage_task, "ASK_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(follow, "STATE_SECONDS", 0.0)
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.0)
    return folder


@pytest.fixture
def job(prepare, tmp_path):
    """A pretraining that is a job, over what other inputs left."""
    launcher = {**asdict(Launcher()), "kind": "slurm"}
    folder = tmp_path / "run/pretrain"
    write_result(folder, PrepareResult(seconds=2))
    StageRun(stage="pretrain", experiment="tiny", run="main", folder=folder, fingerprint="other").write()
    run = StageRun(
        stage="pretrain", experiment="tiny", run="main", folder=folder, fingerprint="f", config={"launcher": launcher}
    )
    return StagePlan("pretrain", "STALE", "other inputs", run, ["train"])


def test_a_controller_that_is_away_is_waited_for_before_anything_is_submitted(job, manifest, slurm):
    Job(kind="slurm", name=job_name("pretrain", job.run.folder), fingerprint="other").write(job.run.folder)
    assert run_stage(job, manifest) == PrepareResult(seconds=1)
    assert (slurm / "submitted").read_text() == "7\n"
    assert (manifest.folder / "superseded/pretrain-1/result.json").exists()


def test_a_job_whose_submission_got_no_answer_is_found_by_its_name(job, manifest, slurm):
    text = (slurm / "sbatch").read_text()
    # It is taken, and the answer is lost.
    (slurm / "sbatch").write_text(text.replace("touch", f"{slurm}/taken; touch"))
    assert run_stage(job, manifest) == PrepareResult(seconds=1)
    assert (slurm / "submitted").read_text() == "7\n"


def test_an_attempt_that_never_began_leaves_the_next_what_it_was_asked(job, manifest, slurm, monkeypatch):
    monkeypatch.setattr(stage_task, "task_run", Mock(run_count=2))
    run_stage(job, manifest)
    assert (manifest.folder / "superseded/pretrain-1/result.json").exists()


def test_a_disk_that_is_full_when_a_job_ends_hides_nothing_of_its_end(job, manifest, slurm, monkeypatch):
    write = Job.write

    def refuses_the_end(self, folder):
        if self.ended:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, folder)

    monkeypatch.setattr(Job, "write", refuses_the_end)
    assert run_stage(job, manifest) == PrepareResult(seconds=1)


def test_a_job_that_a_failing_command_submitted_is_followed(job, manifest, slurm):
    (slurm / "sbatch").write_text(f"#!/bin/sh\n{slurm}/taken; echo no space left >&2; exit 1\n")
    assert run_stage(job, manifest) == PrepareResult(seconds=1)
    assert (slurm / "submitted").read_text() == "7\n"


def test_a_refusal_is_told_though_an_older_job_of_the_stage_is_there(job, manifest, slurm):
    (slurm / "submitted").write_text("6\n")
    (slurm / "sbatch").write_text("#!/bin/sh\necho no such partition >&2; exit 1\n")
    with pytest.raises(StageFailed, match="sbatch: no such partition"):
        run_stage(job, manifest)
    assert Job.of(job.run.folder).id == ""


@pytest.mark.parametrize("saved", ["", "step 8"])
def test_a_job_that_got_nowhere_says_what_ended_it_and_what_to_set(job, manifest, slurm, monkeypatch, saved):
    text = (slurm / "scontrol").read_text()
    (slurm / "scontrol").write_text(text.replace("COMPLETED ExitCode=0:0", "TIMEOUT ExitCode=0:15"))
    monkeypatch.setattr(stage_task, "saved_so_far", lambda folder: saved)
    with pytest.raises(StageCutShort, match="job 7 reached its time limit") as error:
        run_stage(job, manifest)
    nothing = f"it got no further than {saved}" if saved else "it saved nothing"
    assert f"\n    {nothing}, and another job like this one would end so, too: raise launcher.slurm.time" in str(
        error.value
    )
    assert (slurm / "submitted").read_text() == "7\n"


def test_a_job_whose_id_cannot_be_noted_is_ended(job, manifest, slurm, monkeypatch):
    write = Job.write

    def refuses_the_id(self, folder):
        if self.id:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, folder)

    monkeypatch.setattr(Job, "write", refuses_the_id)
    with pytest.raises(OSError, match="No space left"):
        run_stage(job, manifest)
    assert (slurm / "cancelled").read_text() == f"--signal=TERM --name={job_name('pretrain', job.run.folder)} 7\n"


def test_a_copy_of_a_folder_leaves_the_job_of_the_folder_alone(job, manifest, slurm):
    other = job_name("pretrain", job.run.folder.parent / "copied from")
    Job(kind="slurm", name=other, id="6", fingerprint="f").write(job.run.folder)
    assert run_stage(job, manifest) == PrepareResult(seconds=1)
    assert (slurm / "submitted").read_text() == "7\n"
    assert not (slurm / "cancelled").exists()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"kind": "pbs", "name": "n", "fingerprint": "f"}',
        b'{"kind": "kubernetes", "name": "n.lab", "id": "7", "fingerprint": "f"}',
        b'{"kind": "slurm", "name": "n", "id": "n.lab", "fingerprint": "f"}',
    ],
)
def test_a_record_of_a_job_that_is_damaged_is_named_before_anything_is_submitted(job, manifest, slurm, text):
    (job.run.folder / "job.json").write_bytes(text)
    with pytest.raises(ConfigError, match=r"job\.json: (can't be read|another version).*\n.*and remove the file"):
        run_stage(job, manifest)
    assert not (slurm / "submitted").exists()


def test_the_status_of_an_old_job_with_the_same_id_counts_for_nothing(job, manifest, slurm):
    job.state = "RESUME"
    (job.run.folder / "job-7.status").write_text("1\n")
    assert run_stage(job, manifest) == PrepareResult(seconds=1)
    assert not (job.run.folder / "job-7.status").exists()


def test_a_submission_that_never_gets_an_answer_is_given_up(job, manifest, slurm, monkeypatch):
    monkeypatch.setattr(stage_task, "AWAY_SECONDS", 0.3)
    (slurm / "sbatch").write_text("#!/bin/sh\necho Resource temporarily unavailable >&2; exit 1\n")
    with pytest.raises(NoAnswerError, match="sbatch: Resource temporarily unavailable"):
        run_stage(job, manifest)
