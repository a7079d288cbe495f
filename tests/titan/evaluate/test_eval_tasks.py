import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from tiny_evals import GROUPS, MODULES, TASKS, write_evals

from titan.evaluate.tasks import keep_templates, load_task, render_tasks, task_manager, wants_chat
from titanflow.common.errors import ConfigError
from titanflow.evals.asked_tasks import AskedTasks, asked_by

ALL = (*TASKS, *GROUPS)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_evals(tmp_path_factory.mktemp("evals"))


def asked_of(folder: Path, *names: str) -> AskedTasks:
    return asked_by({"tasks": names or ALL, "include_path": folder})


def manager_of(folder: Path, *names: str) -> Any:
    return task_manager(asked_of(folder, *names), folder)


@pytest.fixture(scope="module")
def rendered(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_tasks(asked_of(data / "tasks"), data, tmp_path_factory.mktemp("rendered") / "tasks")


def test_the_data_folder_is_filled_in_and_the_rest_stays(rendered: Path, data: Path) -> None:
    config = yaml.safe_load((rendered / "tiny_kind.yaml").read_text())

    assert config["dataset_kwargs"]["data_files"]["test"] == f"{data}/kind.jsonl"
    assert "${data}" in (data / "tasks" / "tiny_kind.yaml").read_text(), "the user's file is untouched"


def test_items_in_a_folder_whose_name_is_a_pattern_are_the_folders_own(data: Path, tmp_path: Path) -> None:
    odd = shutil.copytree(data, tmp_path / "w [1]*")
    (tmp_path / "w 1").mkdir()
    rendered = render_tasks(asked_of(odd / "tasks"), odd, tmp_path / "rendered")

    files = yaml.safe_load((rendered / "tiny_kind.yaml").read_text())["dataset_kwargs"]["data_files"]
    loaded = datasets.load_dataset("json", data_files=files, split="test", cache_dir=str(tmp_path / "cache"))

    assert len(loaded) == len((data / "kind.jsonl").read_text().splitlines())


def test_what_was_rendered_before_is_gone(data: Path, tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "older.yaml").touch()

    assert not (render_tasks(asked_of(data / "tasks"), data, tmp_path / "tasks") / "older.yaml").exists()


def test_only_what_is_asked_for_is_rendered(data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(data / "tasks", tmp_path / "mine")
    (folder / "broken.yaml").write_text("task: broken\nmetric_list: [\n")
    (folder / "base").mkdir()
    (folder / "base" / "_template").write_text('dataset_path: json\ndataset_kwargs: {data_files: "${data}/x"}\n')
    (folder / "mine.yaml").write_text("include: base/_template\ntask: mine\ntest_split: test\n")
    (folder / "scores.py").write_text("def acc(): ...\n")

    rendered = render_tasks(asked_of(folder, "mine", "tiny_group"), data, tmp_path / "out")

    files = {path.relative_to(rendered).as_posix() for path in rendered.rglob("*") if path.is_file()}
    assert files == {
        "mine.yaml",
        "base/_template",
        "scores.py",
        "tiny_group.yaml",
        "tiny_kind.yaml",
        "tiny_module.yaml",
    }
    assert str(data) in (rendered / "base" / "_template").read_text(), "a base without an ending is filled in, too"


def test_a_task_that_wants_data_is_refused_without(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no evaluation data was prepared"):
        render_tasks(asked_of(data / "tasks"), None, tmp_path / "tasks")


def test_the_library_is_not_indexed_for_local_tasks(rendered: Path) -> None:
    manager = manager_of(rendered, "tiny_kind", "tiny_bytes")

    assert set(manager.all_tasks) == {"tiny_bytes", "tiny_kind", "tiny_module", "tiny_group", "tiny_mixed"}


def test_of_the_library_only_the_folders_of_the_asked_for_tasks_are_indexed(tmp_path: Path) -> None:
    (tmp_path / "both.yaml").write_text("group: both\ntask: [arc_easy, copa]\n")
    manager = manager_of(tmp_path, "both")

    assert {"both", "arc_easy", "arc_challenge", "ai2_arc", "copa"} <= set(manager.all_tasks)
    assert len(manager.all_tasks) < 100
    assert {manager.task_index[name].kind.name for name in ("arc_easy", "copa")} == {"TASK"}


@pytest.mark.parametrize(
    ("task", "asked", "shots"),
    [("tiny_bytes", None, 0), ("tiny_bytes", 3, 0), ("tiny_module", None, 2), ("tiny_kind", 3, 0)],
)
def test_the_number_of_examples_is_the_tasks_unless_asked_otherwise(
    rendered: Path, task: str, asked: int | None, shots: int
) -> None:
    loaded = load_task(manager_of(rendered, task), task, asked, seed=1)

    assert loaded["tasks"][task].get_config("num_fewshot") == shots


@pytest.mark.parametrize("split", ["test", "validation"])
def test_no_prompt_holds_its_own_question(data: Path, tmp_path: Path, split: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    config = yaml.safe_load((data / "tasks" / "tiny_module.yaml").read_text())
    del config["fewshot_split"], config["num_fewshot"], config["test_split"]
    config["dataset_kwargs"]["data_files"] = {split: f"{data}/module.jsonl"}
    (folder / "tiny_module.yaml").write_text(yaml.safe_dump({**config, f"{split}_split": split}))

    asked = asked_of(folder, "tiny_module")
    rendered = render_tasks(asked, data, tmp_path / "out", num_fewshot=4)
    loaded = load_task(task_manager(asked, rendered), "tiny_module", 4, seed=1)["tasks"]["tiny_module"]
    loaded.build_all_requests(limit=None, rank=0, world_size=1)

    prompts = [instance.arguments[0] for instance in loaded.instances]
    assert len(prompts) == len(MODULES)
    for prompt, (question, _) in zip(prompts, MODULES, strict=True):
        assert prompt.count("Which module") == 5
        assert prompt.count(question) == 1


@pytest.mark.parametrize(("number", "refused"), [(len(MODULES) - 1, False), (len(MODULES), True)])
def test_more_examples_than_there_are_beside_the_asked_item_are_refused(
    rendered: Path, number: int, refused: bool
) -> None:
    manager = manager_of(rendered, "tiny_module")
    if not refused:
        load_task(manager, "tiny_module", number, seed=1)["tasks"]["tiny_module"].build_all_requests(rank=0)
        return
    with pytest.raises(ConfigError, match="num_fewshot: tiny_module has 8 examples in 'test' beside the asked item"):
        load_task(manager, "tiny_module", number, seed=1)


def test_of_equal_items_none_is_an_example_of_another(data: Path, tmp_path: Path) -> None:
    lines = (data / "module.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "equal.jsonl").write_text("".join([*lines[:3], *lines[:1] * 4]))
    text = (data / "tasks" / "tiny_module.yaml").read_text().replace("${data}/module.jsonl", f"{tmp_path}/equal.jsonl")
    (tmp_path / "tiny_module.yaml").write_text(text)
    manager = task_manager(asked_of(tmp_path, "tiny_module"), tmp_path)
    load_task(manager, "tiny_module", 2, seed=1)["tasks"]["tiny_module"].build_all_requests(rank=0)
    with pytest.raises(ConfigError, match="tiny_module has 2 examples in 'test' beside the asked item"):
        load_task(manager, "tiny_module", 3, seed=1)


@pytest.mark.parametrize(
    "examples",
    [
        {"fewshot_config": {"samples": [{"question": MODULES[2][0], "answer": MODULES[2][1]}]}},
        {"fewshot_split": "dev", "dataset_kwargs": {"data_files": {"test": "module.jsonl", "dev": "dev.jsonl"}}},
    ],
)
def test_an_item_that_is_an_example_is_refused_but_for_the_library_s_tasks(
    data: Path, tmp_path: Path, examples: dict[str, Any]
) -> None:
    (data / "dev.jsonl").write_text((data / "module.jsonl").read_text().splitlines(keepends=True)[2])
    folder = tmp_path / "mine"
    folder.mkdir()
    config = yaml.safe_load((data / "tasks" / "tiny_module.yaml").read_text())
    del config["fewshot_split"], config["num_fewshot"]
    config |= examples
    named = {split: f"{data}/{Path(file).name}" for split, file in config["dataset_kwargs"]["data_files"].items()}
    config["dataset_kwargs"]["data_files"] = named
    (folder / "tiny_module.yaml").write_text(yaml.safe_dump(config))
    manager = task_manager(asked_of(folder, "tiny_module"), folder)
    with pytest.raises(ConfigError, match="1 of 9 items of tiny_module are among its examples, with their answers"):
        load_task(manager, "tiny_module", 1, seed=1, own=["tiny_module"])
    assert load_task(manager, "tiny_module", 1, seed=1)
    assert load_task(manager, "tiny_module", 0, seed=1, own=["tiny_module"])


@pytest.mark.parametrize(
    ("name", "setting", "chat"),
    [
        ("tiny_bytes", "auto", False),
        ("tiny_kind", "auto", True),
        ("tiny_group", "auto", True),
        ("tiny_bytes", True, True),
        ("tiny_kind", False, False),
        ("tiny_mixed", False, False),
        ("tiny_bytes", ["tiny_bytes"], True),
        ("tiny_kind", ["tiny_bytes"], False),
        ("tiny_group", ["tiny_group"], True),
        ("tiny_group", ["tiny_kind", "tiny_module"], True),
    ],
)
def test_the_chat_template_is_the_tasks_wish_or_the_settings(
    rendered: Path, name: str, setting: bool | str | list[str], chat: bool
) -> None:
    assert wants_chat(load_task(manager_of(rendered, name), name, None, seed=1), name, setting) is chat


def test_a_group_that_mixes_both_is_refused(rendered: Path) -> None:
    loaded = load_task(manager_of(rendered, "tiny_mixed"), "tiny_mixed", None, seed=1)

    with pytest.raises(ConfigError, match="mixes tasks with and without the chat template"):
        wants_chat(loaded, "tiny_mixed", "auto")


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
