from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from finished_stage import write_checkpoint
from tiny_exports import POSITIONS, SIZES, VOCAB, save_checkpoint, sensitised, tiny_args, write_byte_tokenizer

from titan.evaluate.lm.backends import Loading, load_lm
from titan.evaluate.lm.native_causal_lm import load_native_causal_lm
from titan.evaluate.ranks import Ranks
from titan.export.export import export_checkpoint
from titanflow.common.errors import DataError
from titanflow.runs.contract import StageRun

pytestmark = pytest.mark.slow

FAMILIES = ["llama3", "qwen3", "mod", "dtf"]
PAIRS = [("Is it a", " class"), ("Is it a", " function"), ("", "nothing before"), ("x" * 300, " too long"), ("on", "t")]
ASKED = ["import js", "x" * 400, "a", "class A", "<|im_start|>user\nhello"]


class Both(NamedTuple):
    checkpoint: Path
    native: Any
    exported: Any


@pytest.fixture(scope="module", params=FAMILIES)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    """The same weights twice: a checkpoint under the native backend, and its export under transformers."""
    family = request.param
    stage = tmp_path_factory.mktemp(family)
    StageRun(
        stage="pretrain",
        experiment="tiny",
        run="monday",
        folder=stage,
        config={"model": {"name": family, "flavor": "debugmodel"}, "training": {"seq_len": POSITIONS}},
        model_overrides={**SIZES[family], "vocab_size": VOCAB},
        tokenizer=write_byte_tokenizer(stage / "tokenizer"),
    ).write()
    checkpoint = save_checkpoint(sensitised(family, tiny_args(family)), stage / "checkpoint" / "step-1")
    export_checkpoint(stage, stage / "export")
    native = load_lm(Loading(checkpoint, {}, backend="native", batch_size=3), Ranks())
    return Both(checkpoint, native, load_lm(Loading(stage / "export", {}, batch_size=3, trusted=True), Ranks()))


def ask(method: str, lm: Any, arguments: list[Any]) -> Any:
    return getattr(lm, method)([SimpleNamespace(args=one) for one in arguments], disable_tqdm=True)


def test_a_checkpoint_scores_as_its_export_does(both: Both) -> None:
    found, expected = (ask("loglikelihood", lm, PAIRS) for lm in (both.native, both.exported))

    assert [score for score, _ in found] == pytest.approx([score for score, _ in expected], abs=1e-3)
    assert [is_greedy for _, is_greedy in found] == [is_greedy for _, is_greedy in expected]


def test_a_checkpoint_answers_as_its_export_does(both: Both) -> None:
    """Prompts of several lengths in a batch, which is padded at the left, and one that is cut."""
    asked = [(text, {"until": ["\n"], "max_gen_toks": 9, "do_sample": False}) for text in ASKED]
    found, expected = (ask("generate_until", lm, asked) for lm in (both.native, both.exported))

    assert found == expected
    assert any(found)


@pytest.mark.parametrize("places", [[3, 4, 5, 6], [0, 1, 2, 3], [0, 1, 5, 6]], ids=["left", "right", "between"])
def test_padding_changes_no_token_wherever_the_mask_says_it_is(both: Both, places: list[int]) -> None:
    model, tokens = both.native.model, torch.tensor([[50, 60, 70, 80]])
    row, mask = torch.full((1, 7), 90), torch.zeros(1, 7, dtype=torch.long)
    row[0, places], mask[0, places] = tokens[0], 1

    with torch.no_grad():
        padded, alone = model(row, attention_mask=mask).logits[:, places], model(tokens).logits

    torch.testing.assert_close(padded, alone, rtol=1e-4, atol=1e-5)


def test_it_reads_and_ends_texts_as_the_export(both: Both) -> None:
    native, exported = both.native, both.exported
    text = "<|im_start|>user\nä ≠ a<|im_end|>"

    assert native.tok_encode(text) == exported.tok_encode(text)
    assert native.tokenizer.chat_template == exported.tokenizer.chat_template
    assert native.prefix_token_id == exported.prefix_token_id == 0
    assert native.max_length == exported.max_length == POSITIONS
    assert set(native.model.generation_config.eos_token_id) == set(exported.model.generation_config.eos_token_id)
    assert native.name == str(both.checkpoint)


def test_padding_at_the_left_changes_nothing(both: Both) -> None:
    tokens = torch.randint(4, VOCAB, (1, 20), generator=torch.Generator().manual_seed(0))
    padded = torch.cat([torch.full((1, 7), 3), tokens], dim=1)
    mask = torch.arange(27)[None] >= 7

    with torch.inference_mode():
        alone = both.native.model(tokens).logits
        beside = both.native.model(padded, attention_mask=mask.long()).logits[:, 7:]

    assert beside.shape == alone.shape
    assert (beside - alone).abs().max() <= 1e-4 * alone.abs().max()


def test_a_stage_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    model = {"name": "llama3", "flavor": "debugmodel"}
    config = {"model": model, "training": {"seq_len": POSITIONS}}
    StageRun(stage="pretrain", experiment="e", run="r", folder=tmp_path, config=config).write()

    with pytest.raises(DataError, match="the stage names no tokenizer"):
        load_native_causal_lm(write_checkpoint(tmp_path / "checkpoint" / "step-1"))
