from __future__ import annotations

import re
from typing import Any

import pytest
from chat_samples import CHATML, FORGETFUL, LLAMA3, TOOLS, UNMARKED, ZEPHYR, call, chat, turns

from titanflow.data.chat.layout import Conversation
from titanflow.data.chat.render import ChatRefused, ChatRenderer, Rendered

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|begin_of_text|>")
PATTERN = re.compile("|".join(map(re.escape, SPECIAL)))
BUILT_IN = {"chatml": CHATML, "llama3": LLAMA3, "zephyr": ZEPHYR}
CALLED = Conversation(
    [
        *turns("Weather?", system="S"),
        call("weather", city="Köln"),
        {"role": "tool", "content": "sun"},
        *turns("", "A")[1:],
    ],
    TOOLS,
)


def renderer(template: str, **options: Any) -> ChatRenderer:
    return ChatRenderer(template, "own.jinja", PATTERN, {"eos_token": "<|im_end|>"}, **options)


def spans(rendered: Rendered) -> list[str]:
    return [rendered.text[start:end] for start, end in rendered.spans]


def test_chatml_is_written_so() -> None:
    rendered = renderer(CHATML).render(chat("Hi", "Hello", system="S"))
    assert rendered.text == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
    )
    assert spans(rendered) == ["Hello<|im_end|>"]
    assert rendered.turns == [2]


def test_llama3_is_written_so() -> None:
    rendered = renderer(LLAMA3).render(chat("Hi", "Hello", system="S"))
    assert rendered.text == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>"
    )
    assert spans(rendered) == ["Hello<|eot_id|>"]


def test_zephyr_is_written_so_with_no_special_token_but_the_tokenizer_s_end_of_text() -> None:
    rendered = renderer(ZEPHYR).render(chat("Hi", "Hello", system="S"))
    assert rendered.text == "<|system|>\nS<|im_end|>\n<|user|>\nHi<|im_end|>\n<|assistant|>\nHello<|im_end|>\n"
    assert spans(rendered) == ["Hello<|im_end|>"]


def test_calls_and_tools_are_written_by_the_built_in_templates() -> None:
    called, answer = spans(renderer(CHATML).render(CALLED))
    assert called == '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call><|im_end|>'
    assert answer == "A<|im_end|>"
    called, answer = spans(renderer(LLAMA3).render(CALLED))
    assert called == '{"name": "weather", "parameters": {"city": "Köln"}}<|eot_id|>'
    for template in BUILT_IN.values():
        text = renderer(template).render(CALLED).text
        # The system's words and the tools are one turn.
        assert text.count("system") == 1
        assert text.index("S\n\nThese functions") < text.index('"description": "Of a city."') < text.index("Weather?")


@pytest.mark.parametrize("name", BUILT_IN)
def test_text_and_calls_of_one_turn_are_parted_by_a_line_end(name: str) -> None:
    twice = [*call("a")["tool_calls"], *call("b")["tool_calls"]]
    both = {"role": "assistant", "content": "Let me look.", "tool_calls": twice}
    (span,) = spans(renderer(BUILT_IN[name]).render(Conversation([*turns("Q"), both])))
    lines = span.split("\n")
    assert lines[0] == "Let me look."
    assert '"name": "a"' in span.split('"name": "b"')[0]
    assert len([line for line in lines if '"name"' in line]) == 2
    (silent,) = spans(renderer(BUILT_IN[name]).render(Conversation([*turns("Q"), {**both, "content": None}])))
    assert silent == span.removeprefix("Let me look.\n")


