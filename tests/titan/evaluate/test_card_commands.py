"""The commands of a published card are typed, in a shell, against the local Hub: they give the card's scores.

Items that were trained on aren't scored there, and so not here."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from finished_stage import finish_training
from forked_ranks import run_forked
from local_hub import LocalHub
from tiny_evals import KINDS, MODULES, TASKS
from tiny_evaluation import Trained, evaluation, give_rows, write_trained
from tiny_hub import talk_to
from watching import PATIENCE

from titanflow.publish.publish import publish
from titanflow.runs.contract import StageRun
from titanflow.runs.results import EvaluateResult, PublishResult, read_result

pytestmark = pytest.mark.slow
REPO = "local/tiny"
OWN = """\
task: tiny_own
dataset_path: json
dataset_kwargs: {data_files: {test: "FOLDER/*.jsonl"}}
test_split: test
output_type: multiple_choice
doc_to_text: !function questions.asked
doc_to_choice: [red, blue, green]
doc_to_target: "{{answer}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.0, chat: false}
"""
SAID = """\
task: tiny_said
dataset_path: json
dataset_kwargs: {data_files: {test: "${data}/module.jsonl"}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: perplexity, aggregation: perplexity, higher_is_better: false}]
metadata: {version: 1.0, chat: true}
"""
"""A score without steps: it is another one without the chat template."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The tiny stages, their results, and a task with items of its own folder and a Python file."""
    trained = write_trained(tmp_path_factory.mktemp("run"))
    items = tmp_path_factory.mktemp("my items")
    for name in ("first", "second"):
        rows = [{"thing": f"{name} {number}", "answer": number % 3} for number in range(7)]
        (items / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = trained.data / "tasks"
    (tasks / "own").mkdir()
    (tasks / "own" / "tiny_own.yaml").write_text(OWN.replace("FOLDER", str(items)))
    (tasks / "own" / "tiny_said.yaml").write_text(SAID)
    (tasks / "own" / "questions.py").write_text("def asked(doc):\n    return f\"What colour is {doc['thing']}?\"\n")
    for stage in ("pretrain", "sft"):
        export = trained.folder / stage / "export"
        finish_training(trained.folder / stage, stage=stage, seq_len=256, export=export)
    kinds = [f"{question} {'class' if is_class else 'function'}" for question, is_class in KINDS[:5]]
    modules = [f"{question} {answer}" for question, answer in MODULES[:5]]
    give_rows(
        trained.folder / "sft", "chats", [*kinds, *modules, *(f"What colour is first {n}? green" for n in (2, 5))]
    )
    return trained


PLAIN = {
    "tasks": [*TASKS, "tiny_own", "tiny_said"],
    "gen_kwargs": {"max_gen_toks": 5},
    "contamination": "drop",
    "dtype": "bfloat16",
}
LEFT_OUT = {"tiny_kind": 5, "tiny_module": 5, "tiny_own": 2, "tiny_said": 5}
"""Without these items each score is another one."""
SETTLED: dict[str, Any] = {
    "tasks": ["tiny_group", "tiny_own"],
    "chat": True,
    "num_fewshot": 1,
    "fewshot_as_multiturn": False,
    "system_instruction": '-be "nice" to $HOME\n```\nand `ls`',
    "gen_kwargs": {"max_gen_toks": 4, "until": ["a, b", "c=d"]},
    "seed": 7,
    "batch_size": "auto",
    "models": {"mine": "sft/export"},
}
"""A group, and each setting that changes a score; the model is named by its folder in the run's."""


def evaluated(trained: Trained, **settings: Any) -> EvaluateResult:
    named = settings.get("models", {})
    models = {name: str(trained.folder / folder) for name, folder in named.items()} or ["sft"]
    run = evaluation(trained, trained.folder / "evaluate", **settings | {"models": models})
    command, log = ["-m", "titan.evaluate.evaluate", str(run.folder / "run.yaml")], run.folder / "log.txt"
    assert run_forked(command, 1, os.environ, log, 5 * PATIENCE) == 0, log.read_text()
    result = read_result(run.folder)
    assert isinstance(result, EvaluateResult)
    return result


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    with LocalHub() as hub:
        talk_to(hub, monkeypatch, tmp_path / "cache")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        yield hub


def published(trained: Trained, **settings: object) -> PublishResult:
    stages = {name: trained.folder / name for name in ("pretrain", "sft", "evaluate")}
    where = {"stage": "publish", "experiment": "tiny", "run": "main", "folder": trained.folder / "publish"}
    return publish(StageRun(**where, config={"evaluation": "evaluate", **settings}, stages=stages))


def typed(card: str, folder: Path) -> str:
    """What a shell prints of the card's commands, typed one after the other."""
    block = re.search(r"### The same scores again\n.*?\n(```+)\n(.*?)\n\1\n", card, re.DOTALL)
    assert block is not None, card
    # The stages that ran in this process were offline.
    online = {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")}
    done = subprocess.run(
        ["bash", "-e", "-c", block[2]],
        cwd=folder,
        env={**online, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def table(printed: str) -> dict[tuple[str, str], float]:
    """The scores in lm-eval's tables, by task and metric."""
    scores, task = {}, ""
    for line in printed.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 9 and re.fullmatch(r"-?[\d.]+", cells[6]):
            # A group's tasks are indented.
            task = cells[0].removeprefix("- ") or task
            scores[task, cells[4]] = float(cells[6])
    return scores


def dropped(result: EvaluateResult) -> dict[str, int]:
    """How many items of each task weren't scored."""
    assert result.contamination is not None
    return {name: len(items) for name, items in result.contamination.dropped_items.items()}


@pytest.mark.parametrize(
    ("settings", "count", "left_out"), [(PLAIN, 6, LEFT_OUT), (SETTLED, 3, {})], ids=["plain", "settled"]
)
def test_the_card_s_commands_give_its_scores(
    trained: Trained, hub: LocalHub, tmp_path: Path, settings: dict[str, Any], count: int, left_out: dict[str, int]
) -> None:
    result = evaluated(trained, **settings)
    pushed = published(trained, target="hub", repo_id=REPO)
    card = hub.repos[REPO].files(pushed.tag)["README.md"].decode()

    found = table(typed(card, tmp_path))

    scores = {
        (task, metric): value
        for task, metrics in result.scores["mine" if "models" in settings else "sft"].items()
        for metric, value in metrics.items()
        if not metric.endswith("_stderr")
    }
    assert len(scores) == count
    assert dropped(result) == left_out
    assert found == pytest.approx(scores, rel=1e-4, abs=1e-4)
