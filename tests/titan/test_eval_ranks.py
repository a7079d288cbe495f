import json
import subprocess
import sys
from pathlib import Path

import pytest

from titan.eval_ranks import Ranks

PROGRAM = """
import json, os, sys
from pathlib import Path
from titan.eval_ranks import Ranks

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


def test_a_process_that_torchrun_did_not_start_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(key, raising=False)

    ranks = Ranks.of_environment()
    ranks.join()

    assert ranks == Ranks(rank=0, size=1, local_rank=0, local_size=1)
    assert ranks.load(lambda settings, ranks: settings, "model") == "model"
    assert ranks.compute(str, [1, 2, 3]) == ["1", "2", "3"]
    ranks.end()


def test_each_rank_computes_its_share_and_the_order_stays(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=3"]

    subprocess.run([*launcher, str(tmp_path / "program.py"), str(tmp_path / "found.json")], check=True, timeout=120)

    written = json.loads((tmp_path / "found.json").read_text())
    assert written["left"] == [], "no library is to look for ranks of its own"
    for add, found in zip((10, 20), (written["found"][:3], written["found"][3:]), strict=True):
        assert found == [[[add + batch, batch % 3] for batch in range(count)] for count in (5, 1, 0)]
