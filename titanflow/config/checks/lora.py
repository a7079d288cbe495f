"""The ``lora`` section: the modules that it selects, and its mistakes; needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from titanflow.architectures.blocks import EMBEDDINGS, HEAD
from titanflow.architectures.families.registry import PARAMETER_GROUPS, family_of
from titanflow.architectures.weights import linear_shape, model_weights, module_names, without_layer
from titanflow.common.errors import Problem
from titanflow.config.checks.model import argument_faults
from titanflow.config.files.chat_template import template_of
from titanflow.config.keys.training import Lora
from titanflow.config.settled.lora_presets import ROUTED, TOKENS, preset_problems

if TYPE_CHECKING:
    from titanflow.architectures.base import BaseArchitecture
    from titanflow.config.module import Module

EXPERTS, FUSED = ".moe.", ("w1", "w2", "w3")
"""Part of the names of a model's experts, and those of their matrices that transformers 5 fuses."""
ROUTER, ROUTED_EXPERTS = ".moe.router.gate", ".moe.experts"
"""Ends of the names of a layer's router and of its routed experts."""
DEFAULT_TARGETS = ("attention.*", *FUSED)
"""Modules that get an adapter unless ``target_modules`` is set; a family with experts lacks some of them."""
TIED = (EMBEDDINGS, HEAD)
"""Modules that share one weight where ``model.enable_weight_tying`` is on."""
NEEDED: Mapping[str, tuple[Any, str]] = {
    "parallelism.pipeline_parallel_degree": (1, "adapters aren't split into a pipeline's stages"),
    "optimizer.early_step_in_backward": (False, "torchtitan expects an optimizer for frozen weights, too"),
}
"""Values that keys of other sections must have when adapters are trained, with the reason."""
PEFT_NAMES = {
    **{"q_proj": "wq", "k_proj": "wk", "v_proj": "wv", "o_proj": "wo"},
    **{"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3", "lm_head": HEAD, "embed_tokens": EMBEDDINGS},
}
"""Modules by their name in transformers and peft, with their name here."""
UNTRAINED_TOKENS = (
    "{}.lora leaves embeddings and output head as {} made them, and the chat template's tokens aren't in the text that "
    "it read: the model may not learn to end a turn. {}"
)
SAVE_THEM = f"lora.modules_to_save: [{TOKENS}] trains them too"


@dataclass(frozen=True)
class LoraModules:
    """A model's modules by name: those that get an adapter, and those that are trained whole."""

    targets: list[str]
    saved: list[str]


def scaling(settings: Lora) -> float:
    """The factor of the adapters' output."""
    return settings.alpha / (settings.rank**0.5 if settings.rslora else settings.rank)


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern matches a module's whole name, or the end of it after a dot."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def find_modules(
    settings: Lora, linears: Sequence[str], others: Sequence[str], tied: bool
) -> tuple[LoraModules, list[Problem]]:
    """The modules that a ``lora`` section selects, and its mistakes.

    Mistakes are a pattern that matches nothing, a module both adapted and trained whole, and one of two that are
    ``tied`` (embeddings and output head are one weight). ``linears`` and ``others`` are the model's modules by name.
    """
    targets, problems = _find("target_modules", target_patterns(settings.target_modules, linears), linears)
    saved, unmatched = _find("modules_to_save", settings.modules_to_save, [*others, *linears])
    problems += unmatched
    twice = [name for name in targets if any(name == other or name.startswith(f"{other}.") for other in saved)]
    if twice:
        message = f"{_short(twice)} would be trained whole and by an adapter"
        problems.append(Problem(message, "lora.modules_to_save", hint="leave it out of one of the two"))
    if tied:
        problems += _tied_problems(targets, saved)
    return LoraModules(targets, saved), problems


def target_patterns(given: Sequence[str] | None, linears: Sequence[str]) -> Sequence[str]:
    """``target_modules``; unset, the defaults that the family has layers for (all defaults, if it has none)."""
    if given is not None:
        return given
    return [one for one in DEFAULT_TARGETS if any(matches(one, name) for name in linears)] or DEFAULT_TARGETS


def _tied_problems(targets: Sequence[str], saved: Sequence[str]) -> list[Problem]:
    """A weight with two names must be trained whole under both, or not at all."""
    problems, one_weight = [], f"{' and '.join(TIED)} are one weight in this model (enable_weight_tying)"
    if adapted := [name for name in targets if name in TIED]:
        hint = "leave it out: an adapter on one of the two would change the other"
        problems.append(Problem(f"{adapted[0]}: {one_weight}", "lora.target_modules", hint=hint))
    if len(alone := [name for name in saved if name in TIED]) == 1:
        problems.append(Problem(f"{alone[0]}: {one_weight}", "lora.modules_to_save", hint=f"name both, or {TOKENS}"))
    return problems


