"""A Qwen2.5 some of whose layers compute some of the tokens: what the models with routed layers share.

In a routed layer a token is computed or passes by. Those that are computed attend to each other alone, at the
positions that they have in the text, and only they have keys and values there. Whether a token is computed depends
on itself and on tokens before it, never on later ones or on other rows: so generation with a cache, token by token,
computes what one pass over the whole text does.

For inference; fine-tuned, a model goes on choosing tokens as it does here.
"""

from collections.abc import Callable
from dataclasses import fields

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.qwen2.configuration_qwen2 import Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import (
    Qwen2DecoderLayer,
    Qwen2ForCausalLM,
    Qwen2PreTrainedModel,
    Qwen2RMSNorm,
    Qwen2RotaryEmbedding,
)

from .routed_tokens import NOWHERE, RoutedCacheLayer, Tokens, take, visible

CACHE = "cache" if "cache" in {field.name for field in fields(BaseModelOutputWithPast)} else "past_key_values"
"""What the installed transformers calls the cache, as an argument and in outputs: renamed in 5.24.

The layers take it under this name too, for transformers drops it by name where gradients are checkpointed.
"""


class DenseLayer(Qwen2DecoderLayer):
    """A layer that computes every token."""

    def forward(
        self,
        x: torch.Tensor,
        tokens: Tokens,
        *told: torch.Tensor,
        **cached: Cache | None,
    ) -> tuple[torch.Tensor, ...]:
        """``[batch, tokens, dim]`` to the same, and what the layer after it is ``told``."""
        return (super().forward(x, attention_mask=tokens.mask, position_embeddings=tokens.rotary, **cached),)


