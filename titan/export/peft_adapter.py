"""A LoRA stage's adapters as the folder that ``peft`` loads onto the export of the stage's base.

``python -m titan.export.peft_adapter CHECKPOINT_OR_STAGE_FOLDER OUT`` writes ``adapter_model.safetensors`` and
``adapter_config.json`` (peft's format, read with peft 0.21), after comparing base and adapter with the merged weights.
The stage's tokenizer lies beside them: by it ``AutoPeftModelForCausalLM`` gives the base the rows of new tokens.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titan.export.export import foreign, make_readable, put_in_place
from titan.export.files import export_tokenizer
from titan.models.huggingface import refusal
from titan.weights.native import load_native
from titan.weights.stage_model import TrainedModel, read_model
from titanflow.architectures.huggingface import is_hugging_face
from titanflow.common.errors import ConfigError, Problem, StageFailed, TitanflowError, refused_places
from titanflow.config.checks.lora import LoraModules, peft_problems
from titanflow.runs.contract import EXPORT_FOLDER

if TYPE_CHECKING:
    import torch

    from titan.models.lora import LoRALinear
    from titanflow.config.keys.training import Lora

ADAPTER_FOLDER = "adapter"
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""peft's prefix to the names of transformers' modules."""
TOLERANCE = 1e-5
"""How far rounding may take base and adapter from the merged weights, relative to the largest of them."""


def write_peft_adapter(model: TrainedModel, out: Path) -> Path:
    """Writes the adapters of a LoRA stage's model to the folder ``out``; returns it.

    Raises:
        ConfigError: the stage trained no adapters, the model's family has no export, or peft can't be told of a module.
        DataError: no checkpoint, or ``out`` holds something else.
        StageFailed: base and adapter together aren't the merged model.
    """
    from safetensors.torch import save_file

    from titan.models.lora import adapted_modules

    checkpoint, out = model.weights.checkpoint, Path(out).absolute()
    if not model.weights.adapters:
        raise ConfigError(Problem("no LoRA stage", "lora.rank", str(checkpoint), "a stage with adapters"))
    if reason := refusal(model.name, asdict(model.args)):
        raise ConfigError(reason)
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / CONFIG_FILE).is_file())):
        raise foreign(out, "adapter")
    native = load_native(model)
    names = [name for name, _ in native.named_modules()]
    saved = [key.rpartition(".")[0] for key in _saved(native)]
    if problems := peft_problems(model.name, LoraModules(list(dict(adapted_modules(native))), saved), names):
        raise ConfigError(problems)
    weights, config = convert(native, model.to_transformers, model.weights.adapters[-1].settings)
    base = model.base
    if base and not is_hugging_face(base):
        base = base / EXPORT_FOLDER
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        save_file(weights, partial / WEIGHTS_FILE, metadata={"format": "pt"})
        named = {"base_model_name_or_path": str(base), **config}
        (partial / CONFIG_FILE).write_text(json.dumps(named, indent=2) + "\n", encoding="utf-8")
        if model.tokenizer is not None:
            export_tokenizer(model.tokenizer, partial, model.chat_template)
        make_readable(partial)
        put_in_place(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def convert(native: Any, to_transformers: Any, settings: Lora) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors and the config of the PEFT adapter.

    ``native`` has its adapters unmerged; ``to_transformers`` is torchtitan's state dict adapter of its family.
    """
    from titan.models.lora import adapted_modules
    from titan.weights.hf_folder import HEAD

    modules = dict(adapted_modules(native))
    weights: dict[str, torch.Tensor] = {}
    names: dict[str, str] = {}
    for name, module in modules.items():
        names[name], rows = transformers_rows(name, module, to_transformers)
        a, b = module.lora_a.detach(), module.lora_b.detach()[rows]
        _check(name, module, to_transformers, a, b)
        weights[f"{PREFIX}{names[name]}.lora_A.weight"] = a.clone()
        weights[f"{PREFIX}{names[name]}.lora_B.weight"] = b.contiguous()
    trained = _saved(native)
    saved = {key.rpartition(".")[0] for key in to_transformers.to_hf(trained)}
    # peft saves whole modules with their buffers, such as the bias of deepseek_v3's router.
    state = native.state_dict()
    buffers = {name: state[name] for name, _ in native.named_buffers() if name in state}
    whole = to_transformers.to_hf({**trained, **buffers})
    weights |= {
        f"{PREFIX}{key}": value.contiguous().clone() for key, value in whole.items() if key.rpartition(".")[0] in saved
    }
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "r": settings.rank,
        "lora_alpha": int(settings.alpha) if settings.alpha == int(settings.alpha) else settings.alpha,
        "lora_dropout": settings.dropout,
        "use_rslora": settings.rslora,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": _target_names(native, names),
        "modules_to_save": sorted(saved) or None,
    }
    embeddings = native.tok_embeddings.weight
    if native.output.weight is embeddings and embeddings.requires_grad:
        # Otherwise the head would keep the base's weight. peft writes, and expects, a copy for it.
        config["ensure_weight_tying"] = True
        weights[f"{PREFIX}{HEAD}"] = embeddings.detach().clone()
    return weights, config


def transformers_rows(name: str, module: LoRALinear, to_transformers: Any) -> tuple[str, torch.Tensor]:
    """A layer's name in transformers, and its new order of rows, found by converting row numbers.

    torchtitan's llama3 interleaves the two halves that RoPE rotates, so its state dict adapter reorders the rows of
    queries and keys; those of B must follow.
    """
    import torch

    numbers = torch.arange(module.out_features, dtype=torch.int32)[:, None].expand(-1, module.in_features)
    ((key, moved),) = to_transformers.to_hf({f"{name}.weight": numbers}).items()
    return key.removesuffix(".weight"), moved[:, 0].long()


def _check(name: str, module: LoRALinear, to_transformers: Any, a: torch.Tensor, b: torch.Tensor) -> None:
    """Raises :class:`StageFailed` unless base and adapter give, in transformers' layout, the merged weight."""
    key = f"{name}.weight"
    (base,) = to_transformers.to_hf({key: module.weight.detach()}).values()
    (merged,) = to_transformers.to_hf({key: module.merged()}).values()
    error = (base + module.scaling * (b @ a) - merged).abs().max() / merged.abs().max()
    if not error < TOLERANCE:
        raise StageFailed(
            f"{name}: base and PEFT adapter differ from the merged weight by {error:.2g} of its largest value, "
            f"expected below {TOLERANCE:g}"
        )


def _saved(native: Any) -> Mapping[str, torch.Tensor]:
    """The weights that were trained in full."""
    from titan.models.lora import is_adapter

    trained = {name for name, parameter in native.named_parameters() if parameter.requires_grad}
    return {key: value for key, value in native.state_dict().items() if key in trained and not is_adapter(key)}


def _target_names(native: Any, names: Mapping[str, str]) -> list[str]:
    """Names such as ``q_proj`` if the layers of all blocks are adapted, else full names."""
    from torch import nn

    linears = [name for name, module in native.named_modules() if isinstance(module, nn.Linear)]
    partly = {_last(name) for name in linears if name not in names}
    return sorted({key if _last(name) in partly else _last(key) for name, key in names.items()})


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m titan.export.peft_adapter", description=__doc__)
    parser.add_argument("source", type=Path, help="a LoRA stage's folder, or one checkpoint/step-N of it")
    parser.add_argument("out", type=Path, help="the folder to make")
    given = parser.parse_args(arguments)
    try:
        with refused_places():
            print(write_peft_adapter(read_model(given.source), given.out))
    except TitanflowError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