def _find(key: str, patterns: Iterable[str], names: Sequence[str]) -> tuple[list[str], list[Problem]]:
    patterns = list(patterns)
    found = [name for name in names if any(matches(pattern, name) for pattern in patterns)]
    problems = [
        Problem(
            f"found {pattern!r}, which no {'linear layer' if key == 'target_modules' else 'module'} is called"
            + (f"; matched by the others: {_short(found)}" if found else ""),
            f"lora.{key}",
            expected=_short(names),
            hint=f"{pattern} of peft is {PEFT_NAMES[pattern]} here" if pattern in PEFT_NAMES else "",
        )
        for pattern in patterns
        if not any(matches(pattern, name) for name in names)
    ]
    return found, problems


def _short(names: Iterable[str]) -> str:
    """Names without the layers' numbers, each once."""
    return ", ".join(dict.fromkeys(without_layer(name) for name in names))


def number_problems(settings: Lora) -> list[Problem]:
    """Numbers that no adapter can have; a rank of 0 is allowed, and means no adapters."""
    checks = {
        "rank": (settings.rank >= 0, "1 or more; 0 for no adapters"),
        "alpha": (settings.alpha > 0, "more than 0"),
        "dropout": (0 <= settings.dropout < 1, "at least 0 and below 1"),
        "target_modules": (settings.target_modules != [], "at least one; unset, all of attention and feed-forward"),
    }
    return [
        Problem(f"found {getattr(settings, key)}", f"lora.{key}", expected=expected)
        for key, (is_right, expected) in checks.items()
        if not is_right
    ]


def lora_problems(module: Module) -> list[Problem]:
    settings = Lora.of(module.config)
    problems = number_problems(settings)
    if settings.rank > 0:
        if module.base is None:
            message = f"LoRA trains beside a finished base, and {module.name} has none"
            hint = "name its base, or adapt the model in the sft module; rank: 0 trains the model itself"
            problems.append(Problem(message, "lora.rank", hint=hint))
        problems += [*preset_problems(module.config), *other_problems(module.config)]
        linears, others = _names(module)
        if linears and not problems:
            tied = bool(module.model_args.get("enable_weight_tying"))
            found, problems = find_modules(settings, linears, others, tied)
            problems += _rank_problems(settings, _most_ranks(module, found.targets))
            problems += peft_problems(module.config["model"]["name"], found, linears) if settings.peft_adapter else []
    return module.placed(problems)


def _names(module: Module) -> tuple[list[str], list[str]]:
    """The model's linear layers and its other modules; empty where they aren't known or it can't be built."""
    name, args = module.config["model"]["name"], module.model_args
    return ([], []) if argument_faults(name, args) else module_names(name, args)


def _most_ranks(module: Module, targets: Iterable[str]) -> dict[str, int]:
    """The rank of each adapted layer's whole weight, which is the most that its update can have."""
    shapes = model_weights(module.config["model"]["name"], module.model_args) or {}
    return {name: min(linear_shape(shapes, name)) for name in targets}


def _rank_problems(settings: Lora, most: Mapping[str, int]) -> list[Problem]:
    """A rank that no adapted layer can use: such adapters hold more numbers than the layers themselves."""
    if not most or settings.rank <= (least := max(most.values())):
        return []
    hint = "an adapter of a higher rank holds more numbers than its layer; rank: 0 trains the layers themselves"
    return [Problem(f"found {settings.rank}", "lora.rank", expected=f"at most {least}, for {_short(most)}", hint=hint)]


def _idle_ranks(module: Module) -> list[str]:
    """A warning of adapted layers whose smaller side is below the rank, though that of others is not."""
    settings, (linears, others) = Lora.of(module.config), _names(module)
    found, _ = find_modules(settings, linears, others, bool(module.model_args.get("enable_weight_tying")))
    small = {name: most for name, most in _most_ranks(module, found.targets).items() if most < settings.rank}
    if not small:
        return []
    where = f"{module.name}.lora.rank ({module.origins.get('lora.rank', 'default')})"
    most = f"the update of {_short(small)} has a rank of at most {min(small.values())}"
    return [f"{where}: {most}, and an adapter of rank {settings.rank} holds more numbers than the layer itself"]


