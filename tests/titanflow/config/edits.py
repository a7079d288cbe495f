"""What a hand, another tool or an environment does to a config: each function draws one edit of one root."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from mutants import Corpus, Mutant, Place, is_same

ODD: dict[str, tuple[Any, ...]] = {
    "0100": (100, "0100"),
    "012": (12, "012"),
    "0o17": (15, "0o17"),
    "0x1F": (31, "0x1F"),
    "1:00": ("1:00",),
    "10:30": ("10:30",),
    "1e-4": (1e-4, "1e-4"),
    "1e3": (1000.0, "1e3"),
    "+5": (5, "+5"),
    ".5": (0.5, ".5"),
    "5.": (5.0, "5."),
    "3.0": (3.0, "3.0"),
    "-1": (-1, "-1"),
    "-0.0": (0.0, "-0.0"),
    "0": (0, "0"),
    "7": (7, "7"),
    "99999999999999999999": (99999999999999999999, "99999999999999999999"),
    "1e400": ("1e400",),
    ".inf": (".inf",),
    "-.inf": ("-.inf",),
    ".nan": (".nan",),
    "2026-11-21": ("2026-11-21",),
    "yes": (True, "yes"),
    "off": (False, "off"),
    "true": (True, "true"),
    "False": (False, "False"),
    "y": ("y",),
    "None": ("None",),
    "~": (None,),
    "null": (None,),
    "": (None,),
    "''": ("",),
    "'5'": ("5",),
    '"true"': ("true",),
    "[]": ([],),
    "[1, 2]": ([1, 2],),
    "[a, [b]]": (["a", ["b"]],),
    "{a: 1}": ({"a": 1},),
    "{}": ({},),
    "é ü 漢": ("é ü 漢",),
    "1,5": ("1,5",),
    "../up": ("../up",),
    "a #b": ("a",),
    "${NO_SUCH:5}": (5, "5"),
    "${NO_SUCH:a b}": ("a b",),
    "a" * 300: ("a" * 300,),
    # What is no YAML, or no reference of ours, has no value.
    "*.txt": (),
    "&a": (None,),
    "@x": (),
    "a: b: c": (),
    "[1": (),
    "'": (),
    "!include x.yaml": (),
    "!!python/name:os.system": (),
    "$HOME": (),
    "${NO_SUCH}": (),
    "${NO_SUCH:-5}": (),
    "${ NO_SUCH }": (),
    "${oc.env:NO_SUCH}": (),
    "${HF_TOKEN:x}": (),
    "${NO_SUCH": (),
}
"""Pieces of YAML, and the values that each may come to by the type of its key; where there is none, it is an error."""

SPELLINGS: tuple[Callable[[str], str], ...] = (
    lambda key: key + key[-1],
    lambda key: key[:-1],
    str.upper,
    lambda key: key.replace("_", "-") + "-",
    lambda key: f"{key} x",
)
STRANGERS = ("steps", "Steps", "learning_rate", "true", "1", "training.steps", "<<", "é", "model", "no such")
SCALARS = ("5", "foo", "[1]", "true", "'x'", "1e-4", "[{a: 1}]")
NOTHING = ("", "~", "null", "{}")
PARAMETERS = (None, 0, -1, 3.5, "", "x", "0100", "[1", True, [], [1], {}, {"a": 1}, float("nan"), float("inf"), 10**20)
ENVIRONMENT = ("", " ", "1001", "true", "null", "a b", "/data #1", "[1", "{a: 1}", "'x'", "${USER}", "*x", "é")
VARIABLES = {"USER": "user_name", "TEAM": "work_group", "TITANFLOW_WORKSPACE": "workspace"}
NO_ROWS = ("data", "nothing to train on", "nothing to validate on")
"""What an error says of a source that names no rows any more."""


def left_out(draw: st.DrawFn, corpus: Corpus, root: int) -> Mutant:
    """A key that isn't there any more."""
    return without(corpus, root, drawn(draw, corpus, root))


