"""torchtitan's own model, from a checkpoint, wrapped as a transformers model: for scores without an export.

It has no cache: each generated token costs a pass over the whole text. It scores checkpoints of a running training; a
published model is scored from its export.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from titan.export.files import SpecialTokens, export_tokenizer, make_generation_config
from titan.weights.native import load_native
from titan.weights.stage_model import read_model
from titanflow.common.errors import DataError, Problem


class NativeConfig(PreTrainedConfig):
    """The least config that transformers needs."""

    model_type = "titanflow_native"


class NativeForCausalLM(PreTrainedModel, GenerationMixin):
    """A native model of any family; weights are read by torchtitan, never by ``from_pretrained``."""

    config_class = NativeConfig
    main_input_name = "input_ids"

    def __init__(self, config: NativeConfig, native: Any) -> None:
        super().__init__(config)
        self.native = native
        # Without an output layer, as in a pipeline's stages, torchtitan's models return the hidden states.
        self.head, native.output = native.output, None

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> CausalLMOutput:
        """Logits ``[rows, logits_to_keep or all tokens, vocabulary]`` of token ids ``[rows, tokens]``.

        Padding is moved to the right, where a causal model doesn't look.
        """
        if attention_mask is None or bool(attention_mask.all()):
            hidden = self.native(input_ids)
        else:
            order = (attention_mask == 0).to(torch.int8).argsort(dim=1, stable=True)
            moved = self.native(input_ids.gather(1, order))
            hidden = moved.gather(1, order.argsort(dim=1)[..., None].expand_as(moved))
        return CausalLMOutput(logits=self.head(hidden[:, -logits_to_keep:]))

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any
    ) -> dict[str, Any]:
        return {"input_ids": input_ids, "attention_mask": attention_mask, "logits_to_keep": 1}

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def _init_weights(self, module: Any) -> None:
        """The weights are loaded already."""


def load_native_causal_lm(checkpoint: Path, dtype: torch.dtype = torch.float32) -> tuple[NativeForCausalLM, Any]:
    """A checkpoint's model and tokenizer, with the template and the end of turn of the training.

    ``checkpoint`` is ``checkpoint/step-N`` in a training stage's folder. Use only your own: its metadata is a pickle.
    ``dtype`` is the weights'; RoPE's table stays complex.
    """
    trained = read_model(checkpoint)
    if trained.tokenizer is None:
        raise DataError(Problem("the stage names no tokenizer", origin=str(checkpoint)))
    # By way of a copy, so that the tokenizer is loaded as from an export.
    with tempfile.TemporaryDirectory() as folder:
        export_tokenizer(trained.tokenizer, Path(folder), trained.chat_template)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    native = load_native(trained)
    config = NativeConfig(
        vocab_size=trained.args.vocab_size,
        max_position_embeddings=trained.seq_len,
        num_hidden_layers=trained.args.n_layers,
        tie_word_embeddings=False,
        name_or_path=str(checkpoint),
    )
    model = NativeForCausalLM(config, native)
    model.generation_config = make_generation_config(SpecialTokens.read(trained.tokenizer, trained.end_of_turn))
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model.eval(), tokenizer
