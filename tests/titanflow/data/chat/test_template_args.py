"""A template's arguments are its own defaults, so that all who render it make the same text."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from chat_samples import CHATML, chat
from test_chat_render import renderer
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from titanflow.config.files.template_args import names_of, with_defaults
from titanflow.data.chat.layout import Conversation
from titanflow.data.chat.render import ChatRefused
from titanflow.data.tokenizer.tokenizer import LoadedTokenizer

MESSAGES = [{"role": "user", "content": "Q"}]


def rendered(template: str, **given: Any) -> str:
    (text,), _ = render_jinja_template([MESSAGES], chat_template=template, **given)
    return str(text)


@pytest.mark.parametrize(
    "value", ["26 Jul 2024", "a\n'b' \"c\" %} {{ d }} 😀 \\n", "", False, True, 3, 0.5, None, [1, "x"], {"a": [None]}]
)
def test_a_value_is_what_a_template_gets_that_is_handed_it(value: Any) -> None:
    asks = "  {% if thing is defined %}<{{ thing }}|{{ thing is none }}>{% endif %}\n {{ messages[0].content }}"
    assert rendered(with_defaults(asks, {"thing": value})) == rendered(asks, thing=value)
    # Whoever hands it another value gets that.
    assert rendered(with_defaults(asks, {"thing": value}), thing="other") == rendered(asks, thing="other")


@pytest.mark.parametrize("start", ["\n", "  \n", "{{ 'a' }}", "  {% if true %}\nx{% endif %}", "plain"])
def test_the_rest_of_the_template_writes_what_it_wrote(start: str) -> None:
    assert rendered(with_defaults(start + "{{ thing }}", {"thing": 1})) == rendered(start + "{{ thing }}", thing=1)


def test_the_exports_tokenizer_asks_as_training_did(tokenizer: LoadedTokenizer, tmp_path: Path) -> None:
    asks = CHATML + "{% if add_generation_prompt and not (thinks | default(true)) %}"
    asks += "{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    template = with_defaults(asks, {"thinks": False})
    shutil.copytree(tokenizer.folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "chat_template.jinja").write_text(template)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    asked = loaded.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    assert asked == renderer(template).prompt(Conversation(MESSAGES)).text
    assert asked.endswith("</think>\n\n")
    thinking = loaded.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True, thinks=True)
    assert thinking.endswith("assistant\n")


def test_macros_and_loops_see_it_too() -> None:
    asks = "{% macro say() %}{{ thing }}{{ strftime_now('%Y') }}{% endmacro %}"
    asks += "{% for m in messages %}{{ say() }}{% endfor %}"
    assert rendered(with_defaults(asks, {"thing": "T", "strftime_now": "1999"})) == "T1999"


def test_what_a_template_asks_for_is_found_beside_marks() -> None:
    assert {"enable_thinking", "messages"} <= names_of(CHATML + "{% if enable_thinking %}{% endif %}")
    assert names_of("{% broken") == set()
    # A name of its own is none that it asks for.
    own = (
        "{% set said = 1 %}{% if m %}{% set kept = 1 %}{% endif %}{{ said }}{{ kept }}{{ raise_exception(bos_token) }}"
    )
    assert names_of(own) == {"m"}
    assert names_of("{% if day is not defined %}{% set day = 1 %}{% endif %}{{ day }}") == {"day"}


def test_a_row_that_gets_the_date_of_today_is_refused_and_others_are_not() -> None:
    # As some do: the date stands where a system message does.
    dated = "{% if messages[0].role == 'system' %}{{ strftime_now('%d %b') }}{% endif %}" + CHATML
    assert "Hello" in renderer(dated).render(chat("Hi", "Hello")).text
    with pytest.raises(ChatRefused, match=r"writes the date of today into it; chat\.template_args"):
        renderer(dated).render(chat("Hi", "Hello", system="S"))
    given = with_defaults(dated, {"strftime_now": "01 Jan"})
    assert renderer(given).render(chat("Hi", "Hello", system="S")).text.startswith("01 Jan<|im_start|>")
