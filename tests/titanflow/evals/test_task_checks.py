"""What lm-eval would refuse of a task once a model is trained, with the file and line where it stands."""

import shutil
from pathlib import Path

import pytest
from small_library import Write

from titanflow.evals.asked_tasks import asked_by, known_metrics
from titanflow.evals.library import index, package_folder
from titanflow.evals.task_checks import missing_items, task_problems
from titanflow.evals.task_yaml import SingleTask

GOOD = """\
task: a
dataset_path: json
dataset_kwargs: {data_files: {test: "${data}/a.jsonl"}}
test_split: test
output_type: multiple_choice
metric_list:
  - {metric: acc, aggregation: mean}
process_docs: !function own.prepare
doc_to_text: "{{question}}"
doc_to_target: answer
doc_to_choice: [yes it is, "no"]
"""
OWN = "def prepare(rows):\n    return rows\n"


def task_of(folder: Path) -> SingleTask:
    (task,) = asked_by({"tasks": ["a"], "include_path": folder}).single
    return task


def test_a_task_that_lm_eval_takes(installed: Path, mine: Write) -> None:
    task = task_of(mine({"a.yaml": GOOD, "own.py": OWN}))
    assert task_problems(task) == []
    assert missing_items(task, ["a.jsonl"]) == []


@pytest.mark.parametrize(
    ("old", "new", "line", "expected"),
    [
        ("output_type", "output_typ", 5, ["output_typ: unknown key", "did you mean output_type?"]),
        ('"{{question}}"', "'{{question'", 9, ["doc_to_text: no Jinja template: "]),
        ("multiple_choice", "multiple_choices", 5, ["found 'multiple_choices'", "did you mean multiple_choice?"]),
        ("metric: acc,", "metric: acc_nrom,", 6, ["no metric 'acc_nrom'", "did you mean acc_norm?"]),
        ("metric: acc,", "metrik: acc,", 6, ["each item {metric: a name"]),
        ("aggregation: mean", "aggregation: average", 6, ["no aggregation 'average'", "one of mean"]),
        ("own.prepare", "own.prepar", 8, ["!function own.prepar: own.py has no prepar"]),
        ("own.prepare", "nowhere.prepare", 8, ["there is no nowhere.py, and no such module is installed"]),
        ("own.prepare", "prepare", 8, ["it names no module"]),
        ("dataset_path: json\n", "", 1, ["a reads no data"]),
        ('dataset_kwargs: {data_files: {test: "${data}/a.jsonl"}}\n', "", 2, ["found 'json', and no files to read"]),
        ("test_split: test\n", "", 1, ["a names no split to be evaluated on"]),
        ("test_split: test", "test_split: tset", 4, ["test_split: found 'tset', and data_files has test"]),
        ("dataset_path: json", "dataset_path: jsno", 2, ["dataset_path: found 'jsno'", "did you mean json?"]),
        ("dataset_path: json", "dataset_path: '{{a}}'", 2, ["dataset_path: found '{{a}}'", "owner/name on the Hub"]),
        ("dataset_path: json", f"dataset_path: {'a' * 300}", 2, ["dataset_path: found 'aaa"]),
        ('{test: "${data}/a.jsonl"}', "{test: []}", 3, ["the split test names no file"]),
        (
            "test_split: test",
            "test_split: test\nfewshot_config: {split: dev}",
            5,
            ["found 'dev', and data_files has test"],
        ),
        ("{test: ", "{train: ", 4, ["found 'test', and data_files has train"]),
    ],
)
def test_what_lm_eval_refuses(installed: Path, mine: Write, old: str, new: str, line: int, expected: list[str]) -> None:
    assert old in GOOD
    folder = mine({"a.yaml": GOOD.replace(old, new), "own.py": OWN})
    (problem, *_) = task_problems(task_of(folder))
    assert problem.origin.endswith(f"a.yaml:{line}")
    for part in expected:
        assert part in str(problem)


def test_a_problem_stands_where_its_key_does(installed: Path, mine: Write) -> None:
    folder = mine({"a.yaml": "include: b\ntask: a\n", "b": GOOD.replace("test_split", "test_slpit"), "own.py": OWN})
    origins = {problem.origin.rpartition("/")[2] for problem in task_problems(task_of(folder))}
    assert origins == {"b:4", "a.yaml:2"}


@pytest.mark.parametrize(
    "own", ["from os import path as prepare", "prepare = len", "from os.path import *", "class prepare: ..."]
)
def test_functions_that_a_file_has_otherwise(installed: Path, mine: Write, own: str) -> None:
    assert task_problems(task_of(mine({"a.yaml": GOOD, "own.py": own}))) == []


