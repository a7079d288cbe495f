"""Small models with routed layers whose routers have something to tell apart, and what is compared of them.

Each family is tested, and with its own causal router each that has one.
"""

import dataclasses

import torch

from titan.models.dynamic.model import RoutedBlock
from titan.models.qwen2.model.model import TransformerBlock
from titan.models.registry import train_spec

FAMILIES = ("mod", "dtf", "tdtf")
KINDS = (*FAMILIES, "mod own", "dtf own")
VOCAB, SEQ_LEN = 64, 24
SHAPE = {
    "dim": 32,
    "n_layers": 4,
    "n_heads": 2,
    "n_kv_heads": 1,
    "hidden_dim": 48,
    "vocab_size": VOCAB,
    "max_seq_len": 64,
    "capacity": 0.5,
}
LOUDER = 10
"""Times what training starts with: the residual stream changes by as much as it is wide, and routers differ."""


def family_of(kind: str) -> str:
    return kind.partition(" ")[0]


def router_of(kind: str) -> dict[str, str]:
    """The model's arguments that set another causal router than the default."""
    router = kind.partition(" ")[2]
    return {"causal_router": router} if router else {}


def small_args(kind, **changes):
    default = train_spec(family_of(kind)).model_args["debugmodel"]
    return dataclasses.replace(default, **{**SHAPE, **router_of(kind), **changes})


def small_model(kind, seed=0, **changes):
    """A model in double precision, so that what should be equal is, to far below what could be a mistake."""
    spec = train_spec(family_of(kind))
    torch.manual_seed(seed)
    model = spec.model_cls(small_args(kind, **changes))
    with torch.no_grad():
        model.init_weights()
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and name != "tok_embeddings.weight":
                parameter *= LOUDER
            elif name.endswith((".bias", "norm.weight")):
                parameter += 0.3 * torch.randn_like(parameter)
    return centred(model.double())


def centred(model):
    """Moves each layer's threshold into the middle of what it decides on, so that evaluation takes some tokens."""
    model.eval()
    for layer in model.layers.values():
        if not isinstance(layer, RoutedBlock):
            continue
        decides = decider(layer)
        seen = []
        hook = decides.register_forward_hook(lambda _, args, out, seen=seen: seen.append(getattr(out, "score", out)))
        with torch.no_grad():
            model(some_tokens(8, seed=99))
            hook.remove()
            middle = seen[0].double().quantile(0.5)
            if hasattr(decides, "threshold"):
                decides.threshold.fill_(middle)
            else:
                getattr(decides, "score", decides).bias.sub_(middle)
    return model.train()


def decider(layer):
    """The part of a routed layer that chooses its tokens in evaluation."""
    parts = dict(layer.named_children())
    return next(parts[name] for name in ("causal_router", "predictor", "student", "router") if name in parts)


def some_tokens(rows=3, seed=1, seq_len=SEQ_LEN):
    return torch.randint(0, VOCAB, (rows, seq_len), generator=torch.Generator().manual_seed(seed))


def packed_positions(*lengths, rows=1):
    """Of rows that hold documents of these lengths."""
    return torch.cat([torch.arange(length) for length in lengths]).expand(rows, -1).contiguous()


def chosen_in(model, tokens, positions=None):
    """What each routed layer selects: bool [rows, seq_len] by the layer's number."""
    found, undo = {}, []
    for layer in model.modules():
        if isinstance(layer, RoutedBlock):
            compute = layer.compute

            def noted(x, gate, selection, *rest, layer=layer, compute=compute):
                found[layer.layer_id] = selection.mark(x.shape[1])
                return compute(x, gate, selection, *rest)

            layer.compute = noted
            undo.append(layer)
    with torch.no_grad():
        model(tokens, positions=positions)
    for layer in undo:
        del layer.compute
    return found


def language_loss(model, tokens, positions=None):
    """The mean cross-entropy of each token's successor, as a stage has it."""
    logits = model(tokens, positions=positions)
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def delta_of(block, x, marked, rope_cache, positions):
    """What a layer adds to the marked tokens, document by document, each computed as a row of its own; 0 elsewhere."""
    result = torch.zeros_like(x)
    starts = torch.arange(x.shape[1]) - positions
    for row in range(x.shape[0]):
        for start in starts[row].unique():
            columns = (marked[row] & (starts[row] == start)).nonzero().flatten()
            taken = x[row, columns][None]
            dense = TransformerBlock.forward(block, taken, rope_cache, None, positions[row, columns][None])
            result[row, columns] = (dense - taken)[0]
    return result


def highest(scores, share):
    """The bool mask of each row's highest scores."""
    count = max(1, int(share * scores.shape[1]))
    marked = torch.zeros_like(scores, dtype=torch.bool)
    for row, values in enumerate(scores.tolist()):
        for column in sorted(range(len(values)), key=lambda column: -values[column])[:count]:
            marked[row, column] = True
    return marked


def cross_entropy_of(logits, chosen):
    """Mean binary cross-entropy, by its definition."""
    p = torch.sigmoid(logits.double())
    return -torch.where(chosen, p.log(), (1 - p).log()).mean().item()


def statistics_of(model, layer_id):
    """One layer's, by name."""
    prefix = f"layer_{layer_id}/"
    return {
        name.removeprefix(prefix): value.item()
        for name, value in model.router_statistics().items()
        if name.startswith(prefix)
    }


def layer_operations(args, seq_len, share=1.0):
    """Of attention and feed-forward of a layer, a token: 6 a weight and bias, 12 a key and channel."""
    heads = args.n_heads * args.head_dim
    kv = args.n_kv_heads * args.head_dim
    weights = args.dim * (2 * heads + 2 * kv + 3 * args.hidden_dim) + heads + 2 * kv
    return share * (6 * weights + 12 * heads * share * seq_len)
