"""The task files of one's own: which folder is taken, and that nothing private is published with them, nor of data."""

from pathlib import Path

import pytest
from tiny_experiment import write_tiny_experiment
from tiny_plans import edit, refusal, state

from titanflow.planning.plan import make_plan
from titanflow.runs.contract import StageRun


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_tiny_experiment(tmp_path)


def test_the_stage_gets_the_path_of_the_folder_that_was_found_and_the_path_changes_no_result(
    configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluation(*settings: str) -> StageRun:
        plan = make_plan("tiny", configs, overrides=settings)
        return next(stage.run for stage in plan.stages if stage.stage == "evaluate")

    here = tmp_path / "here"
    (here / "evals").mkdir(parents=True)
    monkeypatch.chdir(here)
    edit(configs / "experiments" / "tiny.yaml", str(configs / "evals"), "evals")
    found = evaluation()
    assert found.config["include_path"] == str(configs / "evals")
    own = (configs / "evals" / "tiny_colour.yaml").read_text()
    (here / "evals" / "tiny_colour.yaml").write_text(own)
    given = evaluation("evaluate.include_path=evals")
    assert given.config["include_path"] == str(here / "evals")
    assert given.fingerprint == found.fingerprint


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
