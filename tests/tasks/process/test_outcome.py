import pytest
from finished_stage import write_checkpoint

from tasks.process.outcome import TAIL_LINES, log_tail, read_outcome
from titanflow.common.errors import ConfigError, DataError, HubError, HubUnreachable, StageFailed, StageLost
from titanflow.runs.contract import StageRun
from titanflow.runs.errors import StageError, write_error
from titanflow.runs.results import PublishResult, write_result

# What torchrun 2.13 prints when rank 1 of 2 was killed by the kernel, and stopped rank 0.
TORCHRUN_REPORT = """\
Failures:
[1]:
  rank      : 0 (local_rank: 0)
  exitcode  : 143 (pid: 7093)
Root Cause (first observed failure):
[0]:
  rank      : 1 (local_rank: 1)
  exitcode  : -9 (pid: 7094)  (SIGKILL)
"""


def outcome(folder, returncode, log_text="", log_start=0):
    log = folder / "pretrain.log"
    log.write_text(log_text)
    return read_outcome("pretrain", folder, returncode, log, log_start)


def test_a_finished_stage_gives_its_result(tmp_path):
    result = PublishResult(target="folder", location="here")
    write_result(tmp_path, result)
    assert outcome(tmp_path, 0) == result


def test_success_without_a_result_is_a_failure(tmp_path):
    with pytest.raises(StageFailed, match=r"without an error and without result\.json"):
        outcome(tmp_path, 0)


def test_a_result_does_not_hide_a_failure(tmp_path):
    write_result(tmp_path, PublishResult(target="folder", location="here"))
    with pytest.raises(StageFailed, match="exit status 3"):
        outcome(tmp_path, 3)


def test_the_failing_rank_s_own_words_are_the_message(tmp_path):
    write_error(tmp_path, StageError(rank=3, type="RuntimeError", message="loss is nan at step 7"))
    with pytest.raises(StageFailed) as failure:
        outcome(tmp_path, 1, "torchrun says exit code 1")
    first, *rest = str(failure.value).splitlines()
    assert first == "pretrain failed on rank 3: RuntimeError: loss is nan at step 7"
    assert str(tmp_path / "error.json") in rest[0]
    assert str(tmp_path / "pretrain.log") in rest[1]


@pytest.mark.parametrize(
    ("type_", "exit_code", "kind"),
    [
        ("titanflow.common.errors.ConfigError", 2, ConfigError),
        ("DataError", 2, DataError),
        ("HubError", 1, HubError),
        ("HubUnreachable", 1, HubUnreachable),
        ("ValueError", 2, ConfigError),
        ("TitanflowError", 1, StageFailed),
    ],
)
def test_bad_input_stays_bad_input(tmp_path, type_, exit_code, kind):
    write_error(tmp_path, StageError(type=type_, message="seq_len: 999 is more than 512", exit_code=exit_code))
    with pytest.raises(kind, match="seq_len: 999 is more than 512") as failure:
        outcome(tmp_path, 1)
    assert type(failure.value) is kind


@pytest.mark.parametrize(
    ("returncode", "log"),
    [
        (143, ""),
        (-15, ""),
        (1, "  rank      : 0 (local_rank: 0)\n  exitcode  : 143 (pid: 1)"),
        (1, "SignalException: Process 7108 got signal: 15"),
    ],
)
def test_a_stage_that_saved_and_left_says_where_it_resumes(tmp_path, returncode, log):
    for step in (5, 20, 100):
        write_checkpoint(tmp_path / f"checkpoint/step-{step}")
    with pytest.raises(StageFailed, match="stopped on SIGTERM; it resumes from step 100"):
        outcome(tmp_path, returncode, log)


def test_sigkill_is_named_and_memory_is_suspected(tmp_path):
    with pytest.raises(StageFailed, match=r"killed by SIGKILL; it saved nothing yet.*out of memory") as failure:
        outcome(tmp_path, -9, "the last words\n")
    assert "the last words" in str(failure.value)


def test_what_takes_less_memory_is_the_stage_s_own(tmp_path):
    log = tmp_path / "log"
    log.touch()
    advice = {"pretrain": "lower training.local_batch_size", "evaluate": "lower batch_size"}
    advice |= {"publish": "publishing loads the model once more", "prepare": "take a machine with more"}
    for stage, expected in advice.items():
        StageRun(stage=stage, experiment="e", run="r", folder=tmp_path).write()
        with pytest.raises(StageLost, match=expected) as failure:
            read_outcome(stage, tmp_path, -9, log)
        assert ("batch_size" in str(failure.value)) == (stage in ("pretrain", "evaluate"))
        assert ("run it again: what arrived isn't sent twice" in str(failure.value)) == (stage == "publish")


def test_of_torchrun_s_ranks_the_first_to_fall_counts(tmp_path):
    with pytest.raises(StageFailed, match="killed by SIGKILL"):
        outcome(tmp_path, 1, TORCHRUN_REPORT)


def test_a_segmentation_fault_is_named_without_blaming_memory(tmp_path):
    with pytest.raises(StageFailed, match="killed by SIGSEGV") as failure:
        outcome(tmp_path, -11)
    assert "memory" not in str(failure.value)


def test_a_silent_failure_shows_the_log_s_last_lines(tmp_path):
    with pytest.raises(StageFailed, match="exit status 7") as failure:
        outcome(tmp_path, 7, "\n".join(f"line {number}" for number in range(50)))
    shown = [line.strip() for line in str(failure.value).splitlines()[1:]]
    assert shown == [f"line {number}" for number in range(50 - TAIL_LINES, 50)]


