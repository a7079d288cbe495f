"""What a plan is made from, so that another machine can make the same plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from titanflow.config.experiment import Experiment
from titanflow.config.files.tree import is_shipped
from titanflow.planning.stage_plan import Plan, StagePlan


class RunRequest(NamedTuple):
    """The arguments of :func:`titanflow.planning.plan.make_plan`, as a flow has them."""

    experiment: str
    configs: str | None
    run: str | None
    settings: Mapping[str, Any]

    def elsewhere(self, plan: Plan, stage: StagePlan) -> RunRequest:
        """The request by which another machine makes the same ``plan``, with the ``stage`` not in a pool.

        Its current folder is another one, so that files are named by their paths. Those that come with titanflow keep
        their names: they may lie elsewhere there.
        """
        config = plan.config
        own: dict[str, Any] = {f"{stage.stage}.launcher.pool": None} if stage.kind != "prepare" else {}
        # Another machine has another $USER.
        own |= {key: name for key, name in config.who.items() if name}
        naming = [*self.settings, *(() if config.path else _naming(config))]
        own |= {key: str(path) for key in naming if (path := _named(config, key)) and not is_shipped(path)}
        settings = {**self.settings, "workspace": str(config.workspace.resolve()), **own}
        configs = None if config.tree.given is None else str(config.tree.given.resolve())
        return RunRequest(self._experiment(config.path), configs, plan.run, settings)

    def _experiment(self, path: Path | None) -> str:
        if path is None:
            return self.experiment
        return path.stem if is_shipped(path) else str(path.absolute())


def _naming(config: Experiment) -> Iterator[str]:
    """The keys that name files in an experiment that stands in no file itself: nothing there lies beside it."""
    for module in config.modules.values():
        more = ["include_path"] if module.config.get("include_path") else []
        yield from (f"{module.name}.{key}" for key in (*module.named, *more))


def _named(config: Experiment, key: str) -> Path | None:
    """The file or folder that a setting names, as it was found here; None for a setting that names none."""
    name, _, rest = key.removeprefix("modules.").partition(".")
    module, rest = config.modules.get(name), rest.removeprefix("overrides.")
    if module is None or rest == "framework":
        return None
    found = module.config["include_path"] if rest == "include_path" else module.named.get(rest, ("", ""))[0]
    return Path(found).absolute() if found else None
