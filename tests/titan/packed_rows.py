"""Packed rows made by hand, and models that read them."""

import dataclasses

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from titan.models.documents import keep_documents_apart
from titan.models.registry import train_spec
from titan.train.dataloader import collate
from titanflow.data.prepared import IGNORE_INDEX, Row

PAD = 3
VOCAB = 64
SEQ_LEN = 32
COMMON = {"dim": 32, "n_layers": 2, "n_heads": 4, "vocab_size": VOCAB, "max_seq_len": SEQ_LEN}
LATENT = {"kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
FAMILIES = {
    "llama3": {"n_kv_heads": 2},
    "qwen3": {"n_kv_heads": 2, "head_dim": 8, "hidden_dim": 64},
    "qwen2": {"n_kv_heads": 2, "hidden_dim": 64},
    # Without experts, which don't train on a CPU.
    "deepseek_v3": {"inter_dim": 64, "n_dense_layers": 2, **LATENT},
}


def packed_row(documents: list[Row], seq_len: int) -> Row:
    """Documents one after the other, and the padding as a document of its own."""
    count = sum(len(document.input_ids) for document in documents)
    padding = seq_len - count
    columns = {
        "input_ids": [*(document.input_ids for document in documents), np.full(padding, PAD)],
        "labels": [*(document.labels for document in documents), np.full(padding, IGNORE_INDEX)],
        "positions": [np.arange(len(document.input_ids)) for document in documents] + [np.arange(padding)],
    }
    return Row(**{name: np.concatenate(parts).astype(np.int64) for name, parts in columns.items()})


def build(family, **arguments):
    spec = train_spec(family)
    args = dataclasses.replace(spec.model_args["debugmodel"], **COMMON, **FAMILIES[family], **arguments)
    torch.manual_seed(3)
    model = spec.model_cls(args)
    with torch.no_grad():
        model.init_weights(buffer_device=torch.device("cpu"))
        for name, parameter in model.named_parameters():
            if "attention.w" in name and parameter.dim() > 1:
                # As drawn, all tokens would be attended to alike.
                parameter *= 6
    return model


def packing(model):
    keep_documents_apart(model)
    return model


def document(length, seed, trained=None):
    tokens = np.random.default_rng(seed).integers(4, VOCAB, size=length + 1)
    labels = tokens[1:].copy()
    labels[: length // 2 if trained is None else length - trained] = IGNORE_INDEX
    return Row(tokens[:-1], labels)


ROWS = [
    [document(7, 0), document(12, 1), document(9, 2)],
    [document(32, 3)],
    [document(1, 4, trained=1), document(20, 5), document(11, 6)],
]


def batch_of(rows, seq_len=SEQ_LEN):
    inputs, labels = collate([packed_row(row, seq_len) for row in rows])
    return inputs["input"], inputs["positions"], labels


def summed_loss(logits, labels):
    return cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum", ignore_index=IGNORE_INDEX)
