import json
from pathlib import Path
from typing import Any

import pytest
from hub_storage import Blob, Repo
from local_hub import LocalHub

from titanflow.architectures.hf_snapshot import repository_of
from titanflow.architectures.huggingface import download_model, download_plan, download_weights, missing_weights
from titanflow.architectures.outside_base import outside_base, read_base
from titanflow.common.errors import ConfigError
from titanflow.data.prepare import prepare
from titanflow.runs.contract import StageRun

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 300,
    "max_position_embeddings": 256,
}
FILES = {
    "config.json": json.dumps(CONFIG).encode(),
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b"{}",
    "README.md": b"# A model",
    "original/model.safetensors": b"not asked for",
}


@pytest.fixture
def model(hub: LocalHub, cache: Path) -> Repo:
    """owner/model on the local Hub, and an empty cache."""
    repo = hub.repos["owner/model"] = Repo(private=False)
    commit(repo, {"model.safetensors": b"weights"})
    return repo


def commit(repo: Repo, weights: dict[str, bytes]) -> str:
    blobs = {name: Blob(data) for name, data in FILES.items()}
    blobs |= {name: Blob(data, lfs=True) for name, data in weights.items()}
    return repo.commit("main", "weights", blobs).oid


def found(named: str, revision: str | None = None) -> Any:
    base = outside_base(named, revision)
    assert base is not None
    return base


def test_a_plan_reads_the_description_and_leaves_the_weights(hub: LocalHub, model: Repo) -> None:
    base = found("owner/model")
    assert (base.stage, base.model_name, base.seq_len, base.in_hf) == ("owner/model", "llama3", 256, True)
    assert base.digest == model.at("main").oid
    assert base.tokenizer == base.folder
    assert missing_weights(base.folder) == ["model.safetensors"]
    assert hub.requests("resolve/.*safetensors") == 0
    assert hub.requests("README") == 0
    assert read_base(base.folder) == base


def test_the_weights_come_when_they_are_prepared(hub: LocalHub, model: Repo) -> None:
    base = found("owner/model")
    plan = download_plan(base.folder)
    assert plan == {"repo_id": "owner/model", "revision": base.digest, "folder": str(base.folder)}
    download_weights("owner/model", base.digest, base.folder)
    assert (base.folder / "model.safetensors").read_bytes() == b"weights"
    assert missing_weights(base.folder) == []
    assert not (base.folder / "original").exists()


def test_the_prepare_step_brings_them(hub: LocalHub, model: Repo, tmp_path: Path) -> None:
    base = found("owner/model")
    config = {"workspace": str(tmp_path), "weights": [download_plan(base.folder)]}
    run = StageRun(stage="prepare", experiment="e", run="main", folder=tmp_path / "prepare", config=config)
    for _ in range(2):
        prepare(run)
        assert (base.folder / "model.safetensors").is_file()
        assert hub.requests("GET .*model.safetensors") == 1


def test_the_files_of_an_index_are_what_is_brought(model: Repo) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    shards = {"model-1.safetensors": b"1", "model-2.safetensors": b"2", "other.safetensors": b"3"}
    commit(model, {"model.safetensors.index.json": json.dumps(index).encode(), **shards})
    base = found("owner/model")
    download_weights("owner/model", base.digest, base.folder)
    assert sorted(path.name for path in base.folder.glob("*.safetensors")) == [
        "model-1.safetensors",
        "model-2.safetensors",
    ]


def test_a_new_commit_is_another_base_and_a_revision_holds_one(model: Repo) -> None:
    first = found("owner/model")
    commit(model, {"model.safetensors": b"newer"})
    assert found("owner/model").digest != first.digest
    assert found("owner/model", first.digest) == first


def test_what_the_cache_holds_serves_without_the_hub(hub: LocalHub, model: Repo) -> None:
    before = found("owner/model")
    hub.fail(".*", 503, times=100)
    assert found("owner/model") == before


@pytest.mark.parametrize(
    ("named", "revision", "expected"),
    [
        ("owner/nosuch", None, "owner/nosuch can't be had from http"),
        ("owner/nosuch", None, "or a folder: there is no owner/nosuch in /"),
        ("owner/model", "nosuch", "owner/model at nosuch can't be had"),
    ],
)
def test_a_repository_or_revision_that_isnt_there(model: Repo, named: str, revision: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected) as caught:
        outside_base(named, revision)
    assert "HF_TOKEN" in str(caught.value)


def test_pickled_weights_alone_are_refused_with_the_reason(model: Repo, tmp_path: Path) -> None:
    commit(model, {"pytorch_model.bin": b"pickle"})
    reason = r"only pickled weights \(pytorch_model.bin\): loading a pickle runs the code in it"
    with pytest.raises(ConfigError, match=reason):
        outside_base("owner/model")
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ConfigError, match=reason):
        outside_base(str(tmp_path / "pickled"))


INDEX = b'{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}'


@pytest.mark.parametrize(
    ("weights", "absent"),
    [
        ({"model.safetensors.index.json": INDEX, "model-1.safetensors": b"weights"}, "model-2.safetensors"),
        ({"model.fp16.safetensors": b"weights", "pytorch_model.bin": b"pickle"}, "model.safetensors"),
    ],
)
def test_weights_that_the_repository_lacks_are_refused_in_the_plan(
    model: Repo, weights: dict[str, bytes], absent: str
) -> None:
    commit(model, weights)
    with pytest.raises(ConfigError, match=rf"owner/model: the weights aren't there: {absent}\n"):
        outside_base("owner/model")


def local(folder: Path) -> Path:
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes(FILES[name])
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_a_folder_that_transformers_loads(tmp_path: Path) -> None:
    base = found(str(local(tmp_path / "my-model")))
    assert (base.stage, base.flavor, base.checkpoint) == ("my-model", "debugmodel", tmp_path / "my-model")
    assert base.overrides["n_layers"] == 2
    assert len(base.tokenizer_digest) == 64
    assert repository_of(tmp_path / "my-model") == ""
    assert download_plan(base.folder) is None
    (tmp_path / "my-model" / "model.safetensors").write_bytes(b"others")
    assert found(str(tmp_path / "my-model")).digest != base.digest


def test_a_folder_without_weights_or_config_is_refused(tmp_path: Path) -> None:
    folder = local(tmp_path / "my-model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"the weights aren't there: model\.safetensors"):
        outside_base(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json: can't be read"):
        outside_base(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"neither result\.json nor config\.json"):
        outside_base(str(folder))


def test_what_is_neither_folder_nor_repository_is_nothing() -> None:
    assert outside_base("./owner/model") is None
    assert outside_base("pretrain") is None


def test_a_whole_model_comes_with_its_code_at_its_commit(hub: LocalHub, model: Repo) -> None:
    read = commit(model, {"model.safetensors": b"weights", "modeling.py": b"class Model: ..."})
    commit(model, {"model.safetensors": b"trained on", "modeling.py": b"class Other: ..."})

    folder = download_model("owner/model", read)

    assert {path.name for path in folder.iterdir()} == {
        *("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors", "modeling.py")
    }
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert (repository_of(folder), folder.name) == ("owner/model", read)
