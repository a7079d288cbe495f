"""Keeps the libraries' chatter out of a stage's log."""

from __future__ import annotations

import logging

OF_EVERY_TRAINING = ("ENV[TORCH_NCCL_ASYNC_ERROR_HANDLING]", "model.safetensors.index.json not found at hf_assets_path")


def quiet_transformers() -> None:
    """Shows errors only, and no bars for what takes a second.

    It hides one warning that every export would bring: that a llama3's RoPE scaling starts from a longer context than
    this model's. That is true, and how the model was trained.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def quiet_torchtitan() -> None:
    """Leaves out warnings that every training would bring and that ask nothing of anybody.

    The first training of a model has no file of weights, one process saves alone, and the setting of NCCL is
    torchtitan's own.
    """
    import warnings

    logging.getLogger().addFilter(_asks_for_something)
    warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized", UserWarning)


def _asks_for_something(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(OF_EVERY_TRAINING)


def quiet_lm_eval() -> None:
    """Shows warnings only, but not those about what a task's YAML leaves to its metrics' defaults."""
    import datasets

    logging.getLogger("lm_eval").setLevel(logging.WARNING)
    logging.getLogger("lm_eval.api.task").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