def test_an_earlier_attempt_s_log_is_not_read(tmp_path):
    with pytest.raises(StageFailed, match="exit status 1"):
        outcome(tmp_path, 1, TORCHRUN_REPORT + "new words", log_start=len(TORCHRUN_REPORT))


def test_the_end_of_a_large_log_is_enough(tmp_path):
    log = tmp_path / "log"
    log.write_text("x" * 1_000_000 + "\nlast\n")
    assert log_tail(log)[-1] == "last"
    assert len(log_tail(log)[0]) < 100_000


def test_a_rank_that_was_killed_is_the_cause_and_not_the_rank_that_missed_it(tmp_path):
    write_error(tmp_path, StageError(rank=0, type="RuntimeError", message="Connection closed by peer [::1]:3011"))
    report = TORCHRUN_REPORT.replace("exitcode  : 143", "exitcode  : 1")
    with pytest.raises(StageLost, match="rank 1 was killed by SIGKILL; it saved nothing yet; rank 0: Runtime"):
        outcome(tmp_path, 1, report)


def test_a_rank_that_hung_is_named_and_may_be_tried_again(tmp_path):
    write_error(tmp_path, StageError(rank=0, type="RuntimeError", message="Timed out waiting 60000ms for recv"))
    with pytest.raises(StageLost, match="pretrain: rank 1 did not answer for 60 s"):
        outcome(tmp_path, 1, TORCHRUN_REPORT.replace("exitcode  : 143", "exitcode  : 1"))


def test_a_process_that_nccl_s_watchdog_aborted_has_hung(tmp_path):
    said = "Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7, Timeout(ms)=600000) ran for 600053 ms"
    with pytest.raises(StageLost, match="a rank did not answer for 600 s"):
        outcome(tmp_path, -6, said)
    with pytest.raises(StageFailed, match="killed by SIGABRT") as failure:
        outcome(tmp_path, -6, "free(): invalid pointer")
    assert not isinstance(failure.value, StageLost)


def test_a_kill_for_want_of_memory_is_not_tried_again(tmp_path):
    StageRun(stage="pretrain", experiment="e", run="r", folder=tmp_path).write()
    for returncode, log in ((-9, ""), (1, TORCHRUN_REPORT)):
        (tmp_path / "pretrain.log").write_text(log)
        with pytest.raises(StageFailed, match=r"killed by the kernel, out of memory.*lower training") as failure:
            read_outcome("pretrain", tmp_path, returncode, tmp_path / "pretrain.log", memory_ran_out=True)
        assert not isinstance(failure.value, StageLost)


@pytest.mark.parametrize(
    ("kind", "section", "saved", "told"),
    [
        (
            "slurm",
            {"mem": "4G"},
            4,
            "lower training.local_batch_size or training.seq_len, or raise launcher.slurm.mem.",
        ),
        # The batch has no part in the export, which comes after the last step.
        ("slurm", {"mem": "4G"}, 8, "raise launcher.slurm.mem: the training is done, and the export"),
        ("slurm", {"mem": None}, 8, "raise launcher.slurm.mem"),
        # 0 is all of a node's memory: there is no more to ask for.
        ("slurm", {"mem": "0"}, 8, "take nodes with more memory"),
        ("kubernetes", {}, 4, "or raise launcher.kubernetes.resources.memory"),
        ("kubernetes", {}, 8, "raise launcher.kubernetes.resources.memory: the training is done"),
        ("local", {}, 8, "free some, or take a machine with more: the training is done"),
        ("local", {}, 4, "lower training.local_batch_size or training.seq_len."),
    ],
)
def test_what_helps_a_stage_without_memory_is_what_it_took_it_for(tmp_path, kind, section, saved, told):
    config = {"launcher": {"kind": kind, kind: section}, "training": {"steps": 8}}
    StageRun(stage="pretrain", experiment="e", run="r", folder=tmp_path, config=config).write()
    write_checkpoint(tmp_path / "checkpoint" / f"step-{saved}")
    (tmp_path / "pretrain.log").write_text("")
    with pytest.raises(StageFailed) as failure:
        read_outcome("pretrain", tmp_path, -9, tmp_path / "pretrain.log", memory_ran_out=True)
    assert told in str(failure.value)
    assert ("lower training" in str(failure.value)) is (saved < 8)


@pytest.mark.parametrize(
    ("type_", "message", "lost"),
    [
        ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 20.00 MiB", False),
        ("StageFailed", "step 7: the loss is nan", False),
        ("StageFailed", "the disk is full", False),
        ("ValueError", "shapes differ", False),
        ("ConnectionResetError", "[Errno 104] Connection reset by peer", True),
    ],
)
def test_what_another_try_would_not_mend_is_no_loss(tmp_path, type_, message, lost):
    StageRun(stage="pretrain", experiment="e", run="r", folder=tmp_path).write()
    write_error(tmp_path, StageError(type=type_, message=message))
    with pytest.raises(StageFailed) as failure:
        outcome(tmp_path, 1)
    assert isinstance(failure.value, StageLost) is lost
    assert ("lower training.local_batch_size" in str(failure.value)) is ("out of memory" in message)


def test_an_error_is_logged_by_its_first_line():
    assert repr(StageLost("killed\nlast line of the log")) == "StageLost('killed')"