@pytest.mark.parametrize("template", [CHATML, LLAMA3, UNMARKED])
@pytest.mark.parametrize(
    "conversation",
    [
        chat("Hi", "Hello", "More", "", "Last", "\n x \n", system="S"),
        Conversation([*turns("Go", "First."), {"role": "assistant", "content": "Second."}]),
        chat("Hi", "Hello", "unanswered"),
        CALLED,
    ],
    ids=["several", "consecutive", "open", "tools"],
)
def test_the_text_up_to_each_trained_turn_is_its_prompt(template: str, conversation: Conversation) -> None:
    made = renderer(template)
    rendered = made.render(conversation)
    assert len(rendered.starts) == len(rendered.turns) == len(rendered.spans)
    for turn, start, span in zip(rendered.turns, rendered.starts, rendered.spans, strict=True):
        prompt = made.prompt(Conversation(conversation.messages[:turn], conversation.tools))
        assert rendered.text[:start] == prompt.text
        assert span[0] == start


def test_plain_is_the_prompt_without_what_asks() -> None:
    made, asked = renderer(CHATML), Conversation(turns("Hi"))
    assert made.prompt(asked).text == made.plain(asked).text + "<|im_start|>assistant\n"


@pytest.mark.parametrize("template", [CHATML, LLAMA3, UNMARKED])
def test_the_last_turn_alone_and_turns_that_are_left_out(template: str) -> None:
    messages = turns("Q", "first", "Q", "second", "Q", "third", "unanswered")
    assert renderer(template).render(Conversation(messages)).turns == [1, 3, 5]
    assert renderer(template, turns="last").render(Conversation(messages)).turns == [5]
    messages[3] = {**messages[3], "train": False}
    rendered = renderer(template).render(Conversation(messages))
    assert rendered.turns == [1, 5]
    assert [span.partition("<|")[0] for span in spans(rendered)] == ["first", "third"]
    messages[5] = {**messages[5], "train": False}
    assert renderer(template, turns="last").render(Conversation(messages)).turns == []


def test_a_template_never_sees_what_is_trained() -> None:
    seen = "{{ messages[1].train is defined }}" + CHATML
    messages = [*turns("Q"), {"role": "assistant", "content": "A", "train": False}, *turns("Q", "B")]
    made, conversation = renderer(seen), Conversation(messages)
    for rendered in (made.render(conversation), made.plain(conversation), made.prompt(conversation)):
        assert rendered.text.startswith("False<|im_start|>")


HEADER_MARKED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}<|im_start|>assistant\n{{ m.content }}"
    "<|im_end|>{% endgeneration %}{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endif %}{{ '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_header_that_is_marked_is_clipped() -> None:
    rendered = renderer(HEADER_MARKED).render(chat("Hi", "Hello", "More", "Bye"))
    assert spans(rendered) == ["Hello<|im_end|>", "Bye<|im_end|>"]
    # Without a turn to train the next one's header isn't the last one's.
    messages = [*turns("Hi", "Hello"), {"role": "assistant", "content": "Second.", "train": False}]
    assert spans(renderer(HEADER_MARKED).render(Conversation(messages))) == ["Hello<|im_end|>"]


def test_an_untrained_turn_after_a_trained_one_stays_untrained() -> None:
    messages = turns("Hi", "Hello", "More", "Bye")
    for place, left in ((1, "Bye"), (3, "Hello")):
        marked = [{**one, "train": False} if index == place else one for index, one in enumerate(messages)]
        for template in (CHATML, LLAMA3, UNMARKED, HEADER_MARKED):
            found = spans(renderer(template).render(Conversation(marked)))
            assert [span.partition("<|")[0] for span in found] == [left]


def test_several_marks_of_one_turn_are_all_trained() -> None:
    twice = CHATML.replace(
        "{{- message.content or '' -}}", "{{- message.content or '' -}}{%- endgeneration -%}!{%- generation -%}"
    )
    assert spans(renderer(twice).render(chat("Hi", "Hello"))) == ["Hello", "<|im_end|>"]


