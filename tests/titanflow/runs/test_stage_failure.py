"""What a failed stage leaves: the same from every stage's process."""

from pathlib import Path

import pytest

from titanflow.common.errors import ConfigError, Problem
from titanflow.runs import errors
from titanflow.runs.errors import ERROR_FILE, StageError, record_failure


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def test_a_fault_has_its_traceback_and_no_credentials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = raised(RuntimeError("401 for https://me:pw@host/x with hf_SECRETSECRETSECRET123"))
    assert record_failure(tmp_path, error, rank=3) == 1
    written = StageError.model_validate_json((tmp_path / ERROR_FILE).read_text())
    assert (written.rank, written.type, written.exit_code) == (3, "RuntimeError", 1)
    told = capsys.readouterr().err
    assert "Traceback" in told
    for text in (told, written.message, written.traceback):
        assert "401 for" in text
        assert "SECRET" not in text
        assert "me:pw" not in text


def test_unusable_input_is_told_by_its_message_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = raised(ConfigError(Problem("found 0", "publish.model")))
    assert record_failure(tmp_path, error) == 2
    assert capsys.readouterr().err == f"{error}\n"


def test_an_error_without_a_text_is_told_by_its_name(tmp_path: Path) -> None:
    record_failure(tmp_path, raised(KeyError()))
    assert StageError.model_validate_json((tmp_path / ERROR_FILE).read_text()).message == "KeyError()"


def test_where_it_can_t_be_written_the_log_has_it_and_no_credentials(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_error(folder: Path, error: StageError) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(errors, "write_error", write_error)
    assert record_failure(tmp_path, raised(ConfigError(Problem("with hf_SECRETSECRETSECRET123")))) == 2
    told = capsys.readouterr().err
    assert "error.json could not be written" in told
    assert "SECRET" not in told
