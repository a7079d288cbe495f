"""What the default experiment prepares, as a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from titanflow.data.prepared import PreparedRows
from titanflow.data.tokenizer.tokenizer import load_tokenizer
from titanflow.runs.contract import StageRun
from titanflow.runs.results import read_result


def test_the_default_experiments_data_end_to_end(prepare_run: Callable[..., StageRun]) -> None:
    configs = [
        {"name": "stdlib", "source": "stdlib", "limit": 20},
        {"name": "stdlib", "source": "stdlib", "part": "test"},
        {"name": "stdlib_chats", "kind": "chat", "source": "stdlib_chats", "limit": 200},
        {"name": "stdlib_chats", "kind": "chat", "source": "stdlib_chats", "part": "dev"},
        {"name": "stdlib_evals", "kind": "evals", "source": "stdlib_evals"},
    ]
    run = prepare_run(*configs, vocab_size=512, seq_len=160)
    command = [sys.executable, "-m", "titanflow.data.prepare", str(run.folder / "run.yaml")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)
    result = read_result(run.folder)
    text, held_out, chats, _, evals = (result.datasets[plan["folder"]] for plan in run.config["datasets"])
    assert (text["documents"], chats["rows"] + chats["dropped"].get("too_long", 0)) == (20, 200)
    assert held_out["bytes"] == evals["bytes"]
    assert evals["items"] == {"text": 10, "kind": 200, "module": 200, "summary": 160}
    tokenizer = load_tokenizer(Path(run.config["tokenizer"]["folder"]))
    assert tokenizer.vocab_size == 512
    rows = PreparedRows.open(run.config["datasets"][2]["folder"], 160)
    labels = rows.row(len(rows) - 1)[1]
    assert labels[labels >= 0][-1] == tokenizer.special["<|im_end|>"][0]
