"""Reports a path that the file system refuses (name too long, no permission) as a mistake in the config."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from titanflow.common.errors import ConfigError, Problem
from titanflow.config.experiment import Experiment


@contextmanager
def named_by(config: Experiment) -> Iterator[None]:
    """Names the key whose value is the refused path.

    Raises:
        ConfigError: in place of an ``OSError`` that has a path.
    """
    try:
        yield
    except OSError as error:
        if not isinstance(error.filename, str):
            raise
        raise ConfigError(_problem(error, config)) from None


def _problem(error: OSError, config: Experiment) -> Problem:
    texts = {
        f"{module.name}.{key}": (text, origin)
        for module in config.modules.values()
        for key, (value, origin) in module.values().items()
        for text in (value if isinstance(value, list) else [value])
        if isinstance(text, str) and len(text) > 1 and text in error.filename
    }
    found = f"found {error.filename}: {error.strerror}"
    # The longest such text is the likeliest: others may be a part of it by chance.
    key = max(texts, key=lambda one: len(texts[one][0]), default="")
    return Problem(found, key, texts[key][1] if texts else "", "a path that can be read")
