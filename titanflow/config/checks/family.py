"""Refuses settings that a model's family doesn't support on any device: masks, parallelism, validation, export."""

from __future__ import annotations

from collections.abc import Mapping

from titanflow.architectures.families.registry import ARCHITECTURES, export_refusal, family_of
from titanflow.common.errors import Problem
from titanflow.config.keys.training import names_rows
from titanflow.config.means.recipe import averaged_stages
from titanflow.config.means.scoring import scores, unknown_model
from titanflow.config.module import Module
from titanflow.config.stages import modules_of, named_module
from titanflow.runs.contract import StageKind

EXPORTED: dict[StageKind, str] = {"evaluate": "models", "publish": "model"}
"""The kinds of stages that load exports, and the key that names them."""
UNVALIDATED = {
    "deepseek_v3": "torchtitan has no validator for deepseek_v3",
    "gpt_oss": "torchtitan has no validator for gpt_oss",
    "llama4": "torchtitan's validator gives llama4 a mask, which its layers refuse",
}
"""Families that can't be validated on torchtitan's own datasets or on streamed rows, with the reason."""
WHOLE = ("qwen3", "gpt_oss")
"""Families that torchtitan can't cut into a pipeline's stages."""


def _check_pipeline(module: Module) -> list[Problem]:
    name, degree = module.config["model"]["name"], module.config["parallelism"]["pipeline_parallel_degree"]
    if degree < 2 or name not in WHOLE:
        return []
    message = f"found {degree}: torchtitan can't cut {name} into a pipeline's stages"
    return [module.problem("parallelism.pipeline_parallel_degree", message, expected="1")]


def _check_validator(module: Module) -> list[Problem]:
    config, family = module.config, module.config["model"]["name"]
    rows = config.get("validation_data") or {}
    is_own = config["training"]["mock_data"] or (names_rows(rows) and not rows["streaming"])
    if family not in UNVALIDATED or not config["validation"]["enable"] or is_own:
        return []
    message = f"found true, and {UNVALIDATED[family]}"
    hint = "give the module validation_data, without streaming: those rows have a validator of their own"
    return [module.problem("validation.enable", message, expected="false", hint=hint)]


def _check_experts(module: Module) -> list[Problem]:
    degrees = module.config["parallelism"]
    tensor, ranks = degrees["tensor_parallel_degree"], degrees["expert_parallel_degree"]
    tensor_ranks = degrees["expert_tensor_parallel_degree"]
    if ranks < 2:
        return []
    found = []
    experts = (module.model_args.get("moe_args") or {}).get("num_experts")
    if experts and experts % ranks:
        message = f"found {ranks}, and the model has {experts} experts"
        found.append(("expert_parallel_degree", message, f"a divisor of {experts}"))
    if tensor_ranks not in (1, tensor):
        expected = f"1, or tensor_parallel_degree={tensor}"
        found.append(("expert_tensor_parallel_degree", f"found {tensor_ranks}", expected))
    return [module.problem(f"parallelism.{key}", message, expected) for key, message, expected in found]


def _check_masks(module: Module) -> list[Problem]:
    """torchtitan 0.2.2's llama4 hands FlexAttention its two masks at once; with sdpa it has neither."""
    args = module.model_args
    if module.config["model"]["name"] != "llama4":
        return []
    if args.get("attn_type") == "flex":
        message = "found 'flex': torchtitan's llama4 passes two masks to it at once, which fails at the first step"
        return [module.problem("model.attn_type", message, expected="sdpa")]
    block, seq_len = args.get("fixed_attn_block_size"), module.config["training"]["seq_len"]
    if not args.get("every_n_layers_nope") or not block or seq_len <= block:
        return []
    message = f"found {seq_len}, and sdpa attends beyond the blocks of model.fixed_attn_block_size={block}"
    return [module.problem("training.seq_len", message, expected=f"at most {block}, where blocks change nothing")]


def check_exports(modules: Mapping[str, Module]) -> list[Problem]:
    """Evaluate and publish modules that load an export that there won't be."""
    problems = [problem for publish in modules_of("publish", modules) for problem in _check_published(publish, modules)]
    for module, key in ((one, key) for kind, key in EXPORTED.items() for one in modules_of(kind, modules)):
        hint = f"change the model, or leave the module {module.name} out"
        for reason, refused in _refused_exports(modules, named_exports(module)).items():
            message = f"found {module.config[key]}, and {' and '.join(refused)} can't be exported: {reason}"
            problems.append(module.problem(key, message, hint=hint))
    return problems


def _check_published(publish: Module, modules: Mapping[str, Module]) -> list[Problem]:
    """A publish module's model that no module trains, or that isn't among those that are scored."""
    if problems := unknown_model(publish, modules):
        return problems
    evaluate, model = modules.get(publish.config["evaluation"]), publish.config["model"]
    scored = evaluate.config["models"] if evaluate is not None else []
    if evaluate is None or not scored or not isinstance(scored, list):
        return []
    if not scores(evaluate, model, modules):
        found = f"found {model!r}, and {evaluate.name} scores {' and '.join(scored)}"
        hint = f"add {model} to {evaluate.name}.models, or publish a model that is scored"
        return [publish.problem("model", found, hint=hint)]
    return []


def named_exports(module: Module) -> list[str]:
    """The exports of its own experiment that an evaluate or publish module names."""
    found = module.config.get(EXPORTED[module.kind])
    if isinstance(found, str):
        return [found]
    return [*found, *averaged_stages(module.config)] if isinstance(found, list) else []


def loaded_exports(module: Module, modules: Mapping[str, Module]) -> set[str]:
    """The stages whose exports an evaluate or publish module loads."""
    return {found.name for name in named_exports(module) if (found := named_module(name, modules)) is not None}


def _refused_exports(modules: Mapping[str, Module], names: list[str]) -> dict[str, list[str]]:
    """Reason → the models that can't be exported for it; of a custom family that is known only at run time."""
    refused: dict[str, list[str]] = {}
    for name in names:
        module = named_module(name, modules)
        if module is None or not module.trains:
            continue
        family = module.config["model"]["name"]
        if family in ARCHITECTURES or family_of(family).no_export:
            args = dict(module.model_args)
            if args.get("moe_args"):
                forced = module.config["debug"]["moe_force_load_balance"]
                args["moe_args"] = {**args["moe_args"], "_debug_force_load_balance": forced}
            refused.setdefault(export_refusal(family, args), []).append(name)
    refused.pop("", None)
    return refused


OF_TRAINING = (_check_masks, _check_pipeline, _check_experts, _check_validator)
