import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from forked_ranks import run_forked
from watching import PATIENCE

from flows.server.server import free_port
from titan.evaluate.ranks import Ranks

PROGRAM = """
import json, os, sys
from pathlib import Path
from titan.evaluate.ranks import Ranks

class Model:
    def __init__(self, settings, ranks):
        self.add, self.ranks = settings, ranks

    def work(self, batch):
        return [batch + self.add, self.ranks.rank]

ranks = Ranks.of_environment()
ranks.join()
left = [key for key in os.environ if key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "GROUP_RANK")]
if ranks.rank:
    ranks.serve(Model)
else:
    found = []
    for add in (10, 20):
        model = ranks.load(Model, add)
        found += [ranks.compute(model.work, list(range(count))) for count in (5, 1, 0)]
    ranks.end()
    Path(sys.argv[1]).write_text(json.dumps({"left": left, "found": found}))
"""

# Three ranks with each fault, forked so that torch is imported once; the one that waits for the faulty one speaks.
HANGS = """
import os, signal, sys, time
from datetime import timedelta
from torch import distributed
from titan.evaluate import ranks
from titan.evaluate.ranks import Ranks

# Enough for healthy ranks to meet on a busy machine.
ranks.PATIENCE = timedelta(seconds=15)

class Model:
    def work(self, batch):
        if batch == faulty:
            if fault == "gone":
                os._exit(0)
            time.sleep(600)
        return batch

def rank_of_three(rank):
    os.environ["RANK"] = str(rank)
    ranks = Ranks.of_environment()
    ranks.join()
    try:
        if rank:
            ranks.serve(lambda settings, ranks: Model())
        else:
            ranks.compute(ranks.load(lambda settings, ranks: Model(), None).work, [0, 1, 2])
    except Exception as error:
        if rank == (0 if faulty else 1):
            # One write, so that no other rank's line comes between its words, buffered or not.
            os.write(1, f"{faulty} {fault} {type(error).__name__} {error}\\n".encode())
            return
        time.sleep(600)

children = {}
for port, (faulty, fault) in zip(sys.argv[1:], ((2, "silent"), (0, "silent"), (2, "gone"))):
    os.environ.update(WORLD_SIZE="3", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    for rank in range(3):
        child = os.fork()
        if not child:
            rank_of_three(rank)
            os._exit(0)
        children[port, rank] = child, rank == (0 if faulty else 1)
for child, speaks in children.values():
    if speaks:
        os.waitpid(child, 0)
for child, speaks in children.values():
    if not speaks:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
"""


def test_a_process_that_torchrun_did_not_start_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(key, raising=False)

    ranks = Ranks.of_environment()
    ranks.join()

    assert ranks == Ranks(rank=0, size=1, local_rank=0, local_size=1)
    assert ranks.load(lambda settings, ranks: settings, "model") == "model"
    assert ranks.compute(str, [1, 2, 3]) == ["1", "2", "3"]
    ranks.end()


@pytest.mark.slow
def test_each_rank_computes_its_share_and_the_order_stays(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command, log = [str(tmp_path / "program.py"), str(tmp_path / "found.json")], tmp_path / "log.txt"
    of_torchrun = {"GROUP_RANK": "0"}

    assert run_forked(command, 3, os.environ | of_torchrun, log, PATIENCE) == 0, log.read_text()

    written = json.loads((tmp_path / "found.json").read_text())
    assert written["left"] == [], "no library is to look for ranks of its own"
    for add, found in zip((10, 20), (written["found"][:3], written["found"][3:]), strict=True):
        assert found == [[[add + batch, batch % 3] for batch in range(count)] for count in (5, 1, 0)]


def test_a_rank_that_gives_no_answer_is_named_by_those_who_wait_for_it(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(HANGS)
    command = [sys.executable, str(tmp_path / "program.py"), *(str(free_port()) for _ in range(3))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    silent_first, gone, silent = sorted(done.stdout.splitlines())
    assert silent_first == "0 silent TimeoutError Timed out waiting 15000ms for rank 0"
    assert silent == "2 silent TimeoutError Timed out waiting 15000ms for rank 2"
    # Which one that was, torchrun says.
    assert gone.startswith("2 gone ConnectionError Connection closed by peer: ")
