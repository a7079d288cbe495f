import json
import os
import sys
from pathlib import Path

import pytest

from titanflow.publish import continuation
from titanflow.publish.continuation import wrong_continuation

GREEDY = {"prompt": [1, 2], "continuation": [3]}
TOLD = "import os, sys; print(sys.argv[1:], sorted(os.environ)); raise SystemExit(int(os.environ['CODE']))"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A published folder; what verifies it tells what it was given and ends with the status CODE."""
    monkeypatch.setattr(continuation, "VERIFY", (sys.executable, "-c", TOLD))
    monkeypatch.setenv("HF_TOKEN", "opaque-token-value")
    (tmp_path / "titanflow.json").write_text(json.dumps({"greedy": GREEDY}))
    return tmp_path


def test_the_same_continuation(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODE", "0")
    assert wrong_continuation(folder) == ""


def test_another_one_is_explained_by_what_verified_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODE", "1")
    assert str(folder) in wrong_continuation(folder)


def test_a_verification_without_a_word_fails_as_well(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuation, "VERIFY", (sys.executable, "-c", "raise SystemExit(3)"))
    assert wrong_continuation(folder) == "it ended with status 3"


def test_it_has_no_token(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODE", "1")
    said = wrong_continuation(folder)
    assert "HF_HUB_OFFLINE" in said
    assert "HF_TOKEN" not in said
    assert "HF_TOKEN" in os.environ


def test_without_an_evaluation_nothing_is_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "titanflow.json").write_text("{}")
    monkeypatch.setattr(continuation, "VERIFY", ("/must/not/run",))
    assert wrong_continuation(folder) == ""
