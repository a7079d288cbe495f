"""What is trained has the tokens that ``AutoTokenizer`` makes of the export, for every kind of tokenizer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_samples import CHATML, TOOLS, UNMARKED, call, source_of, turns
from datasets import Dataset
from tokenizer_kinds import KINDS, TEXTS, write_kind
from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer, LlamaConfig

from titan.export.files import check_tokenizer, export_tokenizer
from titanflow.common.errors import DataError
from titanflow.config.keys.training import Data
from titanflow.data.chat.encoder import ChatEncoder
from titanflow.data.chat.layout import Conversation
from titanflow.data.chat.proof.inference_check import InferenceCheck
from titanflow.data.chat.render import ChatRefused
from titanflow.data.chat.tokenise import ChatPlan, write_chats
from titanflow.data.files.sources import Source, SourceFile
from titanflow.data.files.tokenise_text import text_pieces, write_text
from titanflow.data.parts.work import Work
from titanflow.data.tokenizer.checks import check_streamed, loaded_size
from titanflow.data.tokenizer.text_encoder import TextEncoder
from titanflow.data.tokenizer.tokenizer import described_size, load_tokenizer

pytestmark = pytest.mark.slow

BRACKETS = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"
)
"""Like Llama 2's: the header is text, and an answer begins with a blank."""
SPACED = (
    "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}"
    "{% endgeneration %}{% else %}{{ m.content }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
"""The header is text, and an answer's first word takes the blank that ends it."""
TEMPLATES = {"chatml": CHATML, "unmarked": UNMARKED, "brackets": BRACKETS}
CHATS = {
    "plain": turns("Is it a class?", "A class, of <think> json.decoder."),
    "blanks": turns(" Which\nmodule? ", "  In the module.  ", "user ", "Größe\n"),
    "line end first": turns("Is it?", "\n\nA class.", "And?", "And."),
    "empty": turns("", "", "Is it?", "It was."),
    "carriage returns": turns("a\r\nb\r\n", "\tA\r\n\r\n- class", system=" Be brief\n"),
    "marks": turns("Größe ﬁ 🙂", "e\u0301 IS 2024\u3000🙃", "▁a", "'s"),
}
REFUSED = {("bytes stripped", "chatml"), ("bytes stripped", "unmarked")}
"""Strips the header's line end from the prompt, and not from the conversation."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: write_kind(name, tmp_path_factory.mktemp("kind")) for name in KINDS}


def exported(folder: Path, out: Path) -> Any:
    """The tokenizer that an export has, loaded as its users do."""
    out.mkdir()
    export_tokenizer(folder, out)
    LlamaConfig().save_pretrained(out)
    check_tokenizer(out, load_tokenizer(folder))
    return AutoTokenizer.from_pretrained(out)


def inference_ids(tokenizer: Any, template: str, messages: list[dict[str, Any]], prompt: bool) -> list[int]:
    found = tokenizer.apply_chat_template(
        messages, chat_template=template, add_generation_prompt=prompt, return_dict=True
    )
    return list(found["input_ids"])


def verdict(tokenizer: Any, encoder: ChatEncoder, messages: list[dict[str, Any]], check: InferenceCheck) -> str:
    """What became of a conversation.

    ``equal``; ``apart`` where the text is but an answer's first token stays its own; ``each`` where such an answer
    stands in a later prompt, so that each turn needs a row; or ``refused``.
    """
    conversation, template = Conversation(messages), encoder.renderer.program.source
    try:
        encoded = encoder.encode(conversation)
    except ChatRefused as refused:
        if "chat.turns: each" not in str(refused):
            return "refused"
        encoded = None
    if encoded and check.chat_fault(encoder, conversation, encoded):
        return "refused"
    for turn in [index for index, message in enumerate(messages) if message["role"] == "assistant"]:
        prompt = inference_ids(tokenizer, template, messages[:turn], prompt=True)
        assert encoder.prompt(Conversation(messages[:turn])) == prompt
        last = ChatEncoder(encoder.tokenizer, template, turns="last").encode(Conversation(messages[: turn + 1]))
        for row in [last, *([encoded] if encoded else [])]:
            assert row.ids[: len(prompt)].tolist() == prompt
        assert not last.trained[: len(prompt)].any()
    if encoded is None:
        return "each"
    theirs = inference_ids(tokenizer, template, messages, prompt=False)
    assert tokenizer.decode(encoded.ids.tolist()) == tokenizer.decode(theirs)
    return "equal" if encoded.ids.tolist() == theirs else "apart"


@pytest.mark.parametrize("name", KINDS)
def test_prompts_and_conversations_are_those_of_inference(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    tokenizer, check = exported(folders[name], tmp_path / "export"), InferenceCheck(folders[name])
    for template, source in TEMPLATES.items():
        if (name, template) in REFUSED:
            with pytest.raises(DataError, match="training would see other tokens in the conversation"):
                ChatEncoder(load_tokenizer(folders[name]), source, template)
            continue
        encoder = ChatEncoder(load_tokenizer(folders[name]), source, template)
        found = {chat: verdict(tokenizer, encoder, messages, check) for chat, messages in CHATS.items()}
        with capsys.disabled():
            print(f"\n{name:32} {template:9}", *(f"{chat}: {said}" for chat, said in found.items()), sep="  ", end="")
        assert set(found.values()) <= {"equal", "apart", "each"}


def test_a_later_prompt_has_the_history_that_inference_has(folders: dict[str, Path]) -> None:
    """An answer that shares a token with its header can't be trained in one row with the turn that follows it."""
    encoder, messages = (
        ChatEncoder(load_tokenizer(folders["bytes"]), SPACED),
        turns("What?", "class", "And?", "function"),
    )
    with pytest.raises(ChatRefused, match=r"messages\[3\] would be trained after .* Ġ\[.* Ġclass\[.*chat\.turns: each"):
        encoder.encode(Conversation(messages))
    tokenizer = AutoTokenizer.from_pretrained(folders["bytes"])
    each = ChatEncoder(encoder.tokenizer, SPACED, turns="each")
    for turn in (1, 3):
        prompt = inference_ids(tokenizer, SPACED, messages[:turn], prompt=True)
        assert each.encode(Conversation(messages[: turn + 1])).ids[: len(prompt)].tolist() == prompt
    untrained = [messages[0], {**messages[1], "train": False}, *messages[2:]]
    assert encoder.encode(Conversation(untrained)).turns == [3]


def test_an_answer_behind_an_added_token_is_encoded_as_inference_does(tmp_path: Path) -> None:
    """The header ends with a token that was added to the vocabulary, behind which a prefix is put."""
    tokenizer = Tokenizer.from_file(str(write_kind("legacy-fast", tmp_path) / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken("\n", normalized=False)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    encoder, conversation = ChatEncoder(load_tokenizer(tmp_path), CHATML), Conversation(CHATS["plain"])
    theirs = inference_ids(AutoTokenizer.from_pretrained(tmp_path), CHATML, CHATS["plain"], prompt=False)
    assert encoder.encode(conversation).ids.tolist() == theirs


def test_special_tokens_of_the_config_alone_are_special(tmp_path: Path) -> None:
    folder = write_kind("bytes", tmp_path)
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    word = next(token for token in vocabulary if token.isalpha() and token.isascii() and len(token) > 2)
    config = json.loads((folder / "tokenizer_config.json").read_text()) | {"extra_special_tokens": [word]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert word in AutoTokenizer.from_pretrained(folder).all_special_tokens
    assert word in load_tokenizer(folder).special


def test_an_answer_that_is_encoded_otherwise_behind_its_first_token_is_found(folders: dict[str, Path]) -> None:
    encoder, conversation = ChatEncoder(load_tokenizer(folders["bytes"]), CHATML), Conversation(CHATS["plain"])
    encoded, encode = encoder.encode(conversation), encoder.tokenizer.encode
    (word,) = encode(" class")
    at = int(np.flatnonzero(encoded.ids == word)[-1])
    parts = [*encode(" "), *encode("c"), *encode("lass")]
    wrong = replace(encoded, ids=np.array([*encoded.ids[:at], *parts, *encoded.ids[at + 1 :]]))
    fault = InferenceCheck(folders["bytes"]).chat_fault(encoder, conversation, wrong)
    assert fault is not None


@pytest.mark.parametrize("name", ["first-llama", "legacy-fast", "legacy-llama", "bytes with a prefix space"])
def test_tools_and_calls_have_the_tokens_of_inference(folders: dict[str, Path], name: str) -> None:
    encoder = ChatEncoder(load_tokenizer(folders[name]), CHATML)
    conversation = Conversation([*turns("Weather?", system="S"), call("weather", city="Köln")], TOOLS)
    theirs = AutoTokenizer.from_pretrained(folders[name]).apply_chat_template(
        conversation.messages, tools=TOOLS, chat_template=CHATML, return_dict=True
    )
    assert encoder.encode(conversation).ids.tolist() == theirs["input_ids"]


ENCODERS = {
    "each piece begins a text": {"following": "opening", "continuing": "opening"},
    "an answer follows a special token": {"continuing": "following"},
    "a header continues a text": {"following": "continuing"},
}


@pytest.mark.parametrize(
    ("mutant", "name", "template"),
    [
        ("each piece begins a text", "first-fast", "chatml"),
        ("each piece begins a text", "first-llama", "chatml"),
        ("an answer follows a special token", "legacy-fast", "chatml"),
        ("an answer follows a special token", "bytes with a prefix space", "chatml"),
        ("an answer follows a special token", "unigram metaspace always", "chatml"),
        ("a header continues a text", "first-llama-legacy", "unmarked"),
    ],
)
def test_a_wrong_encoder_is_refused_with_the_difference(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, mutant: str, name: str, template: str
) -> None:
    encode = TextEncoder.encode_batch
    places: Any = ENCODERS[mutant]
    monkeypatch.setattr(
        TextEncoder, "encode_batch", lambda self, texts, place: encode(self, texts, places.get(place, place))
    )
    said = refusal(folders[name], TEMPLATES[template], Conversation(CHATS["plain"]))
    assert "training would see other tokens in" in said
    assert "as AutoTokenizer" in said or "in place of" in said


def refusal(folder: Path, template: str, conversation: Conversation) -> str:
    """Why a conversation isn't trained on, whoever finds it: the encoder or the comparison with inference."""
    try:
        encoder = ChatEncoder(load_tokenizer(folder), template)
        return str(InferenceCheck(folder).chat_fault(encoder, conversation, encoder.encode(conversation)))
    except (ChatRefused, DataError) as refused:
        return str(refused)


def test_a_tokenizer_that_is_read_as_its_file_describes_is_refused(folders: dict[str, Path]) -> None:
    folder, conversation = folders["legacy-llama"], Conversation(CHATS["plain"])
    loaded = load_tokenizer(folder)
    described = Tokenizer.from_file(str(folder / "tokenizer.json"))
    encoder = ChatEncoder(replace(loaded, backend=described, text=TextEncoder(described)), CHATML)
    fault = InferenceCheck(folder).chat_fault(encoder, conversation, encoder.encode(conversation))
    assert fault is not None
    assert "▁user[" in fault.message
    assert "(LlamaTokenizer)" in fault.expected


def test_rows_that_inference_encodes_otherwise_stop_the_preparation(folders: dict[str, Path], tmp_path: Path) -> None:
    rows = source_of(['{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A class"}]}'])
    plan = ChatPlan(CHATML, "chatml", 64)
    with pytest.raises(DataError, match="training would see other tokens in the conversation"):
        write_chats(rows, Data(name="c"), folders["bytes stripped"], plan, "f", tmp_path, Work(1, tmp_path))


@pytest.mark.parametrize("name", KINDS)
def test_a_texts_tokens_are_those_of_inference(folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    texts = [*TEXTS, "  one \n two", "<think> and\nmore "]
    rows = Source(Dataset.from_dict({"text": texts}), [SourceFile("rows")])
    write_text(rows, Data(name="t"), folders[name], "f", tmp_path, Work(1, tmp_path))
    stored, ends = np.load(tmp_path / "tokens.npy").tolist(), np.load(tmp_path / "offsets.npy").tolist()
    theirs = exported(folders[name], tmp_path / "export")
    for number, text in enumerate(texts):
        assert stored[ends[number] : ends[number + 1] - 1] == theirs(text, add_special_tokens=False).input_ids


def test_tokens_that_a_class_adds_need_embeddings(folders: dict[str, Path]) -> None:
    assert loaded_size(folders["first as Gemma"]) == described_size(folders["first as Gemma"]) + 1
    assert loaded_size(folders["first-llama"]) == described_size(folders["first-llama"])
    assert loaded_size(None) == 0


def test_streamed_text_takes_no_tokenizer_that_is_built_anew(folders: dict[str, Path], tmp_path: Path) -> None:
    check_streamed(folders["first-fast"])
    folder = write_kind("bpe metaspace never whole", tmp_path)
    check_streamed(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "LlamaTokenizer"}))
    with pytest.raises(DataError, match=r"data\.streaming: transformers loads it as LlamaTokenizer"):
        check_streamed(folder)


@pytest.mark.parametrize("name", KINDS)
def test_a_long_texts_pieces_are_its_tokens(folders: dict[str, Path], name: str) -> None:
    loaded, text = load_tokenizer(folders[name]), "\n".join(TEXTS) * 5
    first, *others = text_pieces(text, loaded.text, 300)
    ids = loaded.text.encode_batch([first], "opening") + loaded.text.encode_batch(others, "continuing")
    assert [token for one in ids for token in one] == loaded.encode(text)


def test_a_text_that_inference_encodes_otherwise_stops_the_preparation(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = TextEncoder.encode_batch
    monkeypatch.setattr(TextEncoder, "encode_batch", lambda self, texts, place: encode(self, texts, "continuing"))
    rows = Source(Dataset.from_dict({"text": ["It was."]}), [SourceFile("rows")])
    with pytest.raises(DataError, match="training would see other tokens in the text than inference, from token 0"):
        write_text(rows, Data(name="t"), folders["first-llama"], "f", tmp_path, Work(1, tmp_path))
