"""Parts are made once, by whoever takes them, and outlive who made them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from titanflow.common.digests import folder_digests
from titanflow.common.errors import StageFailed, StageLost
from titanflow.data import prepare as stage
from titanflow.data.parts.crew import Crew, crew_folder, help_leader
from titanflow.data.parts.task import Task
from titanflow.data.parts.work import Work
from titanflow.runs.contract import RESULT_FILE, StageRun
from titanflow.runs.results import read_result


def note(number: int, path: Path, log: Path, ends: int = -1) -> dict[str, int]:
    """Makes a part, and notes it; ``ends`` is the part at which the process is killed."""
    if number == ends:
        os.kill(os.getpid(), signal.SIGKILL)
    with log.open("a") as file:
        file.write(f"{number}\n")
    path.write_text(str(number))
    return {"number": number}


def refuse(number: int, path: Path) -> None:
    raise OSError(f"part {number}")


def finish(number: int, path: Path, log: Path, stage: Path) -> None:
    note(number, path, log)
    (stage / RESULT_FILE).touch()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.touch()
    return path


def numbers(log: Path) -> list[int]:
    return sorted(map(int, log.read_text().split()))


@pytest.mark.parametrize("processes", [1, 3])
def test_each_part_is_made_once(tmp_path: Path, log: Path, processes: int) -> None:
    work = Work(processes, tmp_path / "scratch", tmp_path / "kept")
    made = work.parts(partial(note, log=log), 7, "key")
    assert [part.path.read_text() for part in made] == list("0123456")
    assert [part.noted for part in made] == [{"number": number} for number in range(7)]
    assert numbers(log) == list(range(7))
    work.parts(partial(note, log=log), 7, "key")
    assert numbers(log) == list(range(7))
    # Work that depends on something else has parts of its own.
    work.parts(partial(note, log=log), 2, "other key")
    work.parts(partial(note, log=log), 2)
    assert numbers(log) == [*(0, 0, 0, 1, 1, 1), *range(2, 7)]


def test_only_what_a_killed_process_did_not_finish_is_made_again(tmp_path: Path, log: Path) -> None:
    work = Work(2, tmp_path / "scratch", tmp_path / "kept")
    with pytest.raises(StageLost, match="a process that prepares data was killed"):
        work.parts(partial(note, log=log, ends=3), 7, "key")
    assert 3 not in numbers(log)
    work.parts(partial(note, log=log), 7, "key")
    assert sorted(set(numbers(log))) == list(range(7))
    made = work.parts(refuse, 7, "key")
    assert [part.path.read_text() for part in made] == list("0123456")


def test_the_error_of_a_part_is_the_one_that_is_raised(tmp_path: Path) -> None:
    for processes in (1, 2):
        with pytest.raises(OSError, match="part"):
            Work(processes, tmp_path / "scratch", tmp_path / "kept").parts(refuse, 5, "key")
    assert list((tmp_path / "kept").glob("*/*")) == []


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Crew:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    crew_folder(tmp_path).mkdir()
    return Crew(crew_folder(tmp_path))


def test_another_machine_does_what_is_announced_until_the_stage_is_done(tmp_path: Path, log: Path, job: Crew) -> None:
    def announce(name: str, make: Callable[[int, Path], Any], count: int, claims: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        job.announce(Task(make, count, folder, job.folder / claims))
        return folder

    for claims in ("shared", "last"):
        (job.folder / claims).mkdir()
    # What another machine took is left to it, and a task without claims is over.
    (job.folder / "shared" / "2").touch()
    shared = announce("a", partial(note, log=log), 5, "shared")
    over = announce("b", partial(note, log=log), 5, "removed meanwhile")
    last = announce("c", partial(finish, log=log, stage=tmp_path), 1, "last")
    help_leader(tmp_path, 1)
    assert sorted(path.name for path in shared.glob("*.arrow")) == ["0.arrow", "1.arrow", "3.arrow", "4.arrow"]
    assert list(over.iterdir()) == []
    assert (last / "0.arrow").exists()


@pytest.mark.parametrize(("said", "kind"), [("OSError: no space", StageFailed), ("", StageLost)])
def test_the_leader_does_not_wait_for_a_machine_that_failed(
    tmp_path: Path, job: Crew, said: str, kind: type[Exception]
) -> None:
    (job.folder / "failed").write_text(said)
    with pytest.raises(kind, match=said or "was killed"):
        job.wait_for(Task(refuse, 1, tmp_path, job.folder))


def test_machines_of_a_job_prepare_what_one_does(prepare_run: Callable[..., StageRun], tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("".join(f"Line {number} of the corpus.\n" for number in range(700)))
    data: dict[str, Any] = {"name": "corpus", "path": str(tmp_path / "corpus.txt"), "document": "line"}
    run = prepare_run(data)
    alone = stage.prepare(run)
    folder = Path(run.config["workspace"]) / "data"
    digests = folder_digests(folder)
    folder.rename(tmp_path / "alone")
    run.config["launcher"] = {"kind": "slurm", "nnodes": 2, "nproc_per_node": 1}
    run.write()
    program = (
        "import sys; from titanflow.data.parts import work; work.PART_BYTES = 9000; "
        "from titanflow.data.prepare import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, str(run.folder / "run.yaml")]
    job = {**os.environ, "SLURM_JOB_ID": "12"}
    machines = [subprocess.Popen(command, env={**job, "SLURM_PROCID": str(number)}) for number in range(2)]
    assert [machine.wait() for machine in machines] == [0, 0]
    assert folder_digests(folder) == digests
    assert read_result(run.folder).model_dump(exclude={"seconds"}) == alone.model_dump(exclude={"seconds"})
    assert sorted(path.name for path in run.folder.iterdir()) == ["result.json", "run.yaml"]
