"""How large a draft's model is, how fast it learns, and which vocabulary it has."""

from pathlib import Path

import pytest
from drafts import CPU, draft
from own_files import wiki

from titanflow.common.errors import ConfigError
from titanflow.draft import machine
from titanflow.draft.recipe import base_rate, learning_rate, pretrain_steps, size_for
from titanflow.draft.sizes import LARGEST, llama, parameters_of, parse_size
from titanflow.draft.tokens import smaller, vocabulary


def test_more_text_makes_a_larger_model_as_far_as_the_time_goes() -> None:
    here = machine.Machine(CPU)
    sizes = {tokens: size_for(tokens, here) for tokens in (10**5, 10**6, 10**7, 10**9)}
    assert sizes[10**5] < sizes[10**6] == pytest.approx(sizes[10**7], rel=0.2)
    assert sizes[10**7] == sizes[10**9]
    for tokens, parameters in sizes.items():
        rows, steps = pretrain_steps(tokens, parameters, 128, here, is_base=False)
        trained = rows * steps * 128
        assert 0.8 * 3 * parameters <= trained <= 4 * tokens
        assert 6 * parameters * trained <= machine.PRETRAIN["cpu"] * here.flops


def test_rates_fall_with_the_size_and_a_base_moves_less() -> None:
    sizes = [10**6, 10**7, 10**9, 7 * 10**9]
    rates = [learning_rate(size) for size in sizes]
    assert rates == sorted(rates, reverse=True)
    assert all(base_rate(size) < learning_rate(size) for size in sizes)
    assert (base_rate(7 * 10**9), base_rate(7 * 10**9, lora=True)) == (2e-5, 2e-4)


def test_as_many_parameters_as_asked_for(tmp_path: Path) -> None:
    made, _, text = draft(text=wiki(tmp_path), size="10M")
    assert made.parameters == pytest.approx(10_000_000, rel=0.1)
    assert "as --size 10M asks" in text
    # The smallest llama that a draft makes is larger.
    assert "the nearest to what --size 100k asks for" in draft(text=tmp_path / "wiki.txt", size="100k")[2]


@pytest.mark.parametrize("size", [10**6, 10**7, 10**8, 10**9, 10**10])
def test_a_llama_of_any_size(size: int) -> None:
    assert parameters_of(llama(size, 512)) == pytest.approx(size, rel=0.1)


@pytest.mark.parametrize("size", ["", "0", "ten", "-5M", "1e7", "99k", "2000B", str(LARGEST + 1)])
def test_absurd_sizes(size: str) -> None:
    with pytest.raises(ConfigError, match="--size"):
        parse_size(size)


def test_a_size_that_fits_no_memory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pretrain takes .* GiB, and a CPU × 2 has 16.0 GiB"):
        draft(text=wiki(tmp_path), size="70B")


@pytest.mark.parametrize(
    ("size", "parameters", "expected"),
    [(10**4, 10**6, 512), (8 * 10**6, 14 * 10**5, 2048), (10**9, 10**6, 1024), (10**12, 10**10, 32768)],
)
def test_a_vocabulary_for_the_text_and_the_model(size: int, parameters: int, expected: int) -> None:
    assert smaller(vocabulary(size), parameters) == expected
