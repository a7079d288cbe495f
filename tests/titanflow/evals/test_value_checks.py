"""Values of a task's YAML at which lm-eval would end once everything is trained, or that it would pass over."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import yaml
from small_library import Write, forget

from titanflow.evals.asked_tasks import asked_by
from titanflow.evals.score_checks import AGGREGATIONS, COMPUTED
from titanflow.evals.task_checks import task_problems

CHOICE: dict[str, Any] = {
    "task": "a",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "${data}/a.jsonl"}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_target": "answer",
    "doc_to_choice": ["a class", "a function"],
}
WRITTEN = {**CHOICE, "output_type": "generate_until", "doc_to_choice": None}


@pytest.fixture(autouse=True)
def _read_anew() -> Iterator[None]:
    forget()
    yield
    forget()


def problems(mine: Write, config: dict[str, Any], python: str = "") -> list[str]:
    """What the plan says of a task, beside the line on which its key stands."""
    text = "".join(yaml.safe_dump({key: value}) for key, value in config.items())
    folder = mine({"a.yaml": re.sub(r"'!function ([\w.]+)'", r"!function \1", text), "own.py": python})
    (task,) = asked_by({"tasks": ["a"], "include_path": folder}).single
    found = task_problems(task)
    lines = text.splitlines()
    for problem in found:
        line = int(problem.origin.rpartition(":")[2])
        assert lines[line - 1].startswith(f"{problem.key}:") or problem.key not in config
    return [str(problem) for problem in found]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"num_fewshot": "lots"}, ["num_fewshot: found 'lots'", "a whole number, at least 0"]),
        ({"num_fewshot": -1}, ["num_fewshot: found -1"]),
        ({"num_fewshot": True}, ["num_fewshot: found True"]),
        ({"num_fewshot": 2.5}, ["num_fewshot: found 2.5"]),
        ({"repeats": 0}, ["repeats: found 0", "at least 1"]),
        ({"target_delimiter": 1}, ["target_delimiter: found 1"]),
        ({"validation_split": ["test"]}, ["validation_split: found ['test']"]),
        ({"target_delimiter": None}, ["target_delimiter: found None"]),
        ({"metric_list": []}, ["metric_list: found an empty list: nothing would be scored"]),
        ({"filter_list": []}, ["filter_list: found an empty list"]),
        (
            {"filter_list": [{"name": "x", "filter": [{"function": "lowercase"}]}]},
            ["lowercase takes texts, and a task of multiple_choice writes none"],
        ),
        ({"metadata": 1}, ["metadata: found 1", "a mapping"]),
        ({"process_results": "own.score"}, ["process_results: found 'own.score'", "!function"]),
        ({"process_docs": "own.prepare"}, ["process_docs: found 'own.prepare'"]),
        ({"metric_list": {"metric": "acc"}}, ["metric_list: found", "a list"]),
        ({"doc_to_text": None}, ["doc_to_text: a has none"]),
        ({"doc_to_target": None}, ["doc_to_target: a has none"]),
        ({"doc_to_choice": None}, ["doc_to_choice: a has none"]),
        ({"doc_to_choice": [False, "yes"]}, ["found False", "in quotes"]),
        ({"doc_to_choice": ["{{first}}", "no"]}, ["found '{{first}}', and lm-eval fills in no template within a list"]),
        ({"doc_to_choice": {"a": "{{first}}"}}, ["lm-eval fills in no template within a list"]),
        ({"doc_to_choice": []}, ["found no choice"]),
        ({"doc_to_choice": ["", "no"]}, ["an empty choice"]),
        ({"generation_kwargs": {"until": ["x"]}}, ["a task of multiple_choice generates nothing"]),
        ({"fewshot_config": {"sampeler": "first_n"}}, ["unknown key 'sampeler'", "did you mean sampler?"]),
        ({"fewshot_config": {"sampler": "balanced"}}, ["no sampler 'balanced'", "first_n"]),
        ({"fewshot_config": {"samples": 3}}, ["found samples: 3"]),
        ({"fewshot_config": {"samples": ["x"]}}, ["found samples: ['x']"]),
        ({"fewshot_config": {"fewshot_indices": [0]}}, ["lm-eval ignores fewshot_indices"]),
        ({"fewshot_config": {"doc_to_text": "{{question"}}, ["fewshot_config: no Jinja template"]),
        ({"gen_prefix": "{{question"}, ["gen_prefix: no Jinja template"]),
    ],
)
def test_a_value_of_no_use(mine: Write, values: dict[str, Any], expected: list[str]) -> None:
    (found, *_) = problems(mine, CHOICE | values)
    for part in expected:
        assert part in found


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"untill": ["\n"]}, "untill: unknown setting"),
        ({"until": 3}, "until: found 3"),
        ({"until": [3]}, "until: found [3]"),
        ({"max_gen_toks": "many"}, "max_gen_toks: found 'many'"),
        ({"max_gen_toks": 0}, "max_gen_toks: found 0"),
        ({"do_sample": "no"}, "do_sample: found 'no'"),
        ({"temperature": "hot"}, "temperature: found 'hot'"),
        ({"temprature": 0.5}, "did you mean temperature?"),
    ],
)
def test_a_setting_of_generation_that_is_none(mine: Write, settings: dict[str, Any], expected: str) -> None:
    (found,) = problems(mine, WRITTEN | {"generation_kwargs": settings})
    assert f"generation_kwargs: {next(iter(settings))}" in found
    assert expected in found


def test_settings_of_generation_that_are_some(mine: Write) -> None:
    settings = {"until": "\n", "max_new_tokens": 5, "do_sample": True, "temperature": 0, "top_k": 3, "num_beams": 2}
    assert problems(mine, WRITTEN | {"generation_kwargs": settings}) == []


@pytest.mark.parametrize(
    ("base", "metric", "expected"),
    [
        (WRITTEN, {"metric": "acc"}, "acc isn't computed of a task of generate_until"),
        (CHOICE, {"metric": "perplexity"}, "perplexity isn't computed of a task of multiple_choice"),
        (CHOICE, {"metric": "bleu"}, "bleu isn't computed"),
        (CHOICE, {"metric": "!function own.score"}, "own.score isn't computed of a task of multiple_choice"),
        (CHOICE | {"output_type": "loglikelihood"}, {"metric": "acc_norm"}, "one of perplexity, acc"),
        (CHOICE | {"output_type": "loglikelihood_rolling"}, {"metric": "acc"}, "one of word_perplexity"),
        (CHOICE, {"metric": "f1", "aggregation": "mean"}, "mean can't be computed from f1"),
        (CHOICE, {"metric": "acc", "aggregation": "f1"}, "f1 can't be computed from acc"),
        (CHOICE, {"metric": "likelihood"}, "likelihood has no mean"),
        (CHOICE | {"doc_to_choice": ["a", "b", "c"]}, {"metric": "f1"}, "f1 tells two classes apart"),
        (CHOICE, {"metric": "acc", "aggregation": ["mean"]}, "no aggregation ['mean']"),
        (CHOICE, {"metric": "acc", "higher_is_better": "yes"}, "found higher_is_better: 'yes'"),
        (CHOICE, {"metric": 3}, "each item {metric: a name"),
    ],
)
def test_a_metric_that_gives_no_score(mine: Write, base: dict[str, Any], metric: dict[str, Any], expected: str) -> None:
    (found,) = problems(mine, base | {"metric_list": [metric]}, "def score(references, predictions):\n    return 1\n")
    assert "metric_list: " in found
    assert expected in found


@pytest.mark.parametrize(
    ("base", "metric"),
    [
        (WRITTEN, {"metric": "f1", "aggregation": "!function own.score"}),
        (WRITTEN, {"metric": "rouge", "hf_evaluate": True, "aggregation": "mean"}),
        (CHOICE, {"metric": "f1", "hf_evaluate": True}),
        (CHOICE, {"metric": "likelihood", "aggregation": "!function own.score"}),
        (CHOICE | {"process_results": "!function own.score"}, {"metric": "mine", "aggregation": "median"}),
        (CHOICE | {"doc_to_choice": ["a", "b", "c"]}, {"metric": "f1", "aggregation": "!function own.score"}),
    ],
)
def test_a_metric_that_gives_one(mine: Write, base: dict[str, Any], metric: dict[str, Any]) -> None:
    assert problems(mine, base | {"metric_list": [metric]}, "def score(*items):\n    return 1\n") == []


def test_a_metric_that_stands_twice(mine: Write) -> None:
    metrics = [{"metric": "acc"}, {"metric": "acc", "aggregation": "median"}]
    (found,) = problems(mine, CHOICE | {"metric_list": metrics})
    assert "acc stands there twice" in found


FIRST = {"function": "take_first"}


@pytest.mark.parametrize(
    ("pipeline", "expected"),
    [
        ([{"name": "x", "filter": [{"function": "regexx"}]}], "did you mean regex?"),
        ([{"name": "x", "filter": [{"function": "regex", "regex_pattern": "("}]}], "no regular expression: '('"),
        ([{"name": "x", "filter": [{"function": "regex", "regex_pattern": 3}]}], "no regular expression: 3"),
        ([{"name": "x", "filter": [{"function": "regex", "regex_pattern": None}]}], "no regular expression: None"),
        ([{"name": "x", "filter": [{"function": "regex", "group_select": "last"}]}], "found group_select: 'last'"),
        ([{"name": "x", "filter": [{"function": "take_first_k", "k": 2}, FIRST]}], "takes 2 of 1 answers"),
        ([{"name": "x", "filter": [{"function": "take_first_k"}]}], "take_first_k has no k"),
        ([{"name": "x", "filter": [{"function": "custom"}]}], "custom has no filter_fn"),
        ([{"name": "x", "filter": "take_first"}], "each item {name: a name, filter:"),
        ([{"filter": [FIRST]}], "each item {name: a name, filter:"),
        ([{"name": "x", "filter": ["take_first"]}], "{function: a filter's name, …}"),
        (["take_first"], "each item {name: a name, filter:"),
    ],
)
def test_a_filter_that_is_none(mine: Write, pipeline: list[Any], expected: str) -> None:
    (found,) = problems(mine, WRITTEN | {"filter_list": pipeline})
    assert "filter_list: " in found
    assert expected in found


def test_a_filter_of_ones_own_is_known(mine: Write) -> None:
    pipeline = [{"name": "x", "filter": [{"function": "mine"}, {"function": "!function own.Other"}, FIRST]}]
    python = "@register_filter('mine')\nclass Mine: ...\nclass Other: ...\n"
    assert problems(mine, WRITTEN | {"filter_list": pipeline}, python) == []


def test_every_metric_of_lm_eval_is_told_by_its_output_type() -> None:
    """A metric that a newer lm-eval brings has to be put where it belongs."""
    from lm_eval.api import metrics  # noqa: F401
    from lm_eval.api.registry import aggregation_registry, metric_registry

    told = {name for names in COMPUTED.values() for name in names}
    assert set(metric_registry.keys()) - {"acc_all", "acc_all_stderr"} == told
    assert {name for names in AGGREGATIONS.values() for name in names} <= set(aggregation_registry.keys())


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"metric": "acc_nrom"}, "none of its tasks has acc_nrom"),
        ({"metric": "acc", "aggregation": "median"}, "no aggregation 'median' of a group"),
        ({"metric": "acc", "weighted": True}, "unknown key 'weighted'"),
        ("acc", "each item {metric: a name"),
    ],
)
def test_a_mean_of_a_group_that_nothing_gives(mine: Write, entry: Any, expected: str) -> None:
    group = yaml.safe_dump({"group": "b", "task": ["a"], "aggregate_metric_list": [entry]}, sort_keys=False)
    task = yaml.safe_dump({**CHOICE, "metric_list": [{"metric": "acc"}]})
    asked = asked_by({"tasks": ["b"], "include_path": mine({"a.yaml": task, "b.yaml": group})})
    (found,) = asked.problems
    assert expected in str(found)
    assert found.origin.endswith("b.yaml:4")


def test_settings_of_generation_in_a_file_that_tasks_of_several_kinds_include_are_no_mistake(mine: Write) -> None:
    common = {key: value for key, value in WRITTEN.items() if key != "task"}
    generation = {"generation_kwargs": {"until": ["."], "do_sample": False}}
    rolling = {"task": "rolling", "include": "common", "output_type": "loglikelihood_rolling", "metric_list": None}
    folder = mine(
        {
            "common": yaml.safe_dump({**common, **generation}),
            "written.yaml": yaml.safe_dump({"task": "written", "include": "common"}),
            "rolling.yaml": yaml.safe_dump(rolling),
            "alone.yaml": yaml.safe_dump({**rolling, "task": "alone", **generation}),
        }
    )
    asked = asked_by({"tasks": ["written", "rolling", "alone"], "include_path": folder})
    found = {task.name: [problem.key for problem in task_problems(task)] for task in asked.single}
    assert found == {"written": [], "rolling": [], "alone": ["generation_kwargs"]}


@pytest.mark.parametrize("of_library", [False, True])
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"unsafe_code": True}, "runs the code that a model writes"),
        ({"doc_to_image": ["picture"]}, "shows images"),
        ({"doc_to_audio": ["sound"]}, "plays sound"),
    ],
)
def test_tasks_that_run_code_or_show_pictures_are_refused_before_training(
    mine: Write, values: dict[str, Any], said: str, of_library: bool
) -> None:
    folder = mine({"a.yaml": yaml.safe_dump({**WRITTEN, **values})})
    (task,) = asked_by({"tasks": ["a"], "include_path": folder}).single
    (problem,) = task_problems(replace(task, of_library=of_library))
    assert said in str(problem)
    assert problem.key in values


def test_tasks_that_run_no_code_say_so_in_vain(mine: Write) -> None:
    assert problems(mine, {**WRITTEN, "unsafe_code": False}) == []
