"""The folder that runs start in, from which relative paths count: where ``titanflow serve`` was started."""

from __future__ import annotations

from pathlib import Path

from titanflow.common.errors import ConfigError, Problem

CODE = Path(__file__).parents[1]
"""The folder of this project's packages: a clone, or site-packages."""
PACKAGES = ("deployments", "flows", "tasks", "titan", "titanflow")


def home() -> Path:
    """That folder, refused if a module in it is named as a package here: Prefect imports from a run's folder first."""
    here = Path.cwd()
    modules = [name for package in PACKAGES for name in (f"{package}/__init__.py", f"{package}.py")]
    others = [] if here == CODE else [name for name in modules if (here / name).is_file()]
    if others:
        found = f"found {', '.join(others)}, which Prefect would import in place of titanflow's own"
        raise ConfigError(Problem(found, str(here), expected="a folder without them to start this in"))
    return here
