"""The tiny experiment, whose pretraining is scored on a dev part while it trains, and its best checkpoint published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from tiny_experiment import write_tiny_experiment

BY = "dev/tiny_bytes/bits_per_byte"
# A larger figure is taken to be better, so that the first checkpoint is the best.
TASK = """\
task: tiny_bytes
dataset_path: json
dataset_kwargs: {data_files: {test: "${data}/items.jsonl"}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: bits_per_byte, higher_is_better: true}]
metadata: {version: 1.0}
"""


def write_best_experiment(root: Path) -> Path:
    """Writes it below ``root``; returns the folder of configs, whose experiment is ``tiny``.

    Its pretraining saves and scores steps 4, 8 and 12 and keeps the last two.
    """
    configs = write_tiny_experiment(root)
    sentences = (root / "text.txt").read_text(encoding="utf-8").splitlines()
    rows = [json.dumps({"text": f"{text} {number} times."}) + "\n" for number, text in enumerate(sentences)]
    (root / "text.jsonl").write_text("".join(rows), encoding="utf-8")
    data = f"kind: text\npath: {root}/text.jsonl\nheld_out: {{dev: 6, test: 6}}\n"
    (configs / "data" / "text.yaml").write_text(data, encoding="utf-8")
    (configs / "evals" / "tiny_bytes.yaml").write_text(TASK, encoding="utf-8")
    path = configs / "experiments" / "tiny.yaml"
    experiment = yaml.safe_load(path.read_text(encoding="utf-8"))
    modules: dict[str, Any] = experiment["modules"]
    del modules["sft"], modules["pretrain"]["validation_data"]
    modules["pretrain"]["overrides"] |= {"during": {"every": 4, "tasks": ["tiny_bytes"]}, "validation": {}}
    modules["evaluate"] |= {"data": "text.yaml"}
    modules["evaluate"]["overrides"] |= {"models": ["pretrain"], "tasks": ["tiny_bytes", "tiny_colour"], "chat": False}
    modules["publish"]["overrides"] = {"model": "pretrain", "checkpoint": {"best": BY}}
    path.write_text(yaml.safe_dump(experiment, sort_keys=False), encoding="utf-8")
    return configs
