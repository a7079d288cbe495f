"""Small models with routed layers whose routers have something to tell apart, and what is compared of them."""

import dataclasses

import torch

from titan.models.dynamic.model import RoutedBlock
from titan.native_model import train_spec

FAMILIES = ("mod", "dtf", "tdtf")
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


def small_args(family, **changes):
    return dataclasses.replace(train_spec(family).model_args["debugmodel"], **{**SHAPE, **changes})


def small_model(family, seed=0, **changes):
    """A model in double precision, so that what should be equal is, to far below what could be a mistake."""
    spec = train_spec(family)
    torch.manual_seed(seed)
    model = spec.model_cls(small_args(family, **changes))
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
    tokens = some_tokens(8, seed=99)
    for layer in model.layers.values():
        logits = {}
        if hasattr(layer, "predictor"):
            hook = layer.predictor.register_forward_hook(lambda _, x, out, found=logits: found.update(out=out))
            bias, scale = layer.predictor.score.bias, -1.0
        elif hasattr(layer, "student"):
            hook = layer.student.register_forward_hook(lambda _, x, out, found=logits: found.update(out=out))
            bias, scale = layer.student.bias, -1.0
        elif hasattr(layer, "router"):
            hook = layer.router.register_forward_hook(lambda _, x, out, found=logits: found.update(out=out.score))
            bias, scale = layer.router.threshold, 1.0
        else:
            continue
        with torch.no_grad():
            model(tokens)
            hook.remove()
            middle = logits["out"].double().median()
            bias.copy_(middle if scale > 0 else bias - middle)
    return model.train()


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
