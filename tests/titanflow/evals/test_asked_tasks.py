"""The tasks behind each name, and what is said of a name that nothing answers to."""

from pathlib import Path
from typing import Any

import pytest
from small_library import Write, forget

from titanflow.evals import library
from titanflow.evals.asked_tasks import AskedTasks, asked_by, known_metrics
from titanflow.evals.task_checks import needs_network

FILES = {
    "kind.yaml": "task: kind\ndataset_path: json\nmetric_list: [{metric: acc}, {metric: acc_norm}]\ntag: mine\n",
    "hard.yaml": "include: base/_template\ntask: hard\ntag: mine\n",
    "base/_template": "dataset_path: json\nmetric_list:\n  - metric: !function scores.mine\n",
    "both.yaml": "group: both\ntask: [kind, hard]\naggregate_metric_list: {metric: acc}\n",
}


def ask(folder: Path | None, *names: str) -> AskedTasks:
    config = {"tasks": list(names), "include_path": folder}
    return asked_by(config, origins={"tasks": "exp.yaml:7"})


def tasks(asked: AskedTasks) -> dict[str, list[str]]:
    assert not asked.problems, asked.problems
    return {name: [task.name for task in found] for name, found in asked.tasks.items()}


def says(asked: AskedTasks) -> str:
    return "\n".join(map(str, asked.problems))


def test_names_of_tasks_groups_and_tags_of_both_places(installed: Path, mine: Write) -> None:
    folder = mine(FILES)
    assert tasks(ask(folder, "kind")) == {"kind": ["kind"]}
    assert tasks(ask(folder, "both", "quizzes")) == {"both": ["kind", "hard"], "quizzes": ["quiz_easy", "quiz_hard"]}
    assert tasks(ask(folder, "mine")) == {"mine": ["hard", "kind"]}
    assert tasks(ask(None, "all_quizzes")) == {"all_quizzes": ["quiz_easy", "quiz_hard", "sums"]}


def test_the_files_that_they_need(installed: Path, mine: Write) -> None:
    folder = mine({**FILES, "broken.yaml": "task: broken\nmetric_list: ["})
    asked = ask(folder, "hard", "sums")
    assert [path.relative_to(folder).as_posix() for path in asked.files] == ["hard.yaml", "base/_template"]
    assert [path.name for path in asked.library_files] == ["sums.yaml"]
    assert not asked.problems


def test_ones_own_task_goes_before_the_librarys(installed: Path, mine: Write) -> None:
    folder = mine({"sums.yaml": "task: sums\ndataset_path: json\n"})
    (task,) = ask(folder, "sums").single
    assert not task.of_library
    (own,) = (one for one in ask(folder, "all_quizzes").single if one.name == "sums")
    assert (own.of_library, own.config["num_fewshot"]) == (False, 2)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ("[kind, {task: hard, num_fewshot: 3}]", ["kind", "hard"]),
        ("[{task: new, dataset_path: json}, kind]", ["g::new", "kind"]),
        ("[{group: inner, task: [kind, sums]}]", ["kind", "sums"]),
        ("[{group: both, num_fewshot: 1}]", ["kind", "hard"]),
        ("kind", ["kind"]),
    ],
)
def test_members_of_a_group(installed: Path, mine: Write, members: str, expected: list[str]) -> None:
    assert tasks(ask(mine({**FILES, "g.yaml": f"group: g\ntask: {members}\n"}), "g")) == {"g": expected}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["knid"], ["exp.yaml:7: evaluate.tasks: no task or group 'knid'", "did you mean kind"]),
        (["sumz"], ["no task or group 'sumz'", "did you mean sums?"]),
        (["quiz_*"], ["found the pattern 'quiz_*'", "it matches quiz_easy, quiz_hard"]),
        (["x*"], ["nothing matches it"]),
        (["evals/kind.yaml"], ["found the file 'evals/kind.yaml'", "the name that stands in it"]),
        (["kind", "kind"], ["found kind twice"]),
        (["both", "kind"], ["kind and both both hold kind", "leave out kind or both"]),
        (["sums", "all_quizzes"], ["all_quizzes and sums both hold sums"]),
        ([], ["no task to evaluate"]),
    ],
)
def test_names_that_nothing_answers_to(installed: Path, mine: Write, names: list[str], expected: list[str]) -> None:
    message = says(ask(mine(FILES), *names))
    for part in expected:
        assert part in message


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a.yaml": "task: a\nmetric_list: [\n"}, ["a.yaml:3: not YAML"]),
        ({"a.yaml": "task: a\ndoc_to_text: !code x\n"}, ["a.yaml:2: not YAML", "!code"]),
        ({"a.yaml": "include: gone\ntask: a\n"}, ["a.yaml:1: include: no such file: gone"]),
        ({"a.yaml": "task: a\ninclude: b\n", "b": "x: [\n"}, ["b:2: not YAML"]),
        ({"a.yaml": "task: a\ninclude: [b, c]\n", "b": "x: 1\n", "c": "include: b\n"}, ["c:1: include: b is included"]),
        ({"a.yaml": "task: a\ninclude: a.yaml\n"}, ["a.yaml:2: include: a.yaml is included twice"]),
        ({"a.yaml": "task: a\ninclude: ../outside\n", "../outside": "x: 1\n"}, ["a.yaml:2", "leads out of the tasks'"]),
        ({"a.yaml": "task: a\n", "b/a.yaml": "task: a\n"}, ["a stands in", "rename one of them"]),
        ({"a.yaml": "group: a\ntask: [b]\n", "b.yaml": "group: b\ntask: [a]\n"}, ["the group a holds itself"]),
        ({"a.yaml": "group: a\ntask:\n- sumz\n"}, ["a.yaml:2: task: no task or group 'sumz'", "did you mean sums?"]),
    ],
)
def test_files_that_lm_eval_would_pass_over(
    installed: Path, mine: Write, files: dict[str, str], expected: list[str]
) -> None:
    message = says(ask(mine(files), "a"))
    for part in expected:
        assert part in message


def test_a_task_that_the_cache_lacks_is_looked_for_again(installed: Path) -> None:
    library.installed_library()
    forget()
    (installed / "tasks" / "new.yaml").write_text("task: new\n")
    assert tasks(ask(None, "new")) == {"new": ["new"]}


def test_without_lm_eval_no_name_is_refused(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "package_folder", lambda: None)
    assert not ask(None, "hellaswag").problems


def test_metrics_by_task_and_group(installed: Path, mine: Write) -> None:
    known = known_metrics(ask(mine(FILES), "both", "sums", "quiz_hard"))
    assert known == {"kind": ["acc", "acc_norm"], "hard": [], "sums": [], "quiz_hard": ["acc"], "both": ["acc"]}
    assert known_metrics(ask(mine(FILES), "both", "sumz")) == {}


@pytest.mark.parametrize(
    ("config", "needed"),
    [
        ({"dataset_path": "json"}, False),
        ({"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": ["https://example.com/x.json"]}}}, True),
        ({"dataset_path": "."}, False),
        ({"dataset_path": "somebody/a-dataset"}, True),
        ({}, True),
    ],
)
def test_the_hub_is_needed_unless_a_task_reads_local_files(
    installed: Path, mine: Write, config: dict[str, Any], needed: bool
) -> None:
    (task,) = ask(mine({"a.yaml": "task: a\n"}), "a").single
    task.config |= config
    assert needs_network(task) is needed
    assert needs_network(ask(None, "sums").single[0])
