from __future__ import annotations

import importlib
import json.decoder
import sys
import threading

from titanflow.data.stdlib.names import SUMMARY_LENGTH, read_names


def test_a_known_class_and_a_known_function_are_described() -> None:
    names = {name.name: name for name in read_names()}
    error = names["json.JSONDecodeError"]
    assert (error.kind, error.module, error.defined) == ("class", "json.decoder", "json.decoder.JSONDecodeError")
    assert error.summary == (json.decoder.JSONDecodeError.__doc__ or "").splitlines()[0]
    assert (names["shutil.rmtree"].kind, names["shutil.rmtree"].module) == ("function", "shutil")


def test_every_name_is_what_it_is_said_to_be() -> None:
    for name in read_names():
        module, _, attribute = name.name.rpartition(".")
        assert name.kind in ("class", "function")
        assert not attribute.startswith("_")
        assert name.module.partition(".")[0] == module.partition(".")[0]
        assert not name.summary or len(name.summary) in SUMMARY_LENGTH
    for name in read_names()[::40]:
        module, _, attribute = name.name.rpartition(".")
        value = getattr(importlib.import_module(module), attribute)
        assert value.__module__ == name.module
        assert isinstance(value, type) == (name.kind == "class")


def test_names_are_sorted_and_each_comes_once() -> None:
    names = [name.name for name in read_names()]
    assert names == sorted(set(names))
    assert len(names) > 2000


def test_introspection_leaves_no_trace_in_this_process() -> None:
    before, threads = set(sys.modules), threading.active_count()
    read_names.cache_clear()
    read_names()
    assert not {name for name in set(sys.modules) - before if name in ("antigravity", "this", "tkinter", "idlelib")}
    assert len(set(sys.modules) - before) < 10
    assert threading.active_count() == threads
