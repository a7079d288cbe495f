from typing import Any

import pytest
import torch
from tiny_exports import write_byte_tokenizer
from transformers import AutoTokenizer

from titan.evaluate.lm.stop import RowsEnd

PAD = 3


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return AutoTokenizer.from_pretrained(write_byte_tokenizer(tmp_path_factory.mktemp("a") / "tokenizer"))


def ended(tokenizer: Any, texts: list[str], stop: list[str], prompt: str = "ask") -> list[list[bool]]:
    """Which rows have ended after each token of the longest."""
    said = [tokenizer.encode(text) for text in texts]
    longest = max(map(len, said))
    rows = torch.tensor([tokenizer.encode(prompt) + row + [PAD] * (longest - len(row)) for row in said])
    start = len(tokenizer.encode(prompt))
    criterion = RowsEnd(tokenizer, stop, start)
    return [criterion(rows[:, : start + count], None).tolist() for count in range(1, longest + 1)]


def test_each_row_ends_at_its_own_sequence(tokenizer: Any) -> None:
    found = ended(tokenizer, ["a\nbcd", "ab.cd", "abcde"], ["\n", "."])

    assert found == [[False] * 3, [True, False, False], *[[True, True, False]] * 3]


def test_a_row_that_has_ended_stays_so(tokenizer: Any) -> None:
    found = ended(tokenizer, ["ab\nc" + "d" * 20], ["\n"])

    assert [row for (row,) in found] == [False, False] + [True] * 22


def test_a_sequence_of_several_tokens(tokenizer: Any) -> None:
    assert [row for (row,) in ended(tokenizer, ["a END b"], ["END"])] == [False] * 4 + [True] * 3


def test_the_prompt_ends_nothing(tokenizer: Any) -> None:
    assert ended(tokenizer, ["abc"], ["\n", "END"], prompt="one\nEND\n") == [[False]] * 3


def test_a_special_token_is_left_to_the_end_of_text(tokenizer: Any) -> None:
    """It is no part of the text that is kept, so that nothing is cut at it."""
    assert ended(tokenizer, ["a<|im_end|>b"], ["<|im_end|>"]) == [[False]] * 3


def test_without_a_sequence_no_row_ends(tokenizer: Any) -> None:
    assert ended(tokenizer, ["abc"], [""]) == [[False]] * 3
