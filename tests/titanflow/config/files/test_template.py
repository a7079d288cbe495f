from __future__ import annotations

import json
from pathlib import Path

import pytest

from titanflow.common.errors import DataError
from titanflow.config.files.chat_template import (
    marks_generation,
    resolve_template,
    template_digest,
    template_of,
    template_text,
)


def test_a_file_is_read_and_its_digest_follows_its_text(tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text("{% generation %}a{% endgeneration %}")
    text = template_text(str(path))
    assert text == "{% generation %}a{% endgeneration %}"
    assert len({template_digest(one) for one in (text, text + " ", template_text("chatml"))}) == 3


def test_an_unknown_template_names_those_that_there_are() -> None:
    with pytest.raises(DataError, match=r"chat template chatlm isn't there[\s\S]*chatml, llama3, zephyr"):
        template_text("chatlm")


@pytest.mark.parametrize("text", ["{% generation %}", "{%- generation -%}", "{%generation%}"])
def test_marks_are_seen_however_they_are_spaced(text: str) -> None:
    assert marks_generation(text)


def test_a_generation_prompt_is_no_mark() -> None:
    assert not marks_generation("{% if add_generation_prompt %}{% endgeneration %}{{ generation }}{% endif %}")
    assert all(marks_generation(template_text(name)) for name in ("chatml", "llama3", "zephyr"))


def write_config(folder: Path, template: object) -> Path:
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    return folder


def test_a_tokenizers_own_template_is_found_in_its_file_or_its_config(tmp_path: Path) -> None:
    assert template_of(tmp_path) is None
    assert template_of(write_config(tmp_path, "of the config")) == "of the config"
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "default"}]
    assert template_of(write_config(tmp_path, named)) == "default"
    assert template_of(write_config(tmp_path, named[:1])) is None
    (tmp_path / "chat_template.jinja").write_text("of the file")
    assert template_of(tmp_path) == "of the file"


def test_a_named_template_goes_before_the_tokenizers_and_that_before_chatml(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("its own")
    assert resolve_template("llama3", tmp_path) == template_text("llama3")
    assert resolve_template(None, tmp_path) == "its own"
    assert resolve_template(None, tmp_path / "not made yet") == template_text("chatml")
    assert resolve_template(None, None) == template_text("chatml")
