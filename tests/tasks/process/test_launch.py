import os
import signal
import subprocess
import sys
import textwrap

import psutil
import pytest
from watching import PATIENCE, STAYS, alive, lines, wait_for

from tasks.process.launch import launch
from titanflow.common.errors import StageFailed
from titanflow.runs.results import PublishResult

# A stand-in for a stage: it logs metrics, and writes its result as titanflow.publish.publish does. Where there is a
# file "followed", it waits after each tenth step until that names the step.
STAGE = """
    import json, sys, time
    from pathlib import Path
    from titanflow.runs.results import PublishResult, write_result
    folder = Path(sys.argv[1])
    followed = folder / "followed"
    with (folder / "metrics.jsonl").open("a") as metrics:
        for step in range(1, 31):
            metrics.write(json.dumps({"step": step}) + "\\n")
            metrics.flush()
            while step % 10 == 0 and followed.exists() and followed.read_text() != str(step):
                time.sleep(0.001)
    print("all steps done")
    write_result(folder, PublishResult(target="folder", location="here"))
"""
# A rank that saves on SIGTERM, as a training does.
RANK = f"""
    import os, signal, sys, time
    from pathlib import Path
    folder, rank = Path(sys.argv[1]), os.environ["RANK"]
    def save(number, frame):
        (folder / f"saved-{{rank}}").touch()
        sys.exit(143)
    signal.signal(signal.SIGTERM, save)
    (folder / f"up-{{rank}}").write_text(str(os.getpid()))
    time.sleep({STAYS})
"""
PATIENT = {"grace": PATIENCE, "poll": 0.1}


def program(folder, source):
    path = folder / "stage.py"
    path.write_text(textwrap.dedent(source))
    return [sys.executable, str(path), str(folder)]


def test_a_stage_is_followed_to_its_result(tmp_path):
    batches = []

    def follow(records):
        batches.append(records)
        if records:
            (tmp_path / "followed").write_text(str(records[-1]["step"]))

    (tmp_path / "followed").touch()
    result = launch("publish", tmp_path, program(tmp_path, STAGE), on_metrics=follow, poll=0.1)
    assert result == PublishResult(target="folder", location="here")
    assert [record["step"] for batch in batches for record in batch] == list(range(1, 31))
    assert len([batch for batch in batches if batch]) >= 3


def test_the_log_begins_with_the_command_and_the_command_runs_by_hand(tmp_path):
    launch("publish", tmp_path, program(tmp_path, STAGE), {"WANDB_MODE": "offline"}, poll=0.1)
    first, *rest = lines(tmp_path / "publish.log")
    assert rest == ["all steps done"]
    assert "WANDB_MODE=offline" in first
    (tmp_path / "result.json").unlink()
    subprocess.run(first.removeprefix("$ "), shell=True, check=True, stdout=subprocess.DEVNULL)
    assert (tmp_path / "result.json").exists()


def test_a_second_attempt_is_appended_to_the_log(tmp_path):
    for _ in range(2):
        launch("publish", tmp_path, program(tmp_path, STAGE), poll=0.1)
    assert [line[:1] for line in lines(tmp_path / "publish.log")] == ["$", "a", "$", "a"]


def test_the_error_of_a_stage_is_the_failure_s_message(tmp_path):
    source = """
        import sys
        from pathlib import Path
        from titanflow.runs.errors import StageError, write_error
        write_error(Path(sys.argv[1]), StageError(rank=1, type="ValueError", message="loss is nan"))
        sys.exit(1)
    """
    with pytest.raises(StageFailed, match="pretrain failed on rank 1: ValueError: loss is nan"):
        launch("pretrain", tmp_path, program(tmp_path, source))


def test_a_killed_stage_is_named_as_such(tmp_path):
    source = "import os, signal; print('so far', flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(StageFailed, match=r"killed by SIGKILL(?s:.*)so far"):
        launch("pretrain", tmp_path, program(tmp_path, source))


def test_a_callback_that_fails_leaves_no_process(tmp_path):
    def interrupted(records):
        raise KeyboardInterrupt

    # Another test of this process may have left multiprocessing's resource tracker.
    before = set(psutil.Process().children())
    stays = program(tmp_path, f"import time; time.sleep({STAYS})")
    with pytest.raises(KeyboardInterrupt):
        launch("publish", tmp_path, stays, on_metrics=interrupted, poll=0.2)
    assert [child for child in set(psutil.Process().children()) - before if alive(child.pid)] == []


def test_torchrun_s_ranks_save_on_a_cancel_and_none_is_left(tmp_path):
    script = program(tmp_path, RANK)[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    ups = [tmp_path / f"up-{rank}" for rank in range(2)]

    def cancel_when_up(records):
        if all(lines(up) for up in ups):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch("pretrain", tmp_path, [*command, script, str(tmp_path)], on_metrics=cancel_when_up, **PATIENT)
    assert all((tmp_path / f"saved-{rank}").exists() for rank in range(2))
    assert not any(alive(int(up.read_text())) for up in ups)


def test_torchrun_killed_in_the_middle_leaves_no_rank(tmp_path):
    script = program(tmp_path, RANK)[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1"]
    up = tmp_path / "up-0"
    killed = []

    def kill_torchrun_when_up(records):
        if lines(up) and not killed:
            killed.append(psutil.Process(int(up.read_text())).ppid())
            os.kill(killed[0], signal.SIGKILL)

    with pytest.raises(StageFailed, match="pretrain was killed by SIGKILL"):
        launch("pretrain", tmp_path, [*command, script, str(tmp_path)], on_metrics=kill_torchrun_when_up, **PATIENT)
    assert not alive(int(up.read_text()))
    assert (tmp_path / "saved-0").exists()


def test_a_flow_that_gets_sigterm_takes_its_stage_along(tmp_path):
    stage = program(tmp_path, RANK)
    flow = f"""
        import signal, sys
        from pathlib import Path
        from tasks.process.launch import launch
        def leave(number, frame):
            raise SystemExit(143)
        signal.signal(signal.SIGTERM, leave)
        launch("pretrain", Path({str(tmp_path)!r}), {stage!r}, {{"RANK": "0"}})
    """
    path = tmp_path / "flow.py"
    path.write_text(textwrap.dedent(flow))
    process = subprocess.Popen([sys.executable, str(path)])
    wait_for(lambda: lines(tmp_path / "up-0"), "the stage")
    process.terminate()
    assert process.wait(PATIENCE) == 143
    assert (tmp_path / "saved-0").exists()
    assert not alive(int((tmp_path / "up-0").read_text()))
