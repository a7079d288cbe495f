"""Documents of a packed row that don't see each other, by each kind of attention."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from place import Place, Row, judged, not_run

KINDS = {"sdpa": "masked", "varlen": "varlen", "flex": "flex"}
ROWS = [f"documents apart by {name} attention" for name in KINDS.values()]
LENGTHS = (100, 90, 66)
"""Of a row's documents; FlexAttention wants rows of whole blocks of 128."""
SHAPE = {"dim": 256, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 2048, "max_seq_len": sum(LENGTHS)}
LIMIT = 0.05
"""Of the difference's norm over the norm, in bfloat16; the same row as one document has to differ ten times as much."""
SHARPER = 6
"""What attention's weights are multiplied by: as they are drawn, all tokens are attended to alike."""
SEED = 3


def check(place: Place, seconds: float) -> Iterator[Row]:
    """Compares logits and a gradient with those of each document in a row of its own."""
    import torch

    del seconds
    draw = torch.Generator().manual_seed(SEED)
    documents = [torch.randint(SHAPE["vocab_size"], (length + 1,), generator=draw) for length in LENGTHS]
    alone = computed(place, "sdpa", [[document] for document in documents])
    as_one = computed(place, "sdpa", [[torch.cat([documents[0], *(one[1:] for one in documents[1:])])]])
    seen = difference(as_one, alone)
    for row, (kind, name) in zip(ROWS, KINDS.items(), strict=True):
        wanted = f"≤ {LIMIT:.0%} from each document alone"
        if kind != "sdpa" and not place.has_cuda:
            yield not_run(row, wanted)
            continue
        worst = difference(computed(place, kind, [documents]), alone)
        found = f"{name}: logits and gradient differ by {worst:.1e}; by {seen:.1e} if documents see each other"
        yield judged(row, wanted, found, worst <= LIMIT and seen > 10 * LIMIT, difference=worst, as_one=seen)


def computed(place: Place, kind: str, rows: list[list[Any]]) -> dict[str, Any]:
    """All rows' logits one after the other, and the gradient of the first layer's queries."""
    import torch
    from torch.nn.functional import cross_entropy

    device = place.device.kind
    model = built(kind, device)
    logits, loss = [], torch.zeros((), device=device)
    precision = torch.autocast("cuda", dtype=torch.bfloat16) if place.has_cuda else contextlib.nullcontext()
    for row in rows:
        tokens, labels = (torch.cat([one[part] for one in row]).to(device) for part in (slice(-1), slice(1, None)))
        positions = torch.cat([torch.arange(len(one) - 1) for one in row]).to(device)
        with precision:
            output = model(tokens[None], positions=positions[None])[0].float()
        logits.append(output.detach())
        loss = loss + cross_entropy(output, labels, reduction="sum")
    loss.backward()
    return {"logits": torch.cat(logits), "gradient": model.layers["0"].attention.wq.weight.grad.float()}


def built(kind: str, device: str) -> Any:
    import dataclasses

    import torch

    from titan.models.documents import keep_documents_apart
    from titan.models.registry import train_spec

    spec = train_spec("llama3")
    torch.manual_seed(SEED)
    model = spec.model_cls(dataclasses.replace(spec.model_args["debugmodel"], **SHAPE, attn_type=kind))
    with torch.no_grad():
        model.init_weights(buffer_device=torch.device("cpu"))
        for name, parameter in model.named_parameters():
            if "attention.w" in name:
                parameter *= SHARPER
    keep_documents_apart(model)
    return model.to(device)


def difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    return max(float((one[name] - other[name]).norm() / other[name].norm()) for name in other)
