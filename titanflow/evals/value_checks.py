"""Finds values of a task's YAML that would end lm-eval once a model is loaded, or that it silently ignores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from titanflow.common.errors import Problem, did_you_mean
from titanflow.evals.known_names import GENERATE, LENGTHS, fewshot_keys, generation_settings
from titanflow.evals.task_yaml import Function, SingleTask

SAMPLERS = ("default", "first_n")
"""Ways to choose examples, from ``SAMPLER_REGISTRY`` of lm-eval's ``api/samplers.py``."""
Kind = tuple[type, ...]
_FUNCTION: Kind = (Function,)
_KINDS: dict[str, tuple[Kind, str]] = {
    **dict.fromkeys(("test_split", "validation_split", "training_split", "fewshot_split"), ((str,), "a split's name")),
    **dict.fromkeys(("dataset_path", "dataset_name", "task_alias"), ((str,), "a text")),
    **dict.fromkeys(("target_delimiter", "fewshot_delimiter"), ((str,), "a text, in quotes")),
    **dict.fromkeys(("description", "gen_prefix"), ((str,), "a text or template, in quotes")),
    **dict.fromkeys(("process_docs", "process_results", "custom_dataset"), (_FUNCTION, "!function module.name")),
    **dict.fromkeys(("dataset_kwargs", "metadata", "fewshot_config", "generation_kwargs"), ((dict,), "a mapping")),
    **dict.fromkeys(("metric_list", "filter_list"), ((list,), "a list")),
    **dict.fromkeys(("should_decontaminate", "unsafe_code"), ((bool,), "true or false")),
    "doc_to_text": ((str, int, Function), "a column, a template, or !function module.name"),
    "doc_to_target": ((str, int, list, Function), "a column, a template, a number, or !function module.name"),
    "doc_to_choice": ((str, list, dict, Function), "a column, a template, a list, or !function module.name"),
}
_NEVER_NULL = ("target_delimiter", "fewshot_delimiter")
"""Keys that have a default in lm-eval if they are missing, but not if they are null."""
_LEAST = {"num_fewshot": 0, "repeats": 1}
"""Whole numbers, each with its minimum."""


def value_problems(task: SingleTask) -> list[Problem]:
    """All such problems in one of the user's own tasks; :mod:`titanflow.evals.score_checks` checks its scores."""
    kinds = list(_kind_problems(task))
    # The other checks need values of the right kind.
    return kinds or [*_missing(task), *_choice_problems(task), *_fewshot_problems(task), *_generation_problems(task)]


def expected_value(key: str) -> str:
    """The value of a task's key, in words; empty where any value is taken."""
    if key in _LEAST:
        return f"a whole number, at least {_LEAST[key]}"
    return _KINDS[key][1] if key in _KINDS else ""


