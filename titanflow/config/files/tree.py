"""The folder of configs: where its files are found."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from titanflow.common.errors import ConfigError, Problem, did_you_mean
from titanflow.common.files import expanded
from titanflow.files.yaml_source import Leaf, display

PACKAGED = Path(__file__).parents[2] / "configs"
CHECKOUT = Path(__file__).parents[3] / "configs"


@dataclass(frozen=True)
class ConfigTree:
    """A folder with ``experiments/``, ``data/``, ``evals/``, and ``modules/`` and ``models/``, perhaps by framework."""

    root: Path

    @classmethod
    def locate(cls, configs: str | Path | None = None) -> ConfigTree:
        """The named tree, or else ``./configs``, or the one that comes with the project."""
        if configs is not None:
            folder = expanded(configs)
            if not folder.is_dir():
                raise ConfigError(Problem(f"no such folder: {configs}", key="--configs"))
            return cls(folder)
        candidates = [Path("configs"), PACKAGED, CHECKOUT]
        return cls(next((path for path in candidates if (path / "modules").is_dir()), PACKAGED))

    def experiment(self, name: str) -> Path:
        """The file of an experiment, given by its name or by a path."""
        folder = self.root / "experiments"
        for path in (expanded(name), expanded(f"{name}.yaml"), folder / name, folder / f"{name}.yaml"):
            if is_file(path):
                return path
        known = sorted(path.stem for path in folder.glob("*.yaml"))
        expected = f"a path, or one of {display(folder)}: {', '.join(known) or 'none'}"
        raise ConfigError(Problem(f"no experiment {name!r}", expected=expected, hint=did_you_mean(name, known)))

    def file(self, room: str, leaf: Leaf, key: str, framework: str | None = None) -> Path:
        """A file of ``modules/``, ``models/`` or ``data/``, else of the working directory; ``.yaml`` may be omitted."""
        name = str(leaf.value)
        folders = [self.root / room / framework] if framework else []
        folders.append(self.root / room)
        for folder in folders:
            for path in (folder / name, folder / f"{name}.yaml"):
                if is_file(path):
                    return path
        if is_file(itself := expanded(name)):
            return itself
        there = sorted({path.name for folder in folders for path in folder.glob("*.yaml")})
        near = did_you_mean(name, there) or did_you_mean(f"{name}.yaml", there)
        message = f"no file {name!r} in {' or '.join(display(folder) for folder in folders)}"
        hint = near or f"there are: {', '.join(there[:12]) or 'none'}"
        raise ConfigError(Problem(message, key, leaf.origin, hint=hint))

    def stage_file(self, stage: str) -> Path:
        """The module file with the stage's name: this tree's, or else the one that comes with the project."""
        for root in (self.root, CHECKOUT, PACKAGED):
            if (path := root / "modules" / f"{stage}.yaml").is_file():
                return path
        raise ConfigError(Problem(f"no module file {stage}.yaml", expected=f"one in {display(self.root)}/modules"))


def is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113  (Path's own is an error for a name too long for a file)
