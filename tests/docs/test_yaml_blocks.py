"""Every YAML block of README.md and docs/ is read as a config: a whole file, or the part of one that its rule names.

``experiment`` lies over the default experiment, if it doesn't extend one itself; ``modules`` below its ``modules``,
``module NAME`` below one of them, ``training`` below the overrides of one. ``model`` and ``data`` are files that a
module names. ``task`` is a task of lm-eval's, and ``part of a task`` lies over the last such block before it. Files
that a block names beside the shipped ones are stand-ins.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
import yaml
from doc_blocks import BLOCKS, ROOT, Block

from titanflow.common.errors import ConfigError
from titanflow.config.experiment import load_experiment
from titanflow.evals.task_checks import task_problems
from titanflow.evals.task_yaml import SingleTask, read_task

OVER = "extends: [stdlib.yaml]\n"
PLACES = {
    "experiment": "",
    "modules": "modules:\n",
    "module": "modules:\n  {name}:\n",
    "training": "modules:\n  pretrain:\n    overrides:\n",
}
YAML = [block for block in BLOCKS if block.language == "yaml" and not re.match(r"read: (no|by)\b", block.rule)]
FILE = re.compile(r"\b(?:model|data): (\w+\.yaml)")
TASK = """\
task: mine
dataset_path: json
dataset_kwargs: {data_files: {test: "${data}/items.jsonl"}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: 0
"""


def as_experiment(kind: str, name: str, text: str, folder: Path) -> str:
    """The experiment that holds a block of this kind."""
    if kind in PLACES:
        above = PLACES[kind].format(name=name)
        depth = len(above.splitlines()[-1]) - len(above.splitlines()[-1].lstrip()) + 2 if above else 0
        over = "" if re.search(r"^extends:", text, re.MULTILINE) else OVER
        return over + above + textwrap.indent(textwrap.dedent(text), " " * depth)
    assert kind in ("model", "data"), f"read: {kind}: a rule that isn't known"
    (folder / "page.yaml").write_text(text, encoding="utf-8")
    module = "sft" if "kind: chat" in text else "pretrain"
    # The page's data may hold out no rows to validate on.
    off = "    overrides: {validation: {enable: false}}\n" if kind == "data" else ""
    return f"{OVER}modules:\n  {module}:\n    {kind}: page.yaml\n{off}"


@pytest.mark.parametrize("block", [block for block in YAML if not block.rule.endswith("task")], ids=str)
def test_a_config_is_read(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kind, _, name = block.rule.removeprefix("read: ").partition(" ")
    for stand_in in set(FILE.findall(block.text)):
        is_model = f"model: {stand_in}" in block.text
        of = ROOT / "configs" / ("models/llama3_demo.yaml" if is_model else f"data/stdlib{_chats(block)}.yaml")
        if not list((ROOT / "configs").rglob(stand_in)):
            (tmp_path / stand_in).write_text(of.read_text(encoding="utf-8"), encoding="utf-8")
    path = tmp_path / "experiment.yaml"
    path.write_text(as_experiment(kind, name, block.text, tmp_path), encoding="utf-8")
    assert load_experiment(str(path), starts=False).modules


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("experiment", "launchre: {nnodes: 2}\n"),
        ("modules", "sft: {overrides: {lora: {rnak: 8}}}\n"),
        ("module pretrain", "    overrides: {training: {steps: 0}}\n"),
        ("training", "  optimizer: {lrr: 1}\n"),
        ("model", "model: {name: llama3, flavor: debugmodel, n_layres: 4}\n"),
        ("data", "kind: chats\npath: a.jsonl\n"),
    ],
)
def test_a_mistake_in_a_block_is_found(rule: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError):
        test_a_config_is_read(Block("page", 1, "yaml", f"read: {rule}", text), tmp_path, monkeypatch)


def _chats(block: Block) -> str:
    return "_chats" if "kind: chat" in block.text else ""


@pytest.mark.parametrize("block", [block for block in YAML if block.rule.endswith("task")], ids=str)
def test_a_task_is_one_of_lm_evals(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    keys = yaml.safe_load(block.text)
    path.write_text(yaml.safe_dump(yaml.safe_load(TASK) | keys if block.rule.endswith("part of a task") else keys))
    task = read_task(path, tmp_path)
    assert task_problems(SingleTask(task.config["task"], task.config, task)) == []


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.here_documents()], ids=str)
def test_a_config_that_a_command_writes_is_read(block: Block, tmp_path: Path) -> None:
    for name, text in block.here_documents().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert load_experiment(str(tmp_path / name), starts=False).modules


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "python"], ids=str)
def test_python_is_python(block: Block) -> None:
    compile(block.text, str(block), "exec")
