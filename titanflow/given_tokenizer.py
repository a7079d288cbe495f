"""The tokenizer that a training module names: in this project's own key, or in torchtitan's."""

from __future__ import annotations

import dataclasses

from titanflow.config.module import Module
from titanflow.errors import DataError


def tokenizer_key(module: Module) -> str:
    """The key that names it."""
    return "tokenizer.path" if module.config["tokenizer"]["path"] else "model.hf_assets_path"


def given_tokenizer(module: Module) -> str | None:
    """The tokenizer that a config names, as a folder; None where one is to be trained."""
    own = module.config["tokenizer"]["path"]
    if own:
        return str(own)
    is_default = module.origins.get("model.hf_assets_path", "").startswith("torchtitan ")
    return None if is_default else module.config["model"]["hf_assets_path"]


def check_given(module: Module) -> None:
    """Refuses a named folder that is no tokenizer's, by the key that names it.

    Raises:
        DataError: the folder or one of its files isn't there.
    """
    from titanflow.data.tokenizer import check_tokenizer

    given = given_tokenizer(module)
    if given is None:
        return
    key = tokenizer_key(module)
    try:
        check_tokenizer(given, f"{module.name}.{key}")
    except DataError as error:
        origin = module.origins.get(key, "")
        raise DataError([dataclasses.replace(problem, origin=origin) for problem in error.problems]) from None
