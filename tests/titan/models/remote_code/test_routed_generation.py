from typing import Any

import numpy as np
import pytest
import torch
from routed_models import KINDS
from tiny_routed import greedy, make_pair, padded, prompts

pytestmark = pytest.mark.slow
GENERATED = {
    "mod": [
        [201, 266, 242, 95, 201, 191, 146, 65, 113, 237, 95, 100],
        [14, 164, 271, 182, 140, 103, 71, 72, 267, 277, 17, 45],
    ],
    "dtf": [
        [243, 53, 205, 215, 285, 169, 80, 100, 4, 249, 88, 284],
        [186, 2, 50, 40, 138, 229, 142, 26, 239, 182, 100, 195],
    ],
    "mod own": [
        [69, 71, 69, 93, 143, 299, 276, 54, 275, 251, 285, 277],
        [270, 141, 255, 270, 182, 68, 10, 142, 93, 201, 184, 0],
    ],
    "dtf own": [
        [158, 161, 6, 66, 74, 181, 209, 14, 253, 79, 66, 24],
        [217, 73, 110, 140, 140, 210, 21, 247, 239, 88, 79, 140],
    ],
    "tdtf": [
        [141, 190, 94, 143, 215, 104, 271, 66, 48, 66, 118, 179],
        [195, 14, 1, 157, 282, 40, 27, 176, 257, 140, 230, 184],
    ],
}
"""What each model generated with the weights of :func:`drawn` under transformers 5.20.0 and 5.24.0, torch 2.11.0 and
2.13.0; mod and dtf with the default router under 5.24.0 and 2.13.0 alone. The likeliest two logits were never closer
than 7e-4, and those of two releases never further apart than 2e-6.
"""


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest) -> Any:
    return make_pair(request.param)[1]


@torch.no_grad()
@pytest.mark.parametrize("use_cache", [True, False])
def test_prompts_padded_before_go_on_as_each_alone(model: Any, use_cache: bool) -> None:
    rows = [prompts()[0, :5], prompts()[1, :23], prompts()[2, :40]]
    tokens, mask = padded(rows)

    together = greedy(model, tokens, attention_mask=mask, use_cache=use_cache)

    for row, continued in zip(rows, together, strict=True):
        assert torch.equal(greedy(model, row[None])[0], continued)


@torch.no_grad()
@pytest.mark.parametrize(
    "settings",
    [{"use_cache": False}, {"prefill_chunk_size": 9}, {"prompt_lookup_num_tokens": 3}],
    ids=["no cache", "prefill in chunks", "prompt lookup"],
)
def test_each_way_to_generate_chooses_the_same_tokens(model: Any, settings: dict[str, Any]) -> None:
    tokens = prompts(1)
    # Something to look up: a prompt that repeats itself.
    tokens[:, 20:] = tokens[:, :20]

    assert torch.equal(greedy(model, tokens, **settings), greedy(model, tokens))


def drawn(model: Any) -> Any:
    """The model with weights of numpy's legacy generator, whose numbers are the same for good; torch's initial weights
    changed between its releases.
    """
    draw = np.random.RandomState(0)
    for name, parameter in sorted(model.named_parameters()):
        value = torch.from_numpy(draw.standard_normal(tuple(parameter.shape))).to(parameter)
        if parameter.ndim == 2:
            parameter.copy_(value if "embed" in name else 3 * value / parameter.shape[1] ** 0.5)
        elif "router" in name:
            parameter.copy_(0.65 + 0.05 * value)
        else:
            parameter.copy_(0.3 * value + (0 if name.endswith("bias") else 1))
    return model


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_the_tokens_are_those_of_every_version_of_transformers(kind: str) -> None:
    model = drawn(make_pair(kind)[1])

    assert greedy(model, prompts(2)).tolist() == GENERATED[kind]


@torch.no_grad()
def test_beams_are_the_same_with_and_without_a_cache(model: Any) -> None:
    tokens, mask = padded([prompts()[0], prompts()[1, :31]])
    found = [
        greedy(model, tokens, attention_mask=mask, num_beams=3, num_return_sequences=2, use_cache=use_cache)
        for use_cache in (True, False)
    ]
    assert torch.equal(*found)
    assert not torch.equal(found[0][0], found[0][1])
