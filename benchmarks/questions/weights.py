"""What becomes of a model's weights, at 50 M parameters in float32: exporting, loading, and checkpoints.

An export is a folder that transformers loads, compared with the native model and hashed before it gets its name;
beside it stands `safetensors` alone, which writes the same tensors to one file. Loading gives a model that computes;
beside it `safetensors` reads the tensors. A checkpoint holds the optimizer's state, too, and is written and read as a
training does it; the limit is its bytes at the rate of the disk, or of the system's cache of files that were just
written.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from frame.bench import Bench
from frame.figures import Figure
from frame.inputs import write_corpus, write_tokenizer
from frame.peers import PEERS
from frame.processes import Ran, python, run
from frame.stage import finished_training, llama

from titanflow.planning.launch import command
from titanflow.runs.contract import RUN_FILE, StageRun

SAVED = re.compile(r"Finished saving the checkpoint .*in ([\d.]+) seconds")
LOADED = re.compile(r"Finished loading the checkpoint in ([\d.]+) seconds")


def measure(bench: Bench) -> None:
    size = "tiny" if bench.toy else "50M"
    tokenizer = write_tokenizer(bench.folder / "tokenizer")
    text = write_corpus(bench.folder / "text.jsonl", 0.5)
    module = llama(size, text, tokenizer, checkpoint={"interval": 1, "keep_latest_k": 2})
    # The first save allocates what the others use again, and of the last one torchtitan tells no time.
    steps = bench.pairs + 2
    stage, ran = finished_training(module, bench.folder / "ours", "weights", steps)
    checkpoint = stage / "checkpoint" / f"step-{steps}"
    checkpoint_figure(bench, "checkpoint, saved", SAVED.findall(ran.output)[1:], checkpoint, "disk_write")
    loads = []
    for more in range(1, 3 if bench.toy else 4):
        loads += LOADED.findall(resumed(stage, steps + more).output)
    checkpoint_figure(bench, "checkpoint, loaded", loads, checkpoint, "disk_read")
    done = run(python(PEERS / "weights.py", stage, bench.folder / "files", bench.pairs))
    told = json.loads(done.output.splitlines()[-1])
    megabytes = (stage / "export" / "model.safetensors").stat().st_size / 1e6
    for what, limit in (("export", "disk_write"), ("load", "disk_read")):
        bench.found(
            Figure(
                what=f"{what} of {megabytes:.0f} MB",
                unit="s",
                ours=told[f"{what}, titanflow"],
                theirs=told[f"{what}, safetensors"],
                peer="safetensors",
                higher_is_better=False,
                limit=bench.seconds(megabytes * 1e6, limit),
            )
        )


def resumed(stage: Path, steps: int) -> Ran:
    """The same stage, gone on to so many steps."""
    longer = StageRun.read(stage / RUN_FILE)
    longer.config["training"]["steps"] = steps
    longer.write()
    return run(command(longer))


def checkpoint_figure(bench: Bench, what: str, seconds: list[str], checkpoint: Path, limit: str) -> None:
    """A row of a checkpoint's seconds, as torchtitan logs them."""
    size = sum(path.stat().st_size for path in checkpoint.iterdir())
    bench.found(
        Figure(
            what=f"{what}, {size / 1e6:.0f} MB",
            unit="s",
            ours=[float(one) for one in seconds],
            higher_is_better=False,
            limit=bench.seconds(size, limit),
        )
    )
