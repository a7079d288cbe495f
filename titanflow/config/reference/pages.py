"""The reference of keys as pages of Markdown, made from the schemas that configs are checked against."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from titanflow.config.files.schema import describe
from titanflow.config.reference.keys import NAME, Key, Section, sections
from titanflow.config.reference.kinds import KINDS, Kind
from titanflow.config.reference.schemas import EXTENDS, family_schemas, file_schema
from titanflow.evals.key_texts import FEWSHOT, TASK
from titanflow.evals.known_names import fewshot_keys, task_keys
from titanflow.evals.value_checks import expected_value

TITLES: dict[Kind, str] = {
    "experiment": "Keys of an experiment",
    "training": "Keys of pretrain, sft and prefer",
    "evaluate": "Keys of evaluate",
    "publish": "Keys of publish",
    "model": "Keys of a model",
    "data": "Keys of data",
}
ABOUT: dict[Kind, str] = {
    "experiment": "An experiment's file, in `configs/experiments/` or anywhere; `--set KEY=VALUE` sets any of them. "
    "`modules.NAME` is a stage: `pretrain`, `sft`, `prefer`, `evaluate`, `publish`, or what its key `stage` says. "
    "Below its `overrides` stand the keys of the stage's own page.",
    "training": "A module file of a training stage, in `configs/modules/`, and `overrides` of an experiment's module. "
    "Most are torchtitan's, with its own texts. On a command line the module's name comes first: "
    "`--set pretrain.training.steps=100`.",
    "evaluate": "A module file of the stage evaluate, and `overrides` of an experiment's module.",
    "publish": "A module file of the stage publish, and `overrides` of an experiment's module.",
    "model": "A model file, in `configs/models/`: the section `model` with the arguments of its family, and any other "
    "section of a training, such as `tokenizer` and `optimizer`.",
    "data": "A data file, in `configs/data/`, or the section `data` of a training.",
}
SOURCE = f"mixture.sources.{NAME}"
_EXTENDS = Key("extends", describe(EXTENDS), EXTENDS["default"], EXTENDS["description"])
TASKS = "tasks"
"""The page of lm-eval's tasks, whose keys lm-eval declares."""


def reference_pages() -> dict[str, str]:
    """The name of each page and its text; ``index`` names the others."""
    pages: dict[str, str] = {**{kind: _page(kind) for kind in KINDS}, TASKS: _tasks()}
    titles = [*((str(kind), title) for kind, title in TITLES.items()), (TASKS, "Keys of an evaluation task")]
    links = "\n".join(f"- [{title}]({name}.md)" for name, title in titles)
    about = (
        "Every key that a config may have: its values, its default and what it is for. These pages are made from the "
        "schemas by which configs are checked, so no key is missing and none is too many."
    )
    return {"index": f"# Every key\n\n{about}\n\n{links}\n", **pages}


def reference() -> str:
    """All pages behind one another, for a terminal."""
    return "\n".join(text for name, text in reference_pages().items() if name != "index")


def _page(kind: Kind) -> str:
    parts = [f"# {TITLES[kind]}", ABOUT[kind], _table([_EXTENDS])]
    parts += _model() if kind == "model" else _sections(kind)
    return "\n\n".join(parts) + "\n"


def _sections(kind: Kind) -> Iterator[str]:
    for section in sections(file_schema(kind)):
        original = _original(kind, section.name)
        keys = section.keys if original is None else list(_different(section, original))
        # What lies below a section that is listed elsewhere is listed there, too.
        is_first = original is not None and _original(kind, section.name.rpartition(".")[0]) is None
        if section.name and (keys or is_first):
            yield f"## `{section.name}`"
        if section.text and (keys or is_first):
            yield section.text
        if original is not None and is_first:
            yield f"The keys of {original.link(kind)}{', and:' if keys else '.'}"
        if keys:
            yield _table(keys)


@dataclass(frozen=True)
class Original:
    """The section of another page that has the same keys."""

    kind: Kind
    name: str

    def link(self, here: Kind) -> str:
        if self.kind == here:
            return f"[`{self.name}`](#{anchor_of(self.name)})" if self.name else "this page's first table"
        if not self.name:
            return f"[{self.kind}]({self.kind}.md)"
        return f"[`{self.name}`]({self.kind}.md#{anchor_of(self.name)})"


def anchor_of(section: str) -> str:
    """The anchor of a section's heading, as GitHub and the site make it."""
    return section.lower().replace(".", "")


def _original(kind: Kind, name: str) -> Original | None:
    """Where the keys of a section that occurs several times are listed."""
    first, _, rest = name.partition(".")
    if first == "launcher" and kind != "experiment":
        return Original("experiment", name)
    if name == "prepare.launcher.slurm":
        return Original("experiment", "launcher.slurm")
    if first in ("data", "validation_data") and kind != "data":
        return Original("data", rest)
    if name.startswith(SOURCE):
        return Original("data", name.removeprefix(SOURCE).removeprefix("."))
    return None


def _different(section: Section, original: Original) -> Iterator[Key]:
    """The keys that the original lacks, or has with other values, another default or another text."""
    known = {key.last: key for key in _of(original).keys}
    for key in section.keys:
        same = known.get(key.last)
        if same is None or replace(same, name=key.name) != key:
            yield key


def _of(original: Original) -> Section:
    return next(one for one in sections(file_schema(original.kind)) if one.name == original.name)


def _model() -> Iterator[str]:
    """torchtitan's own keys of the section ``model``, and each family's arguments."""
    own = next(section for section in sections(file_schema("training")) if section.name == "model")
    yield from ("## `model`", _table(own.keys))
    for family, schema in family_schemas().items():
        yield f"## `model`, with `name: {family}`"
        yield "The default is that of a flavor which doesn't say otherwise."
        keys = [key for section in sections({"properties": {"model": schema}}) for key in section.keys]
        yield _table(keys, family)


def _tasks() -> str:
    about = (
        "A YAML file of a task of your own, in the folder that `evaluate.include_path` names. lm-eval declares these "
        "keys, and the plan checks them before anything is trained; `include` takes another file's keys."
    )
    names = {"": (task_keys(), TASK), "fewshot_config.": (fewshot_keys(), FEWSHOT)}
    rows = [
        Key(f"{above}{name}", "" if above else expected_value(name), None, texts[name])
        for above, (keys, texts) in names.items()
        for name in keys
    ]
    return f"# Keys of an evaluation task\n\n{about}\n\n{_table(rows)}\n"


def _table(keys: Iterable[Key], anchor: str = "") -> str:
    rows = "\n".join(_row(key, anchor) for key in keys)
    return f"| key | values | what for |\n| --- | --- | --- |\n{rows}"


def _row(key: Key, anchor: str) -> str:
    identifier = html.escape(f"{anchor}.{key.name}" if anchor else key.name)
    values = _cell(key.values) + (f"<br>default `{_value(key.default)}`" if key.default is not None else "")
    return f'| <span id="{identifier}">`{key.last}`</span> | {values} | {_cell(key.text)} |'


def _value(default: Any) -> str:
    return json.dumps(default, ensure_ascii=False).replace("|", "\\|")


def _cell(text: str) -> str:
    """A text in a table's cell, where only its code is formatted: what looks like HTML or emphasis is neither."""
    parts = text.replace("|", "\\|").split("`")
    return "`".join(part if number % 2 else _plain(part) for number, part in enumerate(parts))


def _plain(text: str) -> str:
    return re.sub(r"([*_\[\]])", r"\\\1", html.escape(text, quote=False))
