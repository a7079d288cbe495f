"""Answers that are kept, so that the same request of the same model is never computed twice.

lm-eval's own cache knows the request and not the model: it gives one model's answers for another's
(lm-evaluation-harness issue 4063). Here the file is called after everything that an answer depends on beside the
request, which holds the whole prompt and the settings of generation. What is drawn at random is never kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from titan.evaluate.lm.backends import Loading
from titanflow.common.digests import digest, file_digest

CACHE_FOLDER = "answers"
"""Beside the stages' folders in a run's, so that it outlives a stage that runs again."""
PACKAGES = ("lm_eval", "tokenizers", "torch", "transformers")
VERSION = 2
"""Counts up whenever the same request would be answered otherwise."""


def model_digest(loading: Loading) -> str:
    """What names a model's answers: every file that it is read from, how it is loaded, and with which versions."""
    folder = loading.folder
    files = {path.relative_to(folder).as_posix(): file_digest(path) for path in folder.rglob("*") if path.is_file()}
    how = [loading.backend, loading.dtype, loading.trained_here]
    return digest([VERSION, files, how, [version(package) for package in PACKAGES]])


@contextlib.contextmanager
def cached(lm: Any, loading: Loading, folder: Path) -> Iterator[Any]:
    """The model, asked for nothing that it has answered before.

    Args:
        lm: as lm-eval asks it.
        loading: what it is.
        folder: where answers are kept, a SQLite file a model.
    """
    from lm_eval.api.model import CachingLM

    caching = CachingLM(lm, str(folder / f"{model_digest(loading)}.sqlite"))
    try:
        yield caching
    finally:
        caching.dbdict.close()
