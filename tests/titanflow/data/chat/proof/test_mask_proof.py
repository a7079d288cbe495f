from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_samples import CHATML, FORGETFUL, LLAMA3, TOOLS, UNMARKED, ZEPHYR, add_special_tokens, call, turns
from numpy.typing import NDArray

from titanflow.data.chat.encoder import ChatEncoder, Encoded
from titanflow.data.chat.layout import Conversation
from titanflow.data.chat.proof.mask_proof import MaskProof
from titanflow.data.tokenizer.tokenizer import LoadedTokenizer, load_tokenizer

Mask = NDArray[np.bool_]
TOOL_CHAT = [
    *turns("What is the weather?"),
    call("weather", city="Köln"),
    {"role": "tool", "content": "sun"},
    {"role": "assistant", "content": "Sun."},
]
CHATS = {
    "two turns": Conversation(turns("What is it?", "A class.", "Which module defines it?", "json.decoder")),
    "system": Conversation(turns("What is it?", "A class.", system="Be brief.")),
    "repeated": Conversation(turns("A class.", "A class.", "A class.", "A class.")),
    "tools": Conversation(TOOL_CHAT, TOOLS),
    "consecutive": Conversation([*turns("Go", "First."), {"role": "assistant", "content": "Second."}]),
    "not all": Conversation([*turns("Q", "A", "B", "C")[:1], {**turns("Q", "A")[1], "train": False}, *turns("B", "C")]),
}


@pytest.fixture(scope="module", params=["chatml", "llama3", "zephyr", "unmarked"])
def encoder(request: pytest.FixtureRequest, tokenizer_folder: Path, tmp_path_factory: Any) -> ChatEncoder:
    loaded = add_special_tokens(tokenizer_folder, tmp_path_factory.mktemp("llama3"))
    templates = {"chatml": CHATML, "llama3": LLAMA3, "zephyr": ZEPHYR, "unmarked": UNMARKED}
    return ChatEncoder(loaded, templates[request.param])


@pytest.mark.parametrize("name", CHATS)
def test_a_right_mask_passes(encoder: ChatEncoder, name: str) -> None:
    assert MaskProof(encoder).fault(CHATS[name], encoder.encode(CHATS[name])) is None


