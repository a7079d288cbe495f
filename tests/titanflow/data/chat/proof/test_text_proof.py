"""Each text of a conversation stands in its row, or the template that leaves it out is refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from chat_samples import CHATML, FORGETFUL, LLAMA3, TOOLS, UNMARKED, add_special_tokens, call, turns

from titanflow.common.errors import Problem
from titanflow.config.keys.training import Data
from titanflow.data.chat.encoder import ChatEncoder
from titanflow.data.chat.layout import Conversation
from titanflow.data.chat.proof.mask_proof import MaskProof
from titanflow.data.chat.proof.text_proof import TextProof
from titanflow.data.chat.source import ROW
from titanflow.data.chat.tokenise import REFUSED, ChatPlan, encode_rows
from titanflow.data.files.sources import PIECE, PLACE
from titanflow.data.tokenizer.tokenizer import LoadedTokenizer, load_tokenizer

SUN = {"role": "tool", "content": '{"sky": "sun"}'}
CALLED = [*turns("Weather?", system="Be brief."), call("weather", city="Köln", days=2), SUN, *turns("x", "Sun.")[1:]]
THINKS = {"role": "assistant", "content": "Two.", "reasoning_content": "One and one.\nThat is it."}


def look(
    loaded: LoadedTokenizer, template: str, chat: Conversation, **options: Any
) -> tuple[Problem | None, list[str]]:
    encoder = ChatEncoder(loaded, template, "own", **options)
    return TextProof(encoder).look(chat, encoder.encode(chat))


def without(role: str, template: str = UNMARKED) -> str:
    """A template that leaves the messages of a role out."""
    return template.replace("for m in messages %}", f"for m in messages if m.role != '{role}' %}}", 1)


@pytest.mark.parametrize("template", [CHATML, LLAMA3, UNMARKED])
def test_all_that_is_said_is_found(tokenizer_folder: Path, tmp_path: Path, template: str) -> None:
    loaded = add_special_tokens(tokenizer_folder, tmp_path)
    named = {"role": "user", "content": "A long question, with <|im_end|> in it.", "train": False}
    for chat in (Conversation(CALLED, TOOLS), Conversation([named, *turns("a", "a", "a", "a")])):
        assert look(loaded, template, chat) == (None, [])


@pytest.mark.parametrize(
    ("role", "text", "number"), [("system", "Be brief.", 0), ("tool", SUN["content"], 3), ("user", "Weather?", 1)]
)
def test_a_message_that_is_left_out_is_named(tokenizer: LoadedTokenizer, role: str, text: str, number: int) -> None:
    fault, _ = look(tokenizer, without(role), Conversation(CALLED))
    assert fault is not None
    assert fault.key == f"messages[{number}]"
    assert fault.message == f"template own leaves out the {role}'s message {text!r}"
    assert "chat.template" in fault.hint
    assert (f"data.roles: {{{role}: user}}" in fault.hint) == (role != "user")


def test_an_equal_text_elsewhere_is_no_proof(tokenizer: LoadedTokenizer) -> None:
    same = Conversation(turns("A class.", "A class.", system="A class."))
    assert look(tokenizer, UNMARKED, same) == (None, [])
    fault, _ = look(tokenizer, without("system"), same)
    assert fault is not None
    longer = Conversation(turns("Hi there", "Yes", "Hi", "No", system="Hi"))
    assert look(tokenizer, UNMARKED, longer) == (None, [])


@pytest.mark.parametrize("which", ["all", "last"])
@pytest.mark.parametrize(("asked", "answer"), [("we", "2"), ("weather", "Köln"), ("Of a city.", "days"), ("city", "K")])
def test_a_short_message_stands_in_no_tool_or_call(
    tokenizer: LoadedTokenizer, which: str, asked: str, answer: str
) -> None:
    user, *_, last = turns(asked, "Sun.")
    called = [user, call("weather", city="Köln", days=2), {"role": "tool", "content": answer}, last]
    assert look(tokenizer, CHATML, Conversation(called, TOOLS), turns=which) == (None, [])


def test_a_short_message_stands_in_no_thoughts_and_no_name(tokenizer: LoadedTokenizer) -> None:
    said = "{{ m.thinking or '' }}{{ m.name or '' }}{{ m.content or '' }}"
    chat = Conversation([*turns("One"), THINKS, {**turns("Zo")[0], "name": "Zoe"}, *turns("", "Two.")[1:]])
    assert look(tokenizer, UNMARKED.replace("{{ m.content or '' }}", said), chat, turns="last") == (None, [])


def test_tools_that_are_left_out_are_named(tokenizer: LoadedTokenizer) -> None:
    fault, _ = look(tokenizer, UNMARKED.replace("if tools", "if false"), Conversation(CALLED, TOOLS))
    assert fault is not None
    assert (fault.key, fault.message) == ("tools", "template own leaves out 'weather' of the tool weather")
    assert "data.leave_out: [tools]" in fault.hint
    names = UNMARKED.replace("tools | tojson", "tools | map(attribute='function.name') | join(' ')")
    assert "'Of a city.' of the tool weather" in str(look(tokenizer, names, Conversation(CALLED, TOOLS))[0])


def test_arguments_that_are_left_out_are_named(tokenizer: LoadedTokenizer) -> None:
    names = UNMARKED.replace("call.function | tojson", "call.function.name")
    fault, _ = look(tokenizer, names, Conversation(CALLED))
    assert fault is not None
    assert (fault.key, fault.message) == (
        "messages[2].tool_calls",
        "template own leaves out 'city' of the call of weather",
    )


@pytest.mark.parametrize("what", ["call of weather", "text"])
def test_a_template_that_writes_nothing_of_a_turn_is_refused_as_one(tokenizer: LoadedTokenizer, what: str) -> None:
    """Not as a wrong mask: nothing that could be trained is there, and `malformed: drop` may leave such rows out."""
    chat = Conversation([*CALLED[:2], {**call("weather", city="Köln"), "content": "I look it up."}, *CALLED[3:]], TOOLS)
    mute = UNMARKED.replace("m.tool_calls or []", "[]") if what != "text" else without_text_of_calls()
    encoder = ChatEncoder(tokenizer, mute, "own")
    encoded = encoder.encode(chat)
    assert MaskProof(encoder).fault(chat, encoded)
    fault = TextProof(encoder).unwritten(chat, encoded)
    assert fault is not None
    assert (fault.key, fault.message) == ("messages[2]", f"template own leaves out the {what} in messages[2]")
    assert "chat.template" in fault.hint
    rows = {ROW: [json.dumps({"messages": chat.messages, "tools": TOOLS})], PIECE: [0], PLACE: [1]}
    plan = ChatPlan(mute, "own", 512)
    assert encode_rows(rows, [0], str(tokenizer.folder), plan, Data(name="c"))["reason"] == [REFUSED]
    whole = ChatEncoder(tokenizer, UNMARKED, "own")
    assert TextProof(whole).unwritten(chat, whole.encode(chat)) is None


def test_a_second_call_that_is_left_out_is_named(tokenizer: LoadedTokenizer) -> None:
    # As gpt-oss's, which writes one in a turn.
    both = {**call("weather"), "tool_calls": [*call("weather")["tool_calls"], *call("height")["tool_calls"]]}
    chat = Conversation([*turns("Both?"), both])
    encoder = ChatEncoder(tokenizer, UNMARKED.replace("m.tool_calls or []", "(m.tool_calls or [])[:1]"), "own")
    fault = TextProof(encoder).unwritten(chat, encoder.encode(chat))
    assert fault is not None
    assert fault.message == "template own leaves out the call of height in messages[1]"


def without_text_of_calls() -> str:
    return UNMARKED.replace("{{ m.content or '' }}", "{{ m.content if not m.tool_calls }}")


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_thoughts_are_written_where_the_template_reads_them(tokenizer: LoadedTokenizer, name: str) -> None:
    reads = f"{{% if m.{name} %}}<think>{{{{ m.{name} }}}}</think>{{% endif %}}{{{{ m.content or '' }}}}"
    chat = Conversation([*turns("One and one?"), THINKS])
    thinking = UNMARKED.replace("{{ m.content or '' }}", reads)
    assert look(tokenizer, thinking, chat) == (None, [])
    encoder = ChatEncoder(tokenizer, thinking)
    encoded = encoder.encode(chat)
    said = tokenizer.backend.decode(encoded.ids[encoded.trained].tolist(), skip_special_tokens=False)
    assert said == "<think>One and one.\nThat is it.</think>Two.<|im_end|>"


@pytest.mark.parametrize("template", [CHATML, UNMARKED])
def test_thoughts_that_no_template_reads_are_refused(tokenizer: LoadedTokenizer, template: str) -> None:
    fault, _ = look(tokenizer, template, Conversation([*turns("One and one?"), THINKS]))
    assert fault is not None
    assert fault.key == "messages[1].reasoning_content"
    assert fault.message == "template own leaves out the assistant's thoughts 'One and one.\\nThat is it.'"
    assert "<think>…</think>" in fault.hint


def test_thoughts_of_earlier_turns_may_be_left_out_and_are_noted(tokenizer: LoadedTokenizer) -> None:
    chat = Conversation(turns("One?", "<think>Hm</think>One.", "Two?", "<think>Ho</think>Two."))
    forgotten = ["the template leaves out the thoughts of earlier turns"]
    assert look(tokenizer, FORGETFUL, chat, turns="last") == (None, forgotten)
    last = "{% if loop.last and m.thinking %}{{ m.thinking }} {% endif %}{{ m.content or '' }}"
    template = UNMARKED.replace("{{ m.content or '' }}", last)
    chat = Conversation([*turns("Q"), THINKS, *turns("And?"), THINKS])
    assert look(tokenizer, template, chat, turns="last") == (None, forgotten)


def test_a_text_that_is_changed_is_noted(tokenizer: LoadedTokenizer) -> None:
    chat = Conversation(turns(' Say\n\n"it".', " It. ", system="Be  brief."))
    assert look(tokenizer, UNMARKED, chat) == (None, [])
    trims = look(tokenizer, UNMARKED.replace("m.content or ''", "m.content | trim"), chat)
    assert trims == (None, ["the template trims the user's text", "the template trims the assistant's text"])
    escapes = UNMARKED.replace("m.content or ''", "m.content | tojson if m.role == 'user' else m.content")
    assert look(tokenizer, escapes, chat) == (None, ["the template escapes the user's text"])
    spaces = UNMARKED.replace("m.content or ''", "m.content | replace('  ', ' ')")
    assert look(tokenizer, spaces, chat) == (None, ["the template spaces or escapes the system's text"])
    assert look(tokenizer, UNMARKED.replace("m.content or ''", "m.content | replace('brief', '')"), chat)[0]


def test_a_name_is_written_or_refused(tokenizer: LoadedTokenizer) -> None:
    chat = Conversation([{**turns("Hi")[0], "name": "Zoe"}, *turns("Hi", "Yo")[1:]])
    assert look(
        tokenizer, UNMARKED.replace("{{ m.role }}", "{{ m.role }}{{ ' ' + m.name if m.name else '' }}", 1), chat
    ) == (None, [])
    fault, _ = look(tokenizer, UNMARKED, chat)
    assert fault is not None
    assert (fault.key, fault.message) == (
        "messages[0].name",
        "template own leaves out the name of the user's message, 'Zoe'",
    )
    assert "data.leave_out: [name]" in fault.hint
    tool = Conversation([*CALLED[:3], {**SUN, "name": "sky"}, *CALLED[4:]])
    assert look(tokenizer, UNMARKED, tool) == (None, ["the template leaves out the name of a tool's message"])


def test_half_a_character_that_no_template_writes_is_refused(tokenizer: LoadedTokenizer) -> None:
    fault, _ = look(tokenizer, UNMARKED, Conversation([*turns("Q"), {**THINKS, "reasoning_content": "\ud83d"}]))
    assert fault is not None
    assert fault.message == "template own leaves out the assistant's thoughts '\\ud83d'"


def test_an_answer_of_nothing_is_noted(tokenizer: LoadedTokenizer) -> None:
    assert look(tokenizer, CHATML, Conversation(turns("Hi", ""))) == (None, ["an assistant's turn says nothing"])


LOSSY = {
    "normaliser": {"normalizer": {"type": "Lowercase"}},
    "metaspace": {
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    },
}


@pytest.mark.parametrize("name", LOSSY)
def test_a_tokenizer_that_loses_text_changes_nothing(tokenizer_folder: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(tokenizer_folder, tmp_path, dirs_exist_ok=True)
    description = json.loads((tmp_path / "tokenizer.json").read_text()) | LOSSY[name]
    (tmp_path / "tokenizer.json").write_text(json.dumps(description))
    loaded = load_tokenizer(tmp_path)
    chat = Conversation(turns("What is It?", "A CLASS, of json.", "More  of it", "yes", system="Be BRIEF."))
    assert look(loaded, UNMARKED, chat)[0] is None
    fault, _ = look(loaded, without("system"), chat)
    assert fault is not None
    assert fault.key == "messages[0]"
