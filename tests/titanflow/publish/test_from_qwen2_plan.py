"""The shipped experiment that begins with Qwen2.5 0.5B's weights, planned as it is, against the local Hub."""

from pathlib import Path
from typing import Any

import pytest
from hub_storage import Repo
from local_hub import LocalHub
from qwen2_repository import REPO, upload, write_tokenizer
from tiny_experiment import ROOT

from titanflow.common.errors import ConfigError
from titanflow.planning.plan import make_plan
from titanflow.planning.stage_plan import Plan

EXPERIMENT = "from_qwen2"
DENSE = "pretrain.model=qwen2_0.5B.yaml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The published files but for what is in the weights, which no plan reads."""
    folder = write_tokenizer(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def repo(hub: LocalHub, cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    monkeypatch.setenv("TITANFLOW_WORKSPACE", str(folder.parent / "runs"))
    return upload(hub, folder)


def planned(*settings: str) -> Plan:
    return make_plan(EXPERIMENT, ROOT / "configs", overrides=settings, runs_here=False)


@pytest.mark.parametrize("family", ["mod", "dtf", "tdtf", "qwen2"])
def test_it_is_planned_with_weights_and_tokenizer_of_one_commit(hub: LocalHub, repo: Repo, family: str) -> None:
    plan, commit = planned(f"pretrain.model={family}_0.5B.yaml"), repo.at("main").oid
    prepare, pretrain, _ = plan.stages
    assert [(one["repo_id"], one["revision"]) for one in prepare.run.config["weights"]] == [(REPO, commit)]
    assert Path(pretrain.run.config["checkpoint"]["initial_load_path"]).name == commit
    assert pretrain.run.config["model"]["name"] == family
    assert pretrain.inputs is not None
    assert pretrain.inputs.values["pretrain.model.hf_assets_path: commit"] == commit
    assert pretrain.inputs.values["pretrain.model.hf_assets_path: weights"] == commit
    assert hub.requests("resolve/.*safetensors") == 0


def parameters(*settings: str) -> int:
    pretrain = planned(*settings).stage("pretrain")
    assert pretrain is not None
    assert pretrain.forecast is not None
    return int(pretrain.forecast.as_json()["parameters"])


def test_it_has_the_parameters_that_are_published(repo: Repo) -> None:
    """0.49 billion, 0.36 of them without the embeddings, which are the head's, too."""
    assert parameters(DENSE) == 494_032_768
    assert parameters(DENSE) - 151_936 * 896 == 357_898_112
    assert 0 < parameters() - parameters(DENSE) < 0.02 * parameters(DENSE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_size": 1792}, "whose dim is 1792, and the model's is 896"),
        ({"rope_theta": 10000.0}, r"whose rope_theta is 10000\.0, and the model's is 1000000\.0"),
        ({"tie_word_embeddings": False}, "whose enable_weight_tying is False, and the model's is True"),
        ({"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False}, "a llama3, and the model is a qwen2"),
    ],
)
def test_another_model_s_weights_are_refused(
    hub: LocalHub, repo: Repo, folder: Path, change: dict[str, Any], said: str
) -> None:
    upload(hub, folder, **change)
    with pytest.raises(ConfigError, match=rf"pretrain\.model\.hf_assets_path: found the weights of {REPO}, {said}"):
        planned(DENSE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_size": 1536}, r"head_dim: found 109"),
        ({"use_sliding_window": True}, "use_sliding_window: found True: torchtitan's qwen2 doesn't support it"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_scaling: found 'yarn'"),
    ],
)
@pytest.mark.parametrize("settings", [(), (DENSE,)], ids=["routed", "dense"])
def test_weights_that_would_compute_something_else_are_refused(
    hub: LocalHub, repo: Repo, folder: Path, change: dict[str, Any], said: str, settings: tuple[str, ...]
) -> None:
    upload(hub, folder, **change)
    with pytest.raises(ConfigError, match=rf"pretrain\.model\.hf_assets_path: \S+config\.json: {said}"):
        planned(*settings)


def test_a_routed_model_begins_with_no_other_family_s(hub: LocalHub, repo: Repo, folder: Path) -> None:
    upload(hub, folder, architectures=["Qwen3ForCausalLM"], head_dim=64)
    with pytest.raises(ConfigError, match=rf"hf_assets_path: found the weights of {REPO}, a qwen3, and .* is a mod"):
        planned()
