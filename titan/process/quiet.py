"""Keeps the libraries' chatter out of a stage's log, which is there to be read."""

from __future__ import annotations


def quiet_transformers() -> None:
    """Errors only, and no bars for what takes a second.

    The one warning that every export would bring says that a llama3's RoPE scaling starts from a longer context
    than this model's: true, and what it was trained with.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def quiet_lm_eval() -> None:
    """Warnings only, and none of what a task's YAML leaves to its metrics' defaults."""
    import logging

    import datasets

    logging.getLogger("lm_eval").setLevel(logging.WARNING)
    logging.getLogger("lm_eval.api.task").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