def test_metrics_of_ones_own_are_known_to_oneself(installed: Path, mine: Write) -> None:
    text = GOOD.replace("metric: acc,", "metric: mine,").replace("process_docs", "process_results")
    assert task_problems(task_of(mine({"a.yaml": text, "own.py": OWN}))) == []


def test_python_that_is_none_is_told(installed: Path, mine: Write) -> None:
    (problem,) = task_problems(task_of(mine({"a.yaml": GOOD, "own.py": "def ("})))
    assert "own.py isn't Python" in problem.message


@pytest.mark.parametrize(
    ("files", "items", "expected"),
    [
        ('"${data}/a.jsonl"', None, "no evaluation data is prepared"),
        ('"${data}/b.jsonl"', ["a.jsonl"], "${data}/b.jsonl isn't among the prepared items"),
        ('"${data}/aa.jsonl"', ["a.jsonl"], "did you mean ${data}/a.jsonl?"),
        ("/nowhere/a.jsonl", None, "no such file: /nowhere/a.jsonl"),
        ('["/nowhere/*.jsonl"]', None, "no such file: /nowhere/*.jsonl"),
    ],
)
def test_items_that_are_not_there(
    installed: Path, mine: Write, files: str, items: list[str] | None, expected: str
) -> None:
    task = task_of(mine({"a.yaml": GOOD.replace('"${data}/a.jsonl"', files), "own.py": OWN}))
    (problem,) = missing_items(task, items)
    assert problem.origin.endswith("a.yaml:3")
    assert expected in str(problem)


@pytest.mark.parametrize("name", ["items/a.jsonl", "items/*.jsonl", "https://example.com/a.jsonl", "${data}/*.jsonl"])
def test_items_that_are_there(
    installed: Path, mine: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = mine({"a.yaml": GOOD.replace("${data}/a.jsonl", name), "own.py": OWN, "items/a.jsonl": "{}\n"})
    monkeypatch.chdir(folder)
    assert missing_items(task_of(folder), ["a.jsonl"]) == []


@pytest.mark.parametrize(
    "text",
    [
        "task: a\nx: &x [*x]\n",
        "task: a\nmetric_list: 3\n",
        "task: a\nmetric_list: acc\n",
        "task: a\ndataset_path: [json]\ndataset_kwargs: json\n",
        "task: a\ndataset_path: json\ntest_split: [test]\ndataset_kwargs: {data_files: {1: x}}\n",
        "task: a\ndataset_path: json\ntest_split: 1\ndataset_kwargs: {data_files: [[x]]}\nmetadata: 1\n",
        "task: a\nprocess_docs: !function __main__.x\n",
        "task: a\nwhen: 2026-13-45\n",
        "task: a\n? [x]\n: y\n",
        "task: a\ninclude: {x: y}\n",
        "group: a\ntask: [{x: y}, 3, null, [x]]\n",
        "group: a\n",
        "task: a\n\x01\n",
    ],
)
def test_whatever_stands_in_a_file_is_a_problem_and_no_traceback(installed: Path, mine: Write, text: str) -> None:
    asked = asked_by({"tasks": ["a"], "include_path": mine({"a.yaml": text})})
    problems = [*asked.problems]
    for task in asked.single:
        problems += [*task_problems(task), *missing_items(task, None)]
    assert problems
    assert known_metrics(asked) in ({}, {"a": []})


def test_data_of_a_folder_has_the_splits_that_its_files_say(installed: Path, mine: Write) -> None:
    text = GOOD.replace('data_files: {test: "${data}/a.jsonl"}', "data_dir: items")
    assert task_problems(task_of(mine({"a.yaml": text, "own.py": OWN}))) == []


def test_lm_evals_own_tasks_are_taken_as_they_are(installed: Path) -> None:
    (task,) = asked_by({"tasks": ["sums"], "include_path": None}).single
    assert task_problems(task) == missing_items(task, None) == []


def test_the_tasks_of_lm_evals_library_would_pass(tmp_path: Path) -> None:
    """What its own library does is no mistake: a sample of folders, as one's own."""
    package = package_folder()
    assert package is not None
    for name in ("arc", "gsm8k", "hellaswag", "truthfulqa", "lambada", "wikitext", "squadv2", "mmlu_pro", "ifeval"):
        folder = shutil.copytree(package / "tasks" / name, tmp_path / name)
        for task in index(folder).tasks:
            asked = asked_by({"tasks": [task], "include_path": folder})
            assert not asked.problems
            assert [problem for one in asked.single for problem in task_problems(one)] == []
