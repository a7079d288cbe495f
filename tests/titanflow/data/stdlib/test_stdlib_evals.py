from __future__ import annotations

import json
import lzma
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from titanflow.data.stdlib import chats, evals
from titanflow.data.stdlib import text as stdlib_text

TASKS = Path(__file__).parents[4] / "configs" / "evals"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evals")


@pytest.fixture(scope="module")
def facts(folder: Path) -> dict[str, Any]:
    return evals.write_items(folder)


def rows(folder: Path, task: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_every_item_asks_about_a_held_out_name_once(folder: Path, facts: dict[str, Any]) -> None:
    held_out = {name.name for name in chats.held_out_names("test")}
    trained = {turn["content"] for chat in chats.chats("train") for turn in chat}
    for task in ("kind", "module", "summary"):
        questions = [row["question"] for row in rows(folder, task)]
        assert len(set(questions)) == len(questions) == facts["items"][task]
        assert all({word.rstrip("?") for word in question.split()} & held_out for question in questions)
        assert not set(questions) & trained
        assert {row["held_out"] for row in rows(folder, task)} == {"name", "module"}


def test_answers_are_right(folder: Path, facts: dict[str, Any]) -> None:
    names = {name.name: name for name in chats.held_out_names()}

    def asked(row: dict[str, Any]) -> Any:
        return next(names[word.rstrip("?")] for word in row["question"].split() if word.rstrip("?") in names)

    for row in rows(folder, "kind"):
        assert row["choices"][row["answer"]] == f"A {asked(row).kind}."
    for row in rows(folder, "module"):
        assert row["answer"] == asked(row).module
    for row in rows(folder, "summary"):
        assert row["choices"][row["answer"]] == asked(row).summary
        assert len(set(row["choices"])) == 4


def test_guessing_scores_what_it_should(folder: Path, facts: dict[str, Any]) -> None:
    kinds = [row["answer"] for row in rows(folder, "kind")]
    assert kinds.count(0) == kinds.count(1) == 100
    summaries = [row["answer"] for row in rows(folder, "summary")]
    assert max(summaries.count(choice) for choice in range(4)) < len(summaries) * 0.4


def test_no_offered_summary_was_an_answer_in_training(folder: Path, facts: dict[str, Any]) -> None:
    trained = {turn["content"] for chat in chats.chats("train") for turn in chat}
    assert not {choice for row in rows(folder, "summary") for choice in row["choices"]} & trained


def test_the_text_is_the_held_out_modules(folder: Path, facts: dict[str, Any]) -> None:
    texts = [row["text"] for row in rows(folder, "text")]
    assert texts == [text for text, _ in stdlib_text.documents("test")]
    assert facts["bytes"] == len("".join(texts).encode())


def test_xz_is_measured_on_the_same_bytes(folder: Path, facts: dict[str, Any]) -> None:
    whole = "".join(row["text"] for row in rows(folder, "text")).encode()
    bits = facts["xz_bits_per_byte"]["text.jsonl"]
    assert 1 < bits < 4
    assert len(lzma.compress(whole, preset=9 | lzma.PRESET_EXTREME)) * 8 == pytest.approx(bits * len(whole))
    try:
        shell = subprocess.run(["xz", "-9e", "-c"], input=whole, capture_output=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("this machine has no xz to compare with")
    assert len(shell) * 8 / len(whole) == pytest.approx(bits, rel=1e-3)


def test_the_items_of_dev_share_nothing_with_those_of_test(folder: Path, facts: dict[str, Any], tmp_path: Path) -> None:
    dev = evals.write_items(tmp_path, "dev")
    assert (facts["part"], dev["part"]) == ("test", "dev")
    assert not set(facts["held_out_modules"]) & set(dev["held_out_modules"])
    assert min(dev["items"].values()) >= 6
    for task in ("kind", "module", "summary"):
        asked = [{row["question"] for row in rows(where, task)} for where in (folder, tmp_path)]
        assert min(map(len, asked)) > 80
        assert not asked[0] & asked[1]


def task_configs(folder: Path) -> list[dict[str, Any]]:
    texts = [path.read_text().replace("${data}", str(folder)) for path in sorted(TASKS.glob("stdlib_*.yaml"))]
    return [yaml.safe_load(text) for text in texts]


def test_lm_eval_builds_every_task_from_the_items(
    folder: Path, facts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    from lm_eval.tasks import TaskManager, get_task_dict

    configs = task_configs(folder)
    tasks = get_task_dict(configs, TaskManager(include_defaults=False))
    assert sorted(tasks) == ["stdlib_bits_per_byte", "stdlib_kind", "stdlib_module", "stdlib_summary"]
    for config in configs:
        task = tasks[config["task"]]
        documents = list(task.test_docs())
        source = config["task"].removeprefix("stdlib_").replace("bits_per_byte", "text")
        assert len(documents) == facts["items"][source]
        assert config["metadata"]["chat"] == (source != "text")
        document = documents[0]
        if source == "text":
            assert task.doc_to_target(document) == document["text"]
        else:
            assert task.doc_to_text(document) == document["question"]
            assert task.config.target_delimiter == ""
        if source in ("kind", "summary"):
            assert task.doc_to_choice(document) == document["choices"]
            assert task.doc_to_target(document) == document["answer"]


@pytest.mark.parametrize("part", ["test", "dev"])
def test_examples_are_asked_in_no_part(tmp_path: Path, part: Any) -> None:
    evals.write_items(tmp_path, part)

    assert {path.name for path in tmp_path.iterdir()} == set(evals.item_files())
    for task in ("kind", "module", "summary"):
        shown = rows(tmp_path, f"{task}_examples")
        assert len(shown) == evals.EXAMPLES
        assert not {row["question"] for row in shown} & {row["question"] for row in rows(tmp_path, task)}
    assert [row["answer"] for row in rows(tmp_path, "kind_examples")].count(0) == evals.EXAMPLES // 2
