"""Resolves the names that an evaluation asks for (tasks, groups, tags) into single tasks and their files."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from titanflow.common.errors import ConfigError, Problem
from titanflow.evals.library import Library, index, installed_library, read_again
from titanflow.evals.score_checks import group_problems
from titanflow.evals.suites import suites
from titanflow.evals.task_yaml import SingleTask, TaskYaml, as_list, read_task
from titanflow.files.yaml_source import display

INLINE = ("dataset_path", "custom_dataset")
"""With one of these keys a group defines a task of its own, rather than naming one."""
GROUP_KEYS = ("group", "group_alias", "task", "aggregate_metric_list", "metadata")
"""A group's settings for itself; its other keys apply to its tasks."""
INSIDE = "::"
"""Separates a group from a task that the group's file defines itself."""
SHOWN = 8
"""How many matches of a pattern a message names."""
Refuse = Callable[[str, str, str], Problem]
"""Makes a problem with a name: what was found, what was expected, a hint."""


@dataclass
class AskedTasks:
    """The single tasks of each name that was asked for, and the problems with these names.

    Attributes:
        folder: the user's own tasks.
        groups: the merged config of each group on the way.
        files: the files of ``folder`` that the tasks need.
        library_files: the files of lm-eval's library, and of suites, that they need.
        own: the names that are defined in ``folder``.
    """

    folder: Path | None
    tasks: dict[str, list[SingleTask]] = field(default_factory=dict)
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    library_files: list[Path] = field(default_factory=list)
    own: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @classmethod
    def of(cls, names: Sequence[str], folder: Path | None, refuse: Refuse) -> AskedTasks:
        """Looks the names up in ``folder``, among the suites, then in lm-eval's library, as lm-eval does.

        Without lm-eval installed, unknown names are accepted.
        """
        asked = cls(folder)
        search = _Search(asked, index(folder) if folder is not None else Library(""), refuse)
        for name in names:
            if name in asked.tasks:
                asked.problems.append(refuse(f"found {name} twice", "each name once", ""))
            asked.tasks[name] = search.expand(name)
            if name in search.own:
                asked.own.append(name)
        asked._refuse_shared(refuse)
        return asked

    @property
    def single(self) -> list[SingleTask]:
        return [task for tasks in self.tasks.values() for task in tasks]

    @property
    def of_ones_own(self) -> list[str]:
        """The names of the single tasks that aren't from lm-eval's library."""
        return [task.name for task in self.single if not task.of_library]

    def _refuse_shared(self, refuse: Refuse) -> None:
        """Refuses a task under two names, as lm-eval does; asked for one by one, the second score would win."""
        behind: dict[str, str] = {}
        for name, tasks in self.tasks.items():
            shared = [task.name for task in tasks if behind.setdefault(task.name, name) != name]
            if shared:
                message = f"{name} and {behind[shared[0]]} both hold {', '.join(shared[:SHOWN])}"
                self.problems.append(refuse(message, "each task once", f"leave out {name} or {behind[shared[0]]}"))


def asked_by(config: Mapping[str, Any], name: str = "evaluate", origins: Mapping[str, str] | None = None) -> AskedTasks:
    """The tasks that an evaluate module's config asks for; its ``include_path`` is a folder, or None."""
    key, origin = f"{name}.tasks", (origins or {}).get("tasks", "")

    def refuse(message: str, expected: str, hint: str) -> Problem:
        return Problem(message, key, origin, expected, hint)

    folder = Path(config["include_path"]) if config.get("include_path") else None
    asked = AskedTasks.of(config["tasks"], folder, refuse)
    if not config["tasks"]:
        asked.problems.append(refuse("no task to evaluate", "names of tasks or groups", ""))
    return asked


def known_metrics(asked: AskedTasks) -> dict[str, list[str]]:
    """Task or group → metrics that its results will have; none if a task's file doesn't list them.

    Empty if anything that is asked for is unknown.
    """
    if asked.problems or not all(asked.tasks.values()):
        return {}
    metrics = {task.name: _metrics(task.config, "metric_list") for task in asked.single}
    return metrics | {name: _metrics(config, "aggregate_metric_list") for name, config in asked.groups.items()}


def has_metric(metrics: Sequence[str], metric: str) -> bool:
    """Whether a task has the metric, perhaps with a filter; yes where its metrics aren't known."""
    return not metrics or metric.partition(",")[0] in metrics


def _metrics(config: Mapping[str, Any], key: str) -> list[str]:
    named = [entry.get("metric") if isinstance(entry, Mapping) else None for entry in as_list(config.get(key))]
    return [name for name in named if isinstance(name, str)] if all(isinstance(name, str) for name in named) else []


