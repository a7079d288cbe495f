"""Weights in transformers' format that a pretraining begins with, by their folder or their name on the Hub."""

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from finished_stage import finish_training, write_checkpoint
from hub_experiment import CONFIG, REPO, forget, only, upload, write_experiment, write_tokenizer
from hub_storage import Repo
from local_hub import LocalHub

from titanflow.common.errors import ConfigError
from titanflow.data.prepare import prepare
from titanflow.planning.begin import begin_stage, record_start
from titanflow.planning.plan import make_plan
from titanflow.planning.stage_plan import Plan, StagePlan
from titanflow.runs.manifest import Manifest
from titanflow.runs.results import write_result

pytestmark = pytest.mark.slow

IN_HF = ("pretrain.checkpoint.initial_load_in_hf=true",)
BY_PATH = (*IN_HF, f"pretrain.checkpoint.initial_load_path={REPO}")
BY_ASSETS = (*IN_HF, f"pretrain.model.hf_assets_path={REPO}")
KEYS = {BY_PATH: "checkpoint.initial_load_path", BY_ASSETS: "model.hf_assets_path"}


@pytest.fixture
def repo(hub: LocalHub, cache: Path, tmp_path: Path) -> Repo:
    return upload(hub, write_tokenizer(tmp_path / "their-tokenizer"))


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    configs = write_experiment(tmp_path)
    only(configs, "pretrain")
    return configs


def planned(configs: Path, *settings: str, experiment: str = "alone") -> Plan:
    return make_plan(experiment, configs, overrides=settings)


def stage(plan: Plan, name: str) -> StagePlan:
    found = plan.stage(name)
    assert found is not None
    return found


def weights(plan: Plan) -> list[str]:
    """The commits whose weights the prepare step brings."""
    prepared = plan.stage("prepare")
    return [one["revision"] for one in prepared.run.config["weights"]] if prepared else []


def finish(plan: Plan, name: Literal["pretrain", "sft"] = "pretrain", **args: Any) -> None:
    """A training stage, and what is prepared before it, as if they had run."""
    prepared = stage(plan, "prepare").run
    write_result(prepared.folder, prepare(prepared))
    trained = stage(plan, name)
    begin_stage(trained)
    result = finish_training(trained.run.folder, stage=name, model_name="qwen3", model_args=args, seq_len=48)
    manifest = Manifest.open(plan.folder)
    record_start(trained, manifest)
    manifest.record_finish(trained.run, result)


