"""Memory of a training rank: what it always holds, and the most that a step adds.

Weights, gradients and AdamW's two moments (of Muon's matrices one) are counted exactly, in torchtitan's types, and
divided by the degrees of parallelism (ZeRO, arXiv:1910.02054). Activations are counted as in Korthikanti et al.
(arXiv:2205.05198, section 4): each tensor that the backward pass reads, here of a block with RMSNorm, SwiGLU and an
attention that keeps no scores. Tensor parallelism brings sequence parallelism, which divides all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from titanflow.architectures.blocks import HEAD, Args, Shapes
from titanflow.architectures.families.registry import FAMILIES
from titanflow.config.keys.optimizer import MUON
from titanflow.planning.forecast.flops import Counts
from titanflow.planning.forecast.layout import BYTES, Layout
from titanflow.planning.forecast.matrices import NO_MATRICES

MOMENTS = 2
"""Numbers that Adam and AdamW keep beside each trained weight; Muon keeps one."""
ORTHOGONAL_BYTES = 16
"""Bytes of each number of a matrix while Muon makes its update orthogonal: in fp32 the gradient with momentum, and in
bfloat16 up to six of Newton–Schulz's matrices."""
STACKED_BYTES = 8
"""The same for each number of a tensor of experts, whose matrices follow one another: gradient, update and result."""
LOSS_BYTES = 12
"""Bytes of the loss for each token and vocabulary entry: log-probabilities and two gradients, in fp32."""
SUM_BYTES = 4
"""Bytes of each number of the output head's gradient while a chunked loss adds it up."""
MEAN_BYTES = 4
"""Bytes of each number of the moving mean of the weights."""
VALIDATION_BYTES = 8
"""The same in a validation, without gradients: logits and log-probabilities."""
OVERHEAD = {"cpu": 570 << 20, "cuda": 1 << 30}
"""Bytes of a rank that computes nothing yet. cpu: Python, torch and torchtitan, measured (torch 2.13, resident after
start-up). cuda: context and communication buffers, assumed: not run on a GPU."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank, by what they hold.

    ``copies`` are weights gathered by FSDP or cast by autocast. The backward pass reads ``activations`` and ``logits``;
    the optimizer needs ``workspace`` while it steps. ``mean`` is the moving mean of the trained weights, in fp32; to
    validate with it, ``validation`` holds the weights meanwhile. Not all is held at once: see :attr:`total`.
    """

    weights: int
    gradients: int
    optimizer: int
    copies: int
    activations: int
    logits: int
    workspace: int
    validation: int
    overhead: int
    accumulates: bool
    mean: int = 0

    @property
    def certain(self) -> int:
        """What each step of the optimizer needs at least."""
        return self.weights + self.gradients + self.optimizer + self.mean

    @property
    def total(self) -> int:
        """The most at once: as the backward pass begins, as the optimizer steps, or in a validation."""
        backward = self.copies + self.activations + self.logits + (self.gradients if self.accumulates else 0)
        moments = [backward, self.gradients + max(self.workspace, self.copies), self.copies + self.validation]
        return self.weights + self.optimizer + self.mean + max(moments) + self.overhead


def memory(config: Mapping[str, Any], family: str, args: Args, shapes: Shapes, counts: Counts, device: str) -> Memory:
    """The memory of a training module's fullest rank, as far as a formula knows it; ``device`` is cpu or cuda."""
    layout = Layout.of(config)
    trained = counts.trained // layout.states * layout.weight_bytes
    weights = counts.parameters // layout.states * layout.weight_bytes
    matrices = counts.matrices if config["optimizer"]["name"] == MUON else NO_MATRICES
    by_muon = matrices.parameters // layout.states * layout.weight_bytes
    optimizer = MOMENTS * trained - by_muon
    steps_in_one_go = config["optimizer"]["implementation"] == "foreach"
    averages = config["training"]["ema"] is not None
    offloads = device == "cuda" and config["training"]["enable_cpu_offload"]
    return Memory(
        weights=0 if offloads else weights,
        gradients=0 if offloads else trained,
        optimizer=0 if offloads else optimizer,
        copies=_copies(config, shapes, counts, layout),
        activations=_activations(config, family, args, layout, device),
        logits=_logits(config, args, layout) + _head_gradient(config, args, layout),
        workspace=max(
            trained - by_muon if steps_in_one_go and not offloads else 0,
            matrices.largest * ORTHOGONAL_BYTES + matrices.stacked // layout.states * STACKED_BYTES,
        ),
        validation=_validation(config, args, layout, trained if averages and not offloads else 0),
        overhead=OVERHEAD[device],
        accumulates=layout.accumulates,
        mean=counts.trained // layout.states * MEAN_BYTES if averages and not offloads else 0,
    )


