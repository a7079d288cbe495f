"""Reports a path that the file system refuses (name too long, no permission), or that would be another folder than is
meant, as a mistake in the config."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from titanflow.common.errors import ConfigError, Problem
from titanflow.common.files import expanded, unwritable_name
from titanflow.config.experiment import Experiment
from titanflow.config.module import Module


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
        if isinstance(text, str) and text and _leads_to(text, error.filename)
    }
    found = f"found {error.filename}: {error.strerror}"
    # The longest such text is the likeliest: others may be a part of it by chance.
    key = max(texts, key=lambda one: len(texts[one][0]), default="")
    return Problem(found, key, texts[key][1] if texts else "", "a path that can be read")


def _leads_to(text: str, filename: str) -> bool:
    """Whether a path in a config, or a pattern's folder, is the refused one or lies above it."""
    above = Path(expanded(text).absolute())
    plain = next((at for at in (above, *above.parents) if not any(one in str(at) for one in "*?")), above)
    # Any text with a question mark would be a pattern of the current folder.
    return Path(filename).absolute().is_relative_to(plain) and (plain == above or plain != Path.cwd())


def _check_folder(module: Module) -> list[Problem]:
    folder = module.config["folder"]
    why = unwritable_name(folder) if folder else ""
    return [module.problem("folder", f"found {folder!r}: {why}", "a folder")] if why else []


OF_PUBLISH = (_check_folder,)
