"""An experiment: one file that names a module file and a model file for each stage, and overrides them.

Order, weakest first: module file, model file, data files, the experiment's ``overrides``, then what a command
line or a flow's parameters set. Every mistake in all of them is reported together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from titanflow.config.checks import check_module, overruled
from titanflow.config.experiment_spec import ExperimentSpec, ModuleSpec, name_problem
from titanflow.config.family_checks import check_exports
from titanflow.config.gate_checks import check_gate
from titanflow.config.module import Entry, Module, build_module, remove_unknown
from titanflow.config.overrides import Setting, lay_over
from titanflow.config.schema import check, dataclass_schema, typed
from titanflow.config.tree import ConfigTree, load
from titanflow.config.yaml_source import Leaf, Tree, first_origin, leaves, plain
from titanflow.errors import ConfigError, Problem
from titanflow.utf8_mode import check_utf8_mode, utf8_problem

if TYPE_CHECKING:
    from titanflow.night import Night


_SECTIONS = ("overrides", "params")


@dataclass
class Experiment:
    """A resolved experiment: its own settings and its modules, each complete with defaults and origins.

    ``spec`` holds the experiment file's own keys, ``origins`` where those that were written come from, ``night`` the
    night that it is planned for (:mod:`titanflow.night`).
    """

    path: Path
    tree: ConfigTree
    exp_name: str
    workspace: Path
    work_group: str
    user_name: str
    modules: dict[str, Module]
    spec: ExperimentSpec = field(default_factory=ExperimentSpec)
    origins: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    night: Night | None = None

    def stage(self, stage: str) -> Module | None:
        """The module of a stage, or None where the experiment has none."""
        return next((module for module in self.modules.values() if module.stage == stage), None)


def load_experiment(name: str, configs: str | Path | None = None, settings: Iterable[Setting] = ()) -> Experiment:
    """Loads an experiment by its name or its file.

    Raises:
        ConfigError: with every mistake that was found, each with file, line and key.
    """
    check_utf8_mode()
    tree = ConfigTree.locate(configs)
    path = tree.experiment(name)
    if problem := utf8_problem(str(path.absolute()), "the experiment's file"):
        raise ConfigError(problem)
    if configs is None and (path.resolve().parent.parent / "modules").is_dir():
        tree = ConfigTree(path.parent.parent)
    problems: list[Problem] = []
    raw = load(path, problems)
    over, mistakes = lay_over(raw, settings)
    raw = typed(raw, dataclass_schema(ExperimentSpec))
    problems += mistakes
    ignored = remove_unknown(raw, patterns(raw), dataclass_schema(ExperimentSpec))
    own = {**raw, "modules": {}}
    problems += check(own, dataclass_schema(ExperimentSpec))
    problems += _check_name(own, path)
    modules = _build_modules(raw, over, tree, path, problems)
    if not problems:
        problems = [problem for module in modules.values() for problem in check_module(module)]
        problems += check_exports(modules)
        problems += check_gate(modules, tree.root)
    if problems:
        raise ConfigError(problems)
    spec = TypeAdapter(ExperimentSpec).validate_python(_without_empty(plain(own)))
    origins = {key: leaf.origin for key, leaf in leaves(own)}
    if problem := utf8_problem(str(Path(spec.workspace).absolute()), "workspace", origins.get("workspace", "")):
        raise ConfigError(problem)
    return Experiment(
        path=path,
        tree=tree,
        exp_name=spec.exp_name or path.stem,
        workspace=Path(spec.workspace),
        work_group=spec.work_group,
        user_name=spec.user_name,
        modules=modules,
        spec=spec,
        origins=origins,
        ignored=ignored + [line for module in modules.values() for line in module.ignored],
        warnings=[line for module in modules.values() for line in (*module.warnings, *overruled(module))],
    )


def _check_name(own: Tree, path: Path) -> list[Problem]:
    named = own.get("exp_name")
    if isinstance(named, Leaf) and named.value:
        problem = name_problem(str(named.value), "exp_name", named.origin)
    else:
        problem = name_problem(path.stem, "exp_name", str(path))
    return [problem] if problem else []


def _without_empty(values: dict[str, Any]) -> dict[str, Any]:
    """The values without sections that are written and left empty, which have their defaults."""
    sections = {field.name for field in fields(ExperimentSpec) if field.default_factory is not MISSING}
    return {key: value for key, value in values.items() if not (value is None and key in sections)}


def _build_modules(
    raw: Tree, over: dict[str, Tree], tree: ConfigTree, path: Path, problems: list[Problem]
) -> dict[str, Module]:
    specs = raw.get("modules")
    if isinstance(specs, Leaf) and isinstance(specs.value, list):
        expected = "a mapping, each module under its name: `pretrain: {config: …}`"
        problems.append(Problem("found a list", key="modules", origin=specs.origin, expected=expected))
        return {}
    if not isinstance(specs, dict) or not specs:
        origin = specs.origin if isinstance(specs, Leaf) else str(path)
        problems.append(Problem("the experiment has no modules", key="modules", origin=origin))
        return {}
    modules: dict[str, Module] = {}
    for name, spec in specs.items():
        if not isinstance(spec, dict):
            problems.append(Problem("a module is a mapping", key=f"modules.{name}", origin=first_origin(spec)))
            continue
        # What lies below these is checked with the stage's config.
        shallow = {key: {} if key in _SECTIONS and isinstance(value, dict) else value for key, value in spec.items()}
        problems += check(shallow, dataclass_schema(ModuleSpec), f"modules.{name}.")
        launcher = raw.get("launcher")
        common = launcher if isinstance(launcher, dict) else {}
        entry = Entry(name, spec, over.get(name, {}), common, patterns(raw))
        module = build_module(entry, tree, modules, problems)
        if module is not None:
            problems += _second(module, modules, first_origin(spec))
            modules[name] = module
    return modules


def _second(module: Module, modules: dict[str, Module], origin: str) -> list[Problem]:
    """A stage has one module: a second one would never run."""
    names = [other.name for other in modules.values() if other.stage == module.stage]
    return [Problem(f"is the stage of {name}, too", f"modules.{module.name}", origin, "one of both") for name in names]


def patterns(raw: Tree) -> list[str]:
    """The experiment's ``ignore:`` list."""
    leaf = raw.get("ignore")
    return [str(item) for item in leaf.value] if isinstance(leaf, Leaf) and isinstance(leaf.value, list) else []
