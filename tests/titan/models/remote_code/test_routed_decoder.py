import copy
from typing import Any

import pytest
import torch
from routed_models import KINDS
from tiny_routed import greedy, make_pair, padded, prompts, step_by_step

from titan.models.remote_code.routed_decoder import CACHE, RoutedLayer
from titan.models.remote_code.routed_tokens import NOWHERE, RoutedCacheLayer, Tokens, visible

pytestmark = pytest.mark.slow
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest) -> Any:
    return make_pair(request.param)[1]


def routed_layers(model: Any) -> list[tuple[int, RoutedLayer]]:
    return [(index, layer) for index, layer in enumerate(model.model.layers) if isinstance(layer, RoutedLayer)]


def changed(model: Any, tokens: torch.Tensor) -> list[torch.Tensor]:
    """Of each routed layer, which tokens it changed."""
    states = model(tokens, output_hidden_states=True).hidden_states
    # The last state has gone through the norm.
    return [(states[i] != states[i + 1]).any(-1) for i, _ in routed_layers(model) if i + 2 < len(states)]


@torch.no_grad()
def test_some_tokens_are_computed_and_the_others_pass_by_bit_for_bit(model: Any) -> None:
    tokens = prompts()
    for is_changed in changed(model, tokens):
        assert 0.1 < is_changed.float().mean() < 0.9
    _, cache = step_by_step(model, tokens, [40])
    for (index, _), is_changed in zip(routed_layers(model), changed(model, tokens), strict=False):
        kept = cache.layers[index]
        assert [sorted(row[row != NOWHERE].tolist()) for row in kept.places] == [
            row.nonzero().squeeze(1).tolist() for row in is_changed
        ]
        assert kept.keys.shape[2] == is_changed.sum(1).max(), "keys of the tokens that were computed, and no others"
        assert kept.get_seq_length() == 40


@torch.no_grad()
@pytest.mark.parametrize("lengths", [[1] * 40, [7, 1, 20, 12], [39, 1]])
def test_tokens_in_pieces_have_the_logits_of_tokens_at_once(model: Any, lengths: list[int]) -> None:
    tokens = prompts()

    logits, cache = step_by_step(model, tokens, lengths)

    torch.testing.assert_close(logits, model(tokens, use_cache=False).logits, **CLOSE)
    assert cache.get_seq_length() == 40


@torch.no_grad()
def test_what_comes_later_changes_nothing_before(model: Any) -> None:
    tokens = prompts()
    other = tokens.clone()
    other[:, 25:] = prompts(seed=1)[:, 25:]

    logits, others = model(tokens).logits, model(other).logits

    torch.testing.assert_close(logits[:, :25], others[:, :25], **CLOSE)
    assert (logits[:, 25:] - others[:, 25:]).abs().max() > 0.1


@torch.no_grad()
def test_a_row_alone_has_the_logits_that_it_has_among_others(model: Any) -> None:
    tokens = prompts(4)
    together = model(tokens).logits
    for row in range(4):
        torch.testing.assert_close(model(tokens[row : row + 1]).logits[0], together[row], **CLOSE)


@torch.no_grad()
def test_padding_changes_no_logits_whatever_it_is_and_wherever_positions_begin(model: Any) -> None:
    row = prompts()[0, :23]
    alone = model(row[None]).logits[0]
    tokens, mask = padded([row, prompts()[1]])
    tokens[0, :17] = prompts(1, 17, seed=5)

    for positions in (None, (mask.cumsum(1) - 1).clamp(min=0)):
        for use_cache in (True, False):
            logits = model(tokens, attention_mask=mask, position_ids=positions, use_cache=use_cache).logits
            torch.testing.assert_close(logits[0, 17:], alone, **CLOSE)
    after = model(torch.nn.functional.pad(row, (0, 6), value=3)[None]).logits
    torch.testing.assert_close(after[0, :23], alone, **CLOSE)


