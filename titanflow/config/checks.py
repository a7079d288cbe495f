"""What a schema can't say: values that contradict each other, found before anything runs."""

from __future__ import annotations

from titanflow.config.additions import names_rows
from titanflow.config.data_checks import check_data
from titanflow.config.lora import lora_problems, lora_warnings
from titanflow.config.mixture import packs_rows
from titanflow.config.module import Module
from titanflow.errors import Problem
from titanflow.families import packing_refusals


def check_module(module: Module, modules: dict[str, Module]) -> list[Problem]:
    """Every contradiction in one resolved module."""
    if module.trains:
        return [
            *check_data(module, "data"),
            *check_data(module, "validation_data"),
            *_check_dataset(module, "data"),
            *_check_dataset(module, "validation_data"),
            *_check_validation(module),
            *_check_seq_len(module, modules),
            *_check_sft(module),
            *_check_sft_tokenizer(module),
            *_check_packing(module),
            *lora_problems(module),
            *_check_launcher(module),
        ]
    return _check_launcher(module)


def has_data(module: Module, section: str = "data") -> bool:
    """Whether the section says where rows come from."""
    return names_rows(module.config.get(section) or {})


def _problem(module: Module, key: str, message: str, expected: str = "", hint: str = "") -> Problem:
    return Problem(message, f"{module.name}.{key}", module.origins.get(key, ""), expected, hint)


def _check_dataset(module: Module, section: str) -> list[Problem]:
    """torchtitan's own way to name a dataset, beside this project's."""
    titans = f"{'training' if section == 'data' else 'validation'}.dataset"
    written = [key for key in (titans, f"{titans}_path") if _is_written(module, key)]
    if has_data(module, section) and written:
        message = f"two sources: {written[0]} and {section}"
        return [_problem(module, written[0], message, expected="one of them")]
    return []


def _is_written(module: Module, key: str) -> bool:
    """Whether someone wrote the key, rather than a default filling it in."""
    origin = module.origins.get(key, "default")
    return origin != "default" and not origin.startswith("torchtitan ")


def overruled(module: Module) -> list[str]:
    """What is written and has no effect, because a stage sets it itself; each with the reason."""
    if not module.trains:
        return []
    reasons = {
        "job.dump_folder": "a stage writes into its run's folder",
        "checkpoint.create_seed_checkpoint": "a stage trains",
    }
    if not module.config["checkpoint"]["enable"]:
        reasons["checkpoint.enable"] = "a stage always keeps checkpoints: the next one starts from them"
    if module.stage == "sft":
        reasons["checkpoint.initial_load_path"] = "an sft starts from its base's checkpoint"
    return [
        f"{module.name}.{key} ({module.origins[key]}) has no effect: {reason}"
        for key, reason in reasons.items()
        if (_is_written(module, key) and _value(module, key) not in (None, False)) or key == "checkpoint.enable"
    ] + lora_warnings(module)


def _value(module: Module, key: str) -> object:
    section, _, name = key.partition(".")
    return module.config[section][name]


def _check_validation(module: Module) -> list[Problem]:
    config = module.config
    own = has_data(module)
    if config["validation"]["enable"] and own and not has_data(module, "validation_data"):
        return [
            _problem(
                module,
                "validation.enable",
                "validation is on, and there is nothing to validate on",
                expected="a data file in the module's `validation_data:`",
            )
        ]
    return []


def _check_seq_len(module: Module, modules: dict[str, Module]) -> list[Problem]:
    if not module.model_args:
        return []
    seq_len, limit = module.config["training"]["seq_len"], module.model_args.get("max_seq_len")
    reason = f"the model's max_seq_len is {limit}"
    base = next((other for other in modules.values() if other.name == module.config["sft"]["base"]), None)
    if module.stage == "sft" and base is not None:
        limit = base.config["training"]["seq_len"]
        reason = f"{base.name} was trained with {limit}"
    if limit is None or seq_len <= limit:
        return []
    return [_problem(module, "training.seq_len", f"found {seq_len}, and {reason}", expected=f"at most {limit}")]


def _check_sft(module: Module) -> list[Problem]:
    if module.stage != "sft" or not has_data(module) or module.config["data"]["kind"] == "chat":
        return []
    return [
        _problem(
            module,
            "data.kind",
            f"found {module.config['data']['kind']}: fine-tuning takes conversations",
            expected="chat",
        )
    ]


def _check_sft_tokenizer(module: Module) -> list[Problem]:
    if module.stage != "sft" or module.config["tokenizer"]["vocab_size"] is None:
        return []
    return [
        _problem(
            module,
            "tokenizer.vocab_size",
            f"found {module.config['tokenizer']['vocab_size']}: fine-tuning keeps its base's tokenizer",
            hint="leave it out here, or change it in the base and pretrain again",
        )
    ]


def _check_packing(module: Module) -> list[Problem]:
    config = module.config
    packed = [key for key in ("data", "validation_data") if packs_rows(config.get(key) or {})]
    if not packed:
        return []
    parallelism = config["parallelism"]
    refusals = packing_refusals(
        config["model"]["name"], parallelism["context_parallel_degree"], parallelism["pipeline_parallel_degree"]
    )
    hint = f"leave out {module.name}.{packed[0]}.packing, or what stands in its way"
    return [
        _problem(module, key, f"found {_value(module, key)}, and {packed[0]}.packing: {reason}", hint=hint)
        for key, reason in refusals.items()
    ]


def _check_launcher(module: Module) -> list[Problem]:
    launcher = module.config.get("launcher") or {}
    for key in ("nproc_per_node", "nnodes"):
        if launcher.get(key, 1) < 1:
            return [_problem(module, f"launcher.{key}", f"found {launcher[key]}", expected="1 or more")]
    if launcher.get("nnodes", 1) > 1 and not launcher.get("rdzv_endpoint"):
        return [_problem(module, "launcher.rdzv_endpoint", "found null, with several machines", expected="host:port")]
    return []
