import pytest

from tasks.process.failed_ranks import is_disconnected, lost_peer, rank_exits, seconds_waited
from titanflow.runs.errors import StageError

# What torchrun 2.13 printed when rank 1 of 2 was stopped, rank 0 gave up, and rank 1 didn't react to SIGTERM.
HUNG = """\
============================================================
titan.train.train FAILED
------------------------------------------------------------
Failures:
[1]:
  time      : 2026-11-21_12:56:40
  host      : vm
  rank      : 1 (local_rank: 1)
  exitcode  : -9 (pid: 23)
  error_file: <N/A>
  traceback : Signal 9 (SIGKILL) received by PID 23
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-11-21_12:56:10
  host      : vm
  rank      : 0 (local_rank: 0)
  exitcode  : 1 (pid: 22)
  error_file: <N/A>
"""
GLOO_TIMEOUT = "[gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 10000ms for recv operation to complete"
GLOO_CLOSED = "[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:30111"


def error(message, type_="RuntimeError", rank=0):
    return StageError(rank=rank, type=type_, message=message)


def test_each_rank_s_exit_is_read_and_the_root_cause_comes_last():
    assert list(rank_exits(HUNG).items()) == [(1, -9), (0, 1)]
    assert rank_exits("no report") == {}


@pytest.mark.parametrize(
    ("found", "known"),
    [
        (error(GLOO_TIMEOUT), True),
        (error(GLOO_CLOSED), True),
        (
            error(
                "NCCL error: remote process exited or there was a network error", "torch.distributed.DistBackendError"
            ),
            True,
        ),
        (error("[Errno 104] Connection reset by peer", "ConnectionResetError"), True),
        (error("The read operation timed out", "httpx.ReadTimeout"), True),
        (error("NCCL error: Cuda failure 'out of memory'", "DistBackendError"), False),
        (error("CUDA out of memory. Tried to allocate 20.00 MiB", "OutOfMemoryError"), False),
        (error("shape '[2, 3]' is invalid for input of size 5"), False),
        (error("the disk is full", "StageFailed"), False),
    ],
)
def test_a_lost_connection_is_told_from_an_error_of_the_rank_s_own(found, known):
    assert is_disconnected(found) is known


def test_how_long_a_rank_waited_in_vain():
    assert seconds_waited(GLOO_TIMEOUT) == 10
    nccl = "Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7, OpType=ALLREDUCE, Timeout(ms)=60000) ran"
    assert seconds_waited(nccl) == 60
    assert seconds_waited(GLOO_CLOSED) is None


def test_the_other_rank_is_named_for_what_became_of_it():
    assert lost_peer(error(GLOO_TIMEOUT), rank_exits(HUNG)) == "rank 1 did not answer for 10 s"
    assert lost_peer(error(GLOO_TIMEOUT), {}) == "another rank did not answer for 10 s"
    named = error("Timed out waiting 3600000ms for rank 2, 5", "TimeoutError")
    assert lost_peer(named, rank_exits(HUNG)) == "rank 2, 5 did not answer for 3600 s"
    assert lost_peer(error(GLOO_CLOSED), {0: 1, 1: -9}) == "rank 1 was killed by SIGKILL"
    assert lost_peer(error(GLOO_CLOSED), {0: 1, 2: -15, 1: -11}) == "rank 1 was killed by SIGSEGV"
    assert lost_peer(error(GLOO_CLOSED), {0: 1, 1: -15}) == ""
