"""An experiment: one file, or JSON, that names a module file and a model file for each stage, and overrides them.

Precedence, weakest first: module file, model file, data files, the experiment's ``overrides``, then the settings of a
command line or a flow's parameters. All mistakes in all of them are reported together.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from titanflow.common.errors import ConfigError, Problem, did_you_mean, told_once
from titanflow.common.files import expanded, unwritable_name
from titanflow.common.utf8_mode import check_utf8_mode, utf8_problem
from titanflow.config.build_module import build_module
from titanflow.config.checks.beside.during import check_scored_modules
from titanflow.config.checks.family import check_exports
from titanflow.config.checks.module import check_launch, check_module, overruled
from titanflow.config.checks.processes.launcher import idle_sections, prepare_problems
from titanflow.config.checks.publishing.gate import check_gate
from titanflow.config.checks.publishing.gguf import check_gguf
from titanflow.config.checks.publishing.places import check_places
from titanflow.config.division import settle_parts
from titanflow.config.files.schema import Schema, check, dataclass_schema, fitted
from titanflow.config.files.tree import EXPERIMENTS, ConfigTree
from titanflow.config.ignored import Ignored, idle_names, read_ignored
from titanflow.config.keys.bounds import EXPERIMENT, bounded
from titanflow.config.keys.experiment import (
    EXP_NAME,
    WHO,
    ExperimentSpec,
    ModuleSpec,
    fitting_name,
    name_problem,
    tag_problem,
)
from titanflow.config.means.best import settle_best
from titanflow.config.means.scoring import settle_evaluations
from titanflow.config.means.settle import settle_means
from titanflow.config.means.unlike import unlike_models
from titanflow.config.module import Module, stage_schema
from titanflow.config.module_files import Entry, load, load_json
from titanflow.config.overrides import Setting, lay_over
from titanflow.config.settled.lora_presets import settle_presets
from titanflow.config.settled.precision import settle_precision
from titanflow.config.stages import by_own_names, in_order, kind_of, made_for, modules_of, name_models
from titanflow.files.json_source import GIVEN, is_json
from titanflow.files.yaml_source import (
    Leaf,
    Replacing,
    Tree,
    display,
    first_origin,
    in_one_line,
    leaves,
    plain,
    take_out,
)
from titanflow.runs.contract import StageKind

_SECTIONS = ("config", "model", "data", "validation_data", "overrides", "params")


@dataclass
class Experiment:
    """A resolved experiment: its own settings and its modules, each complete with defaults and origins.

    ``path`` is its file, None for one that was given as JSON. ``spec`` holds the experiment's own keys; ``origins``
    says where each written one comes from. ``evaluations`` has the evaluate modules by name, also those whose stage
    ``only`` leaves out: they say how checkpoints are scored while a training runs.
    """

    path: Path | None
    tree: ConfigTree
    exp_name: str
    workspace: Path
    modules: dict[str, Module]
    evaluations: dict[str, Module] = field(default_factory=dict)
    spec: ExperimentSpec = field(default_factory=ExperimentSpec)
    origins: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def who(self) -> dict[str, str]:
        return {key: getattr(self.spec, key) for key in WHO}

    def of_kind(self, kind: StageKind) -> list[Module]:
        """The modules of a kind, in the order in which they run."""
        return modules_of(kind, self.modules)


def load_experiment(
    name: str, configs: str | Path | None = None, settings: Iterable[Setting] = (), starts: bool = True
) -> Experiment:
    """Loads an experiment by its name or its file, or the JSON that it is.

    ``starts`` False: the config may be read where it is never run. Then requirements of a start alone, such as the
    number of processes that its parallelism needs, become warnings.

    Raises:
        ConfigError: with every mistake that was found, each with file, line and key.
    """
    check_utf8_mode()
    source = _locate(name, configs)
    raw, over, problems = _read(source, settings)
    schema = _schema()
    left_out = read_ignored(raw)
    ignored = take_out(raw, left_out.unknown(schema))
    own = {**raw, "modules": {}}
    problems += [*check(own, schema), *_check_names(own, source)]
    modules, mistakes = _build_modules(raw, over, source, left_out, bool(problems))
    if problems := problems + mistakes:
        raise ConfigError(by_own_names(problems, _kinds(raw)))
    spec = _spec_type().validate_python(plain(own))
    if problems := settle_means(modules) or settle_evaluations(modules) or settle_best(modules):
        raise ConfigError(problems)
    if unknown := [name for name in spec.only if name not in modules]:
        hint, origin = did_you_mean(unknown[0], modules), own["only"].origin
        raise ConfigError(Problem(f"no module is {', '.join(unknown)}", "only", origin, ", ".join(modules), hint))
    evaluations = {module.name: module for module in modules_of("evaluate", modules)}
    modules = made_for(spec.only, modules) if spec.only else modules
    exp_name = spec.exp_name or source.stem
    _put_name(modules, exp_name)
    warnings = _check_modules(modules, evaluations, starts)
    origins = {key: leaf.origin for key, leaf in leaves(own)}
    origins |= {} if spec.exp_name else {"exp_name": f"the name of {source}"}
    if problems := prepare_problems(spec.prepare.launcher, origins):
        raise ConfigError(problems)
    if unwritable := unwritable_name(spec.workspace):
        raise ConfigError(
            Problem(f"found {spec.workspace!r}: {unwritable}", "workspace", origins.get("workspace", ""), "a folder")
        )
    if problem := utf8_problem(str(expanded(spec.workspace).absolute()), "workspace", origins.get("workspace", "")):
        raise ConfigError(problem)
    ignored += [line for module in modules.values() for line in module.ignored]
    warnings += idle_names(raw, ignored)
    warnings += [line for module in modules.values() for line in (*module.warnings, *overruled(module))]
    warnings += idle_sections(modules.values(), spec, origins)
    return Experiment(
        path=source.path,
        tree=source.tree,
        exp_name=exp_name,
        workspace=expanded(spec.workspace),
        modules=modules,
        evaluations=evaluations,
        spec=spec,
        origins=origins,
        ignored=ignored,
        warnings=warnings,
    )


def experiment_name(name: str, configs: str | Path | None = None, settings: Iterable[Setting] = ()) -> str:
    """The ``exp_name`` of an experiment, without reading its modules.

    Raises:
        ConfigError: there is no such experiment, or its file can't be read.
    """
    source = _locate(name, configs)
    raw, _, _ = _read(source, settings)
    named = raw.get("exp_name")
    return str(named.value) if isinstance(named, Leaf) and named.value else source.stem


@functools.cache
def _spec_type() -> TypeAdapter[ExperimentSpec]:
    """Pydantic takes longer to build it than an experiment's own keys take to be read."""
    return TypeAdapter(ExperimentSpec)


