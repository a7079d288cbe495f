import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from finished_run import FinishedRun

from titanflow.common.errors import ConfigError
from titanflow.config.keys.after_training import Publish
from titanflow.evals.task_yaml import Function, read_yaml
from titanflow.publish.bundle import from_export, is_published
from titanflow.publish.card.card import model_card
from titanflow.publish.card.score_commands import drawn_tasks, score_commands
from titanflow.publish.lineage import EvaluatedStage, read_evaluated, read_lineage
from titanflow.publish.publish import publish
from titanflow.publish.task_files import scored_numbers, suite_files, task_files
from titanflow.runs.contract import PreparedData, StageRun
from titanflow.runs.scores.contamination import Contamination, TaskLeaks

OUTPUT = {"output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_choice": ["a", "b"], "doc_to_target": 0}


def task(name: str, files: Any, **more: Any) -> str:
    kwargs = {"dataset_path": "json", "dataset_kwargs": {"data_files": files}, "test_split": "test"}
    return yaml.safe_dump({"task": name, **kwargs, **OUTPUT, "metadata": {"version": 1}, **more})


def evaluate(finished: FinishedRun, files: dict[str, str], data: Path | None = None, **config: Any) -> EvaluatedStage:
    """The evaluation, after it left its ``run.yaml`` and the task files that it ran, as they were rendered."""
    folder = finished.root / "evaluate"
    names = [name for text in files.values() for name in re.findall(r"^task: (.*)$", text, re.MULTILINE)]
    run = {"stage": "evaluate", "experiment": "stdlib", "run": "run-7", "folder": folder}
    StageRun(**run, config={"tasks": names, **config}, data=PreparedData(train=data)).write()
    for name, text in files.items():
        (folder / "tasks" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tasks" / name).write_text(text)
    return read_evaluated(folder, "sft", finished.export, "")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Prepared items in a folder whose name is a pattern for `datasets`."""
    folder = tmp_path / "data [1]"
    folder.mkdir()
    for name in ("kind.jsonl", "other.jsonl", "dataset.json"):
        (folder / name).write_text(json.dumps({"q": name}) + "\n")
    return folder


def test_the_files_of_a_task_are_told_from_the_published_folder(finished: FinishedRun, data: Path) -> None:
    files = {"test": f"{str(data).replace('[', '[[]')}/kind.jsonl"}
    evaluation = evaluate(finished, {"kind.yaml": task("kind", files)}, data)
    found = task_files(evaluation)
    assert found.keys() == {"evals/tasks/kind.yaml", "evals/items/kind.jsonl"}
    written = found["evals/tasks/kind.yaml"].source
    assert isinstance(written, bytes)
    assert yaml.safe_load(written)["dataset_kwargs"] == {"data_files": {"test": "evals/items/kind.jsonl"}}
    assert found["evals/items/kind.jsonl"].source == data / "kind.jsonl"


def test_items_by_their_own_path_each_folder_under_a_number(finished: FinishedRun, tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place / "deep").mkdir(parents=True)
        for name in ("one.jsonl", "two.jsonl"):
            (tmp_path / place / "deep" / name).write_text(place)
    files = {"test": [f"{tmp_path}/a/**/*.jsonl", f"{tmp_path}/b/deep/one.jsonl"], "train": "https://a.example/b.jsonl"}
    found = task_files(evaluate(finished, {"t.yaml": task("t", files)}))
    written = found.pop("evals/tasks/t.yaml").source
    assert isinstance(written, bytes)
    told = yaml.safe_load(written)["dataset_kwargs"]["data_files"]
    assert told == {"test": ["evals/items/1/**/*.jsonl", "evals/items/2/one.jsonl"], "train": files["train"]}
    assert found.keys() == {
        "evals/items/1/deep/one.jsonl",
        "evals/items/1/deep/two.jsonl",
        "evals/items/2/one.jsonl",
    }


def test_a_function_brings_the_python_files_and_stays_one(finished: FinishedRun, data: Path) -> None:
    text = task("t", {"test": f"{str(data).replace('[', '[[]')}/kind.jsonl"})
    tasks = {"own/t.yaml": text.replace("'{{q}}'", "!function asked.question"), "own/asked.py": "question = str\n"}
    assert "!function" in tasks["own/t.yaml"]
    evaluation = evaluate(finished, tasks, data)
    found = task_files(evaluation)
    assert "evals/tasks/own/asked.py" in found
    copy = finished.root / "copy.yaml"
    written = found["evals/tasks/own/t.yaml"].source
    assert isinstance(written, bytes)
    copy.write_bytes(written)
    assert read_yaml(copy)["doc_to_text"] == Function("asked.question")


def test_without_functions_no_python_is_published(finished: FinishedRun, data: Path) -> None:
    text = task("t", {"test": f"{str(data).replace('[', '[[]')}/kind.jsonl"})
    evaluation = evaluate(finished, {"t.yaml": text, "private.py": "1"}, data)
    assert not [name for name in task_files(evaluation) if name.endswith(".py")]


def test_a_name_that_no_bundle_takes(finished: FinishedRun, data: Path) -> None:
    (data / ".hidden.jsonl").write_text("{}")
    evaluation = evaluate(finished, {"t.yaml": task("t", f"{str(data).replace('[', '[[]')}/.hidden.jsonl")}, data)
    with pytest.raises(ConfigError, match=r"evals/items/.hidden.jsonl: no name for a published file"):
        task_files(evaluation)


def test_the_folder_holds_them_and_false_keeps_them(finished: FinishedRun, data: Path) -> None:
    finished.evaluate(scores={"base": {}, "sft": {"kind": {"acc": 0.5}}})
    evaluate(finished, {"kind.yaml": task("kind", f"{str(data).replace('[', '[[]')}/kind.jsonl")}, data)
    model = Path(publish(finished.to_publish()).location)
    assert (model / "evals" / "items" / "kind.jsonl").is_file()
    card = (model / "README.md").read_text()
    assert "  --tasks kind \\\n  --include_path evals/tasks" in card
    assert str(data) not in card
    publish(finished.to_publish(own_tasks=False))
    assert not (model / "evals").exists()
    card = " ".join((model / "README.md").read_text().split())
    assert "lm_eval" not in card.split("## Results")[1].split("## Training")[0]
    assert "own tasks aren't published, so their scores can't be computed again from here" in card


def test_a_token_in_a_task_is_refused(finished: FinishedRun, data: Path) -> None:
    text = task("kind", f"{str(data).replace('[', '[[]')}/kind.jsonl", description="hf_averysecrettoken")
    evaluate(finished, {"kind.yaml": text}, data)
    with pytest.raises(ConfigError, match=re.escape("evals/tasks/kind.yaml: would publish a token")):
        publish(finished.to_publish())
    assert not (finished.root / "publish" / "model").exists()


def commands(finished: FinishedRun, data: Path, **config: Any) -> list[str]:
    files = f"{str(data).replace('[', '[[]')}/kind.jsonl"
    tasks = {f"{name}.yaml": task(name, files, metadata={"chat": name == "talk"}) for name in ("plain", "talk")}
    evaluation = evaluate(finished, tasks, data, **config)
    return score_commands(evaluation, {**from_export(finished.export), **task_files(evaluation)})


def test_tasks_in_chat_and_others_have_a_command_each(finished: FinishedRun, data: Path) -> None:
    first, second = commands(finished, data)
    assert "--tasks plain" in first
    assert "--apply_chat_template" not in first
    assert "--tasks talk" in second
    assert "--apply_chat_template" in second
    (both,) = commands(finished, data, chat=True, fewshot_as_multiturn=False)
    assert "--tasks plain,talk" in both
    assert "--fewshot_as_multiturn false" in both
    (neither,) = commands(finished, data, chat=False)
    assert "--apply_chat_template" not in neither


def test_items_that_were_not_scored_are_left_out_again(finished: FinishedRun, data: Path) -> None:
    found = {"kind": TaskLeaks(items=5, leaked=[1, 3]), "plain": TaskLeaks(items=2)}
    assert scored_numbers(Contamination(tasks=found, looked_at=["chats"])) == scored_numbers(None) == {}
    dropped = Contamination(tasks=found, looked_at=["chats"], dropped=True)
    (written,) = (entry.source for entry in scored_numbers(dropped).values())
    assert isinstance(written, bytes)
    assert json.loads(written) == {"kind": [0, 2, 4]}
    evaluation = evaluate(finished, {"kind.yaml": task("kind", f"{str(data).replace('[', '[[]')}/kind.jsonl")}, data)
    files = {**from_export(finished.export), **task_files(evaluation), **scored_numbers(dropped)}
    (command,) = score_commands(evaluation, files)
    assert "--samples evals/scored.json" in command


def test_a_suite_s_own_file_is_published(finished: FinishedRun) -> None:
    evaluation = evaluate(finished, {}, tasks=["suite/quick"])
    files = suite_files(evaluation.asked)
    assert list(files) == ["evals/suites/quick.yaml"]
    assert all(map(is_published, files))
    (command,) = score_commands(evaluation, {**from_export(finished.export), **files})
    assert "--tasks suite/quick \\\n  --include_path evals \\" in command


def test_a_group_of_ones_own_over_the_library_s_tasks_goes_with_its_file(finished: FinishedRun) -> None:
    group = "group: mine\ntask: [{task: arc_easy, num_fewshot: 25}]\n"
    evaluation = evaluate(finished, {"mine.yaml": group}, tasks=["mine", "piqa"])
    exported = from_export(finished.export)
    assert "--tasks mine,piqa" in score_commands(evaluation, {**exported, **task_files(evaluation)})[0]
    (command,) = score_commands(evaluation, exported)
    assert "--tasks piqa" in command


@pytest.mark.parametrize(
    ("own", "given", "is_drawn"),
    [
        ({"do_sample": False}, {}, False),
        ({"do_sample": True}, {}, True),
        ({"temperature": 0.7}, {}, True),
        ({}, {"temperature": 0.7}, True),
        ({"temperature": 0.7}, {"do_sample": False}, False),
    ],
)
def test_answers_that_are_drawn_are_said_to_be(
    finished: FinishedRun, data: Path, own: dict[str, Any], given: dict[str, Any], is_drawn: bool
) -> None:
    written = {"output_type": "generate_until", "doc_to_choice": None, "generation_kwargs": own}
    files = {"kind.yaml": task("kind", f"{str(data).replace('[', '[[]')}/kind.jsonl", **written)}
    finished.evaluate(scores={"base": {}, "sft": {"kind": {"acc": 0.5}}})
    evaluation = evaluate(finished, files, data, gen_kwargs=given)
    assert drawn_tasks(evaluation) == (["kind"] if is_drawn else [])
    card = " ".join((Path(publish(finished.to_publish()).location) / "README.md").read_text().split())
    assert ("these commands give similar scores, not the same ones" in card) == is_drawn


@pytest.mark.parametrize(
    ("backend", "dtype", "installed", "says"),
    [
        ("hf", "float32", "lm-eval[hf]", ""),
        ("hf", "bfloat16", "lm-eval[hf]", "With bfloat16 a score's last digits depend on the device"),
        ("vllm", "float16", "lm-eval[vllm]", "With float16 and vLLM a score's last digits depend on the device"),
        ("native", "float32", "", ""),
    ],
)
def test_a_card_says_with_what_it_was_scored_and_what_is_inexact(
    finished: FinishedRun, data: Path, backend: str, dtype: str, installed: str, says: str
) -> None:
    files = {"kind.yaml": task("kind", f"{str(data).replace('[', '[[]')}/kind.jsonl")}
    finished.evaluate(scores={"base": {}, "sft": {"kind": {"acc": 0.5}}}, backend=backend)
    bundle = task_files(evaluate(finished, files, data, backend=backend, dtype=dtype, seed=7))
    lineage = read_lineage(finished.to_publish(), "sft")
    card = " ".join(model_card(lineage, Publish(), {**from_export(finished.export), **bundle}).decode().split())
    assert f'`pip install "{installed}"`' in card if installed else "lm_eval run" not in card
    assert says in card if says else "last digits" not in card
    assert (f"--model vllm --model_args pretrained=.,dtype={dtype},seed=7" in card) == (backend == "vllm")


def test_what_changes_a_score_is_in_the_command(finished: FinishedRun, data: Path) -> None:
    settings = {"num_fewshot": 3, "seed": 7, "batch_size": "auto", "dtype": "bfloat16"}
    command, _ = commands(finished, data, **settings, gen_kwargs={"do_sample": True, "stop": ["a b", ","]})
    for part in ("--num_fewshot 3", "--seed 7", "--batch_size auto", "dtype=bfloat16", "do_sample=True"):
        assert part in command
    assert """'stop=['"'"'a b'"'"', '"'"','"'"']'""" in command


def test_an_instruction_is_one_word_whatever_stands_in_it(finished: FinishedRun, data: Path) -> None:
    """One that began with a dash was taken for an option."""
    instruction = '-be "nice" to $HOME\n```\nand `ls`'
    command, _ = commands(finished, data, system_instruction=instruction)
    assert f"--system_instruction={instruction}" in shlex.split(command.replace("\\\n", ""))


def test_a_tokenizer_that_begins_a_text_is_told_what_the_stage_did(finished: FinishedRun, data: Path) -> None:
    assert "prefix_token_id" not in commands(finished, data)[0]
    config = {"bos_token": {"content": "<s>"}, "eos_token": "</s>"}
    (finished.export / "tokenizer_config.json").write_text(json.dumps(config))
    vocabulary = {"model": {"type": "WordLevel", "vocab": {"<s>": 0, "</s>": 5}, "unk_token": "<s>"}}
    (finished.export / "tokenizer.json").write_text(json.dumps({"version": "1.0", **vocabulary}))
    assert "add_bos_token=False,prefix_token_id=5" in commands(finished, data)[0]
    assert "prefix_token_id" not in commands(finished, data, models={"mine": "folder"})[0]
    # One that puts the end of text behind each text, and has no beginning.
    around = {"type": "TemplateProcessing", "pair": [], "single": [{"Sequence": {"id": "A", "type_id": 0}}]}
    around["single"].append({"SpecialToken": {"id": "</s>", "type_id": 0}})
    around["special_tokens"] = {"</s>": {"id": "</s>", "ids": [5], "tokens": ["</s>"]}}
    (finished.export / "tokenizer.json").write_text(
        json.dumps({"version": "1.0", **vocabulary, "post_processor": around})
    )
    (finished.export / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    assert "add_bos_token=False,prefix_token_id=5" in commands(finished, data)[0]
