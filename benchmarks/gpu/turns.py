"""Runs that share a machine: they take turns on a GPU, and ``titanflow serve`` has a worker for each."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from place import Place, Row, judged, not_run
from stages import CONFIGS, POLL_SECONDS, Failed, end_tree, last_words, start

from deployments.work_pool import POOL
from titanflow.planning.forecast.device import gpus

LEASE_ROWS = ["a GPU's lease"]
SERVED, EACH = WORKER_ROWS = ["a run of the deployment", "a worker for each GPU"]
STEPS, TOY_STEPS = 200, 5
WAITS = "waiting for GPU"
READY = "^C stops everything"


def write_experiment(place: Place) -> Path:
    """A pretraining on random tokens, which needs no data."""
    training = {"mock_data": True, "seq_len": 128, "local_batch_size": 4, "steps": TOY_STEPS if place.toy else STEPS}
    overrides = {"training": training, "metrics": {"enable_wandb": False}}
    module = {"config": "pretrain.yaml", "model": "llama3_demo.yaml", "overrides": overrides}
    path = place.folder / "turns.yaml"
    content = {"workspace": str(place.folder / "runs"), "modules": {"pretrain": module}}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def lease(place: Place, seconds: float) -> Iterator[Row]:
    """Starts two runs at once, of which one has to wait for the other."""
    wanted = "one of two runs waits for the other, by name"
    if not place.has_cuda:
        yield not_run(LEASE_ROWS[0], wanted, "needs CUDA: stages share a CPU")
        return
    command = [sys.executable, "-m", "titanflow.cli.main", "run", str(write_experiment(place))]
    command += ["--configs", str(CONFIGS), "--run"]
    logs = {name: place.folder / f"{name}.log" for name in ("first", "second")}
    runs = {name: start([*command, name], log, {"CI": "1"}) for name, log in logs.items()}
    try:
        for name, run in runs.items():
            if run.wait(seconds):
                raise Failed(last_words(logs[name]))
    finally:
        for run in runs.values():
            end_tree(run.pid)
    said = [line for log in logs.values() for line in log.read_text(encoding="utf-8").splitlines() if WAITS in line]
    found = said[0][said[0].index(WAITS) :][:120] if said else "no run waited"
    yield judged(LEASE_ROWS[0], wanted, found, bool(said))


def workers(place: Place, seconds: float) -> Iterator[Row]:
    """Serves on a free port, with a database of its own, and has one run done."""
    until = time.monotonic() + seconds
    experiment = write_experiment(place)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/api"
    env = {"PREFECT_API_URL": url, "PREFECT_HOME": str(place.folder / "prefect")}
    # Runs start in the folder where serving was started.
    os.chdir(place.folder)
    log = place.folder / "serve.log"
    options = ["--one-worker-per-gpu"] if place.has_cuda else []
    server = start([sys.executable, "-m", "titanflow.cli.main", "serve", *options], log, env)
    try:
        while READY not in log.read_text(encoding="utf-8"):
            if server.poll() is not None or time.monotonic() > until:
                raise Failed(last_words(log))
            time.sleep(POLL_SECONDS)
        yield served_row(experiment, env, until - time.monotonic())
        yield workers_row(place, url)
    finally:
        end_tree(server.pid)


def served_row(experiment: Path, env: dict[str, str], seconds: float) -> Row:
    command = [sys.executable, "-m", "prefect", "deployment", "run", "pretrain-sft/on-demand", "--watch"]
    command += ["--param", f"experiment={experiment}", "--param", f"configs={CONFIGS}"]
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, timeout=seconds)
    said = " ".join((done.stdout + done.stderr).split())[-160:]
    return judged(SERVED, "it completes", said if done.returncode else "Completed", not done.returncode)


def workers_row(place: Place, url: str) -> Row:
    wanted = "as many as GPUs, each named after its own"
    names = sorted(worker["name"] for worker in posted(f"{url}/work_pools/{POOL}/workers/filter"))
    if not place.has_cuda:
        return not_run(EACH, wanted, f"needs CUDA: here the machine has {', '.join(names)}")
    is_met = len(names) == len(gpus()) and all("-gpu" in name for name in names)
    return judged(EACH, wanted, ", ".join(names), is_met)


def posted(url: str) -> list[dict[str, Any]]:
    request = urllib.request.Request(url, b"{}", {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)
