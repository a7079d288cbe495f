"""Refuses GGUF files of a model whose tokenizer llama.cpp can't follow, before anything is trained."""

from __future__ import annotations

import json

from titanflow.architectures.base import TOKENIZER_FILE
from titanflow.common.errors import Problem
from titanflow.config.experiment import Experiment
from titanflow.config.module import Module
from titanflow.config.stages import model_module
from titanflow.data.tokenizer.llama_cpp import WORDS, inexpressible
from titanflow.planning.origin.tokenizer_plan import TokenizerPlans

EXPECTED = f"a byte-level BPE that splits text into words as {', '.join(WORDS.values())} does"
HINT = "leave gguf out; a tokenizer that is trained here always fits"


def gguf_tokenizer_problems(publish: Module, experiment: Experiment, tokenizers: TokenizerPlans) -> list[Problem]:
    """What llama.cpp can't do as the published model's tokenizer does; empty for one that isn't here yet."""
    if not publish.config["gguf"]:
        return []
    trained = model_module(publish.config["model"], experiment.modules)
    folder = tokenizers.template_source(trained) if trained is not None else None
    path = folder / TOKENIZER_FILE if folder is not None else None
    if path is None or not path.is_file():
        return []
    try:
        found = inexpressible(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        found = [f"it can't be read: {error}"]
    return [publish.problem("gguf", f"{path}: {one}", EXPECTED, HINT) for one in found]
