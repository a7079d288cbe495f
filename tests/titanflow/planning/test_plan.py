import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from finished_stage import evaluate_result, train_result, write_outside_base
from tiny_experiment import EXPERIMENT, write_tiny_experiment

from titanflow.common.errors import ConfigError, DataError
from titanflow.planning.begin import begin_stage
from titanflow.planning.plan import make_plan
from titanflow.planning.stage_plan import Plan
from titanflow.runs.contract import RESULT_FILE
from titanflow.runs.manifest import Manifest
from titanflow.runs.results import PublishResult, write_result


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_outside_base(tmp_path / "before", n_layers=2)


@pytest.fixture
def configs(tmp_path: Path, base: Path) -> Path:
    """Experiments without a pretrain module: ``later`` starts from the base, ``scores`` only evaluates."""
    configs = write_tiny_experiment(tmp_path)
    whole = yaml.safe_load(EXPERIMENT.format(root=tmp_path))
    sft, evaluate = whole["modules"]["sft"], whole["modules"]["evaluate"]
    sft["base"] = str(base)
    write(configs, "later", {**whole, "modules": {"sft": sft, "evaluate": evaluate}})
    write(configs, "scores", {**whole, "modules": {"evaluate": evaluate}})
    return configs


def write(configs: Path, name: str, experiment: dict) -> None:
    path = configs / "experiments" / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**experiment, "exp_name": name}, sort_keys=False))


def fingerprints(plan: Plan) -> dict[str, str]:
    return {stage.stage: stage.run.fingerprint for stage in plan.stages}


def test_an_sft_of_a_finished_stage_needs_no_pretrain(configs: Path, base: Path) -> None:
    plan = make_plan("later", configs)
    assert [stage.stage for stage in plan.stages] == ["prepare", "sft", "evaluate"]
    prepare, sft, evaluate = (stage.run for stage in plan.stages)
    assert prepare.config["tokenizer"]["path"] == str(base / "tokenizer")
    assert prepare.config["tokenizer"]["folder"] == str(sft.tokenizer)
    assert sft.base == base
    assert (sft.config["model"]["name"], sft.config["model"]["flavor"]) == ("llama3", "debugmodel")
    assert sft.model_overrides == {"n_layers": 2}
    assert evaluate.stages["base"] == base


def test_a_base_that_was_trained_again_makes_another_sft(configs: Path, base: Path) -> None:
    before = fingerprints(make_plan("later", configs))
    assert fingerprints(make_plan("later", configs)) == before
    result = json.loads((base / RESULT_FILE).read_text())
    (base / RESULT_FILE).write_text(json.dumps(result | {"step": 8}))
    after = fingerprints(make_plan("later", configs))
    assert after["sft"] != before["sft"]
    assert after["evaluate"] != before["evaluate"]


def test_an_sft_knows_the_weights_that_it_starts_from(configs: Path, base: Path) -> None:
    sft = make_plan("later", configs).stage("sft")
    assert sft is not None
    begin_stage(sft)
    first = sft.run.base_digest
    (base / "checkpoint" / "step-7" / "0.distcp").write_bytes(b"Weights")
    begin_stage(sft)
    assert len(first) > 8
    assert sft.run.base_digest != first


def test_another_tokenizer_than_the_bases_is_refused(configs: Path, tmp_path: Path) -> None:
    other = write_outside_base(tmp_path / "other") / "tokenizer"
    (other / "tokenizer.json").write_text('{"other": 1}')
    with pytest.raises(ConfigError, match="fine-tuning keeps its base's"):
        make_plan("later", configs, overrides=[f"sft.tokenizer.path={other}"])


def test_two_tokenizers_in_one_experiment_are_refused(configs: Path, base: Path) -> None:
    with pytest.raises(ConfigError, match="an experiment of its own"):
        make_plan("tiny", configs, overrides=[f"sft.base={base}"])


def test_only_outside_folders_can_be_evaluated(configs: Path, tmp_path: Path) -> None:
    export = tmp_path / "export"
    export.mkdir()
    (export / "config.json").write_text("{}")
    plan = make_plan("scores", configs, overrides={"evaluate.models": {"a": str(export)}})
    assert [stage.stage for stage in plan.stages] == ["evaluate"]
    with pytest.raises(ConfigError, match="'base' is no stage of this experiment"):
        make_plan("scores", configs)


