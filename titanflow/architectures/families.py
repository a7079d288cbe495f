"""What each model family can do here, beyond training; known without torch, so that a plan can say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ARCHITECTURES: Mapping[str, str] = {
    "llama3": "LlamaForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "llama4": "Llama4ForCausalLM",
    "mod": "ModForCausalLM",
    "dtf": "DtfForCausalLM",
    "tdtf": "TdtfForCausalLM",
}
"""Model family → the class for transformers that computes the same function (of qwen3 with experts Qwen3Moe's):
transformers' own, or one that the export brings."""

NO_EXPORT: Mapping[str, str] = {
    "gpt_oss": "its layers take FlexAttention's masks alone, which torch compiles for no CPU, so that no export "
    "could be compared with transformers",
}
"""torchtitan's families that aren't exported, and why."""

NEEDED: Mapping[str, Mapping[str, tuple[Any, str]]] = {
    "deepseek_v3": {
        "norm_eps": (1e-6, "the norms of its latents always have that"),
        "moe_args.score_func": ("sigmoid", "it scores experts by nothing else"),
        "moe_args.score_before_experts": (False, "it weighs what comes out of an expert, not what goes in"),
        "moe_args.gate_bias": (False, "its router has no bias"),
    },
    "llama4": {
        "attn_type": ("sdpa", "its layers see whole rows here, and torchtitan's flex cuts some into blocks"),
        "moe_args.score_func": ("sigmoid", "it scores experts by nothing else"),
        "moe_args.score_before_experts": (True, "it weighs what goes into an expert, not what comes out"),
        "moe_args.gate_bias": (False, "its router has no bias"),
        "moe_args.num_shared_experts": (1, "it has one, as wide as an expert"),
        "moe_args.num_expert_groups": (None, "it chooses among all experts"),
        "moe_args.route_norm": (False, "it norms no scores"),
        "moe_args.route_scale": (1.0, "it scales no scores"),
        "moe_args.load_balance_coeff": (None, "it has no bias that evens out experts"),
    },
    "qwen3": {
        "moe_args.score_func": ("softmax", "it scores experts by nothing else"),
        "moe_args.score_before_experts": (False, "it weighs what comes out of an expert, not what goes in"),
        "moe_args.gate_bias": (False, "its router has no bias"),
        "moe_args.num_shared_experts": (0, "it has no shared experts"),
        "moe_args.num_expert_groups": (None, "it chooses among all experts"),
        "moe_args.route_scale": (1.0, "it scales no scores"),
        "moe_args.load_balance_coeff": (None, "it has no bias that evens out experts; torchtitan's qwen3 trains none"),
    },
}
"""What the arguments of a model with experts have to be, and what transformers' class computes that asks for it."""

OWN_FAMILIES: Mapping[str, str] = {
    "qwen2": "titan.models.qwen2",
    "mod": "titan.models.mod",
    "dtf": "titan.models.dtf",
    "tdtf": "titan.models.tdtf",
}
"""This project's own families, and the module that registers each: what ``experimental.custom_import`` names."""

WORDS: Mapping[str, str] = dict.fromkeys(OWN_FAMILIES, "qwen2")
"""The families for which a tokenizer is trained that parts text in a way of its own
(:mod:`titanflow.data.tokenizer.tokenizer`): transformers lets a qwen2 model have no other, and the families that build
on it may take its weights."""

PARAMETER_GROUPS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "mod": {"router": ("router", "predictor", "causal_router")},
    "dtf": {"prior": ("prior", "prior_norm"), "router": ("router", "causal_router")},
    "tdtf": {"prior": ("transition", "transition_norm"), "router": ("router", "student", "student_norm")},
}
"""The families with routed layers: groups of parameters that ``optimizer.group_lr`` may give a learning rate of their
own, each by the names of its modules. All other parameters are the base."""

DENSE = "qwen2"
"""The family that those with routed layers build on, and whose weights they may begin with."""

