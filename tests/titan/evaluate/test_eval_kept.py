"""An evaluation that fails keeps what it has scored, and the next one goes on with what is missing."""

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_evals import KINDS
from tiny_evaluation import Trained, evaluation, samples, write_trained

import titan.evaluate.evaluate
from titan.evaluate.evaluate import evaluate_stage
from titan.evaluate.kept import KEPT_FOLDER
from titanflow.runs.contract import StageRun
from titanflow.runs.scores.contamination import Contamination, TaskLeaks

pytestmark = pytest.mark.slow
TASKS = ["tiny_kind", "tiny_module"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return write_trained(tmp_path_factory.mktemp("run"))


@pytest.fixture
def run(trained: Trained, tmp_path: Path) -> StageRun:
    """A stage that evaluates on items of its own."""
    shutil.copytree(trained.data, tmp_path / "evals")
    own = Trained(trained.folder, tmp_path / "evals")
    return evaluation(own, tmp_path / "evaluate", tasks=TASKS, models=["sft"], batch_size=4)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tasks that a model was asked."""
    asked: list[str] = []
    evaluate_task = titan.evaluate.evaluate.evaluate_task

    def noted(lm: Any, loaded: Any, *others: Any) -> Any:
        asked.extend(loaded["tasks"])
        return evaluate_task(lm, loaded, *others)

    monkeypatch.setattr(titan.evaluate.evaluate, "evaluate_task", noted)
    return asked


def fail(run: StageRun, monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    """Evaluates until a task, which can't be loaded."""

    def load_task(manager: Any, name: str, *others: Any) -> Any:
        if name == task:
            raise IndexError("list index out of range")
        return original(manager, name, *others)

    original = titan.evaluate.evaluate.load_task
    monkeypatch.setattr(titan.evaluate.evaluate, "load_task", load_task)
    with pytest.raises(IndexError):
        evaluate_stage(run)
    monkeypatch.setattr(titan.evaluate.evaluate, "load_task", original)


def test_a_rerun_goes_on_with_what_is_missing(
    run: StageRun, computed: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "titanflow.evaluate")
    whole = evaluate_stage(run)
    assert "before this start" not in caplog.text
    answered = samples(run, "sft", "tiny_kind")
    del computed[:]
    fail(run, monkeypatch, "tiny_module")
    # The stage's folder may be moved aside.
    shutil.rmtree(run.folder)
    run.write()

    again = evaluate_stage(run)

    assert computed == TASKS
    assert re.findall(r"(\w+) was scored before this start", caplog.text) == ["tiny_kind"]
    assert (again.scores, again.samples, again.n_shot) == (whole.scores, whole.samples, whole.n_shot)
    assert again.examples == whole.examples
    assert samples(run, "sft", "tiny_kind") == answered
    assert not (run.folder.parent / KEPT_FOLDER).exists()


@pytest.mark.parametrize("changed", ["task", "items", "seed", "model", "dropped", "damaged", "nothing"])
def test_what_has_changed_is_computed_again(
    run: StageRun, computed: list[str], monkeypatch: pytest.MonkeyPatch, changed: str, tmp_path: Path
) -> None:
    if changed == "model":
        shutil.copytree(run.stages["sft"] / "export", tmp_path / "copy")
        run.config["models"] = {"sft": str(tmp_path / "copy")}
    fail(run, monkeypatch, "tiny_module")
    data = tmp_path / "evals"
    if changed == "task":
        path = data / "tasks" / "tiny_kind.yaml"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"description": "Answer."}))
    elif changed == "items":
        lines = (data / "kind.jsonl").read_text().splitlines(keepends=True)
        (data / "kind.jsonl").write_text("".join(lines[1:]))
    elif changed == "seed":
        run.config["seed"] = 7
    elif changed == "model":
        (tmp_path / "copy" / "chat_template.jinja").write_text("{{ messages[-1]['content'] }}")
    elif changed == "dropped":
        # Of other training rows: with the same weights other items are left out.
        leaked = {"tiny_kind": TaskLeaks(items=len(KINDS), leaked=[2])}
        found = Contamination(tasks=leaked, looked_at=["chats"], dropped=True)
        monkeypatch.setattr(titan.evaluate.evaluate, "look_for_leaks", lambda *_: found)
    elif changed == "damaged":
        for path in (tmp_path / KEPT_FOLDER).rglob("*.json"):
            path.write_text(path.read_text()[:100])

    evaluate_stage(run)

    assert computed == ["tiny_kind", *(["tiny_kind"] if changed != "nothing" else []), "tiny_module"]