def _schema() -> Schema:
    return bounded(dataclass_schema(ExperimentSpec), EXPERIMENT)


class _Source(NamedTuple):
    """What an experiment is read from: its file, or JSON; and the tree that its modules' files are looked for in."""

    path: Path | None
    json: str
    tree: ConfigTree

    @property
    def stem(self) -> str:
        return self.path.stem if self.path else ""

    def __str__(self) -> str:
        return display(self.path) if self.path else GIVEN


def _read(source: _Source, settings: Iterable[Setting]) -> tuple[Tree, dict[str, Tree], list[Problem]]:
    """The experiment as written, with what it extends and the settings; its modules' own settings; and mistakes."""
    room = source.tree.room(EXPERIMENTS)
    raw, problems = load(source.path, room) if source.path else load_json(source.json, room)
    over, mistakes = lay_over(raw, settings)
    return fitted(raw, _schema()), over, problems + mistakes


def _put_name(modules: dict[str, Module], exp_name: str) -> None:
    """Replaces :data:`EXP_NAME` in the folder that models are published into, which nights of an experiment share."""
    for module in modules.values():
        if module.kind == "publish" and module.config["folder"]:
            module.config["folder"] = module.config["folder"].replace(EXP_NAME, exp_name)


def _locate(name: str, configs: str | Path | None) -> _Source:
    tree = ConfigTree.locate(configs)
    if is_json(name):
        return _Source(None, name, tree)
    path = tree.experiment(name)
    if problem := utf8_problem(str(path.absolute()), "the experiment's file"):
        raise ConfigError(problem)
    if path.suffix == ".toml":
        # torchtitan's TOML is the config of one training: a module's config, not an experiment.
        expected = f"an experiment's YAML file that names it: `modules: {{pretrain: {{config: {path}}}}}`"
        raise ConfigError(Problem("a TOML file is a module's config, not an experiment", "", display(path), expected))
    return _Source(path, "", tree.of_experiment(path))


