"""What a schema can't say: values that contradict each other, found before anything runs."""

from __future__ import annotations

from titanflow.config.module import Module
from titanflow.errors import Problem

SOURCES = ("source", "path", "dataset")


def check_module(module: Module, modules: dict[str, Module]) -> list[Problem]:
    """Every contradiction in one resolved module."""
    if module.trains:
        return [
            *_check_data(module, "data"),
            *_check_data(module, "validation_data"),
            *_check_validation(module),
            *_check_seq_len(module, modules),
            *_check_sft(module),
        ]
    return _check_publish(module) if module.stage == "publish" else []


def has_data(module: Module, section: str = "data") -> bool:
    """Whether the section says where rows come from."""
    data = module.config.get(section) or {}
    return any(data.get(key) for key in SOURCES)


def _problem(module: Module, key: str, message: str, expected: str = "", hint: str = "") -> Problem:
    return Problem(message, f"{module.name}.{key}", module.origins.get(key, ""), expected, hint)


def _check_data(module: Module, section: str) -> list[Problem]:
    data = module.config.get(section) or {}
    named = [key for key in SOURCES if data.get(key)]
    if len(named) < 2:
        return []
    second = f"{section}.{named[1]}"
    hint = f"set {module.name}.{section}.{named[0]} to null, or name another data file in `{section}:`"
    return [_problem(module, second, f"two sources: {' and '.join(named)}", expected="one of them", hint=hint)]


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


def _check_publish(module: Module) -> list[Problem]:
    repo_id = module.config["repo_id"]
    if module.config["target"] != "hub" or (isinstance(repo_id, str) and repo_id.count("/") == 1):
        return []
    return [_problem(module, "repo_id", f"found {repo_id!r}", expected="owner/name of the repository on the Hub")]
