"""Values of an evaluate module that would end it once everything is trained."""

from pathlib import Path

import pytest

from titanflow.config.files import tree

MODULES = {"modules__evaluate": "models: [pretrain]\ninclude_path: null\n"}
EXPERIMENT = """
    exp_name: evaluated
    modules:
      pretrain: {config: pretrain.yaml, model: tiny.yaml}
      evaluate: {config: evaluate.yaml, overrides: {tasks: [some]}}
    """


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["batch_size=x"], "found 'x'"),
        (["batch_size=auto:0"], "found 'auto:0'"),
        (["batch_size=auto:many"], "auto, or auto:N, as auto:4"),
        (["batch_size='16'"], "take the quotes off: 16"),
        (["batch_size=0"], "found '0'"),
        (["batch_size=1.5"], "expected: a whole number above 0"),
        (["limit=2.5"], "so many items, as a whole number, or a share of them below 1"),
        (["limit=0"], "found 0"),
        (["num_fewshot=-1"], "found -1"),
        (["num_fewshot=two"], "found 'two'"),
        (["bootstrap_iters=1000000000"], "at most 1000000"),
        (["seed=-1"], "found -1"),
        (["seed=4294967296"], "found 4294967296"),
        (["device=gpu"], "expected: cpu, cuda, cuda:1, …"),
        (["device=cuda:1", "launcher.nproc_per_node=2"], "expected: cuda: each process takes its own"),
        (["launcher.nproc_per_node=2", "backend=vllm"], "vLLM starts its processes itself"),
        (["data={source: stdlib_evals, path: items}"], "two sources: source and path"),
        (["data={kind: chat, path: items}"], "data.held_out: evaluation items are rows that are held out"),
        (["data={source: stdlib_chats}"], "expected: path, or source: stdlib_evals"),
        (["data={source: stdlib_evals, part: train}"], "data.part: found train"),
        (["data={dataset: me/items}"], "data.dataset: found me/items"),
        (["data={path: items, split_part: heldout}"], "data.split_part: unknown key"),
        (["tasks=[3]"], "a list, each item text"),
    ],
)
def test_a_value_that_nothing_could_evaluate_with(write, mistakes, settings: list[str], says: str) -> None:
    message = mistakes(write(**MODULES, experiments__exp=EXPERIMENT), *(f"evaluate.{one}" for one in settings))
    assert says in message
    assert "--set evaluate." in message


def test_a_folder_of_tasks_that_holds_a_disk_is_refused(write, mistakes, tmp_path: Path, monkeypatch) -> None:
    for number in range(4):
        (tmp_path / "disk" / str(number)).mkdir(parents=True)
        (tmp_path / "disk" / str(number) / "file").touch()
    monkeypatch.setattr(tree, "MOST_FILES", 7)
    message = mistakes(write(**MODULES, experiments__exp=EXPERIMENT), f"evaluate.include_path={tmp_path / 'disk'}")
    assert f"evaluate.include_path: {tmp_path / 'disk'} holds more than 7 files" in message
    monkeypatch.setattr(tree, "MOST_FILES", 8)
    mistakes(write(**MODULES, experiments__exp=EXPERIMENT), "evaluate.tasks=[3]")


@pytest.mark.parametrize(
    "settings",
    [
        ["batch_size=4"],
        ["batch_size=auto"],
        ["batch_size=auto:4"],
        ["limit=10"],
        ["limit=0.5"],
        ["device=cuda:1"],
        ["device=cpu", "launcher.nproc_per_node=2"],
        ["data={path: [a.jsonl, b]}"],
    ],
)
def test_values_that_can_be_evaluated_with(write, load, settings: list[str]) -> None:
    load(write(**MODULES, experiments__exp=EXPERIMENT), *(f"evaluate.{one}" for one in settings))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (["kind=evals", "path=items.jsonl"], "a stage trains on text, conversations or pairs"),
        (["source=stdlib_chats"], "found 'stdlib_chats', which holds no text"),
        (["kind=chat", "source=stdlib"], "expected: stdlib_chats, with kind: chat"),
    ],
)
def test_a_training_reads_no_items(write, mistakes, data: list[str], says: str) -> None:
    assert says in mistakes(write(), *(f"pretrain.data.{setting}" for setting in data))
