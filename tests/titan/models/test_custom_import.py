"""How a module that ``experimental.custom_import`` names may bring its family."""

import sys
from pathlib import Path

import pytest

from titan.models.custom_family import import_custom
from titanflow.common.errors import ConfigError
from titanflow.runs.contract import StageRun

SPEC = """
import dataclasses

from torchtitan.models.llama3 import get_train_spec as llama3
from torchtitan.protocols import train_spec


def get_train_spec():
    spec = llama3()
    return dataclasses.replace(spec, model_args={"mine": spec.model_args["debugmodel"]})

"""


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A stage of the family `mine`, whose module is written as given; its registry is left as it was."""
    from torchtitan.protocols import train_spec

    monkeypatch.setattr(train_spec, "_extra_train_specs", dict(train_spec._extra_train_specs))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_family", raising=False)

    def write(text: str, family: str = "mine") -> StageRun:
        (tmp_path / "my_family.py").write_text(SPEC + text)
        config = {"model": {"name": family}, "experimental": {"custom_import": "my_family"}}
        origins = {"experimental.custom_import": "mine.yaml:3"}
        return StageRun(stage="pretrain", experiment="e", run="r", folder=tmp_path, config=config, origins=origins)

    yield write
    sys.modules.pop("my_family", None)


@pytest.mark.parametrize(
    "text",
    [
        'train_spec.register_train_spec("mine", get_train_spec())',
        'train_spec.register_train_spec("mine", get_train_spec)',
        'train_spec.register_train_spec("mine", lambda: get_train_spec())',
        "",
    ],
    ids=["a spec", "a function", "a lambda", "torchtitan's own folders"],
)
def test_a_family_is_found_however_its_module_brings_it(stage, text: str) -> None:
    from torchtitan.protocols.train_spec import TrainSpec, get_train_spec

    import_custom(stage(text))
    spec = get_train_spec("mine")
    assert isinstance(spec, TrainSpec)
    assert list(spec.model_args) == ["mine"]
    # A second import of the same stage, as an export's, finds the same.
    import_custom(stage(text))
    assert get_train_spec("mine") is spec


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('train_spec.register_train_spec("mine", lambda name: name)', "of 'mine' failed: TypeError"),
        ('train_spec.register_train_spec("mine", dict)', r"dict\(\) of 'mine' is no TrainSpec but dict"),
        ('train_spec.register_train_spec("mine", {"a": 1})', "what is registered of 'mine' is no TrainSpec but dict"),
        ("def get_train_spec():\n    return llama3", r"get_train_spec\(\) of 'mine' is no TrainSpec but function"),
        ("def get_train_spec():\n    return 1 / 0", "failed: ZeroDivisionError: division by zero"),
    ],
)
def test_what_makes_no_spec_is_refused_with_its_place(stage, text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=rf"mine\.yaml:3: experimental\.custom_import: .*{expected}"):
        import_custom(stage(text))


def test_a_function_of_torchtitans_own_is_no_family(stage) -> None:
    from torchtitan.protocols.train_spec import get_train_spec

    import_custom(stage("get_train_spec = train_spec.get_train_spec"))
    with pytest.raises(ValueError, match="mine is not registered"):
        get_train_spec("mine")


def test_a_family_of_torchtitans_is_replaced_only_by_a_registration(stage) -> None:
    from torchtitan.protocols.train_spec import get_train_spec

    import_custom(stage("", family="llama3"))
    assert "debugmodel" in get_train_spec("llama3").model_args
    sys.modules.pop("my_family")
    import_custom(stage('train_spec.register_train_spec("llama3", get_train_spec)', family="llama3"))
    assert list(get_train_spec("llama3").model_args) == ["mine"]


def test_a_module_that_isnt_there_is_named(tmp_path: Path) -> None:
    run = StageRun(stage="pretrain", experiment="e", run="r", folder=tmp_path)
    import_custom(run)
    run.config = {"experimental": {"custom_import": "no_such_family"}}
    run.origins = {"experimental.custom_import": "mine.yaml:3"}
    with pytest.raises(ConfigError, match=r"mine\.yaml:3: experimental\.custom_import: found 'no_such_family'"):
        import_custom(run)
