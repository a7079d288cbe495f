"""Where a task's few-shot examples come from: a split that its YAML names, so that no prompt holds its own answer.

lm-eval leaves the asked item out of the examples only where the named split is ``test_split``. Without a named split it
falls back to the training, validation or tested documents, and leaves out nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from titanflow.evals.task_yaml import SingleTask, as_list

ROLLING = "loglikelihood_rolling"
"""The output type of tasks without prompts."""


def shots(config: Mapping[str, Any], num_fewshot: int | None) -> int:
    """The examples in a task's prompts, as in lm-eval: the setting goes before the task's number, unless that is 0."""
    own = config.get("num_fewshot")
    if config.get("output_type") == ROLLING:
        return 0
    return int((num_fewshot or 0) if own is None or (num_fewshot is not None and own != 0) else own)


def tested_split(config: Mapping[str, Any]) -> str | None:
    """The split that is asked."""
    return config.get("test_split") or config.get("validation_split")


def fewshot_split(config: Mapping[str, Any]) -> str | None:
    """The split that the examples come from, named or lm-eval's fallback; None where the YAML has examples itself."""
    own = config.get("fewshot_config") or {}
    if named := own.get("split") or config.get("fewshot_split"):
        return str(named)
    if own.get("samples") is not None:
        return None
    return config.get("training_split") or config.get("validation_split") or config.get("test_split")


def named_splits(task: SingleTask, num_fewshot: int | None) -> dict[str, str]:
    """The keys that a task's YAML lacks for its examples to come from a named split without the asked item."""
    config = task.config
    if not shots(config, num_fewshot) or "class" in config or (split := fewshot_split(config)) is None:
        return {}
    keys = {} if is_named(config) else {"fewshot_split": split}
    if split == tested_split(config) and not config.get("test_split"):
        keys["test_split"] = split
    return keys


def own_answers(task: SingleTask, num_fewshot: int | None) -> bool:
    """Whether lm-eval may put an item's own answer into its prompt: its examples are the tested items, unsaid."""
    return bool(named_splits(task, num_fewshot)) and fewshot_split(task.config) == tested_split(task.config)


def is_named(config: Mapping[str, Any]) -> bool:
    """Whether a task says itself where its examples come from."""
    own = config.get("fewshot_config") or {}
    return bool(own.get("split") or config.get("fewshot_split") or own.get("samples") is not None)


def examples(config: Mapping[str, Any], files: Mapping[str, int | None]) -> int | None:
    """How many examples a task has to choose from; None where that isn't known before its data is loaded.

    ``files`` has the number of rows of each data file, by the name that the YAML has for it.
    """
    own = config.get("fewshot_config") or {}
    split = fewshot_split(config)
    if split is None:
        return len(own["samples"]) if isinstance(own.get("samples"), list) else None
    if config.get("process_docs") or own.get("process_docs"):
        return None
    kwargs = config.get("dataset_kwargs")
    named = kwargs.get("data_files") if isinstance(kwargs, Mapping) else None
    counts = [files.get(str(name)) for name in as_list(named.get(split))] if isinstance(named, Mapping) else [None]
    if not counts or None in counts:
        return None
    # The asked item is none of its own examples.
    return sum(count for count in counts if count is not None) - (split == tested_split(config))


def asked_as_examples(config: Mapping[str, Any]) -> list[str]:
    """The data files whose rows are both asked and examples under two names of splits: lm-eval leaves out none."""
    kwargs, split, tested = config.get("dataset_kwargs"), fewshot_split(config), tested_split(config)
    named = kwargs.get("data_files") if isinstance(kwargs, Mapping) else None
    if not isinstance(named, Mapping) or split is None or split == tested:
        return []
    return [name for name in map(str, as_list(named.get(split))) if name in map(str, as_list(named.get(tested)))]


def rows_in(file: Path) -> int | None:
    """The rows of a file of JSON lines; None for any other."""
    if file.suffix != ".jsonl" or not os.path.isfile(file):  # noqa: PTH113
        return None
    with file.open("rb") as lines:
        return sum(1 for line in lines if line.strip())
