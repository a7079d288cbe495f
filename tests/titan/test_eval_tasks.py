import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from tiny_evals import write_evals

from titan.eval_tasks import (
    keep_templates,
    load_task,
    local_tasks,
    needs_network,
    render_tasks,
    task_manager,
    wants_chat,
)
from titanflow.errors import ConfigError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_evals(tmp_path_factory.mktemp("evals"))


@pytest.fixture(scope="module")
def rendered(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_tasks(data / "tasks", data, tmp_path_factory.mktemp("rendered") / "tasks")


def test_the_data_folder_is_filled_in_and_the_rest_stays(rendered: Path, data: Path) -> None:
    config = yaml.safe_load((rendered / "tiny_kind.yaml").read_text())

    assert config["dataset_kwargs"]["data_files"]["test"] == f"{data}/kind.jsonl"
    assert "${data}" in (data / "tasks" / "tiny_kind.yaml").read_text(), "the user's file is untouched"


def test_items_in_a_folder_whose_name_is_a_pattern_are_the_folders_own(data: Path, tmp_path: Path) -> None:
    odd = shutil.copytree(data, tmp_path / "w [1]*")
    (tmp_path / "w 1").mkdir()
    rendered = render_tasks(odd / "tasks", odd, tmp_path / "rendered")

    files = yaml.safe_load((rendered / "tiny_kind.yaml").read_text())["dataset_kwargs"]["data_files"]
    loaded = datasets.load_dataset("json", data_files=files, split="test", cache_dir=str(tmp_path / "cache"))

    assert len(loaded) == len((data / "kind.jsonl").read_text().splitlines())


def test_what_was_rendered_before_is_gone(data: Path, tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "older.yaml").touch()

    assert not (render_tasks(data / "tasks", data, tmp_path / "tasks") / "older.yaml").exists()


def test_a_task_that_wants_data_is_refused_without(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no evaluation data was prepared"):
        render_tasks(data / "tasks", None, tmp_path / "tasks")


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        render_tasks(tmp_path / "nowhere", None, tmp_path / "tasks")


def test_local_tasks_are_read_although_they_name_functions(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("task: a\ndataset_path: json\nprocess_results: !function mine.score\n")
    (tmp_path / "g.yaml").write_text("group: g\ntask: [a, b]\n")
    (tmp_path / "base.yaml").write_text("dataset_path: json\n")

    assert set(local_tasks(tmp_path)) == {"a", "g"}


@pytest.mark.parametrize(
    ("names", "needed"),
    [
        (["files"], False),
        (["files", "folder"], False),
        (["group_of_files"], False),
        (["hub"], True),
        (["library"], True),
        (["inherits"], True),
        (["group_with_hub"], True),
        (["group_with_overrides"], True),
    ],
)
def test_the_hub_is_needed_unless_every_task_reads_local_files(names: list[str], needed: bool, tmp_path: Path) -> None:
    local: dict[str, dict[str, Any]] = {
        "files": {"task": "files", "dataset_path": "json"},
        "folder": {"task": "folder", "dataset_path": str(tmp_path)},
        "hub": {"task": "hub", "dataset_path": "somebody/a-dataset"},
        "inherits": {"task": "inherits", "include": "base.yaml"},
        "group_of_files": {"group": "group_of_files", "task": ["files", "folder"]},
        "group_with_hub": {"group": "group_with_hub", "task": ["files", "hub"]},
        "group_with_overrides": {"group": "group_with_overrides", "task": [{"task": "files"}]},
    }

    assert needs_network(names, local) is needed


def test_the_library_is_not_indexed_for_local_tasks(rendered: Path) -> None:
    manager = task_manager(["tiny_kind", "tiny_bytes"], rendered)

    assert set(manager.all_tasks) == {"tiny_bytes", "tiny_kind", "tiny_module", "tiny_group", "tiny_mixed"}


def test_unknown_tasks_are_all_named_with_close_ones(rendered: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        task_manager(["tiny_kidn", "hellaswga", "tiny_kind"], rendered, origin="evaluate.yaml:3")

    message = str(caught.value)
    assert "2 problems" in message
    assert "evaluate.yaml:3: tasks: no task or group 'tiny_kidn'" in message
    assert "did you mean tiny_kind" in message
    assert "hellaswag" in message


@pytest.mark.parametrize(
    ("task", "asked", "shots"),
    [("tiny_bytes", None, 0), ("tiny_bytes", 3, 3), ("tiny_module", None, 2), ("tiny_kind", 3, 0)],
)
def test_the_number_of_examples_is_the_tasks_unless_asked_otherwise(
    rendered: Path, task: str, asked: int | None, shots: int
) -> None:
    loaded = load_task(task_manager([task], rendered), task, asked, seed=1)

    assert loaded["tasks"][task].get_config("num_fewshot") == shots


@pytest.mark.parametrize(
    ("name", "setting", "chat"),
    [
        ("tiny_bytes", "auto", False),
        ("tiny_kind", "auto", True),
        ("tiny_group", "auto", True),
        ("tiny_bytes", True, True),
        ("tiny_kind", False, False),
        ("tiny_mixed", False, False),
    ],
)
def test_the_chat_template_is_the_tasks_wish_or_the_settings(
    rendered: Path, name: str, setting: bool | str, chat: bool
) -> None:
    assert wants_chat(load_task(task_manager([name], rendered), name, None, seed=1), setting) is chat


def test_a_group_that_mixes_both_is_refused(rendered: Path) -> None:
    loaded = load_task(task_manager(["tiny_mixed"], rendered), "tiny_mixed", None, seed=1)

    with pytest.raises(ConfigError, match="mixes tasks with and without the chat template"):
        wants_chat(loaded, "auto")


def test_a_template_is_compiled_once_and_rendered_for_each_item() -> None:
    from lm_eval.utils import apply_template, env

    keep_templates()
    compile_template = env.from_string
    keep_templates()
    before = compile_template.cache_info().misses

    assert [apply_template("{{ a }} of this test", {"a": value}) for value in (1, 2)] == [
        "1 of this test",
        "2 of this test",
    ]
    assert env.from_string is compile_template
    assert compile_template.cache_info().misses == before + 1