def without(corpus: Corpus, root: int, place: Place) -> Mutant:
    """A root without one of its keys; what lies below may say the same."""
    files, mapping, index = corpus.edited(place)
    mapping.pop(index)
    # Without any modules, those of an experiment that extends this one lack what it said of them.
    names = (*words(place), "model") if place.keys == ("modules",) else words(place)
    return Mutant(told("leaves out", place), root, names, files, may_hold=True)


def is_entry(place: Place) -> bool:
    """Whether a place is an entry of an experiment that others name: a module, or a model of the evaluation."""
    return place.keys[0] == "modules" and (len(place.keys) == 2 or "models" in place.keys[:-1])


def rewritten(draw: st.DrawFn, corpus: Corpus, root: int) -> Mutant:
    """A value as odd as YAML has it."""
    place, odd = drawn(draw, corpus, root, is_section=False), draw(st.sampled_from(list(ODD)))
    files, mapping, index = corpus.edited(place)
    mapping[index][1] = odd
    names = words(place) if ODD[odd] else (*words(place), "not YAML")
    was = [corpus.originals[root].get(key) for key in place.sets]
    return Mutant(
        told(f"writes {odd!r} to", place),
        root,
        names,
        files,
        sets=place.sets,
        values=ODD[odd],
        is_error=not ODD[odd],
        # No file may be as good as the one that was named, which says what holds anyway.
        may_hold=any(is_same(one, value) for one in was or [None] for value in ODD[odd]),
    )


def flattened(draw: st.DrawFn, corpus: Corpus, root: int) -> Mutant:
    """A value in place of a section."""
    place, scalar = drawn(draw, corpus, root, is_section=True), draw(st.sampled_from(SCALARS))
    files, mapping, index = corpus.edited(place)
    mapping[index][1] = scalar
    return Mutant(told(f"writes {scalar!r} in place of", place), root, words(place), files, is_error=True)


def emptied(draw: st.DrawFn, corpus: Corpus, root: int) -> Mutant:
    """A section without anything in it, which is as if it weren't there; an empty module is a module all the same."""
    place, nothing = drawn(draw, corpus, root, is_section=True), draw(st.sampled_from(NOTHING))
    if place.keys[0] == "modules" and len(place.keys) < 3:
        return without(corpus, root, place)
    files, mapping, index = corpus.edited(place)
    mapping[index][1] = nothing
    what = told(f"writes {nothing!r} in place of", place)
    return Mutant(what, root, words(place), files, same=without(corpus, root, place))


def deepened(draw: st.DrawFn, corpus: Corpus, root: int) -> Mutant:
    """A section in place of a value."""
    place = drawn(draw, corpus, root, is_section=False)
    files, mapping, index = corpus.edited(place)
    mapping[index][1] = [["x", "1"]]
    return Mutant(told("makes a section of", place), root, words(place), files)


def misspelt(draw: st.DrawFn, corpus: Corpus, root: int) -> Mutant:
    """A key under another name."""
    place = drawn(draw, corpus, root)
    name = draw(st.sampled_from(SPELLINGS))(place.keys[-1])
    files, mapping, index = corpus.edited(place)
    mapping[index][0] = name
    # What others call by a name that isn't there any more is their mistake.
    names = words(place) if is_entry(place) else words(place)[:-1]
    return Mutant(told(f"writes {name!r} for", place), root, (name, *names), files)


def moved(draw: st.DrawFn, corpus: Corpus, root: int) -> Mutant:
    """A key in another section of its file."""
    place = drawn(draw, corpus, root)
    sections = [
        one
        for one in corpus.places[root]
        if one.file == place.file and one.is_section and place.keys[:-1] != one.keys[: len(place.keys)] != place.keys
    ]
    if not sections:
        return without(corpus, root, place)
    target = draw(st.sampled_from(sections))
    files, mapping, index = corpus.edited(place)
    pair = mapping.pop(index)
    corpus.mapping(files[place.file], target.keys).append(pair)
    return Mutant(told(f"moves to {'.'.join(target.keys)}", place), root, words(place), files)


def doubled(draw: st.DrawFn, corpus: Corpus, root: int) -> Mutant:
    """A key that stands twice."""
    place = draw(st.sampled_from(corpus.places[root]))
    files, mapping, index = corpus.edited(place)
    mapping.insert(index, [place.keys[-1], draw(st.sampled_from([mapping[index][1], "7", "", "{}"]))])
    return Mutant(told("writes twice", place), root, words(place), files, is_error=True)