OWN_MASKS: Mapping[str, str] = {
    "llama4": "its layers take one of two masks, in which documents end at each end-of-sequence token",
    "gpt_oss": "documents end at each end-of-sequence token in its masks, and it takes no positions",
    "flux": "it is no language model",
}
"""The families whose attention can't be kept within the documents of a packed row, and why."""


def export_refusal(family: str, model_args: Mapping[str, Any] | None = None) -> str:
    """Why a model can't be exported; empty where it can.

    Args:
        family: torchtitan's name, as in ``model.name``.
        model_args: the model's arguments, where they are known: a variant of a supported family (mixture of
            experts, no QK norm) may have no export.
    """
    if family not in ARCHITECTURES:
        reason = f": {NO_EXPORT[family]}" if family in NO_EXPORT else ""
        return f"there is no export for the model family {family!r}{reason}; supported: {', '.join(ARCHITECTURES)}"
    args = model_args or {}
    if family == "qwen3" and not args.get("qk_norm", True):
        return "transformers' Qwen3 always normalises queries and keys, and this model has qk_norm=False"
    if "moe_args" in args and (family != "qwen3" or args.get("moe_enabled")):
        return _experts_refusal(family, args)
    return ""


def _experts_refusal(family: str, args: Mapping[str, Any]) -> str:
    """Every argument that transformers' class for this family with experts can't be given, with what it computes."""
    experts = args["moe_args"]
    found = {**args, **{f"moe_args.{key}": value for key, value in experts.items()}}
    wrong = [
        f"{key} is {found[key]!r}, expected {wanted!r}: {why}"
        for key, (wanted, why) in NEEDED.get(family, {}).items()
        if found.get(key, wanted) != wanted
    ]
    if family == "deepseek_v3" and experts.get("load_balance_coeff", 1) is None:
        wrong.append("moe_args.load_balance_coeff is None, expected a number: it has a bias that evens out experts")
    if family == "deepseek_v3" and experts.get("num_shared_experts", 1) < 1:
        wrong.append("moe_args.num_shared_experts is 0, expected 1 or more: it has at least one")
    if experts.get("_debug_force_load_balance"):
        wrong.append("debug.moe_force_load_balance is on: the scores choose no experts")
    return f"transformers' class computes something else: {'; '.join(wrong)}" if wrong else ""


def packing_refusals(family: str, context_parallel: int, pipeline_parallel: int) -> dict[str, str]:
    """Why rows can't be packed: the key that stands in the way, and the reason; empty where they can.

    Args:
        family: torchtitan's name, as in ``model.name``.
        context_parallel: how many ranks share a row.
        pipeline_parallel: how many ranks share the layers.
    """
    refusals = {}
    if family in OWN_MASKS:
        refusals["model.name"] = f"{family} can't keep the documents of a row apart: {OWN_MASKS[family]}"
    if context_parallel > 1:
        refusals["parallelism.context_parallel_degree"] = "the ranks cut each row, and its documents with it"
    if pipeline_parallel > 1:
        refusals["parallelism.pipeline_parallel_degree"] = (
            "torchtitan gives a row's positions to the pipeline's first stage only"
        )
    return refusals


def routed_refusals(degrees: Mapping[str, int], attention: str = "sdpa") -> dict[str, str]:
    """Why a model with routed layers can't be trained so: the key that stands in the way, and the reason.

    Args:
        degrees: of each ``parallelism.…_parallel_degree``, by its full key.
        attention: the model's ``attn_type``.
    """
    reasons = {
        "parallelism.tensor_parallel_degree": "a routed layer's tokens are chosen from whole rows, which it would cut",
        "parallelism.context_parallel_degree": "a routed layer's tokens are chosen from whole rows, which it would cut",
        "parallelism.pipeline_parallel_degree": "torchtitan gives a row's positions to the pipeline's first stage only",
    }
    refusals = {key: why for key, why in reasons.items() if degrees.get(key, 1) > 1}
    if attention != "sdpa":
        refusals["model.attn_type"] = f"found {attention!r}, and a routed layer's attention is sdpa"
    return refusals
