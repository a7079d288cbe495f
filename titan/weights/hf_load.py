"""Loads a folder as any user of transformers would, but only from safetensors and without foreign code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from titanflow.architectures.remote_code import trust_remote_code


def load_folder(folder: Path, dtype: Any = "auto", device: str = "cpu") -> tuple[Any, dict[str, tuple[str, ...]]]:
    """A model in inference mode, and the weights that didn't fit: ``missing``, ``unexpected`` and ``mismatched``.

    It computes in the folder's own ``dtype`` unless one is given.

    Raises:
        ConfigError: the folder brings code that isn't this package's.
    """
    from transformers import AutoModelForCausalLM

    model, loading = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        output_loading_info=True,
        local_files_only=True,
        # Any other format is a pickle, which may run any code.
        use_safetensors=True,
        trust_remote_code=trust_remote_code(folder),
    )
    kinds = ("missing", "unexpected", "mismatched")
    return model.eval().to(device), {kind: tuple(sorted(map(str, loading[f"{kind}_keys"]))) for kind in kinds}


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer; no tokenizer needs code."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
