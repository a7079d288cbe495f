import hashlib
import json
import subprocess
from pathlib import Path

import pytest
from finished_run import bring_code

from titanflow.common.digests import folder_digests
from titanflow.common.errors import ConfigError, DataError
from titanflow.publish.bundle import bytes_entry, check_evaluated, file_entry, from_export, is_published


def test_only_listed_files_are_taken(export: Path) -> None:
    assert set(from_export(export)) == {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "model.safetensors",
    }


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("model.safetensors", True),
        ("model-00001-of-00002.safetensors", True),
        ("README.md", True),
        ("modeling_mod.py", True),
        ("modeling_other.py", False),
        ("__init__.py", False),
        ("titanflow.json", True),
        (".env", False),
        ("model.safetensors.bak", False),
        ("../model.safetensors", False),
        ("model/x.safetensors", False),
        ("adapter_model.safetensors", False),
        ("pytorch_model.bin", False),
    ],
)
def test_is_published(name: str, published: bool) -> None:
    assert is_published(name) is published


def test_a_model_s_own_modelling_files_are_taken(export: Path) -> None:
    (export / "modeling_mod.py").write_text("left over from another model")
    assert "modeling_mod.py" not in from_export(export)
    names = bring_code(export)
    assert set(names) < set(from_export(export))
    check_evaluated(from_export(export), folder_digests(export))


def test_code_that_is_not_this_package_s_is_not_published(export: Path) -> None:
    bring_code(export)
    with (export / "modeling_mod.py").open("a") as file:
        file.write("import os\n")
    with pytest.raises(ConfigError, match=r"brings code of its own \(modeling_mod\.py\)"):
        from_export(export)


def test_hashes_are_sha256_and_git_s_own(tmp_path: Path) -> None:
    data = b"x" * 3_000_000
    path = tmp_path / "file"
    path.write_bytes(data)
    git = subprocess.run(["git", "hash-object", path], capture_output=True, text=True, check=True)
    entry = file_entry(path)
    assert entry.blob_sha1 == git.stdout.strip()
    assert entry.sha256 == hashlib.sha256(data).hexdigest()
    in_memory = bytes_entry(data)
    assert (in_memory.size, in_memory.sha256, in_memory.blob_sha1) == (len(data), entry.sha256, entry.blob_sha1)


def test_empty_file_has_git_s_well_known_hash() -> None:
    assert bytes_entry(b"").blob_sha1 == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


@pytest.mark.parametrize("name", ["model.safetensors", "chat_template.jinja"])
def test_a_symlink_under_a_listed_name_is_refused(export: Path, name: str) -> None:
    (export / name).unlink()
    (export / name).symlink_to(export / ".env")
    with pytest.raises(DataError, match=f"{name} is a symlink"):
        from_export(export)


def test_a_folder_under_a_listed_name_is_refused(export: Path) -> None:
    (export / "config.json").unlink()
    (export / "config.json").mkdir()
    with pytest.raises(DataError, match=r"config\.json is no file"):
        from_export(export)


def test_every_missing_file_is_named(export: Path) -> None:
    (export / "config.json").unlink()
    (export / "model.safetensors").unlink()
    with pytest.raises(DataError) as caught:
        from_export(export)
    assert [problem.message for problem in caught.value.problems] == [
        "config.json is missing",
        "model.safetensors is missing",
    ]


def test_an_index_names_the_shards_that_must_be_there(export: Path) -> None:
    (export / "model.safetensors").rename(export / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (export / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(DataError, match=r"model-00002-of-00002\.safetensors is missing"):
        from_export(export)
    (export / "model-00002-of-00002.safetensors").write_bytes(b"b")
    assert set(shards.values()) < set(from_export(export))


def test_no_export(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no export"):
        from_export(tmp_path / "nowhere")


def test_what_was_evaluated_may_be_published(export: Path) -> None:
    check_evaluated(from_export(export), folder_digests(export))


def test_changed_added_and_removed_files_are_named(export: Path) -> None:
    evaluated = folder_digests(export)
    (export / "model.safetensors").write_bytes(b"other weights")
    (export / "special_tokens_map.json").write_text("{}")
    (export / "generation_config.json").unlink()
    with pytest.raises(DataError) as caught:
        check_evaluated(from_export(export), evaluated)
    problems = {problem.key: problem.message for problem in caught.value.problems}
    assert problems.keys() == {"model.safetensors", "special_tokens_map.json", "generation_config.json"}
    assert "changed since it was evaluated" in problems["model.safetensors"]
    assert evaluated["model.safetensors"] in str(caught.value)
    assert "evaluate this export again" in str(caught.value)