@torch.no_grad()
def test_padding_between_tokens_changes_nothing_or_is_refused(model: Any) -> None:
    row = prompts(1)
    tokens = torch.cat([row[:, :8], torch.full((1, 4), 3), row[:, 8:]], dim=1)
    mask = torch.cat([torch.ones(1, 8), torch.zeros(1, 4), torch.ones(1, 32)], dim=1).long()
    if model.config.model_type == "titanflow_mod" and model.config.causal_router == "own":
        logits = model(tokens, attention_mask=mask, use_cache=False).logits
        torch.testing.assert_close(logits[:, 12:], model(row).logits[:, 8:], **CLOSE)
        return
    with pytest.raises(ValueError, match="attention_mask: found padding between the tokens of a row"):
        model(tokens, attention_mask=mask)
    _, cache = step_by_step(model, tokens, [8])
    cache = model(tokens[:, 8:12], attention_mask=mask[:, :12], **{CACHE: cache})[CACHE]
    with pytest.raises(ValueError, match="attention_mask: found padding between the tokens of a row"):
        model(tokens[:, 12:], attention_mask=mask, **{CACHE: cache})


@torch.no_grad()
def test_positions_may_begin_anywhere(model: Any) -> None:
    tokens = prompts()
    positions = torch.arange(40)[None] + 70

    expected = model(tokens).logits

    shifted = model(tokens, position_ids=positions)
    torch.testing.assert_close(shifted.logits, expected, rtol=1e-3, atol=1e-4)
    _, cache = step_by_step(model, tokens, [30])
    after = model(tokens[:, 30:], **{CACHE: cache}, position_ids=positions[:, 30:] - 70).logits
    torch.testing.assert_close(after, expected[:, 30:], **CLOSE)


