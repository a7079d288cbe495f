import os
import shlex
import signal
import subprocess
import sys
import textwrap

import psutil
import pytest
from watching import alive, lines, wait_for

from tasks.launch import by_hand, launch, wait_for_earlier
from titanflow.errors import StageFailed
from titanflow.stage import PublishResult

# A stand-in for a stage: it logs metrics, and writes its result as titanflow.publish does.
STAGE = """
    import json, sys, time
    from pathlib import Path
    from titanflow.stage import PublishResult, write_result
    folder = Path(sys.argv[1])
    with (folder / "metrics.jsonl").open("a") as metrics:
        for step in range(1, 31):
            metrics.write(json.dumps({"step": step}) + "\\n")
            metrics.flush()
            time.sleep(0.02)
    print("all steps done")
    write_result(folder, PublishResult(target="folder", location="here"))
"""
# A rank that saves on SIGTERM, as a training does.
RANK = """
    import os, signal, sys, time
    from pathlib import Path
    folder, rank = Path(sys.argv[1]), os.environ["RANK"]
    def save(number, frame):
        (folder / f"saved-{rank}").touch()
        sys.exit(143)
    signal.signal(signal.SIGTERM, save)
    (folder / f"up-{rank}").write_text(str(os.getpid()))
    time.sleep(120)
"""


def program(folder, source):
    path = folder / "stage.py"
    path.write_text(textwrap.dedent(source))
    return [sys.executable, str(path), str(folder)]


def test_a_stage_is_followed_to_its_result(tmp_path):
    batches = []
    result = launch("publish", tmp_path, program(tmp_path, STAGE), on_metrics=batches.append, poll=0.1)
    assert result == PublishResult(target="folder", location="here")
    assert [record["step"] for batch in batches for record in batch] == list(range(1, 31))
    assert len(batches) > 2


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


def test_secrets_stay_out_of_the_log():
    line = by_hand(["python", "a b.py"], {"HF_TOKEN": "hf_x", "WANDB_API_KEY": "y", "WANDB_NAME": "my run"})
    assert shlex.split(line)[-5:] == ["&&", "env", "WANDB_NAME=my run", "python", "a b.py"]
    assert "hf_x" not in line


def test_the_error_of_a_stage_is_the_failure_s_message(tmp_path):
    source = """
        import sys
        from pathlib import Path
        from titanflow.stage import StageError, write_error
        write_error(Path(sys.argv[1]), StageError(rank=1, type="ValueError", message="loss is nan"))
        sys.exit(1)
    """
    with pytest.raises(StageFailed, match="pretrain failed on rank 1: ValueError: loss is nan"):
        launch("pretrain", tmp_path, program(tmp_path, source))


def test_a_killed_stage_is_named_as_such(tmp_path):
    source = "import os, signal; print('so far', flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(StageFailed, match=r"killed by SIGKILL(?s:.*)so far"):
        launch("pretrain", tmp_path, program(tmp_path, source))


def test_what_an_earlier_attempt_left_is_waited_for_and_named(tmp_path):
    command = ["python", "-m", "torch.distributed.run", "--standalone", "-m", "titan.train", str(tmp_path / "run.yaml")]
    left = subprocess.Popen([sys.executable, "-c", "input()", *command[-3:]], stdin=subprocess.PIPE)
    try:
        with pytest.raises(
            StageFailed, match=f"pretrain: processes {left.pid} of an earlier attempt are still at work"
        ):
            wait_for_earlier("pretrain", command, 0.2)
        wait_for_earlier("pretrain", [*command[:-1], "another run.yaml"], 0.2)
    finally:
        left.communicate()
    wait_for_earlier("pretrain", command, 0.2)


def test_a_callback_that_fails_leaves_no_process(tmp_path):
    def interrupted(records):
        raise KeyboardInterrupt

    # Another test of this process may have left multiprocessing's resource tracker.
    before = set(psutil.Process().children())
    with pytest.raises(KeyboardInterrupt):
        launch("publish", tmp_path, program(tmp_path, "import time; time.sleep(60)"), on_metrics=interrupted, poll=0.2)
    assert [child for child in set(psutil.Process().children()) - before if alive(child.pid)] == []


def test_torchrun_s_ranks_save_on_a_cancel_and_none_is_left(tmp_path):
    script = program(tmp_path, RANK)[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    ups = [tmp_path / f"up-{rank}" for rank in range(2)]

    def cancel_when_up(records):
        if all(lines(up) for up in ups):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch("pretrain", tmp_path, [*command, script, str(tmp_path)], on_metrics=cancel_when_up, poll=0.1)
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
        launch("pretrain", tmp_path, [*command, script, str(tmp_path)], on_metrics=kill_torchrun_when_up, poll=0.1)
    assert not alive(int(up.read_text()))
    assert (tmp_path / "saved-0").exists()


def test_a_flow_that_gets_sigterm_takes_its_stage_along(tmp_path):
    stage = program(tmp_path, RANK)
    flow = f"""
        import signal, sys
        from pathlib import Path
        from tasks.launch import launch
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
    assert process.wait(30) == 143
    assert (tmp_path / "saved-0").exists()
    assert not alive(int((tmp_path / "up-0").read_text()))
