import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from finished_stage import finish_training
from tiny_exports import write_byte_tokenizer

from titan.evaluate.locks import check_locked
from titan.export.files import SpecialTokens, export_tokenizer, make_generation_config
from titanflow.architectures.base import tokenizer_digest
from titanflow.common.digests import folder_digests
from titanflow.common.errors import DataError
from titanflow.runs.contract import PreparedData, StageRun
from titanflow.runs.training import read_training

TEMPLATE = "{% for message in messages %}{{ message['content'] }}<|im_end|>{% endfor %}"


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """A finished fine-tuning stage: its record, its data's template, and an export's files beside the weights."""
    stage, data = tmp_path / "sft", tmp_path / "chats"
    tokenizer = write_byte_tokenizer(tmp_path / "tokenizer", template=None)
    data.mkdir()
    (data / "chat_template.jinja").write_text(TEMPLATE)
    export = stage / "export"
    export.mkdir(parents=True)
    export_tokenizer(tokenizer, export, TEMPLATE)
    make_generation_config(SpecialTokens.read(tokenizer)).save_pretrained(export)
    prepared = PreparedData(train=data)
    StageRun(stage="sft", experiment="e", run="r", folder=stage, tokenizer=tokenizer, data=prepared).write()
    finish_training(stage, stage="sft", tokenizer=tokenizer, tokenizer_digest=tokenizer_digest(tokenizer))
    return stage


def look(stage: Path) -> None:
    check_locked(read_training(stage), stage / "export", folder_digests(stage / "export"), "sft")


def generation(**changes: object) -> Callable[[Path], object]:
    def change(export: Path) -> None:
        path = export / "generation_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def template(text: str) -> Callable[[Path], object]:
    return lambda export: (export / "chat_template.jinja").write_text(text)


def tokenizer(export: Path) -> None:
    text = (export / "tokenizer.json").read_text()
    (export / "tokenizer.json").write_text(text.replace('"Ā"', '"?"'))


def test_what_was_exported_is_what_was_recorded(stage: Path) -> None:
    look(stage)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (tokenizer, "the tokenizer has the SHA-256"),
        (template(TEMPLATE + " "), "the chat template has the SHA-256"),
        (lambda export: (export / "chat_template.jinja").unlink(), "the chat template isn't there"),
        (generation(max_new_tokens=5), "generation_config.json says max_new_tokens: 5"),
        (generation(eos_token_id=0), "generation_config.json says eos_token_id: 0"),
        (generation(do_sample=True), "generation_config.json says do_sample: True"),
        (generation(bos_token_id=1), "generation_config.json says bos_token_id: 1"),
        (lambda export: (export / "generation_config.json").unlink(), "generation_config.json says eos_token_id: None"),
    ],
)
def test_a_change_is_refused_by_name_with_what_was_recorded(
    stage: Path, change: Callable[[Path], object], says: str
) -> None:
    change(stage / "export")

    with pytest.raises(DataError) as caught:
        look(stage)

    assert says in str(caught.value)
    assert "models.sft" in str(caught.value)
    assert "as training recorded it" in str(caught.value)


def test_before_a_stage_has_finished_its_run_file_counts(stage: Path) -> None:
    (stage / "result.json").unlink()
    look(stage)
    tokenizer(stage / "export")

    with pytest.raises(DataError, match="the tokenizer has the SHA-256"):
        look(stage)


def test_what_left_no_record_is_not_compared(stage: Path) -> None:
    shutil.rmtree(stage.parent / "chats")
    shutil.rmtree(stage.parent / "tokenizer")
    template("another")(stage / "export")
    look(stage)
