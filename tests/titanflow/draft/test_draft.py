"""What an experiment from a user's own files says."""

from pathlib import Path
from typing import Any

import pytest
from drafts import draft
from own_files import CHATS, TEXTS, sharegpt, wiki

from titanflow.common.errors import ConfigError
from titanflow.draft.draft import Asked, Draft
from titanflow.planning.plan import make_plan


@pytest.mark.parametrize(("text", "chats"), [(text, chats) for text in TEXTS for chats in list(CHATS)[:1]])
def test_a_draft_of_any_text_passes_the_plan(tmp_path: Path, text: str, chats: str) -> None:
    draft(text=TEXTS[text](tmp_path), chats=CHATS[chats](tmp_path))
    stages = make_plan("my").stages
    assert [stage.stage for stage in stages] == ["prepare", "pretrain", "sft", "evaluate", "publish"]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("chats", CHATS)
def test_a_draft_of_any_conversations_passes_the_plan(tmp_path: Path, chats: str) -> None:
    _, experiment, _ = draft(text=wiki(tmp_path), chats=CHATS[chats](tmp_path))
    assert {stage.state for stage in make_plan("my").stages} == {"RUN"}
    data = experiment.modules["sft"].config["data"]
    # The evaluation's items are the rows that the training doesn't see.
    same = ("path", "kind", "chat_format", "columns", "roles", "held_out")
    assert {key: experiment.modules["evaluate"].config["data"][key] for key in same} == {key: data[key] for key in same}
    assert experiment.modules["evaluate"].config["data"]["part"] == "test"
    assert experiment.modules["sft"].config["validation_data"]["part"] == "dev"


def test_a_draft_is_short_and_says_why(tmp_path: Path) -> None:
    _, _, text = draft(text=wiki(tmp_path), chats=sharegpt(tmp_path))
    lines = text.splitlines()
    assert sum(not line.lstrip().startswith("#") for line in lines) <= 30
    assert sum("#" in line for line in lines) >= 10
    assert max(map(len, lines)) <= 140


def test_without_conversations_the_text_itself_is_evaluated(tmp_path: Path) -> None:
    _, experiment, _ = draft(text=wiki(tmp_path))
    assert list(experiment.modules) == ["pretrain", "evaluate", "publish"]
    evaluate = experiment.modules["evaluate"].config
    assert (evaluate["tasks"], evaluate["models"], evaluate["data"]["kind"]) == (["held_out_text"], ["base"], "text")
    assert experiment.modules["publish"].config["model"] == "pretrain"
    make_plan("my")


def test_a_name_on_the_hub(tmp_path: Path) -> None:
    _, experiment, _ = draft(text=wiki(tmp_path), hub="me/model")
    config = experiment.modules["publish"].config
    said = {key: config[key] for key in ("target", "repo_id", "private", "own_tasks")}
    assert said == {"target": "hub", "repo_id": "me/model", "private": True, "own_tasks": False}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, "nothing to train on"),
        ({"chats": ["chats.json"]}, "--base OWNER/NAME"),
        ({"text": ["wiki.txt"], "hub": "nobody"}, "--hub: found 'nobody'"),
        ({"text": ["wiki.txt"], "base": "b", "size": "1M"}, "--size"),
        ({"text": ["wiki.txt"], "columns": {"title": "a"}}, "--column: no part 'title' of a row"),
        ({"text": ["wiki.txt"], "base": "nowhere"}, "--base: nowhere isn't there"),
        ({"text": ["wiki.txt"], "size": "tiny"}, "--size: found 'tiny'"),
        ({"text": ["little.txt"]}, "--text: about"),
        ({"text": ["wiki.txt"], "chats": ["few.json"]}, "--chats: 5 conversations"),
    ],
)
def test_what_is_asked_wrongly(tmp_path: Path, asked: dict[str, Any], expected: str) -> None:
    sharegpt(tmp_path, 5).rename(tmp_path / "few.json")
    sharegpt(tmp_path)
    wiki(tmp_path)
    (tmp_path / "little.txt").write_text("Hardly a text.\nNo.\nNone.\n", encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        Draft.of(Asked("my", **asked))
    assert expected in str(refused.value)


def test_a_name_that_is_no_file_s() -> None:
    with pytest.raises(ConfigError, match=r"NAME: found '\.\./my'"):
        Draft.of(Asked("../my", ["wiki.txt"]))
