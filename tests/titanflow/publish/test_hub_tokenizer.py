"""A tokenizer by its name on the Hub: what a plan makes of it, what is prepared, and what is refused."""

import json
from pathlib import Path

import pytest
from hub_experiment import REPO, forget, only, upload, write_experiment, write_tokenizer
from hub_storage import Blob, Repo
from local_hub import LocalHub

from titanflow.common.errors import ConfigError
from titanflow.data.prepare import prepare
from titanflow.planning.plan import make_plan
from titanflow.planning.stage_plan import Plan, StagePlan

pytestmark = pytest.mark.slow

KEYS = ("model.hf_assets_path", "tokenizer.path")
REVISIONS = {"model.hf_assets_path": "model.hf_assets_revision", "tokenizer.path": "tokenizer.revision"}


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    return write_tokenizer(tmp_path / "their-tokenizer")


@pytest.fixture
def repo(hub: LocalHub, cache: Path, tokenizer: Path) -> Repo:
    return upload(hub, tokenizer)


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    return write_experiment(tmp_path)


def planned(configs: Path, *settings: str, experiment: str = "tiny") -> Plan:
    return make_plan(experiment, configs, overrides=settings)


def stage(plan: Plan, name: str) -> StagePlan:
    found = plan.stage(name)
    assert found is not None
    return found


@pytest.mark.parametrize("key", KEYS)
def test_a_plan_records_the_commit_and_fetches_the_tokenizer_alone(
    hub: LocalHub, repo: Repo, configs: Path, key: str
) -> None:
    plan = planned(configs, f"pretrain.{key}={REPO}")
    prepared, pretrain = stage(plan, "prepare").run.config["tokenizer"], stage(plan, "pretrain")
    assert (prepared["repo_id"], prepared["revision"]) == (REPO, repo.at("main").oid)
    assert pretrain.inputs is not None
    assert pretrain.inputs.values[f"pretrain.{key}: commit"] == repo.at("main").oid
    assert f"pretrain.{key}: tokenizer.json" in pretrain.inputs.values
    assert pretrain.run.tokenizer == stage(plan, "sft").run.tokenizer == Path(prepared["folder"])
    assert hub.requests("resolve/.*tokenizer.json") > 0
    assert hub.requests("resolve/.*(safetensors|README|/config.json)") == 0


@pytest.mark.parametrize("key", KEYS)
def test_the_prepare_step_copies_it_whatever_became_of_the_cache(
    hub: LocalHub, repo: Repo, configs: Path, cache: Path, tokenizer: Path, key: str
) -> None:
    run = stage(planned(configs, f"pretrain.{key}={REPO}"), "prepare").run
    forget(cache)
    upload(hub, tokenizer, tokenizer_config__json=b"{}")
    run.config["datasets"] = []
    prepare(run)
    made = Path(run.config["tokenizer"]["folder"])
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (made / name).read_bytes() == (tokenizer / name).read_bytes()


@pytest.mark.parametrize("key", KEYS)
def test_a_new_commit_is_another_stage_and_a_revision_holds_one(
    hub: LocalHub, repo: Repo, configs: Path, tokenizer: Path, key: str
) -> None:
    named = f"pretrain.{key}={REPO}"
    first, before = stage(planned(configs, named), "pretrain").run, repo.at("main").oid
    hub.fail(".*", 503, times=100)
    assert stage(planned(configs, named), "pretrain").run.fingerprint == first.fingerprint
    hub.faults.clear()
    upload(hub, tokenizer, merges__txt=b"a b")
    after = stage(planned(configs, named), "pretrain").run
    assert (after.fingerprint != first.fingerprint, after.tokenizer != first.tokenizer) == (True, True)
    held = planned(configs, named, f"pretrain.{REVISIONS[key]}={before}")
    assert stage(held, "prepare").run.config["tokenizer"]["revision"] == before
    assert stage(held, "pretrain").run.tokenizer == first.tokenizer


