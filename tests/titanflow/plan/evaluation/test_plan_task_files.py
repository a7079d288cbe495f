"""The task files of one's own: which folder is taken, and that nothing private is published with them, nor of data."""

from pathlib import Path

import pytest
from tiny_experiment import write_tiny_experiment
from tiny_plans import edit, refusal, state

from titanflow.plan.plan import make_plan
from titanflow.plan.stage_plan import Plan


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_tiny_experiment(tmp_path)


def warnings(plan: Plan) -> list[str]:
    return [line for line in plan.config.warnings if "include_path" in line]


def test_of_two_folders_of_a_name_the_tree_s_is_taken_and_the_plan_says_so(
    configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    (here / "evals").mkdir(parents=True)
    monkeypatch.chdir(here)
    setting = f"evaluate.include_path={configs / 'evals'}"
    assert not [
        line for line in make_plan("tiny", configs, overrides=[setting]).config.warnings if "include_path" in line
    ]

    plan = make_plan("tiny", configs, overrides=["evaluate.include_path=evals"])

    (run,) = (stage.run for stage in plan.stages if stage.stage == "evaluate")
    assert run.config["include_path"] == str(configs / "evals")
    (line,) = warnings(plan)
    assert line.startswith(f"evaluate.include_path: takes {configs / 'evals'}, not evals")
    (here / "mine").mkdir()
    (here / "mine" / "own.yaml").write_text((configs / "evals" / "tiny_colour.yaml").read_text())
    assert state(make_plan("tiny", configs, overrides=["evaluate.include_path=mine"])) == "RUN"


def test_a_secret_in_a_task_s_file_is_refused_where_the_file_is_published(
    configs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The items lie below it: their paths are told anew.
    monkeypatch.setenv("HOME", str(configs.parent))
    assert state(make_plan("tiny", configs)) == "RUN"
    edit(configs / "evals" / "tiny_colour.yaml", "metadata:", f"description: of {configs.parent}/notes\nmetadata:")

    message = refusal(configs)

    assert "tiny_colour.yaml: would publish the path of your home folder" in message
    assert "publish.own_tasks: false" in message
    assert state(make_plan("tiny", configs, overrides=["publish.own_tasks=false"])) == "RUN"


def test_a_secret_beside_a_task_s_functions_is_refused(configs: Path) -> None:
    edit(configs / "evals" / "tiny_colour.yaml", 'doc_to_text: "{{question}}"', "doc_to_text: !function asking.asked")
    (configs / "evals" / "asking.py").write_text("def asked(doc):\n    return 'hf_abcdefghijklmnopqrstuvwxyz'\n")
    message = refusal(configs)
    assert "asking.py: would publish a token" in message
    assert "hf_abc" not in message


@pytest.mark.parametrize(
    ("key", "setting"),
    [
        ("sft.data.name", "sft.data.name=hf_abcdefghijklmnopqrstuvwxyz"),
        ("pretrain.validation_data.name", f"pretrain.validation_data.name={Path.home()}/texts"),
    ],
)
def test_a_secret_in_the_name_of_training_data_is_refused(configs: Path, key: str, setting: str) -> None:
    message = refusal(configs, setting)
    assert f"{key}: the card would publish" in message
    assert "expected: another name" in message
