"""Refuses a change of RoPE that nothing changes, or that a base's reader would not know of."""

from __future__ import annotations

from titanflow.architectures.base import ROPE
from titanflow.common.errors import Problem
from titanflow.config.module import Module
from titanflow.files.yaml_source import flatten

KEY = "model.change_rope"


def check_rope(module: Module) -> list[Problem]:
    if not module.config["model"]["change_rope"]:
        return []
    if module.base is None:
        # A base that isn't found is a mistake of its own.
        hint = "leave it out, and set the model's arguments as they are to be"
        problem = module.problem(KEY, "found true, and the stage has no base whose RoPE could change", hint=hint)
        return [problem] if module.kind == "pretrain" and module.config["base"] is None else []
    own, theirs = flatten(module.model_overrides), flatten(module.base.model_args)
    if not any(ROPE.fullmatch(one) and value != theirs.get(one) for one, value in own.items()):
        named = [f"model.{one}" for one in theirs if ROPE.fullmatch(one)]
        message = f"found true, and each of RoPE's arguments is that of {module.base.stage}"
        if not named:
            return [module.problem(KEY, f"found true, and {module.base.model_name} has no such argument", "false")]
        return [module.problem(KEY, message, f"another value of {' or '.join(named)}", "or leave it out")]
    lora = module.config["lora"]
    if lora["rank"] and lora["peft_adapter"]:
        message = "found true, and the adapter's base has another RoPE: peft would load it beside that"
        return [module.problem("lora.peft_adapter", message, "false", "the export has the adapters and the RoPE")]
    return []


OF_TRAINING = (check_rope,)
