from types import SimpleNamespace
from typing import Any

import pytest

from titan.evaluate.cut import cut_prompts
from titanflow.runs.scores.cut import CutPrompts

# A token a character, a context of 20, and 5 tokens to generate unless a task says otherwise.
LM = SimpleNamespace(max_length=20, max_gen_toks=5, tok_encode=list)


def task(kind: str, *arguments: tuple[Any, ...]) -> Any:
    requests = [SimpleNamespace(request_type=kind, args=args, doc_id=item) for item, args in enumerate(arguments)]
    return SimpleNamespace(instances=requests)


@pytest.mark.parametrize(
    ("kind", "arguments", "found"),
    [
        # The last token is scored and not read.
        ("loglikelihood", [("x" * 15, "y" * 6)], ""),
        ("loglikelihood", [("x" * 16, "y" * 6), ("x", "y")], "1 of 2 prompts cut, up to 1 tokens of 22"),
        ("generate_until", [("x" * 15, {})], ""),
        ("generate_until", [("x" * 16, {}), ("x" * 40, {})], "2 of 2 prompts cut, up to 25 tokens of 40"),
        ("generate_until", [("x" * 12, {"max_gen_toks": 9})], "1 of 1 prompts cut, up to 1 tokens of 12"),
        ("generate_until", [("x" * 12, {"max_new_tokens": 9})], "1 of 1 prompts cut, up to 1 tokens of 12"),
        ("loglikelihood_rolling", [("x" * 99,)], ""),
    ],
)
def test_prompts_longer_than_the_context_are_counted(kind: str, arguments: list[Any], found: str) -> None:
    cut = cut_prompts(LM, task(kind, *arguments))
    assert (str(CutPrompts(**cut)) if cut else "") == found


def test_an_item_with_several_choices_counts_once() -> None:
    asked = task("loglikelihood", ("x" * 30, "a"), ("x" * 30, "bb"))
    for request in asked.instances:
        request.doc_id = 7
    assert cut_prompts(LM, asked) == {"prompts": 1, "of": 1, "tokens": 11, "longest": 32}