def test_a_model_in_transformers_format_is_a_base(configs: Path, base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "their-model"
    shutil.copytree(base / "tokenizer", folder)
    config = {"architectures": ["Qwen3ForCausalLM"], "hidden_size": 64, "intermediate_size": 96, "vocab_size": 320}
    config |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 64}))
    (folder / "model.safetensors").write_bytes(b"weights")
    theirs = [f"sft.base={folder}", "evaluate.chat=false"]
    plan = make_plan("later", configs, overrides=theirs)
    prepare, sft = plan.stages[0].run, plan.stages[1].run
    assert (sft.base, sft.config["model"]["name"], sft.model_overrides["hidden_dim"]) == (folder, "qwen3", 96)
    assert prepare.config["tokenizer"]["path"] == str(folder)
    assert prepare.config["weights"] == []
    with pytest.raises(ConfigError, match="found 3, and their-model has 2"):
        make_plan("later", configs, overrides=[*theirs, "sft.model.n_layers=3"])
    with pytest.raises(ConfigError, match="found 66, and their-model was trained with 64"):
        make_plan("later", configs, overrides=[*theirs, "sft.training.seq_len=66"])
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["GPT2LMHeadModel"]}))
    with pytest.raises(ConfigError, match=r"sft\.base: .*config\.json: architectures: found 'GPT2LMHeadModel'"):
        make_plan("later", configs, overrides=theirs)