def _copies(config: Mapping[str, Any], shapes: Shapes, counts: Counts, layout: Layout) -> int:
    """FSDP holds a gathered layer, the next one and the last one's gradient; autocast keeps copies of the weights."""
    if layout.autocasts:
        return counts.trained * layout.compute_bytes
    if layout.fsdp == 1:
        return 0
    policy = config["parallelism"]["fsdp_reshard_after_forward"]
    if policy == "never" or (policy == "default" and layout.pipeline > 1):
        return counts.parameters // (layout.tensor * layout.pipeline) * layout.compute_bytes
    groups: dict[str, int] = {}
    for name, shape in shapes.items():
        group = ".".join(name.split(".")[: 2 if name.startswith("layers.") else 1])
        groups[group] = groups.get(group, 0) + prod(shape)
    reduced = BYTES[config["training"]["mixed_precision_reduce"]]
    return max(groups.values()) // layout.tensor * (2 * layout.compute_bytes + reduced)


def _activations(config: Mapping[str, Any], family: str, args: Args, layout: Layout, device: str) -> int:
    layers = [layer_bytes(family, args, layer, layout, device) for layer in range(args["n_layers"])]
    # A checkpointed layer keeps only its input, and is computed again for its backward pass.
    kept = args["dim"] * layout.activation_bytes
    settings = config["activation_checkpoint"]
    mode, option = settings["mode"], str(settings["selective_ac_option"])
    if mode == "none":
        a_token = sum(layers)
    elif mode == "selective" and option == "op":
        # The first of each two matrix products is kept, and the output of attention.
        a_token = sum(kept + layer // 3 for layer in layers) + max(layers)
    elif mode == "selective":
        every = max(1, int(option)) if option.isdecimal() else 1
        a_token = sum(kept if (n + 1) % every == 0 else layer for n, layer in enumerate(layers)) + max(layers)
    elif mode == "memory_budget":
        share = float(settings["memory_budget"])
        a_token = int(share * sum(layers) + (1 - share) * kept * len(layers)) + max(layers)
    else:
        a_token = kept * len(layers) + max(layers)
    return int((a_token / layout.pipeline + 2 * kept) * _tokens_in_flight(config, layout) / layout.tensor)


def _tokens_in_flight(config: Mapping[str, Any], layout: Layout) -> int:
    """Tokens of a rank whose backward pass is still to come; in a 1F1B pipeline one microbatch for each stage."""
    rows, degrees = layout.rows, config["parallelism"]
    if layout.pipeline > 1 and degrees["pipeline_parallel_schedule"].lower() == "1f1b":
        rows = min(rows, layout.pipeline * int(degrees["pipeline_parallel_microbatch_size"]))
    return rows * layout.sides * layout.seq_len // layout.context


def layer_bytes(family: str, args: Args, layer: int, layout: Layout, device: str) -> int:
    """Bytes that one layer keeps of each token for its backward pass.

    Each norm keeps its input and output, and on a CPU, where it isn't one kernel, also a value in between. Attention
    keeps queries, keys, values, its output and the logarithm of each row's sum; the feed-forward keeps four of its
    width. Autocast leaves the residual stream and its norms in the weights' type, and casts for each matrix product.
    """
    dim, numbers = args["dim"], layout.activation_bytes
    inside = 1 if device == "cpu" else 0
    if layout.autocasts:
        norms = 2 * (1 + inside) * dim * layout.weight_bytes + 5 * dim * numbers
    else:
        norms = 2 * (2 + inside) * dim * numbers
    inner = (_attention_elements(args, inside) + _feed_forward_elements(family, args, layer)) * numbers
    whole = int(norms + inner + 4 * args["n_heads"])
    known = FAMILIES[family]
    if known.is_routed(args, layer):
        # The tokens are taken out of their row and put back, so they exist twice; the router sees all of them.
        share = args["capacity"]
        # A causal router may keep the token and the one before it.
        pairs = 2 if args.get("causal_router") == "previous" else 0
        return int(share * (whole + 3 * dim * numbers)) + (known.router_width + pairs) * dim * numbers
    return whole + known.decision_width * dim * numbers


def _attention_elements(args: Args, inside: int) -> int:
    heads = args["n_heads"]
    if "v_head_dim" in args:
        queries = heads * (args["qk_nope_head_dim"] + args["qk_rope_head_dim"])
        latents = (2 + inside) * (args["kv_lora_rank"] + args["q_lora_rank"])
        return int(2 * queries + latents + 2 * heads * args["v_head_dim"])
    width = args.get("head_dim") or args["dim"] // heads
    queries, keys = heads * width, (args["n_kv_heads"] or heads) * width
    # Normed queries and keys are also kept as they were before the norm.
    normed = (1 + inside) * (queries + keys) if args.get("qk_norm") else 0
    return int(2 * queries + 2 * keys + normed)


def _feed_forward_elements(family: str, args: Args, layer: int) -> int:
    block = FAMILIES[family].block
    assert block is not None
    shapes = block(args, layer)
    if dense := shapes.get("feed_forward.w1.weight"):
        return 4 * dense[0]
    moe, dim = args["moe_args"], args["dim"]
    first = shapes.get("moe.experts.w1") or shapes["moe.experts.mlp1_weight"]
    width = first[1] if "moe.experts.w1" in shapes else first[1] // 2
    shared = shapes.get("moe.shared_experts.w1.weight", (0,))[0]
    return int(moe["top_k"] * (3 * dim + 4 * width) + 4 * shared + dim)


def _logits(config: Mapping[str, Any], args: Args, layout: Layout) -> int:
    """The most that the loss needs; the ranks of tensor parallelism share the vocabulary."""
    rows = layout.rows
    if layout.pipeline > 1:
        rows = min(rows, int(config["parallelism"]["pipeline_parallel_microbatch_size"]))
    shared = layout.tensor if not config["parallelism"]["disable_loss_parallel"] else 1
    cast = layout.activation_bytes if layout.activation_bytes != 4 else 0
    tokens = _at_once(config, rows * layout.sides * layout.seq_len // layout.context)
    return int(args["vocab_size"] * tokens * (LOSS_BYTES + cast) // shared)


def _at_once(config: Mapping[str, Any], tokens: int) -> int:
    """How many of a microbatch's tokens have their logits at the same time."""
    return -(-tokens // int(config["training"]["loss_chunks"]))


def _head_gradient(config: Mapping[str, Any], args: Args, layout: Layout) -> int:
    """A chunked loss adds up the gradient of the output head in fp32, beside that of one part."""
    lora = config["lora"]
    is_frozen = lora["rank"] and HEAD not in lora["modules_to_save"]
    if is_frozen or config["training"]["loss_chunks"] == 1:
        return 0
    return int(args["vocab_size"] * args["dim"] * (SUM_BYTES + layout.compute_bytes) // layout.tensor)


def _validation(config: Mapping[str, Any], args: Args, layout: Layout, set_aside: int) -> int:
    """What a validation adds; ``set_aside`` are the bytes of weights in whose place the mean is meanwhile."""
    validation = config["validation"]
    if not validation["enable"]:
        return 0
    tokens = int(validation["local_batch_size"]) * layout.sides * int(validation["seq_len"]) // layout.context
    tokens = _at_once(config, tokens)
    shared = layout.tensor if not config["parallelism"]["disable_loss_parallel"] else 1
    return set_aside + int(args["vocab_size"] * tokens * VALIDATION_BYTES // shared)
