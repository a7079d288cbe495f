"""An evaluation is tried before anything is trained: what lm-eval can't ask, and items that are trained on."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_evals import KINDS, TASKS, write_evals
from tiny_evaluation import give_rows
from tiny_exports import write_byte_tokenizer

from titan.evaluate.rehearse import main
from titanflow.planning.evaluation.rehearsal import Rehearsal
from titanflow.runs.contract import RESULT_FILE, PreparedData, StageRun
from titanflow.runs.errors import ERROR_FILE

Tried = Callable[..., tuple[int, str]]


@pytest.fixture
def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tried:
    """Tries an evaluation whose training hasn't begun; returns the exit status and what was wrong."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    data = tmp_path / "evals"
    data.mkdir()
    write_evals(data)
    common = {"experiment": "tiny", "run": "main"}
    sft = StageRun(
        stage="sft", folder=tmp_path / "run" / "sft", tokenizer=write_byte_tokenizer(tmp_path / "tokenizer"), **common
    )
    sft.write()
    give_rows(sft.folder, "chats", [f"{KINDS[3][0]} class", f"{KINDS[4][0].upper()}\nfunction"])
    sft = StageRun.read(sft.folder / "run.yaml")
    (sft.folder / "run.yaml").unlink()

    def attempt(task: dict[str, Any] | None = None, python: str = "", **settings: Any) -> tuple[int, str]:
        if task is not None:
            files = {"test": "${data}/kind.jsonl"}
            given = {"task": "mine", "dataset_path": "json", "dataset_kwargs": {"data_files": files}}
            text = json.dumps({**given, "test_split": "test", **TASKS["tiny_kind"], **task}, indent=1)
            (data / "tasks" / "mine.yaml").write_text(text.replace('"!function own.made"', "!function own.made"))
            (data / "tasks" / "own.py").write_text(python)
        config = {"tasks": ["mine"] if task is not None else list(TASKS), "include_path": str(data / "tasks")}
        run = StageRun(
            stage="evaluate",
            folder=tmp_path / "run" / "evaluate",
            config={**config, "models": ["sft"], **settings},
            data=PreparedData(train=data),
            stages={"sft": sft.folder},
            fingerprint="f",
            **common,
        )
        folder = tmp_path / "run" / "rehearsal"
        code = main(Rehearsal(evaluations={"evaluate": run}, trained=[sft]).write(folder))
        assert (folder / RESULT_FILE).exists() == (code == 0)
        return code, "" if code == 0 else json.loads((folder / ERROR_FILE).read_text())["message"]

    return attempt


def test_tasks_that_can_be_asked_pass(tried: Tried, tmp_path: Path) -> None:
    assert tried() == (0, "")
    asked = Rehearsal.model_validate_json((tmp_path / "run" / "rehearsal" / "rehearsal.json").read_text())
    assert asked.is_done(tmp_path / "run" / "rehearsal")
    asked.evaluations["evaluate"].fingerprint = "g"
    assert not asked.is_done(tmp_path / "run" / "rehearsal")


def test_what_is_scored_on_the_way_is_tried_with_the_evaluation(tmp_path: Path) -> None:
    write_evals(tmp_path)
    common = {"experiment": "tiny", "run": "main", "data": PreparedData(train=tmp_path)}
    config = {"include_path": str(tmp_path / "tasks"), "models": {}, "limit": 2}
    runs = {
        name: StageRun(stage="x", kind="evaluate", folder=tmp_path / name, config={**config, "tasks": tasks}, **common)
        for name, tasks in {"evaluate": ["tiny_kind"], "pretrain.during": ["tiny_kind", "arc_nowhere"]}.items()
    }
    assert main(Rehearsal(evaluations=runs, trained=[]).write(tmp_path / "first")) == 2
    assert "no task or group 'arc_nowhere'" in json.loads((tmp_path / "first" / ERROR_FILE).read_text())["message"]
    during = runs["pretrain.during"]
    during.config["tasks"] = ["tiny_kind"]
    (tmp_path / "kind.jsonl").unlink()
    assert main(Rehearsal(evaluations={"pretrain.during": during}, trained=[]).write(tmp_path / "second")) == 2
    assert "tiny_kind can't be loaded" in json.loads((tmp_path / "second" / ERROR_FILE).read_text())["message"]


@pytest.mark.parametrize(
    ("task", "python", "message"),
    [
        ({"doc_to_text": "!function own.made"}, "def made(item):\n    return item['questoin']\n", "KeyError"),
        ({"process_docs": "!function own.made"}, "def made(rows):\n    return rows.select([])\n", "can't be loaded"),
        ({"doc_to_choice": "{{question}}"}, "", "SyntaxError"),
        ({"description": "{{nothing}}"}, "", "mine can't be asked: UndefinedError: 'nothing' is undefined"),
        ({"num_fewshot": 3, "fewshot_split": "tets"}, "", "mine can't be loaded: KeyError: 'tets'"),
    ],
)
def test_a_task_that_lm_eval_cannot_ask(tried: Tried, task: dict[str, Any], python: str, message: str) -> None:
    code, said = tried(task, python)
    assert code == 2
    assert "mine.yaml:" in said
    assert message in said


@pytest.mark.parametrize(
    "task",
    [
        {"process_results": "!function own.made", "metric_list": [{"metric": "mine", "aggregation": "mean"}]},
        {"metric_list": [{"metric": "f1", "aggregation": "!function own.made"}]},
        {
            "output_type": "generate_until",
            "doc_to_choice": None,
            "metric_list": [{"metric": "!function own.made", "aggregation": "mean"}],
        },
    ],
)
def test_a_score_of_ones_own_need_not_take_made_up_answers(tried: Tried, task: dict[str, Any]) -> None:
    for metric in task["metric_list"]:
        metric["higher_is_better"] = True
    assert tried(task, "def made(*given, **more):\n    raise ValueError('no number')\n") == (0, "")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"contamination": "report"}, ""),
        ({"contamination": "drop"}, ""),
        ({"contamination": "drop", "tasks": ["tiny_kind"], "limit": 4}, ""),
        ({"contamination": "error"}, "2 of 12 items of tiny_kind (16.7%) were trained on, in chats"),
    ],
)
def test_items_that_are_about_to_be_trained_on(tried: Tried, settings: dict[str, Any], message: str) -> None:
    code, said = tried(**settings)
    assert (code, message in said) == (2 if message else 0, True)


def test_neither_torch_nor_a_model_is_needed() -> None:
    loaded = "[name for name in ('torch', 'transformers') if name in sys.modules]"
    program = f"import sys, titan.evaluate.rehearse; print({loaded})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
