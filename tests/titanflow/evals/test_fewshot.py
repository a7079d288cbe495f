from pathlib import Path
from typing import Any

import pytest

from titanflow.evals.fewshot import (
    asked_as_examples,
    examples,
    fewshot_split,
    named_splits,
    own_answers,
    rows_in,
    shots,
)
from titanflow.evals.task_yaml import Function, SingleTask, TaskYaml, read_yaml, write_keys


def task(**config: Any) -> SingleTask:
    return SingleTask("mine", config, TaskYaml(Path("mine.yaml")))


@pytest.mark.parametrize(
    ("config", "setting", "number"),
    [
        ({}, None, 0),
        ({}, 5, 5),
        ({"num_fewshot": 2}, None, 2),
        ({"num_fewshot": 2}, 5, 5),
        ({"num_fewshot": 2}, 0, 0),
        ({"num_fewshot": 0}, 5, 0),
        ({"num_fewshot": 2, "output_type": "loglikelihood_rolling"}, 5, 0),
    ],
)
def test_the_number_of_examples_is_lm_evals(config: dict[str, Any], setting: int | None, number: int) -> None:
    assert shots(config, setting) == number


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        ({"test_split": "test"}, {"fewshot_split": "test"}),
        # lm-eval leaves the asked item out where the split is test_split, and nowhere else.
        ({"validation_split": "val"}, {"fewshot_split": "val", "test_split": "val"}),
        ({"validation_split": "val", "fewshot_split": "val"}, {"test_split": "val"}),
        ({"validation_split": "val", "fewshot_config": {"split": "val"}}, {"test_split": "val"}),
        ({"test_split": "test", "validation_split": "val"}, {"fewshot_split": "val"}),
        ({"test_split": "test", "training_split": "train"}, {"fewshot_split": "train"}),
        ({"test_split": "test", "fewshot_split": "dev"}, {}),
        ({"test_split": "test", "fewshot_config": {"samples": [{"q": "?"}]}}, {}),
        ({"test_split": "test", "class": Function("mine.Task")}, {}),
    ],
)
def test_what_a_task_lacks_for_examples_from_a_named_split(config: dict[str, Any], keys: dict[str, str]) -> None:
    assert named_splits(task(**config), 2) == keys
    assert named_splits(task(**config), None) == {}


@pytest.mark.parametrize(
    ("config", "leaks"),
    [
        ({"test_split": "test"}, True),
        ({"validation_split": "val", "fewshot_split": "val"}, True),
        ({"test_split": "test", "fewshot_split": "test"}, False),
        ({"test_split": "test", "validation_split": "val"}, False),
    ],
)
def test_where_a_prompt_may_hold_its_own_answer(config: dict[str, Any], leaks: bool) -> None:
    assert own_answers(task(**config), 2) is leaks
    assert not own_answers(task(**config), 0)


def test_the_split_of_a_fewshot_config_goes_before() -> None:
    assert fewshot_split({"fewshot_split": "dev", "fewshot_config": {"split": "own"}, "test_split": "test"}) == "own"


@pytest.mark.parametrize(
    ("config", "number"),
    [
        ({"test_split": "test"}, 9),
        ({"test_split": "test", "fewshot_split": "dev"}, 4),
        ({"test_split": "test", "fewshot_split": "both"}, 14),
        ({"test_split": "test", "fewshot_split": "far"}, None),
        ({"test_split": "test", "process_docs": Function("mine.drop")}, None),
        ({"test_split": "test", "fewshot_config": {"samples": [{}, {}, {}]}}, 3),
        ({"test_split": "test", "fewshot_config": {"samples": Function("mine.samples")}}, None),
    ],
)
def test_how_many_examples_there_are(config: dict[str, Any], number: int | None) -> None:
    files = {"test": "t.jsonl", "dev": ["d.jsonl"], "both": ["t.jsonl", "d.jsonl"], "far": "hf://far.jsonl"}
    whole = {"dataset_kwargs": {"data_files": files}} | config
    assert examples(whole, {"t.jsonl": 10, "d.jsonl": 4, "hf://far.jsonl": None}) == number


def test_rows_are_counted_in_json_lines_alone(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n\n{"a": 2}')
    (tmp_path / "a.csv").write_text("a\n1\n")
    assert rows_in(tmp_path / "a.jsonl") == 2
    assert rows_in(tmp_path / "a.csv") is None
    assert rows_in(tmp_path / "none.jsonl") is None


@pytest.mark.parametrize("text", ["task: a\nfewshot_split: null  # none\n", '{"task": "a"}', "---\ntask: a\n...\n"])
def test_keys_are_set_in_a_file_however_it_is_written(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    write_keys(path, {"fewshot_split": "test"})
    assert read_yaml(path) == {"task": "a", "fewshot_split": "test"}


def test_a_function_and_an_include_stay_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text('include: _base\nprocess_docs: !function scores.keep\ndoc_to_text: "ä\\n {{q}}"\n')
    write_keys(path, {"fewshot_split": "test"})
    assert "process_docs: !function 'scores.keep'" in path.read_text()
    assert read_yaml(path) == {
        "include": "_base",
        "process_docs": Function("scores.keep"),
        "doc_to_text": "ä\n {{q}}",
        "fewshot_split": "test",
    }


@pytest.mark.parametrize(
    ("splits", "config", "shared"),
    [
        ({"test": "a.jsonl", "dev": "a.jsonl"}, {"fewshot_split": "dev"}, ["a.jsonl"]),
        ({"test": ["a.jsonl", "b.jsonl"], "dev": "b.jsonl"}, {"fewshot_split": "dev"}, ["b.jsonl"]),
        ({"test": "a.jsonl", "train": "a.jsonl"}, {"training_split": "train"}, ["a.jsonl"]),
        ({"test": "a.jsonl", "dev": "b.jsonl"}, {"fewshot_split": "dev"}, []),
        # Of one split lm-eval leaves the asked item out.
        ({"test": "a.jsonl"}, {"fewshot_split": "test"}, []),
        ({"test": "a.jsonl", "dev": "a.jsonl"}, {"fewshot_config": {"samples": []}}, []),
    ],
)
def test_a_file_under_two_names_is_asked_and_an_example(
    splits: dict[str, Any], config: dict[str, Any], shared: list[str]
) -> None:
    whole = {"test_split": "test", "dataset_kwargs": {"data_files": splits}, **config}
    assert asked_as_examples(whole) == shared
