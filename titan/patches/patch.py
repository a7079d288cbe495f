"""A patch of torchtitan, with the facts to judge whether it is still needed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from titanflow.common.errors import ConfigError, Problem

if TYPE_CHECKING:
    from torchtitan.protocols.train_spec import TrainSpec


@functools.cache
def installed_torchtitan() -> str:
    """Its version. A search through all that is installed, and each model that is built asks for each patch."""
    return metadata.version("torchtitan")


@dataclass(frozen=True)
class PatchContext:
    """A stage's input to the patches: its model's name, and a function that makes its own ``TrainSpec``."""

    model_name: str = ""
    adapt_spec: Callable[[TrainSpec], TrainSpec] | None = None


@dataclass(frozen=True)
class Patch:
    """One change to torchtitan from outside.

    ``target`` is the dotted name that is replaced, ``what`` the replacement, ``why`` what happens without it,
    ``versions`` the torchtitan releases it was written for. ``needed`` tells whether this installation has the fault
    on this machine; ``apply`` may be called twice. Importing a patch's module must not import torch.
    """

    name: str
    target: str
    what: str
    why: str
    versions: str
    needed: Callable[[], bool]
    apply: Callable[[PatchContext], None]

    def check_version(self) -> None:
        found = installed_torchtitan()
        if not SpecifierSet(self.versions).contains(Version(found), prereleases=True):
            written_for = f"the patch {self.name!r} of {self.target} was written for {self.versions}"
            expected = f"torchtitan{self.versions}"
            hint = f"pip install '{expected}', or look through titan/patches/{self.name}.py"
            message = f"torchtitan {found} is installed, and {written_for}"
            raise ConfigError(Problem(message, expected=expected, hint=hint))
