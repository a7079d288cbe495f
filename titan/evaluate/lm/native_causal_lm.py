"""torchtitan's own model, from a checkpoint, with the manners of a transformers model: for scores without an export.

It has no cache: generating reads the whole text again for each token. A running training's checkpoints are scored so;
what is published is scored as it was exported.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from titan.export.files import SpecialTokens, copy_tokenizer, make_generation_config
from titan.export.stage_model import chat_template, end_of_turn, stage_model
from titan.weights.native import load_native
from titanflow.common.errors import DataError, Problem
from titanflow.run.contract import StageRun


class NativeConfig(PreTrainedConfig):
    """What transformers asks a config for."""

    model_type = "titanflow_native"


class NativeForCausalLM(PreTrainedModel, GenerationMixin):
    """A native model of any family; weights are read by torchtitan, never by ``from_pretrained``."""

    config_class = NativeConfig
    main_input_name = "input_ids"

    def __init__(self, config: NativeConfig, native: Any) -> None:
        super().__init__(config)
        self.native = native
        # torchtitan's models return the hidden states where they have no output layer, as a pipeline's stages do.
        self.head, native.output = native.output, None

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> CausalLMOutput:
        """Logits ``[rows, logits_to_keep or all tokens, vocabulary]`` of token ids ``[rows, tokens]``.

        Wherever ``attention_mask`` says that a row is padded, it is computed with the padding moved to its right, where
        a causal model doesn't look.
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
        """The whole text so far: there is no cache that holds its beginning."""
        return {"input_ids": input_ids, "attention_mask": attention_mask, "logits_to_keep": 1}

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def _init_weights(self, module: Any) -> None:
        """Nothing is left to initialise."""


def load_native_causal_lm(checkpoint: Path, dtype: torch.dtype = torch.float32) -> tuple[NativeForCausalLM, Any]:
    """The model of a checkpoint and its tokenizer, with the template and the end of turn that were trained.

    Args:
        checkpoint: ``checkpoint/step-N`` in the folder of a training stage of one's own: its metadata is a pickle.
        dtype: of the weights; RoPE's table stays complex.

    Raises:
        DataError: it isn't that, or the stage names no tokenizer.
    """
    stage = checkpoint.parent.parent
    trained, run = stage_model(stage), StageRun.of(stage)
    if trained.tokenizer is None:
        raise DataError(Problem("the stage names no tokenizer", origin=str(stage)))
    tokenizer = _tokenizer(trained.tokenizer, chat_template(run))
    native = load_native(checkpoint, trained.name, trained.args, trained.seq_len)
    config = NativeConfig(
        vocab_size=trained.args.vocab_size,
        max_position_embeddings=trained.seq_len,
        num_hidden_layers=trained.args.n_layers,
        tie_word_embeddings=False,
        name_or_path=str(checkpoint),
    )
    model = NativeForCausalLM(config, native)
    model.generation_config = make_generation_config(SpecialTokens.read(trained.tokenizer, end_of_turn(run)))
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model.eval(), tokenizer


def _tokenizer(folder: Path, template: str | None) -> Any:
    """The tokenizer as an export has it."""
    with tempfile.TemporaryDirectory() as place:
        copy_tokenizer(folder, Path(place), template)
        return AutoTokenizer.from_pretrained(place, trust_remote_code=False)
