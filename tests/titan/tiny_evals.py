"""Tiny evaluation tasks with prepared items, as the data step leaves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TEXTS = ["def f(x):\n    return x\n", "import json\n\nclass A:\n    pass\n" * 12, "ä ≠ a\n"]
KINDS = [(f"Is name{index} a class or a function?", index % 3 == 0) for index in range(12)]
MODULES = [(f"Which module defines name{index}?", ("json", "csv", "ast")[index % 3]) for index in range(9)]

TASKS: dict[str, dict[str, Any]] = {
    "tiny_bytes": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}, {"metric": "byte_perplexity"}],
        "metadata": {"version": 1.5, "chat": False},
    },
    "tiny_kind": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": ["class", "function"],
        "doc_to_target": "{{answer}}",
        "target_delimiter": "",
        "num_fewshot": 0,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 2.0, "chat": True},
    },
    "tiny_module": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "target_delimiter": "",
        "fewshot_split": "test",
        "num_fewshot": 2,
        "generation_kwargs": {"until": ["\n", "<|im_end|>"], "max_gen_toks": 6, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0, "chat": True},
    },
}
GROUPS = {"tiny_group": ["tiny_kind", "tiny_module"], "tiny_mixed": ["tiny_kind", "tiny_bytes"]}


def write_evals(folder: Path) -> Path:
    """Writes items, ``dataset.json`` and ``tasks/``; returns the folder."""
    items: dict[str, list[dict[str, Any]]] = {
        "bytes": [{"text": text} for text in TEXTS],
        "kind": [{"question": question, "answer": 0 if is_class else 1} for question, is_class in KINDS],
        "module": [{"question": question, "answer": answer} for question, answer in MODULES],
    }
    for name, rows in items.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "dataset.json").write_text(
        json.dumps({"name": "tiny", "part": "test", "xz_bits_per_byte": {"bytes.jsonl": 2.25}})
    )
    tasks = folder / "tasks"
    tasks.mkdir()
    for name, config in TASKS.items():
        files = {"test": "${data}/" + name.removeprefix("tiny_") + ".jsonl"}
        whole = {"task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": files}, "test_split": "test"}
        (tasks / f"{name}.yaml").write_text(json.dumps(whole | config))
    for name, members in GROUPS.items():
        (tasks / f"{name}.yaml").write_text(json.dumps({"group": name, "task": members}))
    return folder