def added(draw: st.DrawFn, corpus: Corpus, root: int) -> Mutant:
    """A key that nobody knows there; a merge key may bring nothing, or a key of its own."""
    place, name, odd = drawn(draw, corpus, root, is_section=True), *draw(st.sampled_from(_ADDED))
    if name == "model" and place.keys[0] == "modules":
        return without(corpus, root, place)
    files, _, _ = corpus.edited(place)
    corpus.mapping(files[place.file], place.keys).append([name, odd])
    names = (name, "a", *(() if ODD[odd] else ("not YAML",)))
    is_nothing = ODD[odd] == (None,) or (name == "<<" and ODD[odd] in (([],), ({},)))
    return Mutant(told(f"adds {name}: {odd} to", place), root, names, files, may_hold=is_nothing)


_ADDED = tuple((name, odd) for name in STRANGERS for odd in ODD)


def surrounded(draw: st.DrawFn, corpus: Corpus, root: int) -> Mutant:
    """A variable of the environment with a value as odd as a shell has it, which is a text."""
    variable, text = draw(st.sampled_from(list(VARIABLES))), draw(st.sampled_from(ENVIRONMENT))
    key = VARIABLES[variable]
    is_read = f"${variable}" in corpus.origins[root].get(key, "")
    return Mutant(
        f"{variable}={text!r}",
        root,
        (key, variable),
        environment={variable: text},
        sets=(key,) if is_read else (),
        values=(text,),
        may_hold=not is_read,
    )


def commanded(draw: st.DrawFn, corpus: Corpus, root: int) -> Mutant:
    """``--set`` of any key to any text."""
    key, odd = draw(st.sampled_from(settable(corpus, root))), draw(st.sampled_from(list(ODD)))
    # A command line has no comments.
    values = (odd,) if "#" in odd else (*ODD[odd], odd)
    return _set(f"--set {key}={odd}", corpus, root, key, {"settings": (f"{key}={odd}",), "values": values})


def passed(draw: st.DrawFn, corpus: Corpus, root: int) -> Mutant:
    """A flow's parameter of any key and type."""
    key, value = draw(st.sampled_from(settable(corpus, root))), draw(st.sampled_from(PARAMETERS))
    values: tuple[Any, ...] = (*ODD.get(value, ()), value) if isinstance(value, str) else (value,)
    return _set(
        f"parameter {key}={value!r}", corpus, root, key, {"parameters": {key: value}, "values": (*values, str(value))}
    )


def _set(what: str, corpus: Corpus, root: int, key: str, how: dict[str, Any]) -> Mutant:
    was = corpus.originals[root][key]
    # An unset part is that of its section.
    may_hold = any(is_same(was, value) or (value is None and key.endswith(".part")) for value in how["values"])
    section = key.rpartition(".")[0] or key
    return Mutant(what, root, (key, section, *NO_ROWS), sets=(key,), may_hold=may_hold, **how)


def settable(corpus: Corpus, root: int) -> list[str]:
    """The keys that ``--set`` and a flow's parameters take."""
    return [
        key for key in corpus.originals[root] if not key.endswith((".framework", ".overrides")) and key != "ignored"
    ]


def drawn(draw: st.DrawFn, corpus: Corpus, root: int, is_section: bool | None = None) -> Place:
    """A place of which nothing stronger says the same."""
    return draw(st.sampled_from([one for one in corpus.strongest[root] if is_section in (None, one.is_section)]))


def told(what: str, place: Place) -> str:
    """An edit in words."""
    return f"{what} {'.'.join(place.keys)} of {place.file}"


def words(place: Place) -> tuple[str, ...]:
    """The words by one of which an error may name a place, the last one its key."""
    above = NO_ROWS if place.file.startswith("data/") else ()
    return (*above, *place.keys)


EDITS = (
    left_out,
    rewritten,
    flattened,
    emptied,
    deepened,
    misspelt,
    moved,
    doubled,
    added,
    surrounded,
    commanded,
    passed,
)
