"""A folder in transformers' format: its weights are read by native name, compared with a model's, or loaded as a model.

Only safetensors are read, and no foreign code is run. A state dict adapter reorders rows, splits and joins experts, and
returns copies: for a whole model they would fill memory a second time, so weights are renamed a layer at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from titan.process.lean_transformers import leave_out_scipy
from titanflow.architectures.huggingface import check_weights_there, weight_files
from titanflow.architectures.remote_code import trust_remote_code
from titanflow.common.errors import DataError, Problem
from titanflow.files.own_files import DAMAGES
from titanflow.runs.checkpoints import differences, refuse_other

LAYER = re.compile(r"(.*?\blayers\.\d+)\.")
EMBEDDING = "tok_embeddings.weight"
"""With tied embeddings, an adapter makes the output layer from it and asks for it in each state dict."""
COMPUTED = "rotary_emb.inv_freq"
"""A buffer that old checkpoints of llama hold; it follows from RoPE's parameters."""
HEAD = "lm_head.weight"

State = Mapping[str, Any]


def load_folder(
    folder: Path, dtype: Any = "auto", device: Any = "cpu", remote_code: bool = False
) -> tuple[Any, dict[str, tuple[str, ...]]]:
    """A model in inference mode, and the weights that didn't fit: ``missing``, ``unexpected`` and ``mismatched``.

    It computes in the folder's own ``dtype`` unless one is given. With ``remote_code`` code that the folder brings is
    run, whosever it is.

    Raises:
        ConfigError: the folder brings code that isn't this package's.
        DataError: a file is missing or damaged.
    """
    from transformers import AutoModelForCausalLM

    leave_out_scipy()
    with _loading(folder):
        model, loading = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            output_loading_info=True,
            local_files_only=True,
            # Any other format is a pickle, which may run any code.
            use_safetensors=True,
            trust_remote_code=remote_code or trust_remote_code(folder),
        )
    kinds = ("missing", "unexpected", "mismatched")
    return model.eval().to(device), {kind: tuple(sorted(map(str, loading[f"{kind}_keys"]))) for kind in kinds}


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer; no tokenizer needs code.

    Raises:
        DataError: a file is missing or damaged.
    """
    from transformers import AutoTokenizer

    with _loading(folder):
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


@contextmanager
def _loading(folder: Path) -> Iterator[None]:
    """Refuses a folder of which transformers can't read a file."""
    from safetensors import SafetensorError

    try:
        yield
    except (*DAMAGES, SafetensorError) as error:
        found = next(iter(str(error).splitlines()), type(error).__name__)
        hint = (
            "`titanflow verify` names the files of a published model that changed; a stage's export is made by a rerun"
        )
        raise DataError(Problem(f"can't be loaded: {found}", origin=str(folder), hint=hint)) from error


def to_hugging_face(weights: State, adapter: Any) -> Iterator[tuple[str, Any]]:
    """The weights by transformers' names, in the order of the model."""
    for layer in _layers(weights):
        yield from adapter.to_hf(layer).items()


def from_folder(folder: Path, wanted: State, adapter: Any) -> Iterator[tuple[str, Any | None]]:
    """The weights in a folder by native name; None for what it doesn't hold.

    Its files are mapped into memory, not read into it. ``wanted`` has tensors of the native names and shapes.
    """
    from safetensors.torch import load_file

    stored = {key: value for path in weight_files(folder) for key, value in load_file(path).items()}
    always = set(adapter.to_hf(_without_values({EMBEDDING: wanted[EMBEDDING]})))
    for layer in _layers(wanted):
        names = always | set(adapter.to_hf(_without_values(layer)))
        native = adapter.from_hf({name: stored[name] for name in sorted(names & stored.keys())})
        yield from ((key, native.get(key)) for key in layer)


def changed_weights(folder: Path, wanted: State, adapter: Any) -> tuple[str, ...]:
    """The native names of weights that the folder doesn't give back to the bit."""
    import torch

    back = from_folder(folder, wanted, adapter)
    return tuple(sorted(key for key, value in back if value is None or not torch.equal(wanted[key], value)))


def check_hf_weights(folder: Path, spec: Any, model_args: Any) -> None:
    """Refuses a folder that doesn't hold exactly the weights of the model of a family's ``TrainSpec``.

    torchtitan loads what fits, silently.

    Raises:
        ConfigError: a file is missing, or a weight is missing, too many, twice there, or of another shape.
    """
    import torch

    stored, twice = stored_shapes(folder)
    with torch.device("meta"):
        model = spec.model_cls(model_args)
    adapter = spec.state_dict_adapter(model_args, None)
    wanted = {key: tuple(value.shape) for key, value in adapter.to_hf(model.state_dict()).items()}
    if getattr(model_args, "enable_weight_tying", False):
        stored.pop(HEAD, None)
    found = "the weights aren't those that config.json describes"
    hint = "load and save the model with transformers, and look for its warnings"
    refuse_other([*twice, *differences(stored, wanted)], folder, found, hint)


def stored_shapes(folder: Path) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """The shape of each weight in the folder, by its name, and a clause for each that is there twice."""
    from safetensors import safe_open

    check_weights_there(folder)
    shapes: dict[str, tuple[int, ...]] = {}
    twice = []
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118  (no mapping)
                if COMPUTED in key:
                    continue
                if key in shapes:
                    twice.append(f"has {key} twice, once in {path.name}")
                shapes[key] = tuple(file.get_slice(key).get_shape())
    return shapes, twice


def _layers(weights: State) -> Iterator[dict[str, Any]]:
    for _, keys in groupby(weights, lambda key: found[1] if (found := LAYER.match(key)) else ""):
        yield {key: weights[key] for key in keys}


def _without_values(weights: State) -> dict[str, Any]:
    import torch

    return {key: torch.empty_like(value, device="meta") for key, value in weights.items()}
