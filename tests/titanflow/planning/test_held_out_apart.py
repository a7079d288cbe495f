"""Sections of an experiment that read the same files mind each other, or the plan is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_experiment import write_tiny_experiment

from titanflow.common.errors import ConfigError
from titanflow.planning.plan import make_plan
from titanflow.planning.preparation import Preparation
from titanflow.runs.manifest import Manifest


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    return write_tiny_experiment(tmp_path)


def planned(configs: Path, *settings: str) -> Preparation:
    plan = make_plan("tiny", configs, None, settings)
    return Preparation.of(plan.config, plan.config.workspace.resolve(), Manifest.open(plan.folder))


def refused(configs: Path, *settings: str) -> str:
    with pytest.raises(ConfigError) as raised:
        make_plan("tiny", configs, None, settings)
    assert not (configs.parent / "runs").exists()
    return str(raised.value)


def data_file(configs: Path, name: str, text: str) -> None:
    (configs / "data" / name).write_text(text)


def test_files_that_nothing_else_reads_are_left_alone(configs: Path) -> None:
    assert [one["trains"] for one in planned(configs).config["datasets"]] == [True, False, True]


@pytest.mark.parametrize("path", ["text.txt", "./text.txt", "*.txt", "link.txt"])
def test_what_is_trained_on_is_not_validated_on(configs: Path, path: str) -> None:
    (configs.parent / "link.txt").symlink_to(configs.parent / "text.txt")
    data_file(configs, "text_heldout.yaml", f"kind: text\npath: {configs.parent}/{path}\n")
    message = refused(configs)
    assert "pretrain.validation_data.path: " in message
    assert "pretrain.data (" in message
    assert f" trains on {configs.parent}/text.txt, too" in message
    assert "text_heldout.yaml:2" in message
    assert "held_out: {dev: 0.01, test: 200}" in message


def test_a_section_without_the_same_held_out_is_named(configs: Path) -> None:
    data_file(configs, "text_heldout.yaml", f"path: {configs.parent}/text.txt\nheld_out: {{dev: 0.1}}\n")
    message = refused(configs, "pretrain.data.document=line", "pretrain.validation_data.document=line")
    assert "text.txt is divided in two ways: found {'dev': 0.1} here, and {} in pretrain.data" in message
    assert "text_heldout.yaml:2" in message
    message = refused(configs, "pretrain.data.held_out.dev=0.1", "pretrain.validation_data.document=line")
    assert "pretrain.validation_data.document: " in message
    assert "found 'line' here, and 'file' in pretrain.data" in message


def test_more_files_here_than_there_are_another_division(configs: Path) -> None:
    files = f"path: [{configs.parent}/text.txt, {configs.parent}/heldout.txt]\ndocument: line\nheld_out: {{dev: 5}}\n"
    data_file(configs, "text_heldout.yaml", files)
    message = refused(configs, "pretrain.data.document=line", "pretrain.data.held_out.dev=5")
    assert "pretrain.validation_data.path: " in message
    assert "is divided in two ways" in message


def test_what_one_stage_holds_out_no_other_trains_on(configs: Path) -> None:
    data_file(configs, "chats.yaml", f"kind: chat\npath: {configs.parent}/text.txt\nheld_out: {{dev: 0.1}}\n")
    assert "sft.data.held_out: " in refused(configs)


def test_evaluation_items_are_not_of_a_file_that_is_trained_on_whole(configs: Path) -> None:
    settings = [f"evaluate.data.path={configs.parent}/chats.jsonl", "evaluate.data.kind=chat"]
    message = refused(configs, *settings, "evaluate.data.held_out.test=2")
    assert "evaluate.data.held_out: " in message
    assert "sft.data" in message
    alike = planned(configs, *settings, "evaluate.data.held_out.test=2", "sft.data.held_out.test=2")
    assert [(one["kind"], one["trains"], one["data"]["part"]) for one in alike.config["datasets"][2:]] == [
        ("chat", True, "train"),
        ("evals", False, "test"),
    ]


def test_a_datasets_splits_are_different_rows(configs: Path, tmp_path: Path) -> None:
    settings = [f"pretrain.{section}.{key}" for section in ("data", "validation_data") for key in ("path=null",)]
    named = ["pretrain.data.dataset=owner/texts", "pretrain.validation_data.dataset=owner/texts"]
    planned(configs, *settings, *named, "pretrain.validation_data.split=test")
    assert "trains on owner/texts, too" in refused(configs, *settings, *named)


def test_a_stream_is_compared_as_well(configs: Path) -> None:
    stream = ["pretrain.data.streaming=true", f"pretrain.tokenizer.path={configs.parent}/tokenizer"]
    from titanflow.data.tokenizer.tokenizer import train_tokenizer

    train_tokenizer(["Some text."], 300, configs.parent / "tokenizer")
    data_file(configs, "text_heldout.yaml", f"path: {configs.parent}/text.txt\n")
    assert "text.txt, too" in refused(configs, *stream)


def test_a_tokenizer_is_not_trained_on_conversations_that_are_held_out(configs: Path) -> None:
    rows = [json.dumps({"text": f"Text {number}", "messages": []}) for number in range(9)]
    (configs.parent / "both.jsonl").write_text("\n".join(rows))
    data_file(configs, "text.yaml", f"kind: chat\npath: {configs.parent}/both.jsonl\nheld_out: {{dev: 2}}\n")
    assert "pretrain.data.held_out: conversations are held out, and a tokenizer is trained on text" in refused(configs)


def test_the_plan_says_what_validation_reads_by_itself(configs: Path) -> None:
    (configs / "experiments" / "tiny.yaml").write_text(
        (configs / "experiments" / "tiny.yaml").read_text().replace("    validation_data: text_heldout.yaml\n", "")
    )
    plan = make_plan("tiny", configs, None, ["pretrain.data.document=line", "pretrain.data.held_out.dev=0.1"])
    pretrain = plan.stage("pretrain")
    assert pretrain is not None
    assert pretrain.reason == "new; validates on the dev part of text"


def test_scores_of_what_is_for_choosing_are_not_published(configs: Path) -> None:
    settings = [
        *(f"evaluate.data.path={configs.parent}/chats.jsonl", "evaluate.data.kind=chat", "evaluate.data.part=dev"),
        *("evaluate.data.held_out.dev=2", "sft.data.held_out.dev=2"),
    ]
    message = refused(configs, *settings)
    assert "evaluate.data.part: the items are of the dev part, which is for choosing between models" in message
    assert "dry_run: true of the publication" in message
    make_plan("tiny", configs, None, [*settings, "publish.dry_run=true"])
