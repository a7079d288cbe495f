"""What the modelling files refuse."""

from typing import Any

import pytest
import torch
from routed_models import KINDS
from tiny_routed import greedy, make_pair, prompts
from transformers import DynamicCache, StaticCache

from titan.models.remote_code.routed_decoder import CACHE


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest) -> Any:
    return make_pair(request.param)[1]


@torch.no_grad()
def test_a_cache_that_cannot_hold_it_is_refused(model: Any) -> None:
    tokens = prompts()
    with pytest.raises(ValueError, match="StaticCache can't hold"):
        model(tokens, **{CACHE: StaticCache(config=model.config, max_cache_len=64)})
    foreign = DynamicCache()
    for _ in range(model.config.num_hidden_layers):
        foreign.update(*torch.zeros(2, 3, 2, 5, 16), layer_idx=len(foreign.layers))
    with pytest.raises(ValueError, match="DynamicCache can't hold"):
        model(tokens, **{CACHE: foreign})
    with pytest.raises(ValueError, match="object can't hold"):
        model(tokens, **{CACHE: object()})


@torch.no_grad()
def test_what_cannot_be_given_or_told_is_refused(model: Any) -> None:
    tokens = prompts()
    with pytest.raises(ValueError, match=r"attention_mask: found \[3, 39\], expected \[3, 40\]"):
        model(tokens, attention_mask=torch.ones(3, 39))
    with pytest.raises(ValueError, match="output_attentions: a routed layer has none"):
        greedy(model, tokens, output_attentions=True, return_dict_in_generate=True)