@torch.no_grad()
def test_documents_that_share_a_row_have_the_logits_of_rows_of_their_own(model: Any) -> None:
    first, second = prompts()[:1, :17], prompts()[1:2, :23]
    positions = torch.cat([torch.arange(17), torch.arange(23)])[None]

    together, alone = torch.cat([first, second], dim=1), torch.cat([model(first).logits, model(second).logits], dim=1)
    for use_cache in (True, False):
        packed = model(together, position_ids=positions, use_cache=use_cache).logits
        torch.testing.assert_close(packed, alone, **CLOSE)
    # In pieces: within the first document, across both, within the second, and one token.
    cache, pieces = None, []
    for tokens, places in zip(together.split([9, 15, 15, 1], 1), positions.split([9, 15, 15, 1], 1), strict=True):
        output = model(tokens, position_ids=places, use_cache=True, **{CACHE: cache})
        cache = output[CACHE]
        pieces.append(output.logits)
    torch.testing.assert_close(torch.cat(pieces, dim=1), alone, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_the_decoder_takes_its_cache_under_either_name(model: Any, name: str) -> None:
    tokens = prompts()
    _, cache = step_by_step(model, tokens, [30])

    after = model.model(tokens[:, 30:], **{name: cache}).last_hidden_state

    torch.testing.assert_close(after, model.model(tokens).last_hidden_state[:, 30:], **CLOSE)


@torch.no_grad()
def test_a_cache_forgets_tokens_and_goes_on(model: Any) -> None:
    tokens = prompts()
    expected = model(tokens).logits
    _, cache = step_by_step(model, tokens, [30])
    wrong = copy.deepcopy(cache)
    model(prompts(seed=3)[:, :8], **{CACHE: wrong})

    wrong.crop(-8)

    assert wrong.get_seq_length() == 30
    for used in (wrong, cache):
        logits = model(tokens[:, 30:], **{CACHE: used}).logits
        torch.testing.assert_close(logits, expected[:, 30:], **CLOSE)
    used.reset()
    torch.testing.assert_close(model(tokens, **{CACHE: used}).logits, expected, **CLOSE)


@torch.no_grad()
def test_a_cache_changes_its_rows(model: Any) -> None:
    tokens = prompts()
    expected = model(tokens).logits[:, 30:]
    order = torch.tensor([2, 0, 0])
    changes = {
        "reorder_cache": (order, order),
        "batch_select_indices": (order[:2], order[:2]),
        "batch_repeat_interleave": (2, torch.tensor([0, 0, 1, 1, 2, 2])),
    }
    for change, (argument, rows) in changes.items():
        # Two tokens: a routed layer may have computed none of them yet.
        for length in (30, 2):
            _, cache = step_by_step(model, tokens, [length])
            getattr(cache, change)(argument)
            logits = model(tokens[rows, length:], **{CACHE: cache}).logits[:, 30 - length :]
            torch.testing.assert_close(logits, expected[rows], **CLOSE)


def test_a_layer_that_has_computed_nothing_can_be_changed() -> None:
    kept = RoutedCacheLayer()
    kept.add_places(torch.empty(2, 0, dtype=torch.long), 5)
    places = torch.arange(5).expand(2, -1)
    tokens = Tokens(places, places, torch.zeros_like(places), torch.ones(2, 5).bool())
    kept.add_signals("change", torch.ones(2, 5), tokens)

    kept.reorder_cache(torch.tensor([1, 0]))
    kept.batch_repeat_interleave(2)
    kept.crop(-1)

    assert (kept.get_seq_length(), kept.signals["change"].shape) == (4, (4, 4))
    kept.crop(3)
    assert kept.get_seq_length() == 3
    kept.crop(-5)
    assert (kept.get_seq_length(), kept.signals["change"].shape) == (0, (4, 0))


def test_what_a_query_sees() -> None:
    places, starts = torch.tensor([[4, 6]]), torch.tensor([[0, 5]])

    seen = visible(places, starts, torch.tensor([[1, NOWHERE, 5, 4, 6]]))[0, 0]

    assert seen.tolist() == [[True, False, False, True, False], [False, False, True, False, True]]


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_eager_attention_computes_the_same(kind: str) -> None:
    tokens, mask = padded([prompts()[0], prompts()[1, :31]])
    (_, eager), (_, sdpa) = make_pair(kind, "eager"), make_pair(kind)

    for settings in ({}, {"use_cache": False}):
        logits = [model(tokens, attention_mask=mask, **settings).logits for model in (eager, sdpa)]
        torch.testing.assert_close(logits[0][mask.bool()], logits[1][mask.bool()], **CLOSE)
    assert torch.equal(greedy(eager, tokens, attention_mask=mask), greedy(sdpa, tokens, attention_mask=mask))


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_in_bfloat16_a_cache_changes_little(kind: str) -> None:
    model = make_pair(kind)[1].to(torch.bfloat16)
    tokens, mask = padded([prompts()[0], prompts()[1, :31]])

    # Two passes that round otherwise may choose otherwise at the threshold: most rows stay close.
    logits, _ = step_by_step(model, tokens[:1], [1] * 40)
    together = model(tokens, attention_mask=mask).logits

    assert together.dtype == torch.bfloat16
    assert (logits[0] - together[0]).abs().mean() < 0.1 * together[0].abs().mean()


@torch.no_grad()
def test_embeddings_may_be_given_in_place_of_tokens(model: Any) -> None:
    tokens = prompts()

    logits = model(inputs_embeds=model.get_input_embeddings()(tokens)).logits

    assert torch.equal(logits, model(tokens).logits)
    with pytest.raises(ValueError, match="one of both"):
        model(tokens, inputs_embeds=model.get_input_embeddings()(tokens))


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("reentrant", [True, False])
def test_what_it_computes_can_be_fine_tuned(model: Any, reentrant: bool, use_cache: bool) -> None:
    tokens = prompts()
    model.train()

    model(tokens, labels=tokens).loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    # A layer that kept its cache would see its own tokens twice when it is computed again.
    model(tokens, labels=tokens, use_cache=use_cache).loss.backward()
    model.gradient_checkpointing_disable()

    for index, _ in routed_layers(model):
        assert gradients[f"model.layers.{index}.mlp.up_proj.weight"].abs().max() > 0
    for name, gradient in gradients.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient)
        assert gradient.isfinite().all()
    model.zero_grad()
    model.eval()


@torch.no_grad()
def test_fully_padded_rows_are_numbers(model: Any) -> None:
    tokens, mask = padded([prompts()[0], prompts()[1, :1]])

    assert model(tokens, attention_mask=mask).logits.isfinite().all()