@pytest.mark.parametrize("settings", KEYS, ids=KEYS.values())
def test_they_are_brought_when_they_are_prepared_at_the_commit_of_the_plan(
    hub: LocalHub, repo: Repo, configs: Path, settings: tuple[str, ...]
) -> None:
    plan, commit, key = planned(configs, *settings), repo.at("main").oid, KEYS[settings]
    assert hub.requests("resolve/.*safetensors") == 0
    pretrain, run = stage(plan, "pretrain"), stage(plan, "prepare").run
    assert weights(plan) == [commit]
    folder = Path(pretrain.run.config["checkpoint"]["initial_load_path"])
    assert folder.name == commit
    assert pretrain.inputs is not None
    assert pretrain.inputs.values[f"pretrain.{key}: weights"] == commit
    assert pretrain.inputs.values[f"pretrain.{key}"] == REPO
    repo.commit("main", "trained on", {**repo.at("main").files})
    run.config["datasets"] = []
    prepare(run)
    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_where_the_cache_lies_changes_no_result(
    repo: Repo, configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    first = stage(planned(configs, *BY_PATH), "pretrain").run
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    second = stage(planned(configs, *BY_PATH), "pretrain").run
    assert second.fingerprint == first.fingerprint
    assert second.config["checkpoint"]["initial_load_path"] != first.config["checkpoint"]["initial_load_path"]


def test_a_new_commit_is_another_stage_and_a_revision_holds_one(hub: LocalHub, repo: Repo, configs: Path) -> None:
    first, commit = stage(planned(configs, *BY_PATH), "pretrain").run, repo.at("main").oid
    repo.commit("main", "newer", {**repo.at("main").files})
    assert stage(planned(configs, *BY_PATH), "pretrain").run.fingerprint != first.fingerprint
    held = planned(configs, *BY_PATH, f"pretrain.checkpoint.initial_load_revision={commit}")
    checkpoint = stage(held, "pretrain").run.config["checkpoint"]
    assert checkpoint == first.config["checkpoint"] | {"initial_load_revision": commit}
    assert weights(held) == [commit]


@pytest.mark.parametrize("settings", KEYS, ids=KEYS.values())
def test_a_finished_stage_needs_them_no_more(
    hub: LocalHub, repo: Repo, configs: Path, cache: Path, settings: tuple[str, ...]
) -> None:
    """Nor the tokenizer's repository: it has its copy."""
    key, settings = KEYS[settings], tuple(dict.fromkeys((*settings, BY_ASSETS[1])))
    finish(planned(configs, *settings))
    again = planned(configs, *settings)
    assert (stage(again, "pretrain").state, weights(again)) == ("CACHED", [])
    del hub.repos[REPO]
    forget(cache)
    gone = planned(configs, *settings)
    assert (stage(gone, "pretrain").state, weights(gone)) == ("CACHED", [])
    # What was made from other settings is named, and what would make it again is refused.
    changed = planned(configs, *settings, "pretrain.optimizer.lr=1e-3")
    assert [one.key for one in stage(changed, "pretrain").changes] == ["pretrain.optimizer.lr"]
    with pytest.raises(ConfigError, match=f"{key}: {REPO} can't be had"):
        planned(configs, *settings, "pretrain.optimizer.lr=1e-3", "on_stale=rerun")


def test_a_revision_that_cant_be_had_is_no_commit_of_before(
    hub: LocalHub, repo: Repo, configs: Path, cache: Path
) -> None:
    finish(planned(configs, *BY_PATH))
    changed = planned(configs, *BY_PATH, "pretrain.checkpoint.initial_load_revision=nosuch")
    assert stage(changed, "pretrain").state == "STALE"
    finish(planned(configs, *BY_ASSETS, "on_stale=rerun"))
    refused(configs, "there is no such revision", *BY_ASSETS, "pretrain.model.hf_assets_revision=nosuch")


def test_a_finished_fine_tuning_needs_its_base_s_no_more(repo: Repo, configs: Path, cache: Path) -> None:
    only(configs, "sft", "evaluate")
    settings = [f"sft.base={REPO}"]
    plan = planned(configs, *settings)
    assert weights(plan) == [repo.at("main").oid]
    finish(plan, "sft")
    forget(cache)
    # The evaluation scores the base beside it.
    again = planned(configs, *settings)
    assert (stage(again, "sft").state, stage(again, "prepare").state) == ("CACHED", "RUN")
    assert weights(again) == weights(plan)
    only(configs, "sft")
    without = planned(configs, *settings)
    assert (stage(without, "prepare").state, weights(without)) == ("CACHED", [])


def refused(configs: Path, pattern: str, *settings: str, experiment: str = "alone") -> str:
    with pytest.raises(ConfigError, match=pattern) as caught:
        planned(configs, *settings, experiment=experiment)
    return str(caught.value)


def test_another_model_s_are_refused_in_the_plan(hub: LocalHub, repo: Repo, configs: Path) -> None:
    key = rf"--set pretrain\.checkpoint\.initial_load_path={REPO}: pretrain\.checkpoint\.initial_load_path"
    for name, value, argument in (("num_hidden_layers", 3, "n_layers"), ("rope_theta", 10_000.0, "rope_theta")):
        upload(hub, None, config__json=json.dumps(CONFIG | {name: value}).encode())
        said = refused(
            configs, f"{key}: found the weights of {REPO}, whose {argument} is {value}, and the model's is", *BY_PATH
        )
        assert f"set model.{argument}: {value}" in said
    llama = {**CONFIG, "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False}
    upload(hub, None, config__json=json.dumps(llama).encode())
    refused(configs, f"{key}: found the weights of {REPO}, a llama3, and the model is a qwen3", *BY_PATH)


def test_what_isnt_there_is_refused_with_what_could_be(hub: LocalHub, cache: Path, configs: Path) -> None:
    refused(configs, rf"initial_load_path: {REPO} can't be had from http.*: there is no such repository", *BY_PATH)
    said = refused(configs, r"initial_load_in_hf: found true, and nothing names the weights", *IN_HF)
    assert "owner/name on the Hub, in checkpoint.initial_load_path or model.hf_assets_path" in said
    nowhere = "pretrain.checkpoint.initial_load_path=./nowhere"
    assert "or owner/name on the Hub" in refused(configs, r"initial_load_path: \./nowhere isn't there", *IN_HF, nowhere)
    said = refused(configs, rf"initial_load_path: {REPO} isn't there", BY_PATH[1])
    assert "checkpoint.initial_load_in_hf: true" in said
    assert "a step-N folder, or a finished stage's" in said
    upload(hub, None)
    pickled = dict(hub.repos[REPO].at("main").files)
    pickled["pytorch_model.bin"] = pickled.pop("model.safetensors")
    hub.repos[REPO].commit("main", "pickled", pickled)
    refused(configs, r"initial_load_path: owner/model: only pickled weights", *BY_PATH)


def test_a_local_folder_s_are_loaded_from_it_and_not_from_the_tokenizer_s_copy(
    hub: LocalHub, configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tokenizer(tmp_path / "their-model")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    settings = (*IN_HF, f"pretrain.model.hf_assets_path={folder}")
    assert "the weights aren't there: model.safetensors" in refused(configs, r"model\.hf_assets_path", *settings)
    (folder / "model.safetensors").write_bytes(b"weights")
    plan = planned(configs, *settings)
    assert stage(plan, "pretrain").run.config["checkpoint"]["initial_load_path"] == str(folder)
    assert (weights(plan), hub.log) == ([], [])
    # What a stage is given can be read from anywhere.
    monkeypatch.chdir(folder.parent)
    near = planned(configs, *IN_HF, f"pretrain.model.hf_assets_path=./{folder.name}")
    assert stage(near, "pretrain").run.config["checkpoint"]["initial_load_path"] == str(folder)
    (folder / "model.safetensors").write_bytes(b"others")
    assert stage(planned(configs, *settings), "pretrain").run.fingerprint != stage(plan, "pretrain").run.fingerprint
    settings = (*settings, f"pretrain.tokenizer.path={write_tokenizer(tmp_path / 'their-tokenizer')}")
    finish(planned(configs, *settings))
    (folder / "model.safetensors").unlink()
    assert stage(planned(configs, *settings), "pretrain").state == "CACHED"


@pytest.mark.parametrize("named", ["./step-12", "~/step-12"])
def test_a_stage_is_given_a_checkpoint_s_place_however_it_was_named(
    configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    write_checkpoint(tmp_path / "step-12")
    run = stage(planned(configs, f"pretrain.checkpoint.initial_load_path={named}"), "pretrain").run
    assert run.config["checkpoint"]["initial_load_path"] == str(tmp_path / "step-12")


def test_files_of_a_repository_that_are_broken_are_refused(hub: LocalHub, repo: Repo, configs: Path) -> None:
    for index in (b"{", b"[]", b'{"weight_map": 1}'):
        upload(hub, None, **{"model.safetensors.index__json": index})
        refused(configs, r"initial_load_path: .*index\.json: can't be read", *BY_PATH)
    upload(hub, None, **{"model.safetensors.index__json": b'{"weight_map": {}}'}, config__json=b"[]")
    refused(configs, r"sft\.base: .*config\.json: found a list", f"sft.base={REPO}", experiment="tiny")


@pytest.mark.parametrize("place", ["", "checkpoint/step-12"])
def test_a_stage_s_weights_are_another_model_s_where_its_arguments_say_so(
    hub: LocalHub, configs: Path, tmp_path: Path, place: str
) -> None:
    tokenizer = f"pretrain.tokenizer.path={write_tokenizer(tmp_path / 'own')}"
    before = planned(configs, tokenizer)
    finish(before, rope_theta=1e6, dim=64, max_seq_len=48, attn_type="flex")
    # The finished stage's own, and another step's.
    for step in (1, 12):
        write_checkpoint(before.folder / "pretrain" / "checkpoint" / f"step-{step}")
    begins = f"pretrain.checkpoint.initial_load_path={before.folder / 'pretrain' / place}"

    (configs / "models/llama.yaml").write_text("model: {name: llama3, flavor: debugmodel, vocab_size: 320}\n")

    def again(*settings: str) -> Plan:
        return make_plan("alone", configs, "next", [tokenizer, begins, *settings])

    assert stage(again("pretrain.model.rope_theta=1e6"), "pretrain").state == "RUN"
    with pytest.raises(ConfigError, match="initial_load_path: found the weights of pretrain, whose rope_theta is"):
        again("pretrain.model.rope_theta=5e5")
    with pytest.raises(ConfigError, match="found the weights of pretrain, a qwen3, and the model is a llama3"):
        again("modules.pretrain.model=llama.yaml")


def test_weights_in_the_format_of_transformers_are_no_checkpoint(configs: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "config.json").write_text(json.dumps(CONFIG))
    theirs = f"pretrain.checkpoint.initial_load_path={tmp_path}/theirs"
    said = refused(configs, r"initial_load_path: .*/theirs is in transformers' format", theirs)
    assert "set checkpoint.initial_load_in_hf: true" in said
