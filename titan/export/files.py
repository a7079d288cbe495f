"""The files beside the weights: ``config.json`` from the model's arguments, generation defaults, the tokenizer.

The config comes from no template: each of the native model's arguments is translated, and :mod:`titan.export.parity`
then compares the two models' logits.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from titan.models.huggingface import hugging_face_model
from titanflow.common.errors import DataError, Problem, StageFailed
from titanflow.data.tokenizer.checks import encodes_otherwise
from titanflow.data.tokenizer.tokenizer import LoadedTokenizer, tokenizer_files

END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>")
"""Tokens that end a turn in common chat formats; a tokenizer's own ones end a generation."""


@dataclass(frozen=True)
class SpecialTokens:
    """A config's token ids; ``eos`` has all that end a generation, the end of text first."""

    bos: int | None
    eos: tuple[int, ...]
    pad: int | None
    vocabulary: int
    """The smallest number of embeddings that covers every token."""

    @classmethod
    def read(cls, tokenizer: Path, end_of_turn: tuple[int, ...] = ()) -> SpecialTokens:
        """Reads a tokenizer's folder; ``end_of_turn`` ends a generation, too.

        Without trained turns, the tokens in :data:`END_OF_TURN` do; with them, these may occur within a turn.

        Raises:
            DataError: the folder holds no tokenizer, or one without an end of text.
        """
        from transformers import AutoTokenizer

        if not (tokenizer / "tokenizer.json").is_file():
            expected = "the folder of a fast tokenizer"
            raise DataError(Problem("no tokenizer.json", origin=str(tokenizer), expected=expected))
        loaded = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
        if loaded.eos_token_id is None:
            origin, hint = tokenizer / "tokenizer_config.json", "name the token that separates documents as eos_token"
            raise DataError(Problem("the tokenizer has no eos_token", origin=str(origin), hint=hint))
        vocabulary = loaded.get_vocab()
        turns = end_of_turn or [vocabulary[token] for token in END_OF_TURN if token in vocabulary]
        return cls(
            bos=loaded.bos_token_id,
            eos=tuple(dict.fromkeys([loaded.eos_token_id, *turns])),
            pad=loaded.pad_token_id,
            vocabulary=max(vocabulary.values()) + 1,
        )


def make_config(model_name: str, args: Any, tokens: SpecialTokens, max_position_embeddings: int) -> Any:
    """The transformers config that makes the exported weights compute what the native model does.

    ``max_position_embeddings`` is the ``seq_len`` of the training: the model never saw later positions.
    """
    if tokens.vocabulary > args.vocab_size:
        found = f"the tokenizer has {tokens.vocabulary} tokens and the model {args.vocab_size} embeddings"
        hint = "export with the tokenizer that the model was trained with"
        raise DataError(Problem(found, key="model.vocab_size", hint=hint))
    common = {
        "vocab_size": args.vocab_size,
        "hidden_size": args.dim,
        "num_hidden_layers": args.n_layers,
        "num_attention_heads": args.n_heads,
        "num_key_value_heads": getattr(args, "n_kv_heads", None) or args.n_heads,
        "hidden_act": "silu",
        "max_position_embeddings": max_position_embeddings,
        "rms_norm_eps": args.norm_eps,
        "attention_bias": False,
        "bos_token_id": tokens.bos,
        "eos_token_id": tokens.eos[0],
        "pad_token_id": tokens.pad,
        "dtype": "float32",
    }
    return hugging_face_model(model_name, args).make_config(args, common)


def make_generation_config(tokens: SpecialTokens) -> Any:
    """Greedy generation that ends with the document or the turn.

    It has no ``max_new_tokens``, which would silently override an evaluation task's ``max_gen_toks``.
    """
    from transformers import GenerationConfig

    return GenerationConfig(
        bos_token_id=tokens.bos, eos_token_id=list(tokens.eos), pad_token_id=tokens.pad, do_sample=False
    )


def check_tokenizer(folder: Path, trained: LoadedTokenizer) -> None:
    """Refuses an export whose tokenizer encodes differently in transformers than ``trained`` did in training.

    transformers chooses the class also by the model, and some classes split text in their own way.

    Raises:
        StageFailed: it encodes differently.
    """
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if encodes_otherwise(loaded, trained):
        raise StageFailed(
            f"{folder}: transformers loads the tokenizer as {type(loaded).__name__}, which encodes otherwise than the "
            "one that the model was trained with. Train with a tokenizer of that kind."
        )


def add_rope_for_transformers_4(folder: Path) -> None:
    """Repeats RoPE's parameters for transformers 4.57, which else silently uses a theta of 10,000 without scaling."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    parameters = dict(config["rope_parameters"])
    config["rope_theta"] = parameters.pop("rope_theta")
    config["rope_scaling"] = None if parameters["rope_type"] == "default" else parameters
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def export_tokenizer(tokenizer: Path, folder: Path, chat_template: str | None = None) -> None:
    """Copies a tokenizer's files to ``folder`` so that transformers 4 and 5 load them alike.

    ``chat_template`` is a text that replaces the tokenizer's own template.
    """
    for file in tokenizer_files(tokenizer):
        shutil.copyfile(file, folder / file.name)
    if chat_template is not None:
        (folder / "chat_template.jinja").write_text(chat_template, encoding="utf-8")
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    # transformers 5 writes a class that 4 lacks, and keys about how this folder was loaded.
    if config.get("tokenizer_class") in (None, "TokenizersBackend"):
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    for key in ("backend", "is_local", "local_files_only"):
        config.pop(key, None)
    if (folder / "chat_template.jinja").exists():
        config.pop("chat_template", None)
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
