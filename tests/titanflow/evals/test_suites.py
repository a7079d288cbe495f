"""Suites: lm-eval's tasks with the number of examples that published figures have."""

import pytest
from lm_eval.tasks import TaskManager

from titanflow.cli.values import resolved_values
from titanflow.common.errors import ConfigError
from titanflow.config.experiment import load_experiment
from titanflow.config.overrides import parse_settings
from titanflow.evals.asked_tasks import asked_by
from titanflow.evals.suites import FOLDER, suites
from titanflow.evals.task_checks import needs_network
from titanflow.planning.plan import make_plan

pytestmark = pytest.mark.slow

V1 = {
    "arc_challenge": 25,
    "hellaswag": 10,
    "truthfulqa_mc2": 0,
    "winogrande": 5,
    "gsm8k": 5,
}


@pytest.mark.parametrize("name", suites())
def test_each_is_known_to_the_installed_lm_eval_and_says_its_source(name: str) -> None:
    asked = asked_by({"tasks": [name]})

    assert not asked.problems
    assert all(task.config["num_fewshot"] is not None and needs_network(task) for task in asked.single)
    assert "https://" in (FOLDER / (suites().file(name) or "")).read_text()


def test_the_leaderboards_shots() -> None:
    shots = {task.name: task.config["num_fewshot"] for task in asked_by({"tasks": ["suite/open-leaderboard"]}).single}

    assert {name: shots.pop(name) for name in V1} == V1
    assert len(shots) == 57
    assert all(name.startswith("mmlu_") and number == 5 for name, number in shots.items())


def test_lm_evals_own_groups_have_the_same_shots() -> None:
    asked = asked_by({"tasks": ["suite/open-leaderboard-2"]})
    library = {task.name: task.config for task in asked_by({"tasks": ["leaderboard"]}).single}

    assert {task.name for task in asked.single} == set(library)
    assert all(task.config["num_fewshot"] == (library[task.name].get("num_fewshot") or 0) for task in asked.single)


def test_lm_eval_reads_a_suite_as_a_group() -> None:
    manager = TaskManager(include_path=str(FOLDER), include_defaults=False)

    assert sorted(manager.all_groups) == sorted(suites())


def test_config_shows_what_is_behind_a_name() -> None:
    settings = parse_settings(["evaluate.tasks=[suite/quick]"])

    values = resolved_values(load_experiment("stdlib", settings=settings))

    shown, origin = values["evaluate.tasks: suite/quick"]
    assert shown[0] == "lambada_openai, 0-shot"
    assert shown[-1] == "items from the Hub: 5 of 5 tasks"
    assert origin.endswith("quick.yaml")


def test_a_number_of_ones_own_is_refused() -> None:
    with pytest.raises(ConfigError, match="found 3, and suite/quick says how many examples"):
        make_plan("stdlib", overrides=["evaluate.tasks=[suite/quick]", "evaluate.num_fewshot=3"])


@pytest.mark.parametrize(("key", "value"), [("system_instruction", "Be brief."), ("gen_kwargs", "{temperature: 0.5}")])
def test_a_setting_for_all_tasks_that_makes_other_figures_is_said(key: str, value: str) -> None:
    settings = [f"evaluate.{key}={value}"]
    (warning,) = make_plan(
        "stdlib", overrides=["evaluate.tasks=[suite/quick]", "evaluate.chat=false", *settings]
    ).config.warnings

    assert warning == f"evaluate.{key} goes to suite/quick, too: the published figures were made without it"
    assert not make_plan("stdlib", overrides=settings).config.warnings


def test_a_suite_that_is_misspelt() -> None:
    with pytest.raises(ConfigError, match="did you mean suite/open-leaderboard"):
        make_plan("stdlib", overrides=["evaluate.tasks=[suite/open-leaderbord]"])
