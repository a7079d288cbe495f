import pytest

from titanflow.files.interpolation import interpolate
from titanflow.files.yaml_source import Leaf


def replaced(value: object) -> object:
    leaf, problems = interpolate("key", Leaf(value, "file.yaml:3"))
    assert problems == []
    return leaf.value


def test_the_environment_goes_before_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_TEAM", raising=False)
    assert replaced("${TF_TEAM:research}") == "research"
    monkeypatch.setenv("TF_TEAM", "speech")
    assert replaced("${TF_TEAM:research}") == "speech"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${TF_X:300}", 300),
        ("${TF_X:1e-4}", 1e-4),
        ("${TF_X:true}", True),
        ("${TF_X:}", None),
        ("run-${TF_X:300}", "run-300"),
        ("${TF_X:a}/${TF_Y:b}", "a/b"),
        ("${TF_X:${TF_Y:7}}", 7),
        (["${TF_X:1}", 2], [1, 2]),
        ("no reference", "no reference"),
    ],
)
def test_a_whole_reference_takes_yamls_type(monkeypatch: pytest.MonkeyPatch, text: object, value: object) -> None:
    monkeypatch.delenv("TF_X", raising=False)
    monkeypatch.delenv("TF_Y", raising=False)
    assert replaced(text) == value


def test_an_unset_variable_without_a_default_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_MISSING", raising=False)
    _, problems = interpolate("key", Leaf("${TF_MISSING}", "file.yaml:3"))
    assert "TF_MISSING" in str(problems[0])
    assert "file.yaml:3" in str(problems[0])


@pytest.mark.parametrize("name", ["HF_TOKEN", "WANDB_API_KEY", "MY_SECRET", "DB_PASSWORD"])
def test_a_secret_is_refused_and_never_read(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "hf_very_secret")
    leaf, problems = interpolate("key", Leaf(f"${{{name}}}", "file.yaml:3"))
    assert name in str(problems[0])
    assert "hf_very_secret" not in f"{problems}{leaf}"


def test_the_origin_names_the_variable_and_whether_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_SET", "3")
    monkeypatch.delenv("TF_UNSET", raising=False)
    leaves = (
        Leaf("plain", "file.yaml:1"),
        Leaf("${TF_SET:2}", "file.yaml:2"),
        Leaf(["${TF_SET:2}", "x-${TF_UNSET:a}"], "file.yaml:3"),
    )
    assert [interpolate("key", leaf)[0].origin for leaf in leaves] == [
        "file.yaml:1",
        "file.yaml:2 ($TF_SET)",
        "file.yaml:3 ($TF_SET, $TF_UNSET unset)",
    ]
