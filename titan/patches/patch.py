"""What a patch of torchtitan says of itself, so that someone can judge whether it is still wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from titanflow.common.errors import ConfigError, Problem

if TYPE_CHECKING:
    from torchtitan.protocols.train_spec import TrainSpec


@dataclass(frozen=True)
class PatchContext:
    """What a stage hands to the patches: its model's name, and what makes the stage's own ``TrainSpec``."""

    model_name: str = ""
    adapt_spec: Callable[[TrainSpec], TrainSpec] | None = None


@dataclass(frozen=True)
class Patch:
    """One change to torchtitan from outside.

    ``target`` is the dotted name that is replaced, ``what`` what takes its place, ``why`` what happens without it,
    ``versions`` the torchtitan releases it was written for. ``needed`` says whether this installation on this
    machine has the fault; ``apply`` may be called twice. Importing a patch's module imports no torch.
    """

    name: str
    target: str
    what: str
    why: str
    versions: str
    needed: Callable[[], bool]
    apply: Callable[[PatchContext], None]

    def check_version(self) -> None:
        """Refuses a torchtitan that the patch doesn't know.

        Raises:
            ConfigError: the installed release lies outside of ``versions``.
        """
        found = version("torchtitan")
        if not SpecifierSet(self.versions).contains(Version(found), prereleases=True):
            raise ConfigError(
                Problem(
                    f"torchtitan {found} is installed, and the patch {self.name!r} of {self.target} "
                    f"was written for {self.versions}",
                    expected=f"torchtitan{self.versions}",
                    hint=f"pip install 'torchtitan{self.versions}', or look through titan/patches/{self.name}.py",
                )
            )
