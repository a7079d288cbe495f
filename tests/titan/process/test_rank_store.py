import json
import subprocess
import sys
from pathlib import Path

import pytest

from titan.process.rank_store import told_by_all

PROGRAM = """
import os, sys
from pathlib import Path
from titan.process.rank_store import told_by_all
rank = os.environ["RANK"]
told = [told_by_all("first", f"of {rank}"), told_by_all("second", rank)]
import torch.distributed as dist
dist.init_process_group("gloo")
dist.barrier()
Path(sys.argv[1], rank).write_text(__import__("json").dumps(told))
"""


def test_a_process_alone_is_told_what_it_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert told_by_all("anything", "own") == ["own"]


@pytest.mark.slow
def test_each_rank_is_told_the_same_before_there_is_a_process_group(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=3"]
    subprocess.run([*command, str(tmp_path / "program.py"), str(tmp_path)], check=True, timeout=300)
    told = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(3)]
    assert told == [[["of 0", "of 1", "of 2"], ["0", "1", "2"]]] * 3
