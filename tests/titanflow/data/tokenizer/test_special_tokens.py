from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, models

from titanflow.data.tokenizer.special_tokens import SpecialTokens

TOKENS = {
    "<a>": AddedToken("<a>", special=True, normalized=False),
    "<a><b>": AddedToken("<a><b>", special=True, normalized=False),
    "<left>": AddedToken("<left>", special=True, normalized=False, lstrip=True),
    "<right>": AddedToken("<right>", special=True, normalized=False, rstrip=True),
    "END": AddedToken("END", special=True, normalized=False, single_word=True),
}
TEXTS = [
    "",
    "<a><a><b><b>",
    "one <left> two <right> \n three",
    "<right>  <left>  <left>",
    "END, (END) ENDS END",
    "SEND END",
    "<a<a>",
    "é\u00a0<left>\u2003<right>\u3000x",
]


@pytest.mark.parametrize("text", TEXTS)
def test_they_are_found_where_the_library_finds_them(text: str) -> None:
    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.add_special_tokens(list(TOKENS.values()))
    encoding = tokenizer.encode(text)
    names = map(tokenizer.id_to_token, encoding.ids)
    expected = [(name, *offsets) for name, offsets in zip(names, encoding.offsets, strict=True) if name in TOKENS]
    found = [(found.text, found.start, found.end) for found in SpecialTokens(TOKENS).find(text)]
    assert found == expected


def test_a_tokenizer_may_have_none() -> None:
    assert list(SpecialTokens({}).find("<a>")) == []


def test_their_pattern_has_no_group_for_each() -> None:
    tokens = {f"<|reserved_{number}|>": AddedToken(f"<|reserved_{number}|>", special=True) for number in range(1000)}
    special = SpecialTokens(tokens)
    assert special.pattern.groups == 0
    assert [found.text for found in special.find("a<|reserved_7|><|reserved_77|>")] == list(tokens)[7:78:70]
