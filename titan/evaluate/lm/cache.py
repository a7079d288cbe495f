"""A cache of answers, so that no request is computed twice for the same model.

lm-eval's own cache has the request and not the model as its key: it returns one model's answers for another
(lm-evaluation-harness issue 4063). Here the file's name is a digest of everything else that an answer depends on. A
request has the whole prompt and the generation settings. Sampled answers are never kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from titan.evaluate.lm.backends import Loading
from titanflow.common.digests import digest

CACHE_FOLDER = "answers"
"""Lies beside the stages' folders, so that it outlives a stage that runs again."""
PACKAGES = ("lm_eval", "tokenizers", "torch", "transformers")
VERSION = 2
"""Increase it when the same request would get another answer."""


def model_digest(loading: Loading) -> str:
    """Covers every file of a model, how it is loaded, and the libraries' versions."""
    how = [loading.backend, loading.dtype, loading.trained_here]
    return digest([VERSION, loading.digests, how, [version(package) for package in PACKAGES]])


@contextlib.contextmanager
def cached(lm: Any, loading: Loading, folder: Path) -> Iterator[Any]:
    """Wraps ``lm`` so that its answers are kept in ``folder``, in a SQLite file a model."""
    from lm_eval.api.model import CachingLM

    caching = CachingLM(lm, str(folder / f"{model_digest(loading)}.sqlite"))
    try:
        yield caching
    finally:
        caching.dbdict.close()