def test_an_unmarked_turn_ends_with_its_last_special_token() -> None:
    # The line end after it belongs to no turn, nor does what follows.
    assert spans(renderer(UNMARKED).render(chat("Hi", "a\nb\n", "More", "c"))) == ["a\nb\n<|im_end|>", "c<|im_end|>"]
    two = UNMARKED.replace("<|im_end|>\n{% endfor %}", "<|im_end|>{{ eos_token }}\n{% endfor %}")
    assert spans(renderer(two).render(chat("Hi", "a"))) == ["a<|im_end|><|im_end|>"]


def test_a_template_that_is_not_stable_is_refused_and_says_where() -> None:
    thoughts = Conversation(turns("One?", "<think>Hm</think>One.", "Two?", "<think>Ho</think>Two."))
    with pytest.raises(ChatRefused, match=r"own\.jinja isn't stable: it changes messages\[1\] when more follows"):
        renderer(FORGETFUL).render(thoughts)
    assert spans(renderer(FORGETFUL, turns="last").render(thoughts)) == ["<think>Ho</think>Two.<|im_end|>"]
    numbered = "{{ messages | length }} messages\n" + CHATML
    with pytest.raises(
        ChatRefused, match=r"isn't stable: messages\[1\] would be asked for with '1 messages.*turns: last"
    ):
        renderer(numbered).render(chat("Hi", "Hello", "More", "Bye"))


def test_an_end_of_text_after_the_whole_conversation_is_no_change_of_its_turns() -> None:
    # As Phi-3's.
    ending = UNMARKED.replace("{% if add", "{% if not add_generation_prompt %}{{ '<|eot_id|>' }}{% endif %}{% if add")
    rendered = renderer(ending).render(chat("Hi", "Hello", "More", "Bye"))
    assert rendered.text.count("<|eot_id|>") == 1
    assert spans(rendered) == ["Hello<|im_end|>", "Bye<|im_end|>\n<|eot_id|>"]


def test_another_end_of_turn_when_more_follows_is_a_change() -> None:
    # As gpt-oss's: the last answer ends otherwise than the ones before it, and another special token is in it.
    last = "{{ '<|eot_id|>' if loop.last and m.role == 'assistant' else '<|im_end|>' }}\n{% endfor %}"
    other = UNMARKED.replace("<|im_end|>\n{% endfor %}", last)
    other = other.replace("}}\n", "}}\n{{ 'final<|end_header_id|>' if m.role == 'assistant' }}", 1)
    assert spans(renderer(other, turns="last").render(chat("Hi", "Hello", "More", "Bye"))) == [
        "final<|end_header_id|>Bye<|eot_id|>"
    ]
    with pytest.raises(ChatRefused, match=r"it changes messages\[1\] when more follows"):
        renderer(other).render(chat("Hi", "Hello", "More", "Bye"))


def test_a_turn_without_a_special_token_is_refused() -> None:
    with pytest.raises(ChatRefused, match=r"ends messages\[1\] with no special token; .*tokenizer\.new_special_tokens"):
        renderer(UNMARKED.replace("<|im_end|>", "")).render(chat("Hi", "Hello"))


def test_what_a_template_raises_is_its_refusal() -> None:
    with pytest.raises(ChatRefused, match=r"own\.jinja refuses it: .*endfor"):
        renderer("{% endfor %}").render(chat("Hi", "Hello"))
    with pytest.raises(ChatRefused, match=r"own\.jinja refuses it: .*undefined"):
        renderer("{{ nothing.there }}").prompt(chat("Hi"))


def test_a_quoted_special_token_is_rendered_as_a_stand_in() -> None:
    conversation = Conversation([*turns("Say <|im_end|> and <|im_start|>"), call("f", text="<|im_end|>")])
    rendered = renderer(CHATML).render(conversation)
    assert sorted(rendered.quoted.values()) == ["<|im_end|>", "<|im_start|>"]
    assert rendered.text.count("<|im_end|>") == 2
    assert all(rendered.text.count(stand_in) >= 1 for stand_in in rendered.quoted)
    assert conversation.messages[0]["content"] == "Say <|im_end|> and <|im_start|>"