def test_a_local_folder_of_that_name_wins(
    hub: LocalHub, repo: Repo, configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tokenizer(tmp_path / "here" / REPO)
    monkeypatch.chdir(tmp_path / "here")
    plan = planned(configs, f"pretrain.tokenizer.path={REPO}", "pretrain.tokenizer.revision=v1")
    assert stage(plan, "prepare").run.config["tokenizer"]["repo_id"] == ""
    assert hub.log == []
    (warning,) = plan.config.warnings
    assert "pretrain.tokenizer.revision (--set pretrain.tokenizer.revision=v1) has no effect: tokenizer.path" in warning


def test_a_fine_tuning_may_name_the_same_one_and_no_other(hub: LocalHub, repo: Repo, configs: Path) -> None:
    named = f"pretrain.model.hf_assets_path={REPO}"
    plan = planned(configs, named, f"sft.model.hf_assets_path={REPO}")
    assert stage(plan, "sft").run.tokenizer == stage(plan, "pretrain").run.tokenizer
    other = hub.repos["owner/other"] = Repo(private=False)
    other.commit("main", "other", {**repo.at("main").files, "merges.txt": Blob(b"a b")})
    with pytest.raises(ConfigError, match=r"sft\.tokenizer\.path: found owner/other, and pretrain has another"):
        planned(configs, named, "sft.tokenizer.path=owner/other")


@pytest.mark.parametrize("key", KEYS)
def test_what_can_t_be_had_is_refused_with_key_file_and_line(
    hub: LocalHub, repo: Repo, configs: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    section, _, name = key.partition(".")
    rest = "" if section == "model" else f"{section}:\n"
    text = f"model:\n  name: qwen3\n  flavor: debugmodel\n{rest}  {name}: {REPO}\n"
    (configs / "models" / "named.yaml").write_text(text)
    place = rf"named\.yaml:{text.count(chr(10))}: pretrain\.{key}: {REPO}"
    settings = ["modules.pretrain.model=named.yaml"]

    def refused(reason: str, *more: str) -> str:
        with pytest.raises(ConfigError, match=f"{place}{reason}") as caught:
            planned(configs, *settings, *more)
        assert "owner/name on the Hub" in str(caught.value)
        return str(caught.value)

    refused(" at nosuch can't be had from http.*: there is no such revision", f"pretrain.{REVISIONS[key]}=nosuch")
    monkeypatch.setenv("HF_TOKEN", hub.read_token)
    repo.gated = True
    assert f"ask for access on {hub.url}/{REPO}" in refused(" can't be had from http.*: it is gated")
    repo.gated = False
    repo.commit("main", "sentencepiece", {"tokenizer.model": Blob(b"pieces")})
    assert "save_pretrained(folder)" in refused(" has no tokenizer.json and no tokenizer_config.json")
    del hub.repos[REPO]
    forget(cache)
    assert "HF_TOKEN" in refused(" can't be had from http.*: there is no such repository, or it is private")


def test_a_private_one_is_read_with_the_environment_s_token(
    hub: LocalHub, repo: Repo, configs: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.private = True
    monkeypatch.setenv("HF_TOKEN", hub.read_token)
    named = f"pretrain.model.hf_assets_path={REPO}"
    plan = planned(configs, named)
    assert hub.read_token not in json.dumps([plan.as_json(), stage(plan, "prepare").run.model_dump(mode="json")])
    monkeypatch.delenv("HF_TOKEN")
    forget(cache)
    with pytest.raises(ConfigError, match=r"owner/model can't be had(?s:.*)needs HF_TOKEN"):
        planned(configs, named)


def test_random_tokens_ask_for_none(hub: LocalHub, cache: Path, configs: Path) -> None:
    """The repository isn't even there."""
    alone = only(configs, "pretrain")
    for named in (REPO, "./nowhere", "null"):
        settings = ("pretrain.training.mock_data=true", f"pretrain.model.hf_assets_path={named}")
        plan = planned(configs, *settings, experiment=alone)
        assert [one.stage for one in plan.stages] == ["pretrain"]
        assert plan.stages[0].run.tokenizer is None
    assert hub.log == []


def test_random_tokens_keep_a_tokenizer_that_is_here(configs: Path, tokenizer: Path) -> None:
    settings = ("pretrain.training.mock_data=true", f"pretrain.model.hf_assets_path={tokenizer}")
    plan = planned(configs, *settings, experiment=only(configs, "pretrain"))
    assert stage(plan, "pretrain").run.tokenizer is not None


def test_what_reads_a_tokenizer_all_the_same_is_named(hub: LocalHub, cache: Path, configs: Path) -> None:
    mock = ["pretrain.training.mock_data=true"]
    with pytest.raises(ConfigError, match=r"pretrain\.model\.hf_assets_path: owner/model can't.*; sft trains on text"):
        planned(configs, *mock, f"pretrain.model.hf_assets_path={REPO}")
    mock.append("sft.training.mock_data=true")
    reason = r"pretrain\.model\.hf_assets_path: no tokenizer is named, and evaluate reads the export of sft"
    with pytest.raises(ConfigError, match=reason) as caught:
        planned(configs, *mock)
    assert "expected: here or in tokenizer.path: a folder with tokenizer.json" in str(caught.value)
    assert "`data:`" not in str(caught.value)


def test_torchtitan_s_own_datasets_need_one(configs: Path, tokenizer: Path) -> None:
    alone = only(configs, "pretrain")
    c4 = ["pretrain.data.path=null", "pretrain.validation.enable=false", "pretrain.training.dataset=c4"]
    with pytest.raises(ConfigError, match="no tokenizer is named, and pretrain trains on text") as caught:
        planned(configs, *c4, experiment=alone)
    assert "or name rows in pretrain's `data:`; without them it reads torchtitan's c4" in str(caught.value)
    plan = planned(configs, *c4, f"pretrain.tokenizer.path={tokenizer}", experiment=alone)
    assert stage(plan, "pretrain").run.tokenizer is not None


def test_unset_and_null_are_the_same(configs: Path) -> None:
    """One is trained on the text."""
    for settings in ([], ["pretrain.model.hf_assets_path=null"]):
        prepared = stage(planned(configs, *settings), "prepare").run.config["tokenizer"]
        assert (prepared["vocab_size"], "path" in prepared) == (320, False)


def test_unset_is_torchtitan_s_own_default() -> None:
    from titanflow.architectures.torchtitan import load_snapshot
    from titanflow.config.keys.training import ModelAdditions

    section = load_snapshot()["job_config"]["$defs"]["Model"]["properties"]
    assert ModelAdditions().hf_assets_path == section["hf_assets_path"]["default"]


def test_more_tokens_than_the_model_has_embeddings_are_refused(repo: Repo, configs: Path) -> None:
    named = f"pretrain.model.hf_assets_path={REPO}"
    size = len(json.loads(repo.at("main").files["tokenizer.json"].data)["model"]["vocab"])
    assert planned(configs, named, f"pretrain.model.vocab_size={size}").stages
    reason = rf"pretrain\.model\.hf_assets_path: {REPO} has {size} tokens, and the model's vocab_size is {size - 1}"
    with pytest.raises(ConfigError, match=reason):
        planned(configs, named, f"pretrain.model.vocab_size={size - 1}")


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("data", [b"{", b"[]", b"\xff"])
def test_a_tokenizer_whose_files_are_broken_is_refused(
    hub: LocalHub, repo: Repo, configs: Path, tokenizer: Path, name: str, data: bytes
) -> None:
    upload(hub, tokenizer, **{name.replace(".", "__"): data})
    with pytest.raises(ConfigError, match=rf"pretrain\.model\.hf_assets_path: .*{name}"):
        planned(configs, f"pretrain.model.hf_assets_path={REPO}")


def test_a_revision_behind_the_name_is_told_its_key(hub: LocalHub, cache: Path, configs: Path) -> None:
    weights = "pretrain.checkpoint.initial_load_path"
    cases = {
        "pretrain.tokenizer.path": [],
        "pretrain.model.hf_assets_path": [],
        "sft.base": [],
        weights: ["pretrain.checkpoint.initial_load_in_hf=true"],
    }
    keys = {**REVISIONS, "base": "base_revision", "checkpoint.initial_load_path": "initial_load_revision"}
    for key, more in cases.items():
        with pytest.raises(ConfigError) as caught:
            planned(configs, f"{key}={REPO}@v1", *more)
        assert f"{keys[key.partition('.')[2]]}: v1" in str(caught.value)