def generation_problems(settings: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Unknown settings of a generation, and settings with a wrong value: name, found, expected, hint."""
    known = generation_settings()
    for name, value in settings.items():
        if known and name not in known:
            expected = "until, max_gen_toks, or one of transformers' generate"
            yield str(name), "unknown setting", expected, did_you_mean(name, known)
        elif name == "until" and not (
            isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value))
        ):
            yield name, f"found {value!r}", "texts at which an answer ends, in quotes", ""
        elif name in LENGTHS and not (_is_whole(value) and value > 0):
            yield name, f"found {value!r}", "a whole number above 0", ""
        elif name == "do_sample" and not isinstance(value, bool):
            yield name, f"found {value!r}", "true or false", ""
        elif name in ("temperature", "top_p") and not (_is_number(value) and value >= 0):
            yield name, f"found {value!r}", "a number, at least 0", ""


def _kind_problems(task: SingleTask) -> Iterator[Problem]:
    for key, value in task.config.items():
        if value is None and key not in _NEVER_NULL:
            continue
        if key in _LEAST and not (_is_whole(value) and value >= _LEAST[key]):
            yield task.yaml.problem(key, f"found {value!r}", expected_value(key))
        elif key in _KINDS:
            kinds, expected = _KINDS[key]
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                yield task.yaml.problem(key, f"found {value!r}", expected)
            elif value == [] and kinds == (list,):
                yield task.yaml.problem(
                    key, "found an empty list: nothing would be scored", "some values, or no such key"
                )


def _missing(task: SingleTask) -> Iterator[Problem]:
    config = task.config
    if config.get("use_prompt"):
        return
    wanted = {"doc_to_text": 'the question: doc_to_text: "{{question}}", or "" for nothing'}
    wanted["doc_to_target"] = 'the right answer: doc_to_target: "{{answer}}"'
    if config.get("output_type") == "multiple_choice":
        wanted["doc_to_choice"] = 'the choices: doc_to_choice: "{{choices}}", or a list'
    for key, expected in wanted.items():
        if config.get(key) is None:
            yield task.yaml.problem(key, f"{task.name} has none", expected)


def _choice_problems(task: SingleTask) -> Iterator[Problem]:
    """Problems with a list of choices, which lm-eval shows as it stands: it fills in no templates there."""
    choices = task.config.get("doc_to_choice")
    listed = choices.values() if isinstance(choices, dict) else choices if isinstance(choices, list) else ()
    if isinstance(choices, dict | list) and not choices:
        yield task.yaml.problem("doc_to_choice", "found no choice", "a list of texts")
    for one in listed:
        if not isinstance(one, str):
            yield task.yaml.problem("doc_to_choice", f"found {one!r}", "a text, in quotes")
        elif "{{" in one or "{%" in one:
            expected = 'one template that gives a list: "{{[first, second]}}"'
            found = f"found {one!r}, and lm-eval fills in no template within a list"
            yield task.yaml.problem("doc_to_choice", found, expected)
        elif not one:
            yield task.yaml.problem("doc_to_choice", "found an empty choice", "a text")


def _fewshot_problems(task: SingleTask) -> Iterator[Problem]:
    own, known = task.config.get("fewshot_config") or {}, fewshot_keys()
    for key in own:
        if known and key not in known:
            hint = did_you_mean(key, known)
            yield task.yaml.problem("fewshot_config", f"unknown key {key!r}", f"one of {', '.join(known)}", hint)
    sampler, samples, indices = own.get("sampler", "default"), own.get("samples"), own.get("fewshot_indices")
    if not isinstance(sampler, Function) and sampler not in SAMPLERS:
        yield task.yaml.problem("fewshot_config", f"no sampler {sampler!r}", f"one of {', '.join(SAMPLERS)}")
    is_list = isinstance(samples, list) and samples and all(isinstance(one, dict) for one in samples)
    if samples is not None and not is_list and not isinstance(samples, Function):
        expected = "samples: a list of items, each with its columns, or !function module.name"
        yield task.yaml.problem("fewshot_config", f"found samples: {samples!r:.60}", expected)
    if own.get("split") is not None and not isinstance(own["split"], str):
        yield task.yaml.problem("fewshot_config", f"found split: {own['split']!r}", "a split's name")
    if indices is not None:
        # lm-eval gives them to no sampler.
        message, expected = "lm-eval ignores fewshot_indices", "samples: the items themselves"
        yield task.yaml.problem("fewshot_config", message, expected)


def _generation_problems(task: SingleTask) -> Iterator[Problem]:
    settings, output = task.config.get("generation_kwargs"), task.config.get("output_type", GENERATE)
    if settings is None:
        return
    if output != GENERATE:
        # A file that tasks of several output types include, or a group of them, may hold settings for some of them.
        if task.yaml.stands.get("generation_kwargs") != task.yaml.stands.get("output_type"):
            return
        message = f"a task of {output} generates nothing"
        yield task.yaml.problem("generation_kwargs", message, f"output_type: {GENERATE}, or leave the section out")
    for name, found, expected, hint in generation_problems(settings):
        yield task.yaml.problem("generation_kwargs", f"{name}: {found}", expected, hint)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