@dataclass
class _Search:
    """Looks names up and adds what it finds to ``asked``; ``above`` are the groups on the way."""

    asked: AskedTasks
    own: Library
    refuse: Refuse
    above: tuple[str, ...] = ()

    def expand(self, name: str, over: Mapping[str, Any] | None = None) -> list[SingleTask]:
        """The single tasks of a name; ``over`` has the settings of the groups above it."""
        found = self.own if name in self.own else _library_with(name)
        if name in self.above:
            self.asked.problems.append(self.refuse(f"the group {name} holds itself", "groups without circles", ""))
            return []
        if found is None:
            # Without lm-eval its library's names can't be checked; the plan says that it isn't installed.
            if installed_library() is not None:
                self.asked.problems.append(self.refuse(*self.unknown(name)))
            return []
        if name in found.tags:
            return [task for member in found.tags[name] for task in self.expand(member, over)]
        if (yaml := self.read(name, found)) is None:
            return []
        config = {**yaml.config, **(over or {})}
        if name in found.tasks:
            return [SingleTask(name, config, yaml, found is not self.own)]
        self.asked.groups[name] = config
        return self.members(name, config, yaml)

    def read(self, name: str, found: Library) -> TaskYaml | None:
        """The file of a task or group; None if it has problems, which ``asked`` gets."""
        path = Path(found.root, found.file(name) or "")
        try:
            if found is self.own and name in found.again:
                others = f"{display(path)} and {display(Path(found.root, found.again[name]))}"
                raise ConfigError(self.refuse(f"{name} stands in {others}", "one file", "rename one of them"))
            task = read_task(path, Path(found.root))
        except ConfigError as error:
            self.asked.problems += [problem for problem in error.problems if problem not in self.asked.problems]
            return None
        files = self.asked.files if found is self.own else self.asked.library_files
        files += [file for file in task.files if file not in files]
        return task

    def members(self, group: str, config: Mapping[str, Any], yaml: TaskYaml) -> list[SingleTask]:
        """The single tasks of a group: those that it names, perhaps with settings, and those that it defines itself."""
        inside = replace(self, refuse=partial(yaml.problem, "task"), above=(*self.above, group))
        over = {key: value for key, value in config.items() if key not in GROUP_KEYS}
        found: list[SingleTask] = []
        members = as_list(config.get("task"))
        if not members:
            self.asked.problems.append(yaml.problem("task", f"the group {group} has no tasks", "task: [a name, …]"))
        for member in members:
            item = member if isinstance(member, dict) else {"task": member}
            key = "group" if "group" in item else "task"
            name, settings = str(item.get(key)), {**over, **{one: item[one] for one in item if one != key}}
            if inside.knows(name) or not (key == "group" or any(one in settings for one in INLINE)):
                found += inside.expand(name, settings)
            elif key == "group":
                found += inside.members(f"{group}{INSIDE}{name}", {**over, **item}, yaml)
            else:
                found.append(SingleTask(f"{group}{INSIDE}{name}", settings, yaml))
        if self.asked.folder is not None and yaml.path.is_relative_to(self.asked.folder):
            of_tasks = [_metrics(task.config, "metric_list") for task in found]
            known = [metric for one in of_tasks for metric in one] if all(of_tasks) else []
            self.asked.problems += group_problems(config, yaml, known)
        return found

    def knows(self, name: str) -> bool:
        return name in self.own or name in suites() or name in (installed_library() or ())

    def unknown(self, name: str) -> tuple[str, str, str]:
        """What to say of an unknown name: what was found, what was expected, a hint."""
        known, folder = [*self.own, *suites(), *(installed_library() or ())], self.asked.folder
        if any(sign in name for sign in "*?["):
            matches = sorted(fnmatch.filter(known, name))
            more = f", … ({len(matches)})" if len(matches) > SHOWN else ""
            shown = f"it matches {', '.join(matches[:SHOWN])}{more}" if matches else "nothing matches it"
            return f"found the pattern {name!r}", "each task by its name", shown
        if name.endswith((".yaml", ".yml")):
            hint = "set include_path to the folder of the file"
            return f"found the file {name!r}", "the name that stands in it", hint
        near = _near(name, tuple(known))
        hint = f"did you mean {', '.join(near)}?" if near else ""
        where = f" of {display(folder)}, or of lm-eval's library" if folder else " of lm-eval's library"
        return f"no task or group {name!r}", f"names of tasks, groups or tags{where}", hint


@lru_cache
def _near(name: str, known: tuple[str, ...]) -> list[str]:
    """Of thousands of names; a plan, a gate and a card look up the same unknown ones."""
    return difflib.get_close_matches(name, known, n=3)


def _library_with(name: str) -> Library | None:
    """The suites or lm-eval's library, if one has the name. The cached index may be old: files are read again then."""
    for library in (suites, installed_library, read_again):
        found = library()
        if found is not None and name in found:
            return found
    return None
