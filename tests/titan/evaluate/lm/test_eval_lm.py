import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from lm_eval.models.huggingface import HFLM
from tiny_exports import POSITIONS, write_tiny_export

import titan.evaluate.lm.lm
from titan.evaluate.lm.backends import Loading, load_lm
from titan.evaluate.lm.lm import Row
from titan.evaluate.ranks import Ranks
from titanflow.common.errors import DataError

pytestmark = pytest.mark.slow

PAIRS = [
    ("Is it a", " class"),
    ("Is it a", " function"),
    ("Is it a ", "class"),
    ("", "nothing before"),
    ("<|endoftext|>a", "b"),
    ("x" * 300, " too long"),
    ("one", "t"),
    ("one", "s"),
    ("Is it a", " class"),
]
TEXTS = ["short", "def f(x):\n    return x\n" * 30, "ä ≠ a", ""]
ASKED = [("import js", 9), ("x" * 400, 9), ("a", 9), ("class A", 5), ("<|im_start|>user\nhello", 9)]


def requests(arguments: list[Any]) -> list[Any]:
    return [SimpleNamespace(args=one) for one in arguments]


def generation(sampled: bool = False, **changes: Any) -> list[Any]:
    settings: dict[str, Any] = {"until": ["\n"], "do_sample": sampled} | ({"temperature": 1.0} if sampled else {})
    return requests([(text, settings | {"max_gen_toks": count} | changes) for text, count in ASKED])


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_export(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def peer(export: Path) -> HFLM:
    """lm-eval's own backend."""
    settings: dict[str, Any] = {"device": "cpu", "dtype": "float32", "batch_size": 3}
    return HFLM(pretrained=str(export), prefix_token_id=0, add_bos_token=False, **settings)


def own(export: Path, batch_size: int | str = 3, seed: int = 0) -> Any:
    return load_lm(Loading(export, {}, batch_size=batch_size, seed=seed), Ranks())


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_continuations_are_as_likely_as_lm_eval_says(export: Path, peer: HFLM, batch_size: int) -> None:
    found, expected = (lm.loglikelihood(requests(PAIRS), disable_tqdm=True) for lm in (own(export, batch_size), peer))

    assert [score for score, _ in found] == pytest.approx([score for score, _ in expected], abs=1e-4)
    assert [is_greedy for _, is_greedy in found] == [is_greedy for _, is_greedy in expected]


def test_whole_texts_are_as_likely_as_lm_eval_says(export: Path, peer: HFLM) -> None:
    found, expected = (lm.loglikelihood_rolling(requests([(text,) for text in TEXTS])) for lm in (own(export), peer))

    assert found == pytest.approx(expected, abs=1e-3)
    assert found[-1] == 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_scores_are_rounded_as_lm_eval_rounds_them(export: Path, dtype: Literal["bfloat16", "float16"]) -> None:
    peer = HFLM(pretrained=str(export), prefix_token_id=0, add_bos_token=False, device="cpu", dtype=dtype, batch_size=1)
    lm = load_lm(Loading(export, {}, batch_size=1, dtype=dtype), Ranks())
    found, expected = (one.loglikelihood(requests(PAIRS), disable_tqdm=True) for one in (lm, peer))
    texts, theirs = (one.loglikelihood_rolling(requests([(text,) for text in TEXTS])) for one in (lm, peer))

    rounding = torch.finfo(getattr(torch, dtype)).eps / 4
    assert [score for score, _ in found] == pytest.approx([score for score, _ in expected], rel=rounding)
    assert [is_greedy for _, is_greedy in found] == [is_greedy for _, is_greedy in expected]
    assert texts == pytest.approx(theirs, rel=rounding)


def test_answers_are_those_that_lm_eval_gets(export: Path, peer: HFLM) -> None:
    found, expected = (lm.generate_until(generation(), disable_tqdm=True) for lm in (own(export), peer))

    assert found == expected
    assert any(found)


def test_a_batch_ends_when_each_row_has_said_any_of_its_stops(
    export: Path, peer: HFLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = peer.generate_until(generation(until=[], max_gen_toks=40), disable_tqdm=True)
    until = sorted({text[5] for text in plain if len(text) > 5})
    asked = generation(until=until, max_gen_toks=40)
    lm, steps = own(export, 16), []
    forward = lm.model.forward
    monkeypatch.setattr(lm.model, "forward", lambda *given, **named: (steps.append(1), forward(*given, **named))[1])

    assert lm.generate_until(asked, disable_tqdm=True) == peer.generate_until(asked, disable_tqdm=True)
    assert len(until) > 1
    assert len(steps) < 40


def test_what_is_drawn_depends_on_the_seed_alone(export: Path) -> None:
    first, again, other = (
        own(export, seed=seed).generate_until(generation(sampled=True), disable_tqdm=True) for seed in (1, 1, 2)
    )

    assert first == again != other


def test_a_text_alone_has_the_likelihood_that_it_has_among_others(export: Path) -> None:
    lm = own(export, 16)
    together = lm.loglikelihood(requests(PAIRS), disable_tqdm=True)
    alone = [lm.loglikelihood(requests([pair]), disable_tqdm=True)[0] for pair in PAIRS]

    assert [score for score, _ in together] == pytest.approx([score for score, _ in alone], abs=1e-4)
    assert together[0] == together[-1]


def test_equal_inputs_are_computed_once(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, rows = own(export), []
    score = lm.score
    monkeypatch.setattr(lm, "score", lambda batch: (rows.extend(batch), score(batch))[1])

    lm.loglikelihood(requests([("one", "t"), ("one", "s"), ("one", "t"), ("two", "t")]), disable_tqdm=True)

    assert sorted(len(row.continuations) for row in rows) == [1, 3]


def test_full_windows_go_a_few_at_a_time_on_a_cpu(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(titan.evaluate.lm.lm, "CPU_BATCH_TOKENS", 100)
    rows = [Row((1,) * length, [[1]]) for length in (300, 60, 50, 50, 10, 10, 10, 10)]

    batches = list(own(export, "auto")._batches(rows))

    assert [[len(row.tokens) for row in batch] for batch in batches] == [[300], [60], [50, 50], [10] * 4]


def test_short_rows_go_more_at_a_time_on_a_cpu(export: Path) -> None:
    rows = [Row((1,) * length, [[1]]) for length in (POSITIONS, POSITIONS, 50, *(10,) * 20)]

    batches = list(own(export, 1)._batches(rows))

    assert [len(batch) for batch in batches] == [1, 1, 5, 16]


def test_a_continuation_longer_than_the_context_is_refused(export: Path) -> None:
    with pytest.raises(DataError, match="a continuation of 300 tokens"):
        own(export).loglikelihood(requests([("a", "x" * 300)]), disable_tqdm=True)


def test_likelihoods_sum_to_one_over_the_vocabulary(export: Path) -> None:
    ((scores),) = own(export).score([Row((0, 9), [[token] for token in range(300)])])

    assert sum(math.exp(score) for score, _ in scores) == pytest.approx(1, abs=1e-5)
