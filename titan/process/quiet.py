"""Keeps the libraries' chatter out of a stage's log."""

from __future__ import annotations


def quiet_transformers() -> None:
    """Shows errors only, and no bars for what takes a second.

    It hides one warning that every export would bring: that a llama3's RoPE scaling starts from a longer context than
    this model's. That is true, and how the model was trained.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def quiet_lm_eval() -> None:
    """Shows warnings only, but not those about what a task's YAML leaves to its metrics' defaults."""
    import logging

    import datasets

    logging.getLogger("lm_eval").setLevel(logging.WARNING)
    logging.getLogger("lm_eval.api.task").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