def test_what_the_device_cant_do_is_refused_where_it_runs(configs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    flex = ["sft.model.attn_type=flex"]
    with pytest.raises(ConfigError, match=r"sft\.model\.attn_type: found 'flex', which has no backward pass"):
        make_plan("later", configs, overrides=flex)
    # On a cluster's head node a plan only says so: its workers have what it lacks.
    (warning,) = make_plan("later", configs, overrides=flex, runs_here=False).config.warnings
    assert "on this machine a run would be refused: --set sft.model.attn_type=flex" in warning
    plan = make_plan("later", configs, overrides=[*flex, "sft.launcher.device=cuda"])
    assert plan.config.warnings == []
    with pytest.raises(ConfigError, match=r"launcher\.device is cpu"):
        make_plan("later", configs, overrides=[*flex, "sft.launcher.device=cpu"], runs_here=False)


def test_a_stage_on_the_cpu_sees_no_gpu(configs: Path) -> None:
    env = make_plan("later", configs, overrides=["sft.launcher.device=cpu"]).stages[1].env
    assert env["CUDA_VISIBLE_DEVICES"] == ""
    assert "CUDA_VISIBLE_DEVICES" not in make_plan("later", configs).stages[1].env


def test_new_special_tokens_make_a_tokenizer_of_the_stage_s_own(configs: Path, base: Path) -> None:
    known = {"added_tokens": [{"content": "<|known|>"}], "model": {"vocab": {"a": 0}}}
    (base / "tokenizer" / "tokenizer.json").write_text(json.dumps(known))
    plain = make_plan("later", configs)
    grown = make_plan("later", configs, overrides={"sft.tokenizer.new_special_tokens": ["<|x|>"]})
    tokenizer = grown.stages[0].run.config["tokenizer"]
    assert (tokenizer["path"], tokenizer["new_special_tokens"]) == (str(base / "tokenizer"), ["<|x|>"])
    assert grown.stages[1].run.tokenizer != plain.stages[1].run.tokenizer
    assert fingerprints(grown)["sft"] != fingerprints(plain)["sft"]
    assert (rows(grown), parameters(grown)) == ("2048, with <|x|>", parameters(plain))
    for tokens in (["<|known|>"], ["a"]):
        with pytest.raises(ConfigError, match="which the base's tokenizer has already"):
            make_plan("later", configs, overrides={"sft.tokenizer.new_special_tokens": tokens})
    with pytest.raises(ConfigError, match="the base is trained in this experiment"):
        make_plan("tiny", configs, overrides={"sft.tokenizer.new_special_tokens": ["<|x|>"]})
    for tokens in (["<|x|>", "<|x|>"], [""], [" <|x|>"]):
        with pytest.raises(ConfigError, match="different tokens without space around them"):
            make_plan("later", configs, overrides={"sft.tokenizer.new_special_tokens": tokens})


def test_a_stage_s_parameters_count_the_rows_of_its_new_tokens(configs: Path, base: Path) -> None:
    full = {"added_tokens": [{"content": "<|known|>", "id": 2047}], "model": {"vocab": {"a": 0}}}
    (base / "tokenizer" / "tokenizer.json").write_text(json.dumps(full))
    plain = make_plan("later", configs)
    grown = make_plan("later", configs, overrides={"sft.tokenizer.new_special_tokens": ["<|x|>", "<|y|>"]})
    # A row in the embedding and one in the head, each as wide as the model.
    assert parameters(grown) - parameters(plain) == 2 * 2 * 256
    assert rows(grown) == "2050, with <|x|>, <|y|>"


@pytest.mark.parametrize("text", ["{", "[]", '{"added_tokens": 3}', '{"added_tokens": ["x"]}'])
def test_a_base_s_tokenizer_that_can_t_be_read_takes_no_new_tokens(configs: Path, base: Path, text: str) -> None:
    (base / "tokenizer" / "tokenizer.json").write_text(text)
    with pytest.raises(ConfigError, match=r"sft\.base: .*tokenizer\.json can't be read"):
        make_plan("later", configs, overrides={"sft.tokenizer.new_special_tokens": ["<|x|>"]})


def parameters(plan: Plan) -> int:
    stage = plan.stage("sft")
    assert stage is not None
    assert stage.forecast is not None
    assert stage.forecast.parameters is not None
    return stage.forecast.parameters


def rows(plan: Plan) -> str:
    stage = plan.stage("sft")
    assert stage is not None
    return next(row.here for row in plan.inheritance(stage) if row.key == "model.vocab_size")


def test_a_base_that_grew_is_inherited_as_it_is(configs: Path, base: Path) -> None:
    result = json.loads((base / RESULT_FILE).read_text())
    result["model_args"] |= {"n_layers": 5, "attn_type": "flex"}
    (base / RESULT_FILE).write_text(json.dumps(result))
    sft = make_plan("later", configs, overrides=["sft.launcher.device=cuda"]).stages[1].run
    assert sft.model_overrides == {"n_layers": 5}


def test_a_family_of_ones_own_is_trained_again_when_its_code_or_an_argument_changes(
    configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan knows neither its arguments nor what it computes: what is written counts, and the files."""
    whole = yaml.safe_load(EXPERIMENT.format(root=tmp_path))
    pretrain, sft = whole["modules"]["pretrain"], whole["modules"]["sft"]
    del pretrain["model"]
    pretrain["overrides"] |= {
        "model": {"name": "mine", "flavor": "small"},
        "experimental": {"custom_import": "family"},
        "tokenizer": {"vocab_size": 320},
    }
    write(configs, "mine", {**whole, "modules": {"pretrain": pretrain, "sft": sft}})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "family.py").write_text("x = 1\n")
    plain = make_plan("mine", configs)
    assert plain.config.warnings == []
    wider = make_plan("mine", configs, overrides=["pretrain.model.width=8"])
    (tmp_path / "family.py").write_text("x = 2\n")
    edited = make_plan("mine", configs)
    for stage in ("pretrain", "sft"):
        assert len({fingerprints(plan)[stage] for plan in (plain, wider, edited)}) == 3
    with pytest.raises(
        ConfigError, match=r"pretrain\.tokenizer\.vocab_size: unset, and a plan doesn't know the vocabulary"
    ):
        make_plan("mine", configs, overrides=["pretrain.tokenizer.vocab_size=null"])
    (tmp_path / "family.py").unlink()
    (warning,) = make_plan("mine", configs).config.warnings
    assert "pretrain.experimental.custom_import" in warning
    assert "no module 'family' here" in warning


@pytest.mark.parametrize(
    ("status", "state", "reason"),
    [
        ("published", "CACHED", "nothing changed"),
        ("held back", "RUN", "the gate held it back"),
        ("dry run", "RUN", "it was a dry run"),
    ],
)
def test_what_was_not_published_is_tried_again(
    configs: Path, tmp_path: Path, status: str, state: str, reason: str
) -> None:
    experiment = yaml.safe_load((configs / "experiments" / "later.yaml").read_text())
    published = {"framework": "huggingface_hub", "config": "publish.yaml"}
    write(configs, "later", {**experiment, "modules": {**experiment["modules"], "publish": published}})
    plan = make_plan("later", configs)
    manifest = Manifest.open(plan.folder)
    results = {
        "sft": train_result(plan.folder / "sft", stage="sft"),
        "evaluate": evaluate_result(),
        "publish": PublishResult(target="folder", location=str(tmp_path / "model"), status=status),
    }
    for name, result in results.items():
        stage = plan.stage(name)
        assert stage is not None
        begin_stage(stage)
        write_result(stage.run.folder, result)
        if name == "evaluate":
            (stage.run.folder / "samples_sft_tiny_colour.jsonl").write_text("{}")
        manifest.record_finish(stage.run, result)
    evaluate, publish = make_plan("later", configs).stages[-2:]
    assert evaluate.state == "CACHED"
    assert (publish.stage, publish.state, publish.reason) == ("publish", state, reason)


def test_samples_that_were_not_kept_are_evaluated_again(configs: Path) -> None:
    settings = {"evaluate.models": {"outside": str(write_model(configs.parent / "model"))}}
    evaluate = make_plan("scores", configs, overrides={**settings, "evaluate.log_samples": False}).stages[-1]
    begin_stage(evaluate)
    result = evaluate_result()
    write_result(evaluate.run.folder, result)
    Manifest.open(evaluate.run.folder.parent).record_finish(evaluate.run, result)
    for kept, state in ((False, "CACHED"), (True, "RUN")):
        again = make_plan("scores", configs, overrides={**settings, "evaluate.log_samples": kept}).stages[-1]
        assert again.state == state
    assert again.reason == "its samples were not kept"


def write_model(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize("key", ["pretrain.model.hf_assets_path", "pretrain.data.path", "sft.base", "pretrain.model"])
def test_a_path_that_no_file_system_takes_is_named_by_its_key(configs: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){key.partition('.')[2]}.*aaa"):
        make_plan("tiny", configs, overrides=[f"{key}={'a' * 300}"])


@pytest.mark.parametrize("setting", ["pretrain.data.path=", "sft.data.path=", "pretrain.validation_data.path="])
def test_a_file_that_is_not_there_is_a_mistake_in_a_config(tmp_path: Path, setting: str) -> None:
    configs = write_tiny_experiment(tmp_path)
    where = re.escape(f"--set {setting}{tmp_path}/nowhere.txt: {setting[:-1]}: {tmp_path}/nowhere.txt isn't there")
    with pytest.raises(DataError, match=f"^{where}"):
        make_plan("tiny", configs, overrides=[f"{setting}{tmp_path}/nowhere.txt"])


def test_the_files_of_a_stream_are_looked_for_before_it_is_trained_on(tmp_path: Path, base: Path) -> None:
    configs = write_tiny_experiment(tmp_path)
    for section in ("pretrain.data", "pretrain.validation_data"):
        settings = [f"{section}.streaming=true", f"pretrain.tokenizer.path={base / 'tokenizer'}", "evaluate.chat=false"]
        make_plan("tiny", configs, overrides=settings)
        gone = f"{section}.path={tmp_path}/nowhere.txt"
        with pytest.raises(DataError, match=f"^--set {gone}: {section}.path: {tmp_path}/nowhere.txt isn't there"):
            make_plan("tiny", configs, overrides=[*settings, gone])


def test_files_that_are_not_there_are_named_together_by_key_and_file(configs: Path, tmp_path: Path) -> None:
    (configs / "data" / "text.yaml").write_text(f"kind: text\npath: {tmp_path}/txet.txt\n")
    members = f"    a: {{path: {tmp_path}/chats.jsonl}}\n    b: {{path: {tmp_path}/chast/}}\n"
    (configs / "data" / "chats.yaml").write_text("kind: chat\nmixture:\n  sources:\n" + members)
    with pytest.raises(ConfigError) as raised:
        make_plan("tiny", configs)
    first, second = raised.value.problems
    assert (first.key, first.origin) == ("pretrain.data.path", f"{configs}/data/text.yaml:2")
    assert (second.key, second.origin) == ("sft.data.mixture.sources.b.path", f"{configs}/data/chats.yaml:5")
    assert "txet.txt isn't there" in first.message
