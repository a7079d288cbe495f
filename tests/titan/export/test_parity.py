import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_exports import POSITIONS, write_byte_tokenizer
from wrong_exports import Exported, config_says, edit_weights, export_tiny

import titan.export.parity
from titan.export.export import compare
from titan.export.parity import GREEDY_TOKENS, Parity, sample_tokens

pytestmark = pytest.mark.slow

GOOD = Parity(
    relative_error=1e-6, argmax_agreement=1.0, greedy_agreement=1.0, positions=256, greedy_tokens=GREEDY_TOKENS
)
MODELS = {"llama3": {}, "qwen3": {}, "qwen3-tied": {"enable_weight_tying": True}, "mod": {}}


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    folder = tmp_path_factory.mktemp("parity")
    tokenizer = write_byte_tokenizer(folder / "tokenizer")
    return {name: export_tiny(folder, name, changes, tokenizer) for name, changes in MODELS.items()}


@pytest.mark.parametrize("name", ["llama3", "qwen3"])
def test_a_model_that_is_exported_as_tied_is_caught(exports: dict[str, Exported], tmp_path: Path, name: str) -> None:
    exported = exports[name]
    folder = exported.copy(tmp_path / "mutant", config_says(tie_word_embeddings=True))

    parity = compare(exported.native, exported.adapter, folder)

    assert not parity.tied_alike
    assert any("tie_word_embeddings" in failure for failure in parity.failures())


def test_a_tied_model_that_is_exported_untied_is_caught(exports: dict[str, Exported], tmp_path: Path) -> None:
    exported = exports["qwen3-tied"]
    folder = exported.copy(tmp_path / "mutant", config_says(tie_word_embeddings=False))

    parity = compare(exported.native, exported.adapter, folder)

    assert parity.missing == ("lm_head.weight",)
    assert any("missing from the export: lm_head.weight" in failure for failure in parity.failures())


def test_a_weight_that_changed_below_the_logits_rounding_is_named(exports: dict[str, Exported], tmp_path: Path) -> None:
    exported = exports["llama3"]

    def nudge(weights: dict[str, torch.Tensor]) -> None:
        weights["model.layers.1.mlp.up_proj.weight"][0, 0] += 1e-7

    folder = exported.copy(tmp_path / "mutant", lambda folder: edit_weights(folder, nudge))

    parity = compare(exported.native, exported.adapter, folder)

    assert parity.changed_tensors == ("layers.1.feed_forward.w3.weight",)
    assert len(parity.failures()) == 1


def test_one_row_is_held_out_text_and_one_reaches_the_whole_vocabulary() -> None:
    text = np.arange(600, dtype=np.uint16) % 7

    tokens = sample_tokens(300, 512, text)

    assert tokens.shape == (2, 512)
    assert tokens[0].min() < 10
    assert tokens[0].max() > 290
    assert tokens[1].tolist() == text[:512].tolist()
    assert torch.equal(tokens[0], sample_tokens(300, 512)[0])


def test_held_out_text_that_is_too_short_is_left_out() -> None:
    assert sample_tokens(300, 512, np.zeros(511, dtype=np.uint16)).shape == (1, 512)


def test_held_out_text_is_compared(exports: dict[str, Exported]) -> None:
    exported = exports["llama3"]
    text = np.random.default_rng(0).integers(4, 200, 1_000).astype(np.uint16)

    parity = compare(exported.native, exported.adapter, exported.folder, text)

    assert parity.positions == 2 * POSITIONS
    assert parity.failures() == []


@pytest.mark.parametrize(("family", "tries"), [("llama3", 1), ("mod", 3)])
def test_a_threshold_within_rounding_is_tried_on_other_tokens(
    exports: dict[str, Exported], monkeypatch: pytest.MonkeyPatch, family: str, tries: int
) -> None:
    exported = exports[family]
    prompts = []

    def agreement(native: Any, exported: Any, prompt: torch.Tensor, *others: Any) -> float:
        prompts.append(prompt)
        return outcomes[len(prompts) - 1]

    monkeypatch.setattr(titan.export.parity, "_greedy_agreement", agreement)
    outcomes = [0.5, 0.5, 0.5]
    assert compare(exported.native, exported.adapter, exported.folder).failures() != []
    assert len(prompts) == len({tuple(prompt.flatten().tolist()) for prompt in prompts}) == tries
    prompts.clear()
    outcomes = [0.5, 1.0]
    found = compare(exported.native, exported.adapter, exported.folder).failures()
    assert (found == []) is (tries > 1)


def test_another_seed_gives_other_tokens() -> None:
    text = np.arange(512, dtype=np.uint16) % 300

    first, second = (sample_tokens(300, 512, text, seed) for seed in (0, 1))

    assert (first != second).float().mean() > 0.9
    assert first[1].sort().values.tolist() == second[1].sort().values.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"relative_error": 1e-4}, "relative error is 0.0001"),
        ({"relative_error": math.nan}, "relative error is nan"),
        ({"argmax_agreement": 0.98}, "98.0% of 256 positions"),
        ({"greedy_agreement": 0.9375}, "93.8% of 16 greedy tokens"),
        ({"missing": ("a", "b")}, "missing from the export: a, b"),
        ({"unexpected": ("c",)}, "no place for: c"),
        ({"changed_tensors": ("d",)}, "way back: d"),
    ],
)
def test_each_figure_alone_fails_the_export(change: dict[str, Any], message: str) -> None:
    failures = replace(GOOD, **change).failures()

    assert len(failures) == 1
    assert message in failures[0]


def test_the_figures_are_numbers_alone() -> None:
    assert GOOD.failures() == []
    assert GOOD.figures() == {
        "relative_error": 1e-6,
        "argmax_agreement": 1.0,
        "greedy_agreement": 1.0,
        "positions": 256.0,
        "greedy_tokens": 16.0,
    }
