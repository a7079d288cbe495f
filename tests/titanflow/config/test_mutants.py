"""No edit of a shipped config is silent: it changes what the config comes to, or an error names it.

``pytest tests/titanflow/config/test_mutants.py --hypothesis-profile many`` tries ten times as many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import yaml
from edits import EDITS
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from mutants import ROOTS, Corpus, Mutant

from titanflow.common.errors import Problem
from titanflow.config import module_files
from titanflow.config.files import schema
from titanflow.config.files.schema import Schema, check
from titanflow.files import yaml_source
from titanflow.files.yaml_source import Leaf, Tree


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TEAM", "USER"):
            patch.delenv(name, raising=False)
        yield Corpus(tmp_path_factory.mktemp("mutants"))


pytestmark = pytest.mark.slow


@st.composite
def mutants(draw: st.DrawFn, corpus: Corpus) -> Mutant:
    root = draw(st.integers(0, len(ROOTS) - 1))
    return draw(st.sampled_from(EDITS))(draw, corpus, root)


@given(data=st.data())
def test_no_edit_is_silent(corpus: Corpus, data: st.DataObject) -> None:
    corpus.judge(data.draw(mutants(corpus)))


def empty_sections_take_all(patch: pytest.MonkeyPatch) -> None:
    def merge(base: Tree, over: Tree) -> Tree:
        both = {key: isinstance(base.get(key), dict) and isinstance(over[key], dict) for key in over}
        return {**base, **{key: merge(base[key], over[key]) if both[key] else over[key] for key in over}}

    patch.setattr(module_files, "merge", merge)


def unknown_keys_are_dropped(patch: pytest.MonkeyPatch) -> None:
    def lenient(tree: Tree, known: Schema, prefix: str = "") -> list[Problem]:
        return [problem for problem in check(tree, known, prefix) if problem.message != "unknown key"]

    patch.setattr(schema, "check", lenient)


def numbers_are_yaml_1_1(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(yaml_source.Loader, "yaml_implicit_resolvers", yaml.SafeLoader.yaml_implicit_resolvers)


def values_below_sections_are_dropped(patch: pytest.MonkeyPatch) -> None:
    def merge(base: Tree, over: Tree) -> Tree:
        merged = dict(base)
        for key, value in over.items():
            if isinstance(value, Leaf) and value.value is None and isinstance(base.get(key), dict):
                continue
            both = isinstance(base.get(key), dict) and isinstance(value, dict)
            merged[key] = merge(base[key], value) if both else value
        return merged

    patch.setattr(module_files, "merge", merge)


FAULTS = [empty_sections_take_all, values_below_sections_are_dropped, unknown_keys_are_dropped, numbers_are_yaml_1_1]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_put_back_is_found(corpus: Corpus, fault: Callable[[pytest.MonkeyPatch], None]) -> None:
    assert corpus.places  # made without the fault

    @given(data=st.data())
    @settings(phases=[Phase.generate], report_multiple_bugs=False)
    def search(data: st.DataObject) -> None:
        corpus.judge(data.draw(mutants(corpus)))

    with pytest.MonkeyPatch.context() as patch:
        fault(patch)
        # What isn't refused may go wrong in any way.
        with pytest.raises((AssertionError, TypeError)):
            search()