def peft_problems(family: str, found: LoraModules, names: Iterable[str]) -> list[Problem]:
    """Modules that a PEFT adapter can't express: peft would silently do something else, or nothing.

    ``family`` is ``model.name``; by ``names``, the model's modules, it is known whether it has experts.
    """
    problems = []
    fused = [name for name in found.targets if name.rpartition(".")[2] in FUSED]
    if fused and any(EXPERTS in name for name in names):
        message = f"peft takes adapters on {_short(fused)} for adapters on the experts"
        problems.append(_no_peft(message, "or name others: lora.target_modules: ['attention.*']"))
    if family_of(family).own_router and (routers := [name for name in found.targets if name.endswith(ROUTER)]):
        message = f"peft's adapter breaks {_short(routers)}: transformers' router of {family} is no plain linear layer"
        problems.append(_no_peft(message, "or name it in lora.modules_to_save instead"))
    if family_of(family).joins_experts and (experts := [name for name in found.saved if name.endswith(ROUTED_EXPERTS)]):
        joined = f"transformers joins the matrices of {_short(experts)} as it loads them"
        hint = "or leave them out of lora.modules_to_save"
        problems.append(_no_peft(f"{joined}, and peft would pass them over", hint))
    return problems


def _no_peft(message: str, hint: str) -> Problem:
    return Problem(message, "lora.peft_adapter", expected="false", hint=hint)


def other_problems(config: Mapping[str, Any]) -> list[Problem]:
    """Keys of other sections that can't be combined with adapters; keys that ``config`` lacks are taken as right."""
    problems = []
    for key, (wanted, reason) in NEEDED.items():
        section, _, name = key.partition(".")
        found = (config.get(section) or {}).get(name, wanted)
        if found != wanted:
            problems.append(Problem(f"found {found}, with LoRA: {reason}", key, expected=str(wanted)))
    converters = (config.get("model") or {}).get("converters") or []
    # These replace plain linear layers.
    if quantizers := [name for name in converters if name.startswith("quantize.")]:
        message = f"found {quantizers[0]}, with LoRA: adapters are put beside plain linear layers"
        problems.append(Problem(message, "model.converters", hint="leave it out, or lora.rank"))
    return problems


def _knows_template(base: BaseArchitecture, tokenizer: Mapping[str, Any]) -> bool:
    """Whether an sft's base can have read its chat template's tokens.

    Pretraining reads plain text alone; so, it is assumed, did a published model without a chat template.
    """
    if not base.in_hf:
        return base.kind != "pretrain"
    has_template = base.tokenizer is not None and template_of(base.tokenizer) is not None
    return has_template and not tokenizer["new_special_tokens"]


def saves_tokens(lora: Mapping[str, Any]) -> bool:
    """Whether embeddings and output head are trained whole; presets must be replaced by their modules before."""
    return all(any(matches(pattern, name) for pattern in lora["modules_to_save"]) for name in TIED)


def _idle_rates(module: Module) -> Iterator[str]:
    """Warnings of parameter groups that have a learning rate, though none of their modules is trained."""
    config, (linears, others) = module.config, _names(module)
    patterns = [*config["lora"]["modules_to_save"], *target_patterns(config["lora"]["target_modules"], linears)]
    groups = PARAMETER_GROUPS.get(config["model"]["name"], {})
    for group in config["optimizer"]["group_lr"]:
        own = [name for name in (*linears, *others) if set(groups.get(group, ())) & set(name.split("."))]
        if own and not any(matches(pattern, name) for pattern in patterns for name in own):
            key, hint = f"optimizer.group_lr.{group}", f"lora.modules_to_save: [{ROUTED}] trains them"
            where = f"{module.name}.{key} ({module.origins.get(key, 'default')})"
            yield f"{where} has no effect: LoRA leaves these modules as they are; {hint}"


def lora_warnings(module: Module) -> list[str]:
    """Warnings of keys without effect, of learning rates of frozen modules, and of tokens that nothing trains."""
    lora = module.config["lora"]
    if lora["rank"] > 0:
        idle = [*_idle_rates(module), *_idle_ranks(module)]
        if saves_tokens(lora) or module.base is None or _knows_template(module.base, module.config["tokenizer"]):
            return idle
        return [*idle, UNTRAINED_TOKENS.format(module.name, module.base.stage, SAVE_THEM)]
    keys = [f"lora.{key}" for key in module.config["lora"] if key != "rank"]
    return [
        f"{module.name}.{key} ({origin}) has no effect: lora.rank is 0"
        for key in keys
        if (origin := module.origins.get(key, "default")) != "default"
    ]


OF_TRAINING = (lora_problems,)
