"""Where a task's few-shot examples come from: a split that its YAML names, so that no prompt holds its own answer.

lm-eval leaves the asked item out of the examples only if the named split is ``test_split``. Without a named split it
falls back to the training, validation or tested documents, and leaves out nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from titanflow.evals.task_yaml import SingleTask, as_list, files_by_split

ROLLING = "loglikelihood_rolling"
"""The output type of tasks without prompts."""


def shots(config: Mapping[str, Any], num_fewshot: int | None) -> int:
    """The examples in a task's prompts. As in lm-eval, the setting overrides the task's number, unless that is 0."""
    own = config.get("num_fewshot")
    if config.get("output_type") == ROLLING:
        return 0
    return int((num_fewshot or 0) if own is None or (num_fewshot is not None and own != 0) else own)


def tested_split(config: Mapping[str, Any]) -> str | None:
    return config.get("test_split") or config.get("validation_split")


def fewshot_split(config: Mapping[str, Any]) -> str | None:
    """The split that the examples come from, named or lm-eval's fallback; None if the YAML holds the examples."""
    own = config.get("fewshot_config") or {}
    if named := own.get("split") or config.get("fewshot_split"):
        return str(named)
    if own.get("samples") is not None:
        return None
    return config.get("training_split") or config.get("validation_split") or config.get("test_split")


def named_splits(task: SingleTask, num_fewshot: int | None) -> dict[str, str]:
    """The keys to add to a task's YAML, so that its examples come from a named split and leave out the asked item."""
    config = task.config
    if not shots(config, num_fewshot) or "class" in config or (split := fewshot_split(config)) is None:
        return {}
    is_named = (config.get("fewshot_config") or {}).get("split") or config.get("fewshot_split")
    keys = {} if is_named else {"fewshot_split": split}
    if split == tested_split(config) and not config.get("test_split"):
        keys["test_split"] = split
    return keys


def own_answers(task: SingleTask, num_fewshot: int | None) -> bool:
    """Whether lm-eval may put an item's own answer into its prompt: it falls back to the tested split for examples."""
    return bool(named_splits(task, num_fewshot)) and fewshot_split(task.config) == tested_split(task.config)


def examples(config: Mapping[str, Any], files: Mapping[str, int | None]) -> int | None:
    """How many examples a task has to choose from; None if that is unknown before its data is loaded.

    ``files`` has the number of rows of each data file, by its name in the YAML.
    """
    own = config.get("fewshot_config") or {}
    split = fewshot_split(config)
    if split is None:
        return len(own["samples"]) if isinstance(own.get("samples"), list) else None
    if config.get("process_docs") or own.get("process_docs"):
        return None
    counts = [files.get(str(name)) for name in as_list(files_by_split(config).get(split))]
    if not counts or None in counts:
        return None
    # The asked item is none of its own examples.
    return sum(count for count in counts if count is not None) - (split == tested_split(config))


def asked_as_examples(config: Mapping[str, Any]) -> list[str]:
    """The data files that two splits share, the tested one and the examples': lm-eval then leaves out no asked item."""
    files, split, tested = files_by_split(config), fewshot_split(config), tested_split(config)
    if split is None or split == tested:
        return []
    return [name for name in map(str, as_list(files.get(split))) if name in map(str, as_list(files.get(tested)))]


def rows_in(file: Path) -> int | None:
    """The number of rows in a JSON lines file; None for other files."""
    if file.suffix != ".jsonl" or not os.path.isfile(file):  # noqa: PTH113
        return None
    with file.open("rb") as lines:
        return sum(1 for line in lines if line.strip())
