"""The names that lm-eval knows, read from its files: importing it would take longer than a plan."""

from __future__ import annotations

import ast
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from titanflow.evals.library import package_folder

GENERATE = "generate_until"
STRUCTURE = ("tag", "group", "task_list")
"""Keys that lm-eval removes before it makes a task from the others."""
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""lm-eval's names for an answer's maximum number of tokens."""
OF_VLLM = ("stop", "stop_token_ids", "seed", "presence_penalty", "frequency_penalty", "min_tokens", "ignore_eos", "n")
"""Settings of vLLM's ``SamplingParams`` that transformers names differently."""
_METRIC = re.compile(r"@register_metric\(\s*metric=[\"']([^\"']+)")
_AGGREGATION = re.compile(r"@register_aggregation\(\s*[\"']([^\"']+)")
_FILTER = re.compile(r"@register_filter\(\s*[\"']([^\"']+)")
_SETTING = re.compile(r"kwargs\.pop\(\s*\"([a-z]\w*)\"")


@cache
def task_keys() -> tuple[str, ...]:
    """The fields of lm-eval's ``TaskConfig``. As with all names below: empty if they aren't found."""
    fields = _fields("TaskConfig")
    return tuple(dict.fromkeys((*fields, *STRUCTURE))) if fields else ()


@cache
def fewshot_keys() -> tuple[str, ...]:
    """The fields of its ``FewshotConfig``: the keys of a task's ``fewshot_config``."""
    return _fields("FewshotConfig")


@cache
def registered() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of lm-eval's metrics and aggregations."""
    text = _text(Path("api", "metrics.py"))
    return tuple(_METRIC.findall(text)), tuple(_AGGREGATION.findall(text))


@cache
def filters() -> tuple[str, ...]:
    package = package_folder()
    files = sorted((package / "filters").glob("*.py")) if package else []
    return tuple(name for file in files for name in _FILTER.findall(file.read_text(encoding="utf-8")))


@cache
def generation_settings() -> tuple[str, ...]:
    """The settings of a generation: lm-eval's own, transformers' and vLLM's; empty if transformers isn't found."""
    spec = find_spec("transformers")
    if spec is None or spec.origin is None:
        return ()
    path = Path(spec.origin).parent / "generation" / "configuration_utils.py"
    found = _SETTING.findall(path.read_text(encoding="utf-8")) if path.is_file() else []
    return ("until", *LENGTHS, *dict.fromkeys(found), *OF_VLLM) if found else ()


def _fields(name: str) -> tuple[str, ...]:
    try:
        tree = ast.parse(_text(Path("config", "task.py")))
    except SyntaxError:
        return ()
    return tuple(
        line.target.id
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == name
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
    )


def _text(file: Path) -> str:
    package = package_folder()
    try:
        return (package / file).read_text(encoding="utf-8") if package else ""
    except OSError:
        return ""
