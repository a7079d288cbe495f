"""The pages of keys have every key that the config reader accepts, and none else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from titanflow.config.files.schema import Schema, dataclass_schema
from titanflow.config.keys.experiment import ExperimentSpec, ModuleSpec
from titanflow.config.model_args import family
from titanflow.config.module import stage_schema
from titanflow.config.reference.pages import reference_pages
from titanflow.evals.key_texts import FEWSHOT, TASK
from titanflow.evals.known_names import fewshot_keys, task_keys

PAGES = reference_pages()
ROW = re.compile(r'^\| <span id="([^"]+)">`([^`]+)`</span> \| (.*) \| (.*) \|$', re.MULTILINE)
LINK = re.compile(r"^The keys of (?:\[`?([\w.]+)`?\]\((?:(\w+)\.md)?(?:#\w+)?\)|this page's first table)", re.MULTILINE)
FAMILIES = ("llama3", "llama4", "qwen3", "deepseek_v3", "gpt_oss", "qwen2", "mod", "dtf", "tdtf")


def accepted(schema: Schema, above: str = "") -> Iterator[str]:
    """Keys with a value; ``NAME`` is one that the user chooses."""
    for name, field in schema["properties"].items():
        named = field.get("additionalProperties")
        if "properties" in field:
            yield from accepted(field, f"{above}{name}.")
        elif isinstance(named, dict) and "properties" in named:
            yield from accepted(named, f"{above}{name}.NAME.")
        else:
            yield f"{above}{name}"


def listed(page: str) -> set[str]:
    """The keys of a page's tables, and those of the sections that it refers to."""
    found = listed_here(page)
    for part in PAGES[page].split("\n## ")[1:]:
        link = LINK.search(part)
        if link is None:
            continue
        there = listed_here(link[2] or page) if link[1] is None or "`" in link[0] else listed(link[2])
        if link[1] is None:
            # A source in a mixture has the keys of a section that is none.
            there = {key for key in there if not key.startswith("mixture.")}
        prefix = f"{link[1]}." if "`" in link[0] else ""
        section = part.split("`")[1]
        found |= {f"{section}.{key.removeprefix(prefix)}" for key in there if key.startswith(prefix)}
    return found


def listed_here(page: str) -> set[str]:
    return {row[1] for row in ROW.finditer(PAGES[page])} - {"extends"}


def of_data(schema: Schema) -> set[str]:
    """A source in a mixture may name a data file, which is read before its schema is looked at."""
    keys = set(accepted(schema))
    return keys | {f"{key.removesuffix('weight')}data" for key in keys if key.endswith("sources.NAME.weight")}


@pytest.mark.parametrize("stage", ["pretrain", "sft", "evaluate", "publish"])
def test_a_stage_has_every_key_and_none_else(stage: str) -> None:
    assert listed({"pretrain": "training", "sft": "training"}.get(stage, stage)) == of_data(stage_schema(stage))


def test_an_experiment_has_every_key_and_none_else() -> None:
    own = set(accepted(dataclass_schema(ExperimentSpec))) - {"modules"}
    assert listed("experiment") == own | {f"modules.NAME.{key}" for key in accepted(dataclass_schema(ModuleSpec))}


def test_data_has_every_key_and_none_else() -> None:
    assert listed("data") == of_data(stage_schema("sft")["properties"]["data"])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_has_every_argument_of_its_family(name: str) -> None:
    _, _, part = PAGES["model"].partition(f"## `model`, with `name: {name}`\n")
    rows = {row[1].removeprefix(f"{name}.model.") for row in ROW.finditer(part.partition("\n## ")[0])}
    found = family(name)
    assert found is not None
    assert rows == set(accepted(found["schema"]))


def test_a_task_has_every_key_of_lm_eval() -> None:
    rows = {row[1] for row in ROW.finditer(PAGES["tasks"])}
    assert rows == {*task_keys(), *(f"fewshot_config.{key}" for key in fewshot_keys())}
    assert (set(TASK), set(FEWSHOT)) == (set(task_keys()), set(fewshot_keys()))


@pytest.mark.parametrize("page", sorted(set(PAGES) - {"index"}))
def test_every_key_says_what_it_is_for_and_what_it_takes(page: str) -> None:
    rows = ROW.findall(PAGES[page])
    assert rows
    assert [row[0] for row in rows if len(row[3]) < 5] == []
    assert page == "tasks" or [row[0] for row in rows if not row[2]] == []
    assert len({row[0] for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("page", "key", "values", "text"),
    [
        ("training", "training.steps", "a whole number, at least 1<br>default `10000`", "How many train steps to run"),
        ("experiment", "launcher.nnodes", "a whole number, at least 1<br>default `1`", "Machines."),
        ("experiment", "price_per_hour", "a number, at least 0 or null", "What an hour of one device costs"),
        ("training", "optimizer.beta1", "a number, at least 0 and below 1<br>default `0.9`", "first moment"),
        ("model", "qwen3.model.moe_args.top_k", "a whole number<br>default `1`", "Experts that compute a token"),
    ],
)
def test_a_row_has_bounds_default_and_text(page: str, key: str, values: str, text: str) -> None:
    found: dict[str, Any] = {row[0]: row for row in ROW.findall(PAGES[page])}
    assert found[key][2] == values
    assert text in found[key][3]


def test_a_terminal_shows_all_pages(capsys: pytest.CaptureFixture[str]) -> None:
    from titanflow.cli.show import config

    config(reference=True)
    printed = capsys.readouterr().out
    assert all(text in printed for name, text in PAGES.items() if name != "index")
