"""What people name in place of a published model leads them to it."""

import os
from pathlib import Path

import pytest

from titan.inference.conversation import model_folder
from titan.inference.verify import no_folder
from titanflow.common.errors import ConfigError
from titanflow.draft.base import Base
from titanflow.files.published_folder import model_hint


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment with two runs, of which `late` published last."""
    monkeypatch.chdir(tmp_path)
    for time, run in enumerate(("late", "main")):
        model = tmp_path / "runs" / "my" / run / "publish" / "model"
        model.mkdir(parents=True)
        os.utime(model, (9 - time, 9 - time))
    return tmp_path / "runs"


@pytest.mark.parametrize("named", ["my", "my.yaml", "runs/my"])
def test_an_experiment_leads_to_its_newest_model(named: str) -> None:
    assert model_hint(named) == "its published model is runs/my/late/publish/model"


def test_a_run_leads_to_its_own_model_and_other_names_to_none() -> None:
    assert model_hint("runs/my/main") == "its published model is runs/my/main/publish/model"
    assert [model_hint(named) for named in ("", "other", "runs/other", "owner/name")] == [""] * 4


def test_chat_verify_and_init_tell_it() -> None:
    expected = "its published model is runs/my/main/publish/model"
    for look in (model_folder, Base.of):
        with pytest.raises(ConfigError) as refused:
            look("runs/my/main")
        assert expected in str(refused.value)
    assert no_folder("my").hint == "its published model is runs/my/late/publish/model"