class RoutedLayer(Qwen2DecoderLayer):
    """A layer that computes the tokens that it chooses."""

    def choose(
        self, x: torch.Tensor, tokens: Tokens, kept: RoutedCacheLayer, *told: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Which tokens are computed, bool, and what multiplies that which they gain; both ``[batch, tokens]``.

        Args:
            x: ``[batch, tokens, dim]``.
            tokens: where they stand.
            kept: what is known of the tokens before, to which these are to be added.
            told: what the layer before says of these.
        """
        raise NotImplementedError

    def forward(
        self,
        x: torch.Tensor,
        tokens: Tokens,
        *told: torch.Tensor,
        **cached: Cache | None,
    ) -> tuple[torch.Tensor]:
        """``[batch, tokens, dim]`` to the same; a token that isn't chosen stays as it is, bit for bit."""
        cache = cached.get(CACHE)
        kept = RoutedCacheLayer() if cache is None else cache.layers[self.self_attn.layer_idx]
        is_chosen, gate = self.choose(x, tokens, kept, *told)
        is_chosen = is_chosen & tokens.is_real
        width = int(is_chosen.sum(1).max())
        # Chosen tokens in their order, then others, which fill up the rows that have fewer.
        indices = (~is_chosen).to(torch.int8).argsort(dim=1, stable=True)[:, :width]
        is_chosen, places = take(is_chosen, indices), take(tokens.places, indices)
        keys = kept.add_places(torch.where(is_chosen, places, NOWHERE), x.shape[1])
        if not width:
            return (x,)
        taken = take(x, indices)
        attended, _ = self.self_attn(
            self.input_layernorm(taken),
            position_embeddings=tuple(take(part, indices) for part in tokens.rotary),
            attention_mask=as_mask(visible(places, take(tokens.starts, indices), keys), x.dtype, self.self_attn.config),
            **cached,
        )
        gained = attended + self.mlp(self.post_attention_layernorm(taken + attended))
        computed = taken + take(gate, indices).unsqueeze(-1).to(x.dtype) * gained
        computed = torch.where(is_chosen.unsqueeze(-1), computed, taken)
        return (x.scatter(1, indices.unsqueeze(-1).expand_as(computed), computed),)


def pair_logits(linear: nn.Linear, x: torch.Tensor, tokens: Tokens, kept: RoutedCacheLayer) -> torch.Tensor:
    """The output ``[batch, tokens]`` of a linear layer, ``[2 · dim] → 1``, of each token beside the one before it.

    Of each token its part of the next one's sum is kept.

    Args:
        linear: its first ``dim`` weights are for the token itself. A document's first token has zeros before it.
        x: ``[batch, tokens, dim]``.
        tokens: where they stand.
        kept: what is known of the tokens before.
    """
    of_itself, of_next = F.linear(x, linear.weight.view(2, -1)).unbind(-1)
    before = F.pad(kept.add_signals("of_next", of_next, tokens), (1, 0))[:, -x.shape[1] - 1 : -1]
    return of_itself + before.masked_fill(tokens.positions == 0, 0) + linear.bias


def cache_refused(cache: object) -> ValueError:
    """What is said of a cache of another kind."""
    return ValueError(
        f"{type(cache).__name__} can't hold a routed layer's keys, of which each row has its own number; expected a "
        "new DynamicCache, not offloaded, or none"
    )


def as_mask(is_visible: torch.Tensor, dtype: torch.dtype, config: Qwen2Config) -> torch.Tensor:
    """What is visible as the attention in use wants it: ``eager`` adds its mask to the scores."""
    if config._attn_implementation != "eager":
        return is_visible
    return torch.zeros_like(is_visible, dtype=dtype).masked_fill(~is_visible, torch.finfo(dtype).min)


class RoutedPreTrainedModel(Qwen2PreTrainedModel):
    """What transformers asks of the models: masks are made here, and shapes depend on what is chosen."""

    _supports_flash_attn = False
    _supports_flex_attn = False
    _can_compile_fullgraph = False
    _can_record_outputs = {}  # noqa: RUF012  (as transformers declares it)


class RoutedModel(RoutedPreTrainedModel):
    """The decoder without its output layer.

    ``build_layer`` makes the layer of one number, from 0: a :class:`RoutedLayer` or a :class:`DenseLayer`.
    """

    def __init__(self, config: Qwen2Config, build_layer: Callable[[Qwen2Config, int], nn.Module]) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.layers = nn.ModuleList([build_layer(config, index) for index in range(config.num_hidden_layers)])
        self.norm = Qwen2RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = Qwen2RotaryEmbedding(config)
        self.gradient_checkpointing = False
        self.post_init()

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        past_key_values: Cache | None = None,
        **kwargs: object,
    ) -> BaseModelOutputWithPast:
        """The residual stream ``[batch, tokens, dim]`` after the last norm; arguments as in transformers' Qwen2.

        ``past_key_values`` is the older name of ``cache``.

        Raises:
            ValueError: both or neither of tokens and embeddings; a cache or a mask that doesn't fit; attentions are
                asked for, which a routed layer has only between the tokens that it computes.
        """
        if output_attentions or self.config.output_attentions:
            raise ValueError("output_attentions: a routed layer has none between all tokens; leave it out")
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("pass input_ids or inputs_embeds, one of both")
        x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        use_cache = self.config.use_cache if use_cache is None else use_cache
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        cache = past_key_values if cache is None else cache
        if cache is None and use_cache:
            cache = DynamicCache(config=self.config)
        if cache is not None:
            self.prepare_cache(cache)
        tokens = self.tokens(x, attention_mask, position_ids, seen=0 if cache is None else cache.get_seq_length())
        hidden_states, told = [], []
        for layer in self.layers:
            hidden_states.append(x)
            x, *told = layer(x, tokens, *told, **{CACHE: cache})
        x = self.norm(x)
        return BaseModelOutputWithPast(
            last_hidden_state=x,
            hidden_states=(*hidden_states, x) if output_hidden_states else None,
            **{CACHE: cache if use_cache else None},
        )

    def prepare_cache(self, cache: Cache) -> None:
        """Gives the routed layers their parts of a new cache.

        Raises:
            ValueError: a cache of another kind than ``DynamicCache``, or another model's.
        """
        if not isinstance(cache, Cache):
            raise cache_refused(cache)
        for index, layer in enumerate(self.layers):
            if index == len(cache.layers):
                cache.layers.append(DynamicLayer())
            held = cache.layers[index]
            if isinstance(layer, RoutedLayer) and not isinstance(held, RoutedCacheLayer):
                if type(held) is not DynamicLayer or held.get_seq_length() or cache.offloading:
                    raise cache_refused(cache)
                cache.layers[index] = RoutedCacheLayer()

    def tokens(
        self, x: torch.Tensor, attention_mask: torch.Tensor | None, position_ids: torch.Tensor | None, seen: int
    ) -> Tokens:
        """Where the tokens stand, ``seen`` others before them.

        With an attention mask a row is one document, from its first real token on; without, position ids tell where
        documents start, of tokens that come to a cache as well.
        """
        rows, count = x.shape[:2]
        keys = torch.arange(seen + count, device=x.device).expand(rows, -1)
        places = keys[:, seen:]
        has_hole = False
        if attention_mask is None:
            positions = places if position_ids is None else position_ids.expand(rows, -1)
            starts = (places - positions).clamp(min=0)
        elif attention_mask.shape == keys.shape:
            is_real = attention_mask.bool()
            keys = torch.where(is_real, keys, NOWHERE)
            positions = (is_real.cumsum(1) - 1).clamp(min=0)[:, seen:]
            starts = torch.zeros_like(places)
            has_hole = bool(((is_real[:, 1:] & ~is_real[:, :-1]).sum(1) + is_real[:, 0] > 1).any())
        else:
            raise ValueError(f"attention_mask: found {list(attention_mask.shape)}, expected {list(keys.shape)}")
        tokens = Tokens(places, positions, starts, is_real=keys[:, seen:] != NOWHERE, has_hole=has_hole)
        tokens.rotary = self.rotary_emb(x, positions if position_ids is None else position_ids.expand(rows, -1))
        is_causal = count == 1 or not seen
        is_plain = is_causal and bool((keys != NOWHERE).all() and not starts.any())
        if self.config._attn_implementation == "eager" or not is_plain:
            tokens.mask = as_mask(visible(places, starts, keys), x.dtype, self.config)
        return tokens


class RoutedForCausalLM(Qwen2ForCausalLM, RoutedPreTrainedModel):
    """The language model: :class:`RoutedModel` and an output layer."""

    build_layer: Callable[[Qwen2Config, int], nn.Module]

    def __init__(self, config: Qwen2Config) -> None:
        RoutedPreTrainedModel.__init__(self, config)
        self.model = RoutedModel(config, self.build_layer)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()
