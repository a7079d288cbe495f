"""Losses and gradients of pairs equal those of TRL's own trainer, packed or not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from trl_preferences import collated, trls_trainer

from titan.train.prefer.loss import STATISTICS, answer_logps, pair_losses, statistics
from titan.train.prefer.sides import Sides
from titanflow.config.keys.training import Prefer

pytestmark = pytest.mark.slow
VOCAB = 48
PAIRS = [
    {"prompt_ids": [5, 6, 7], "chosen_ids": [8, 9, 10, 11], "rejected_ids": [12, 13]},
    {"prompt_ids": [14], "chosen_ids": [15], "rejected_ids": [16, 17, 18, 19, 20]},
    {"prompt_ids": [21, 22], "chosen_ids": [23, 24, 2], "rejected_ids": [23, 25, 2]},
]


@pytest.fixture(scope="module")
def models() -> tuple[Any, Any]:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    policy = LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB, pad_token_id=0, initializer_range=0.3, **sizes))
    reference = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return policy, reference


@pytest.fixture(scope="module")
def trainer(models: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    tokenizer = _tokenizer(tmp_path_factory.mktemp("words") / "tokenizer")
    return trls_trainer(tmp_path_factory.mktemp("trl"), *models, tokenizer)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Prefer(), {"loss_types": ["sigmoid"]}),
        (Prefer(beta=0.5), {"loss_types": ["sigmoid"]}),
        (Prefer(loss="ipo"), {"loss_types": ["ipo"]}),
        # TRL's `sigmoid` doesn't smooth. Its `aot` of a single pair is the closed form: there is nothing to sort.
        (Prefer(beta=0.3, label_smoothing=0.2), {"loss_types": ["aot"]}),
    ],
    ids=["dpo", "another beta", "ipo", "smoothed"],
)
@pytest.mark.parametrize("packed", [False, True], ids=["a row each", "packed"])
def test_losses_and_gradients_equal_trls(
    trainer: Any, models: Any, ours: Prefer, theirs: dict[str, Any], packed: bool
) -> None:
    policy, reference = models
    trainer.loss_types, trainer.loss_weights, trainer.beta = theirs["loss_types"], [1.0], ours.beta
    trainer.label_smoothing = ours.label_smoothing
    batches = [[pair] for pair in PAIRS] if theirs["loss_types"] == ["aot"] else [PAIRS]
    policy.zero_grad()
    expected = sum(trainer.compute_loss(policy, collated(batch)) * len(batch) for batch in batches) / len(PAIRS)
    expected.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in policy.named_parameters()}

    policy.zero_grad()
    inputs, sides = _packed_batch(PAIRS) if packed else _batch(PAIRS)
    labels = inputs.pop("labels")
    with torch.no_grad():
        of_reference, _ = answer_logps(reference(**inputs).logits, labels, sides)
    of_policy, tokens = answer_logps(policy(**inputs).logits, labels, sides)
    loss = pair_losses(of_policy, of_reference, tokens, ours).sum() / len(PAIRS)
    loss.backward()

    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-5)
    for name, parameter in policy.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=0, atol=1e-5, msg=name)
    assert tokens.tolist() == [[4, 2], [1, 5], [3, 3]]
    told = dict(zip(STATISTICS, (statistics(of_policy, of_reference, ours.beta) / len(PAIRS)).tolist(), strict=True))
    if len(batches) == 1:
        for name in STATISTICS[:-1]:
            assert told[name] == pytest.approx(trainer._metrics["train"][name][-1], abs=1e-5), name
    differences = (of_policy - of_reference).mean().item()
    assert told["logps/kl"] == pytest.approx(differences, abs=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.49])
def test_smoothing_is_the_mean_over_wrong_labels(smoothing: float) -> None:
    torch.manual_seed(1)
    policy, reference, tokens = torch.randn(4, 2), torch.randn(4, 2), torch.ones(4, 2)
    right = pair_losses(policy, reference, tokens, Prefer())
    wrong = pair_losses(policy.flip(1), reference.flip(1), tokens, Prefer())
    smoothed = pair_losses(policy, reference, tokens, Prefer(label_smoothing=smoothing))
    torch.testing.assert_close(smoothed, (1 - smoothing) * right + smoothing * wrong)


def test_a_policy_that_is_its_reference_loses_log_two() -> None:
    same = torch.randn(3, 2)
    torch.testing.assert_close(pair_losses(same, same, torch.ones(3, 2), Prefer()), torch.full((3,), 0.6931472))
    assert statistics(same, same, 0.1)[:4].tolist() == [0, 0, 0, 0]


def _tokenizer(folder: Path) -> Any:
    """Only what the trainer asks for to begin; the pairs here are tokens."""
    from tiny_stages import write_tokenizer
    from transformers import PreTrainedTokenizerFast

    file = write_tokenizer(folder) / "tokenizer.json"
    return PreTrainedTokenizerFast(tokenizer_file=str(file), eos_token="<|endoftext|>", pad_token="<|pad|>")


def _batch(pairs: list[dict[str, Any]]) -> tuple[dict[str, torch.Tensor], Sides]:
    """A row for each answer: the sides of a pair are neighbours."""
    answers = _answers(pairs)
    width = max(len(ids) for ids, _ in answers)
    inputs = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in answers])
    labels = torch.tensor([_shifted(*answer) + [-100] * (width - len(answer[0])) for answer in answers])
    numbers, places = torch.arange(len(pairs)), torch.arange(len(answers)).view(-1, 2)
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in answers])
    batch = {"input_ids": inputs, "labels": labels, "attention_mask": mask}
    return batch, Sides(numbers, torch.full((len(answers),), width), places)


def _packed_batch(pairs: list[dict[str, Any]]) -> tuple[dict[str, torch.Tensor], Sides]:
    """All answers in one row, with some padding behind; a mask keeps them apart."""
    answers = _answers(pairs)
    lengths = [len(ids) for ids, _ in answers] + [3]
    inputs = torch.tensor([[token for ids, _ in answers for token in ids] + [0] * 3])
    labels = torch.tensor([[label for answer in answers for label in _shifted(*answer)] + [-100] * 3])
    documents = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    seen = (documents[:, None] == documents[None, :]) & torch.ones(len(documents), len(documents)).tril().bool()
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    batch = {"input_ids": inputs, "labels": labels, "attention_mask": seen[None, None], "position_ids": positions}
    return batch, Sides(torch.arange(len(pairs)), torch.tensor(lengths), torch.arange(len(answers)).view(-1, 2))


def _answers(pairs: list[dict[str, Any]]) -> list[tuple[list[int], int]]:
    sides = ("chosen_ids", "rejected_ids")
    return [(pair["prompt_ids"] + pair[side], len(pair["prompt_ids"])) for pair in pairs for side in sides]


def _shifted(ids: list[int], prompt: int) -> list[int]:
    trained = [-100] * prompt + ids[prompt:]
    return [*trained[1:], -100]