def borders(trained: Mask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where runs begin, and where they end."""
    steps = np.diff(trained.astype(np.int8), prepend=0, append=0)
    return np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)


def everything(trained: Mask) -> Mask:
    return np.ones_like(trained)


def nothing(trained: Mask) -> Mask:
    return np.zeros_like(trained)


def swapped(trained: Mask) -> Mask:
    return ~trained


def without_the_first_turn(trained: Mask) -> Mask:
    starts, ends = borders(trained)
    trained[starts[0] : ends[0]] = False
    return trained


def without_the_last_turn(trained: Mask) -> Mask:
    starts, ends = borders(trained)
    trained[starts[-1] : ends[-1]] = False
    return trained


def without_an_end_of_turn(trained: Mask) -> Mask:
    trained[borders(trained)[1][0] - 1] = False
    return trained


def without_the_last_end_of_turn(trained: Mask) -> Mask:
    trained[borders(trained)[1][-1] - 1] = False
    return trained


def without_the_first_token(trained: Mask) -> Mask:
    trained[borders(trained)[0][-1]] = False
    return trained


def with_the_headers_line_end(trained: Mask) -> Mask:
    trained[borders(trained)[0][-1] - 1] = True
    return trained


def with_a_header(trained: Mask) -> Mask:
    start = borders(trained)[0][-1]
    trained[start - 3 : start] = True
    return trained


def with_a_header_before(trained: Mask) -> Mask:
    start = borders(trained)[0][0]
    trained[start - 2 : start] = True
    return trained


def with_the_first_token(trained: Mask) -> Mask:
    trained[0] = True
    return trained


def with_all_that_goes_before(trained: Mask) -> Mask:
    trained[: borders(trained)[0][0]] = True
    return trained


def shifted_left(trained: Mask) -> Mask:
    return np.roll(trained, -1)


def shifted_right(trained: Mask) -> Mask:
    return np.roll(trained, 1)


MUTANTS: list[Callable[[Mask], Mask]] = [
    *(everything, nothing, swapped, without_the_first_turn, without_the_last_turn, without_an_end_of_turn),
    *(without_the_last_end_of_turn, without_the_first_token, with_the_headers_line_end, with_a_header),
    *(with_a_header_before, with_the_first_token, with_all_that_goes_before, shifted_left),
    *(shifted_right,),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
@pytest.mark.parametrize("name", CHATS)
def test_a_wrong_mask_is_caught(encoder: ChatEncoder, name: str, mutant: Callable[[Mask], Mask]) -> None:
    right = encoder.encode(CHATS[name])
    wrong = mutant(right.trained.copy())
    assert not np.array_equal(wrong, right.trained)
    fault = MaskProof(encoder).fault(CHATS[name], Encoded(right.ids, wrong, right.turns))
    assert fault is not None
    assert fault.message.startswith("the mask is wrong: ")
    assert fault.key.startswith("messages")


@pytest.mark.parametrize("name", CHATS)
def test_any_token_of_another_that_is_trained_is_caught(encoder: ChatEncoder, name: str) -> None:
    right, proof = encoder.encode(CHATS[name]), MaskProof(encoder)
    ends = set(borders(right.trained)[1].tolist())
    for place in np.flatnonzero(~right.trained).tolist():
        trained = right.trained.copy()
        trained[place] = True
        fault = proof.fault(CHATS[name], Encoded(right.ids, trained, right.turns))
        # A line end after the end of turn may be marked as the assistant's: some templates do.
        text = encoder.tokenizer.backend.decode([int(right.ids[place])], skip_special_tokens=False)
        assert (fault is None) == (place in ends and not text.strip()), place


@pytest.mark.parametrize("name", [name for name in CHATS if name != "tools"])
def test_any_token_that_is_missing_is_caught(encoder: ChatEncoder, name: str) -> None:
    right, proof = encoder.encode(CHATS[name]), MaskProof(encoder)
    for place in np.flatnonzero(right.trained).tolist():
        trained = right.trained.copy()
        trained[place] = False
        assert proof.fault(CHATS[name], Encoded(right.ids, trained, right.turns)) is not None, place


def test_a_mask_of_other_turns_is_caught(encoder: ChatEncoder) -> None:
    right = encoder.encode(CHATS["two turns"])
    for numbers in ([1], [3], [3, 1], []):
        assert MaskProof(encoder).fault(CHATS["two turns"], Encoded(right.ids, right.trained, numbers)) is not None


def test_a_mask_of_another_conversation_is_caught(encoder: ChatEncoder) -> None:
    other = encoder.encode(
        Conversation(turns("What is it?", "A function.", "Which module defines it?", "json.decoder"))
    )
    fault = MaskProof(encoder).fault(CHATS["two turns"], other)
    assert "say 'A function.' where the message says 'A class.'" in str(fault)


def test_where_no_turn_is_to_be_trained_nothing_may_be(encoder: ChatEncoder) -> None:
    chat = Conversation([turns("Q")[0], {"role": "assistant", "content": "A", "train": False}])
    right = encoder.encode(chat)
    assert MaskProof(encoder).fault(chat, right) is None
    assert MaskProof(encoder).fault(chat, Encoded(right.ids, ~right.trained, [])) is not None


LOSSY = {
    "normaliser": {"normalizer": {"type": "Lowercase"}},
    "prefix space": {
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    },
}


@pytest.mark.parametrize("name", LOSSY)
@pytest.mark.parametrize("template", [CHATML, UNMARKED])
def test_a_tokenizer_that_loses_text_passes(tokenizer_folder: Path, tmp_path: Path, name: str, template: str) -> None:
    shutil.copytree(tokenizer_folder, tmp_path, dirs_exist_ok=True)
    description = json.loads((tmp_path / "tokenizer.json").read_text()) | LOSSY[name]
    (tmp_path / "tokenizer.json").write_text(json.dumps(description))
    encoder = ChatEncoder(load_tokenizer(tmp_path), template)
    chat = Conversation(turns("What is It?", "  A CLASS, of json.\n", "More", "Größe"))
    right = encoder.encode(chat)
    assert MaskProof(encoder).fault(chat, right) is None
    assert MaskProof(encoder).fault(chat, Encoded(right.ids, shifted_left(right.trained), right.turns)) is not None


def test_a_template_without_a_header_passes(tokenizer: LoadedTokenizer) -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% else %} {{ m.content }}<|endoftext|>{% endif %}{% endfor %}"
    )
    encoder = ChatEncoder(tokenizer, template)
    chat = CHATS["two turns"]
    right = encoder.encode(chat)
    assert encoder.header == []
    assert MaskProof(encoder).fault(chat, right) is None
    for mutant in (everything, shifted_left, with_a_header):
        wrong = mutant(right.trained.copy())
        assert MaskProof(encoder).fault(chat, Encoded(right.ids, wrong, right.turns)) is not None, mutant.__name__


def test_what_a_user_says_may_stand_in_what_the_template_writes(tokenizer: LoadedTokenizer) -> None:
    encoder = ChatEncoder(tokenizer, CHATML)
    for text in ("</tool_call>", "name", "\n", "."):
        chat = Conversation([*turns(text), call("weather", city="Köln")], TOOLS)
        assert MaskProof(encoder).fault(chat, encoder.encode(chat)) is None


def test_an_answer_that_the_template_spaces_otherwise_passes(tokenizer: LoadedTokenizer) -> None:
    spaced = UNMARKED.replace("{{ m.content or '' }}", "{{ m.content | replace('</think>', '\n</think>\n\n') }}")
    encoder = ChatEncoder(tokenizer, spaced)
    chat = Conversation(turns("Q", "<think>Hm</think>Yes"))
    right = encoder.encode(chat)
    assert MaskProof(encoder).fault(chat, right) is None
    for place in np.flatnonzero(right.trained)[1:].tolist():
        trained = right.trained.copy()
        trained[place] = False
        assert MaskProof(encoder).fault(chat, Encoded(right.ids, trained, right.turns)) is not None


THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and '</think>' not in m.content %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


def test_a_thought_that_the_prompt_opens_is_said(tokenizer: LoadedTokenizer) -> None:
    # As Qwen3.5's: what is asked with opens the thought, so that its mark isn't trained.
    encoder = ChatEncoder(tokenizer, THINKING)
    chat = Conversation(turns("One?", "<think>\nHm\n</think>\n\nOne."))
    right = encoder.encode(chat)
    assert encoder.tokenizer.backend.decode(right.ids[right.trained].tolist()) == "Hm\n</think>\n\nOne."
    assert MaskProof(encoder).fault(chat, right) is None
    for place in np.flatnonzero(right.trained).tolist():
        trained = right.trained.copy()
        trained[place] = False
        assert MaskProof(encoder).fault(chat, Encoded(right.ids, trained, right.turns)) is not None


def test_a_template_that_leaves_calls_out_is_caught(tokenizer: LoadedTokenizer) -> None:
    encoder = ChatEncoder(tokenizer, UNMARKED.replace("m.tool_calls or []", "[]"))
    chat = Conversation([*turns("Weather?"), call("weather", city="Köln")], TOOLS)
    fault = MaskProof(encoder).fault(chat, encoder.encode(chat))
    assert "its trained tokens say '' where the message says 'weather'" in str(fault)


def test_a_last_answer_with_its_thoughts_passes(tokenizer: LoadedTokenizer) -> None:
    encoder = ChatEncoder(tokenizer, FORGETFUL, turns="last")
    chat = Conversation(turns("One?", "<think>Hm</think>One.", "Two?", "<think>Ho</think>Two."))
    assert MaskProof(encoder).fault(chat, encoder.encode(chat)) is None
