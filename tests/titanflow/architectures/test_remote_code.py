import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from titanflow.architectures.remote_code import own_code, trust_remote_code
from titanflow.common.errors import ConfigError

AUTO_MAP = {"AutoConfig": "modeling_mod.ModConfig", "AutoModelForCausalLM": "modeling_mod.ModForCausalLM"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a config and modelling files as an export has them."""
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": AUTO_MAP}))
    for name in ("modeling_mod.py", "routed_decoder.py", "routed_tokens.py"):
        shutil.copy(own_code()[name], tmp_path / name)
    return tmp_path


def write(name: str, **content: Any) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(json.dumps(content))


def add(name: str, text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        with (folder / name).open("a") as file:
            file.write(text)

    return change


def test_this_packages_own_modelling_files() -> None:
    assert {"modeling_mod.py", "routed_decoder.py", "routed_tokens.py"} <= own_code().keys()
    assert "__init__.py" not in own_code()
    for path in own_code().values():
        lines = [line for line in path.read_text().splitlines() if line.startswith(("import ", "from "))]
        assert {line.split()[1].split(".")[0] for line in lines} <= {
            *("", "torch", "transformers", "collections", "dataclasses", "math", "__future__"),
        }, "what stands on the Hub needs torch and transformers alone"


def test_an_export_of_ours_is_trusted(folder: Path) -> None:
    assert trust_remote_code(folder) is True


def test_an_export_in_the_hubs_cache_where_files_are_links_is_trusted(folder: Path, tmp_path_factory: Any) -> None:
    snapshot = tmp_path_factory.mktemp("snapshot")
    for path in folder.iterdir():
        (snapshot / path.name).symlink_to(path)
    assert trust_remote_code(snapshot) is True


def test_a_folder_that_names_no_code_needs_no_trust_whatever_lies_in_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "setup.py").write_text("raise SystemExit")
    assert trust_remote_code(tmp_path) is False
    assert trust_remote_code(tmp_path / "nowhere") is False


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (add("modeling_mod.py", "\n"), "modeling_mod.py"),
        (add("routed_decoder.py", "import os\n"), "routed_decoder.py"),
        (add("helper.py", ""), "helper.py"),
        (add("custom_generate/generate.py", ""), "custom_generate/generate.py"),
        (lambda folder: (folder / "modeling_mod.py").unlink(), "modeling_mod.ModConfig"),
        (write("config.json", auto_map={"AutoModel": "other/repo--modeling_mod.ModModel"}), "other/repo--modeling_mod"),
        (write("tokenizer_config.json", auto_map={"AutoTokenizer": ["tokens.Slow", None]}), "tokens.Slow"),
        (write("tokenizer_config.json", auto_map="tokens.Slow"), "tokens.Slow"),
    ],
)
def test_other_code_is_refused_by_name(folder: Path, change: Callable[[Path], Any], named: str) -> None:
    change(folder)

    with pytest.raises(ConfigError) as refused:
        trust_remote_code(folder, "evaluate.models.mine", "evaluate.yaml:3")

    message = str(refused.value)
    assert message.startswith("evaluate.yaml:3: evaluate.models.mine: ")
    assert f"({named}" in message
    assert str(folder) in message
    assert "export its checkpoint again" in message


def snapshot(root: Path, reference: str) -> Path:
    """A repository's snapshot in the Hub's cache, with code of its own."""
    folder = root / "models--owner--name" / "snapshots" / ("c" * 40)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"auto_map": {"AutoModelForCausalLM": reference}}))
    (folder / "modeling.py").write_text("class Model: ...")
    return folder


def test_code_that_was_read_may_be_run_at_that_commit_alone(tmp_path: Path) -> None:
    folder = snapshot(tmp_path, "modeling.Model")

    assert trust_remote_code(folder, commits={"owner/name": "c" * 40}) is True
    for commits in ({}, {"owner/name": "d" * 40}, {"owner/other": "c" * 40}):
        with pytest.raises(ConfigError, match=r"code of its own \(modeling\.py\), which is not run"):
            trust_remote_code(folder, commits=commits)


def test_code_that_lies_in_another_repository_was_not_read(tmp_path: Path) -> None:
    folder = snapshot(tmp_path, "someone/else--modeling.Model")

    with pytest.raises(ConfigError, match="which is not run"):
        trust_remote_code(folder, commits={"owner/name": "c" * 40})