def _check_modules(modules: dict[str, Module], evaluations: dict[str, Module], starts: bool) -> list[str]:
    """Fills in what follows from other values, and refuses values that contradict each other; returns warnings."""
    for module in {**evaluations, **modules}.values():
        settle_parts(module)
    for module in modules.values():
        settle_presets(module)
        settle_precision(module)
    problems = [problem for module in modules.values() for problem in check_module(module)]
    lacks = [problem for module in modules.values() for problem in check_launch(module)]
    problems += [*(lacks if starts else ()), *check_exports(modules), *check_gate(modules), *check_gguf(modules)]
    problems += [*unlike_models(modules), *check_places(modules), *check_scored_modules(modules.values())]
    if problems:
        raise ConfigError(problems)
    return [f"a run would be refused: {problem}" for problem in told_once(lacks)]


def _check_names(own: Tree, source: _Source) -> list[Problem]:
    named = own.get("exp_name")
    problem: Problem | None
    if isinstance(named, Leaf) and named.value:
        problem = name_problem(str(named.value), "exp_name", named.origin)
    elif source.path is None:
        problem = Problem("isn't set", "exp_name", GIVEN, "a name: there is no file that the runs could be named after")
    else:
        origin = named.origin if isinstance(named, Leaf) else f"{source}:1"
        stem = source.path.stem
        hint = f"it is the file's name: rename the file, or write `exp_name: {fitting_name(stem)}` into it"
        problem = name_problem(stem, "exp_name", origin, hint)
    who = [(key, own[key]) for key in WHO if key in own]
    tags = [tag_problem(str(leaf.value or ""), key, leaf.origin) for key, leaf in who if isinstance(leaf, Leaf)]
    return [one for one in (problem, *tags) if one]


def _build_modules(
    raw: Tree, over: dict[str, Tree], source: _Source, left_out: Ignored, is_broken: bool
) -> tuple[dict[str, Module], list[Problem]]:
    specs = raw.get("modules")
    specs = specs.value if isinstance(specs, Replacing) else specs
    if isinstance(specs, Leaf) and isinstance(specs.value, list):
        expected = "each module under its name, `pretrain: {config: …}`, or a list of mappings that have a `name`"
        return {}, [Problem("found a list", "modules", specs.origin, expected)]
    if not isinstance(specs, dict) or not specs:
        origin = specs.origin if isinstance(specs, Leaf) else str(source)
        return {}, [Problem("the experiment has no modules", "modules", origin)]
    launcher = raw.get("launcher")
    common = launcher if isinstance(launcher, dict) else {}
    modules: dict[str, Module] = {}
    problems: list[Problem] = []
    for name, spec in specs.items():
        if not _is_section(spec):
            origin = first_origin(spec.value if isinstance(spec, Replacing) else spec)
            problems.append(Problem("a module is a mapping", f"modules.{name}", origin))
            continue
        ignored = take_out(spec, left_out.unknown(dataclass_schema(ModuleSpec), f"{name}."), f"{name}.")
        problems += (mistakes := _check_spec(name, spec))
        if any(one.key == f"modules.{name}.stage" for one in mistakes):
            continue
        entry = Entry(name, spec, over.get(name, {}), common, left_out)
        module, mistakes = build_module(entry, source.tree, modules, is_broken or bool(problems))
        # An empty entry has no line.
        problems += [replace(one, origin=one.origin or str(source)) for one in mistakes]
        if module is not None:
            module.ignored = ignored + module.ignored
            modules[name] = module
    modules = {module.name: module for module in in_order(modules)}
    name_models(modules)
    return modules, problems


def _kinds(raw: Tree) -> dict[str, StageKind | None]:
    """The kinds of the modules that are written, by name."""
    specs = raw.get("modules")
    return {name: kind_of(name, spec) for name, spec in specs.items()} if isinstance(specs, dict) else {}


def _is_section(value: Leaf | Tree | None) -> bool:
    """Whether a mapping stands here, and in no merged file a value in its place."""
    return isinstance(value, dict) and not isinstance(value, Replacing)


def _check_spec(name: str, spec: Tree) -> list[Problem]:
    """Mistakes of a module's entry; the contents of its sections are checked with the stage's config."""
    schema = dataclass_schema(ModuleSpec)
    kind = kind_of(name, spec)
    known = stage_schema(kind)["properties"] if kind is not None else {}
    # Keys of the stage's config that stand beside the names of its files.
    misplaced = {key: value for key, value in spec.items() if key in known and key not in schema["properties"]}
    problems = []
    for key, value in misplaced.items():
        hint = f"write `{in_one_line({'overrides': {key: value}})}`"
        problems.append(Problem("unknown key", f"modules.{name}.{key}", first_origin(value), hint=hint))
    sections = {key for key in _SECTIONS if _is_section(spec.get(key))}
    shallow = {key: value for key, value in spec.items() if key not in {*misplaced, *sections}}
    return problems + check(shallow, schema, f"modules.{name}.")
