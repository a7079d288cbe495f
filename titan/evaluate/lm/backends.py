"""lm-eval's backends: transformers on an exported folder, torchtitan's own model on a checkpoint, or vLLM."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from titan.evaluate.ranks import Ranks
from titan.process.lean_transformers import leave_out_scipy
from titanflow.common.errors import ConfigError, Problem

logger = logging.getLogger("titanflow.evaluate")


@dataclass(frozen=True)
class Loading:
    """Which model to load, and how; rank 0 sends it to the others.

    ``trained_here``: in training only the end of text came before a document, so a text's first token is scored after
    that one; a foreign model follows its tokenizer. ``trusted``: transformers may run the folder's Python files.
    ``digests`` has the SHA-256 of each of the folder's files before anything was scored.
    """

    folder: Path
    digests: Mapping[str, str]
    backend: Literal["hf", "native", "vllm"] = "hf"
    batch_size: int | str = 16
    dtype: str = "float32"
    device: str | None = None
    seed: int = 1234
    trained_here: bool = True
    trusted: bool = False


def load_lm(loading: Loading, ranks: Ranks) -> Any:
    if loading.backend == "vllm":
        return load_vllm(loading, ranks)
    leave_out_scipy()
    from titan.evaluate.lm.lm import SharedLM

    if gc.isenabled():
        # Frees the memory of the previous model.
        gc.collect()
    device = choose_device(loading.device, ranks)
    if loading.backend == "native":
        from titan.evaluate.lm.native_causal_lm import load_native_causal_lm

        model, tokenizer = load_native_causal_lm(loading.folder, _dtype(loading.dtype))
    else:
        model, tokenizer = load_transformers(loading)
    with _init_unheard():
        lm = SharedLM(
            model.to(device).eval(),
            tokenizer,
            ranks,
            batch_size=loading.batch_size,
            prefix_token_id=tokenizer.eos_token_id if loading.trained_here else None,
            add_bos_token=False if loading.trained_here else None,
            seed=loading.seed,
        )
    # Off until here, so that the libraries are imported faster.
    gc.enable()
    return lm


def load_transformers(loading: Loading) -> tuple[Any, Any]:
    """Loads model and tokenizer as any user does."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(loading.folder, trust_remote_code=loading.trusted)
    model = AutoModelForCausalLM.from_pretrained(
        loading.folder, dtype=_dtype(loading.dtype), trust_remote_code=loading.trusted
    )
    if limit := model.generation_config.max_new_tokens:
        logger.warning(
            "%s: generation_config.json sets max_new_tokens to %d, which goes before each task's max_gen_toks",
            loading.folder,
            limit,
        )
    return model, tokenizer


def load_vllm(loading: Loading, ranks: Ranks) -> Any:
    """lm-eval's own vLLM backend, which starts its processes itself."""
    if find_spec("vllm") is None:
        expected, hint = "hf or native", "pip install 'vllm>=0.18'"
        raise ConfigError(Problem("vLLM isn't installed", key="backend", expected=expected, hint=hint))
    if ranks.size > 1:
        found = f"vLLM under {ranks.size} processes"
        raise ConfigError(Problem(found, key="launcher.nproc_per_node", expected="1: it starts its own"))
    from lm_eval.models.vllm_causallms import VLLM
    from transformers import AutoTokenizer

    eos = AutoTokenizer.from_pretrained(loading.folder, trust_remote_code=loading.trusted).eos_token_id
    lm = VLLM(
        pretrained=str(loading.folder),
        dtype=loading.dtype,
        seed=loading.seed,
        batch_size=loading.batch_size,
        trust_remote_code=loading.trusted,
        prefix_token_id=eos if loading.trained_here else None,
        add_bos_token=False if loading.trained_here else None,
    )
    lm.name = str(loading.folder)
    return lm


def choose_device(wanted: str | None, ranks: Ranks) -> str:
    """This rank's device: the GPU with its local rank, or the CPU."""
    import torch

    device = wanted or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda":
        if ranks.local_size > torch.cuda.device_count():
            found = f"{ranks.local_size} processes and {torch.cuda.device_count()} GPUs"
            raise ConfigError(
                Problem(found, key="launcher.nproc_per_node", expected="a GPU for each process, or device: cpu")
            )
        return f"cuda:{ranks.local_rank}"
    if device.startswith("cuda:") and ranks.local_size > 1:
        found = f"{device} for {ranks.local_size} processes"
        raise ConfigError(Problem(found, key="device", expected="cuda, or cpu: each process takes its own"))
    return device


def _dtype(name: str) -> Any:
    import torch

    return getattr(torch, name)


@contextlib.contextmanager
def _init_unheard() -> Iterator[None]:
    """Silences lm-eval's warning that a loaded model takes no part in its own parallelism, as intended here."""
    library = logging.getLogger("lm_eval.models.huggingface")
    level = library.level
    library.setLevel(logging.ERROR)
    try:
        yield
    finally:
        library.setLevel(level)
