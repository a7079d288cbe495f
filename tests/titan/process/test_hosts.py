import json
import os
from pathlib import Path

import pytest
from forked_ranks import run_forked
from watching import PATIENCE

from titan.process.hosts import described

PROGRAM = """
import json, os, sys, time
import torch.distributed as dist
from titan.process.hosts import host_lines
dist.init_process_group("gloo")
ahead = 60.0 * dist.get_rank()
lines = host_lines(dist.group.WORLD, lambda: time.time() + ahead)
open(os.path.join(sys.argv[1], os.environ["RANK"]), "w").write(json.dumps(lines))
"""


def test_ranks_of_a_host_stand_together() -> None:
    hosts = ["node7"] * 8 + ["node9"] * 8 + ["node8"]
    assert described(hosts, [0.0] * 17) == ["Ranks: 0-7 on node7, 8-15 on node9, 16 on node8."]


def test_only_clocks_that_are_apart_are_told_and_each_host_once() -> None:
    hosts = ["node1", "node1", "node2", "node2", "node3"]
    assert described(hosts, [0.0, 0.9, 3.14, 3.2, -90.0])[1:] == [
        "The clock of node2 is 3.1 s ahead of that of node1, and so are its lines.",
        "The clock of node3 is 90.0 s behind that of node1, and so are its lines.",
    ]


@pytest.mark.slow
def test_the_ranks_compare_their_clocks(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    log = tmp_path / "log.txt"
    assert run_forked([str(tmp_path / "program.py"), str(tmp_path)], 2, os.environ, log, PATIENCE) == 0, log.read_text()
    first, second = (json.loads((tmp_path / str(rank)).read_text()) for rank in range(2))
    assert first == second
    # The difference of a busy machine's ranks is far below a minute.
    assert "s ahead of that of" in first[1]
    assert 30 < float(first[1].split(" is ")[1].split(" s ")[0]) < 90
