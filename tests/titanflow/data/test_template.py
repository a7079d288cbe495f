from __future__ import annotations

from pathlib import Path

import pytest

from titanflow.data.template import template_digest, template_text
from titanflow.errors import DataError


def test_a_file_is_read_and_its_digest_follows_its_text(tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text("{% generation %}a{% endgeneration %}")
    first = template_digest(str(path))
    assert template_text(str(path)) == "{% generation %}a{% endgeneration %}"
    path.write_text("{%- generation -%}b{% endgeneration %}")
    assert template_digest(str(path)) not in (first, template_digest("chatml"))


def test_an_unknown_template_names_those_that_there_are() -> None:
    with pytest.raises(DataError, match=r"chat.template: chat template chatlm isn't there[\s\S]*chatml"):
        template_text("chatlm")


def test_a_template_that_marks_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(DataError, match=r"own\.jinja: chat.template: .*doesn't mark[\s\S]*\{% generation %\}"):
        template_text(str(path))
