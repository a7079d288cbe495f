"""Texts of torchtitan's keys of which its own source says little: for ``python -m titan.models.snapshot``."""

from __future__ import annotations

SECTIONS = {
    "Optimizer": {"beta1": "Share of the first moment's running average that is kept at a step."},
    "Compile": {"backend": "The backend of `torch.compile`."},
}
"""Keys of the job config, by the class of their section."""
ARGUMENTS = {
    "attn_mask_type": "Which tokens a token sees: `causal` (all before it), or `block_causal` (those of its document).",
    "attn_type": "What computes the attention: `sdpa`, `flex` or `varlen`.",
    "auto_scale_hidden_dim": "Whether an expert's width is divided by the number of experts that compute a token.",
    "depth_init": "Whether a layer's first weights are smaller the deeper it lies; false: the model's depth decides.",
    "dim": "Width of the model: numbers that a token has between two layers.",
    "enable_weight_tying": "Whether the output layer's weight is the embedding's.",
    "eos_id": "The token that ends a document, at which `block_causal` cuts a row.",
    "every_n_layers_nope": "Of so many layers one has no positions, and the others see a block; null: all have RoPE.",
    "expert_parallel_comm_backend": "Set from `parallelism.expert_parallel_comm_backend`.",
    "ffn_dim_multiplier": "A factor of the feed-forward layer's width, before `multiple_of` rounds it up.",
    "fixed_attn_block_size": "Tokens of the block that a layer with RoPE sees, with `every_n_layers_nope`.",
    "head_dim": "Width of an attention head.",
    "hidden_dim": "Width of the feed-forward layer.",
    "interleave_moe_layer_step": "Every so many layers, one has experts in place of a feed-forward layer.",
    "max_seq_len": "The most tokens of a row that the model is made for.",
    "moe_enabled": "Whether layers have experts in place of a feed-forward layer.",
    "moe_inter_dim": "Width of an expert.",
    "moe_args": "The experts of a layer.",
    "mscale": "How much attention is sharpened where RoPE is stretched (YaRN).",
    "multiple_of": "The feed-forward layer's width is rounded up to a multiple of this.",
    "n_heads": "Heads of the attention.",
    "n_kv_heads": "Heads of keys and values, which groups of heads share; null: as many as `n_heads`.",
    "n_layers": "Layers.",
    "norm_eps": "What a norm adds to the mean square, so that it never divides by zero.",
    "qk_norm": "Whether queries and keys are normed.",
    "rope_scaling_args": "How positions are stretched for longer rows; null: not at all.",
    "rope_theta": "Base of the rotary positions.",
    "vocab_size": "Rows of the embedding: the tokens that the model can read and write.",
    # Experts.
    "gate_bias": "Whether the router's layer has a bias.",
    "load_balance_coeff": "How fast the router is shifted towards experts that get few tokens; null: not at all.",
    "num_expert_groups": "Groups of experts, of which a token may reach some; null: no groups.",
    "num_experts": "Experts of a layer, of which each token takes a few.",
    "num_limited_groups": "Groups that a token may reach, with `num_expert_groups`.",
    "num_shared_experts": "Experts that compute every token.",
    "route_norm": "Whether the scores of a token's experts are made to sum to 1.",
    "route_scale": "What these scores are multiplied by.",
    "score_before_experts": "Whether a score is applied to what an expert reads, and not to what it writes.",
    "score_func": "What makes a score of the router's output.",
    "top_k": "Experts that compute a token, beside the shared ones.",
    "use_grouped_mm": "Whether one kernel computes all experts, and not one after another.",
    # RoPE for longer rows, as Llama 3.1 scales it.
    "high_freq_factor": "Waves shorter than `original_max_position_embeddings` divided by this keep their frequency.",
    "low_freq_factor": "Waves longer than that length divided by this are stretched by `scaling_factor`.",
    "original_max_position_embeddings": "The length of rows before the positions are scaled.",
    "scaling_factor": "How many times longer rows become.",
}
"""Arguments of models, by their name in any family."""
