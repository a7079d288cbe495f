"""Means among the models of an evaluation: how they are read, and what is refused with file and line."""

import copy
import re
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from tiny_experiment import write_tiny_experiment

from titanflow.common.errors import ConfigError
from titanflow.config.experiment import Experiment, load_experiment
from titanflow.config.means.recipe import Mean, base_mean, means_of
from titanflow.config.overrides import parse_settings
from titanflow.planning.plan import make_plan
from titanflow.planning.view import plan_table


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """The tiny experiment with two fine-tunings and a mean of them, which is published."""
    configs = write_tiny_experiment(tmp_path)
    path = configs / "experiments" / "tiny.yaml"
    experiment = yaml.safe_load(path.read_text())
    modules = experiment["modules"]
    tuned = modules.pop("sft")
    last = {name: modules.pop(name) for name in ("evaluate", "publish")}
    modules |= {name: {"stage": "sft", **copy.deepcopy(tuned)} for name in ("sft_a", "sft_b")} | last
    modules["evaluate"]["overrides"]["models"] = {"sft_a": "sft_a", "avg": {"mean": ["sft_a", "sft_b"]}}
    modules["publish"]["overrides"] = {"model": "avg"}
    path.write_text(yaml.safe_dump(experiment, sort_keys=False))
    return configs


def loaded(configs: Path, models: object = None, **keys: object) -> Experiment:
    """The experiment with other models of its evaluation, or keys of a module such as ``sft_b``."""
    path = configs / "experiments" / "tiny.yaml"
    experiment = yaml.safe_load(path.read_text())
    if models is not None:
        experiment["modules"]["evaluate"]["overrides"]["models"] = models
    for module, overrides in keys.items():
        own = experiment["modules"][module].setdefault("overrides", {})
        for section, values in dict(overrides).items():  # type: ignore[call-overload]
            own[section] = {**own.get(section, {}), **values} if isinstance(values, dict) else values
    path.write_text(yaml.safe_dump(experiment, sort_keys=False))
    return load_experiment("tiny", configs)


def refusal(configs: Path, models: object = None, **keys: object) -> str:
    with pytest.raises(ConfigError) as refused:
        loaded(configs, models, **keys)
    return str(refused.value)


def test_a_mean_is_one_of_the_models_and_takes_all_alike_unless_told(configs: Path) -> None:
    config = loaded(configs).modules["evaluate"].config
    assert config["models"] == ["sft_a", "avg"]
    assert means_of(config) == {"avg": Mean(("sft_a", "sft_b"), (0.5, 0.5))}
    weighed = loaded(configs, {"avg": {"mean": ["sft_a", "sft_b"], "weights": [0.25, 0.75]}})
    assert means_of(weighed.modules["evaluate"].config) == {"avg": Mean(("sft_a", "sft_b"), (0.25, 0.75))}


def test_of_a_stages_checkpoints_it_takes_the_last(configs: Path) -> None:
    keeps = {"checkpoint": {"keep_latest_k": 0}}
    found = loaded(configs, {"avg": {"mean": {"of": "pretrain", "last": 3}}}, pretrain=keeps)
    assert means_of(found.modules["evaluate"].config) == {"avg": Mean(("pretrain",), (1 / 3,) * 3, 3)}


def test_the_plan_makes_the_evaluation_and_the_publication_from_its_stages(configs: Path) -> None:
    plan = make_plan("tiny", configs)
    evaluate, publish = plan.stage("evaluate"), plan.stage("publish")
    assert evaluate is not None
    assert publish is not None
    assert evaluate.inputs is not None
    assert [one for one in evaluate.inputs.parents if one != "prepare"] == ["pretrain", "sft_a", "sft_b"]
    assert evaluate.run.stages["avg"] == publish.run.stages["avg"] == plan.folder / "avg"


def test_a_part_of_the_chain_has_the_stages_of_its_means(configs: Path) -> None:
    path = configs / "experiments" / "tiny.yaml"
    experiment = yaml.safe_load(path.read_text())
    experiment["modules"]["evaluate"]["overrides"]["models"] = ["avg"]
    experiment["modules"]["evaluate"]["overrides"]["means"] = {"avg": {"mean": ["sft_a", "sft_b"]}}
    path.write_text(yaml.safe_dump(experiment, sort_keys=False))
    plan = make_plan("tiny", configs, overrides=["only=[evaluate]"])
    assert [stage.stage for stage in plan.stages] == ["prepare", "pretrain", "sft_a", "sft_b", "evaluate"]


MEAN = ["sft_a", "sft_b"]


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ({"avg": {"mean": ["sft_a"]}}, r"means.avg: found \['sft_a'\].*two stages or more"),
        ({"avg": {"mean": ["sft_a", "sft_a"]}}, "means.avg: found 'sft_a' twice"),
        ({"avg": {"mean": ["sft_a", "sft_c"]}}, "'sft_c' is no stage that trains.*pretrain or sft_a or sft_b"),
        ({"avg": {"mean": ["sft_a", "evaluate"]}}, "'evaluate' is no stage that trains"),
        ({"avg": {"mean": MEAN, "weights": [0.5]}}, r"found weights \[0.5\].*2 numbers from 0 that sum to 1"),
        ({"avg": {"mean": MEAN, "weights": [0.5, 0.6]}}, "sum to 1"),
        ({"avg": {"mean": MEAN, "weights": [1.5, -0.5]}}, "sum to 1"),
        ({"avg": {"means": MEAN}}, r"found {'means': .*{mean: \[sft_a, sft_b\]"),
        ({"avg": 3}, "means.avg: found 3.*a model's folder, or {mean"),
        ({"sft_a": {"mean": MEAN}}, "the name means something else"),
        ({"scored": {"mean": MEAN}}, "the name means something else"),
        ({"prefer": {"mean": MEAN}}, "the name means something else"),
        # Its folder in the run is removed before it is made anew.
        ({"..": {"mean": MEAN}}, r"found '\.\.'.*letters \(a to z\), digits"),
        ({"a/b": {"mean": MEAN}}, "found 'a/b'.*letters"),
        (
            {"avg": {"mean": MEAN}, "other": "./elsewhere"},
            "other: found './elsewhere'.*can't stand beside a mean",
        ),
        ({"avg": {"mean": MEAN}, "a": "sft_a"}, "models.a: is another name for the stage sft_a"),
        ({"avg": {"mean": {"of": "pretrain", "last": 1}}}, "2 or more checkpoints"),
        ({"avg": {"mean": {"of": "pretrain"}}}, "2 or more checkpoints"),
        ({"avg": {"mean": {"of": "pretrain", "last": 2}, "weights": [0.5, 0.5]}}, "checkpoints of a stage count alike"),
        ({"avg": {"mean": {"of": "pretrain", "last": 3}}}, "found the last 3, and pretrain keeps 2 checkpoints"),
        ({"avg": {"mean": ["avg", "sft_a"]}}, "'avg' is no stage that trains"),
        # A mean has a folder of its name.
        ({"../avg": {"mean": MEAN}}, r"evaluate.models: found '../avg'.*at most 40 letters"),
        ({"a.b": {"mean": MEAN}}, "evaluate.models: found 'a.b'"),
        ({"scored": {"mean": MEAN}}, "means.scored: the name means something else"),
        ({"SFT-A": {"mean": MEAN}}, "means.SFT-A: the name means something else"),
        # Stages stand under their own names, beside a mean or not.
        ({"a": "sft_a"}, "models.a: is another name for the stage sft_a"),
        ({"sft_a": "sft_a", "other": "./elsewhere"}, "other: found './elsewhere'.*beside a mean or a stage"),
    ],
)
def test_what_is_no_mean_is_refused(configs: Path, models: object, said: str) -> None:
    text = refusal(configs, models)
    assert re.search(said, text, re.DOTALL), text
    assert "tiny.yaml:" in text


def test_stages_under_their_own_names_need_no_mean_beside_them(configs: Path) -> None:
    both = {"sft_a": "sft_a", "sft_b": "sft_b"}
    assert loaded(configs, both, publish={"model": "sft_b"}).modules["evaluate"].config["models"] == list(both)


def test_null_leaves_a_model_out(configs: Path) -> None:
    found = loaded(configs, {"avg": {"mean": ["sft_a", "sft_b"]}, "sft_a": "sft_a", "sft_b": None})
    assert found.modules["evaluate"].config["models"] == ["avg", "sft_a"]
    path = configs / "experiments" / "tiny.yaml"
    settings = ["evaluate.models.avg=null", "publish.model=sft_a"]
    assert load_experiment(str(path), configs, parse_settings(settings)).modules["evaluate"].config["models"] == [
        "sft_a"
    ]
    hint = "evaluate.models.sft_b: null leaves the model out"
    assert hint in refusal(configs, {"sft_b": "gone", "avg": {"mean": ["sft_a", "sft_b"]}})


def test_a_model_of_a_mean_isnt_scored_with_it(configs: Path) -> None:
    text = refusal(configs, {"avg": {"mean": MEAN}}, publish={"model": "sft_a"})
    assert "publish.model: found 'sft_a', and evaluate scores avg" in text


def test_more_checkpoints_than_a_stage_saves_are_refused(configs: Path) -> None:
    keeps = {"checkpoint": {"keep_latest_k": 0}}
    text = refusal(configs, {"avg": {"mean": {"of": "pretrain", "last": 4}}}, pretrain=keeps)
    assert "found the last 4, and pretrain saves 3 checkpoints" in text
    assert "set pretrain.checkpoint.interval: 3" in text


def test_a_mean_has_one_recipe(configs: Path) -> None:
    text = refusal(configs, evaluate={"means": {"avg": {"mean": {"of": "sft_a", "last": 2}}}})
    assert re.search(r"tiny.yaml:\d+: evaluate.models.avg: the model is described here and in means", text)


def test_other_tokenizers_are_found_where_nothing_is_evaluated(configs: Path) -> None:
    path = configs / "experiments" / "tiny.yaml"
    experiment = yaml.safe_load(path.read_text())
    modules = experiment["modules"]
    (configs.parent / "other.txt").write_text("another text, of other words\n" * 400)
    (configs / "data" / "other.yaml").write_text(f"kind: text\npath: {configs.parent}/other.txt\n")
    modules["other"] = {"stage": "pretrain", **copy.deepcopy(modules["pretrain"]), "data": "other.yaml"}
    modules["last"] = {**copy.deepcopy(modules["sft_a"]), "base": {"mean": ["pretrain", "other"]}}
    experiment["only"] = ["last"]
    path.write_text(yaml.safe_dump(experiment, sort_keys=False))
    with pytest.raises(ConfigError, match=r"last.base: pretrain and other are unlike: their tokenizers are"):
        make_plan("tiny", configs)


def test_unlike_models_are_refused(configs: Path) -> None:
    text = refusal(configs, sft_b={"lora": {"rank": 4}})
    assert "sft_a and sft_b are unlike: one trains adapters (lora.rank), the other whole weights" in text
    assert "tiny.yaml:" in text


def test_a_published_model_that_is_neither_trained_nor_a_mean_is_refused(configs: Path) -> None:
    text = refusal(configs, publish={"model": "agv"})
    assert "found 'agv', which no module of this experiment trains" in text
    assert "avg" in text


def test_gguf_files_of_a_mean_are_those_of_its_stages_family(configs: Path) -> None:
    path = configs / "experiments" / "tiny.yaml"
    experiment = yaml.safe_load(path.read_text())
    experiment["modules"]["pretrain"]["model"] = {"name": "mod", "flavor": "debugmodel"}
    path.write_text(yaml.safe_dump(experiment, sort_keys=False))
    assert "no GGUF file was proved of the model family mod" in refusal(configs, publish={"gguf": ["f16"]})


def with_base(configs: Path, base: object) -> None:
    """A third fine-tuning, which starts from ``base``."""
    path = configs / "experiments" / "tiny.yaml"
    experiment = yaml.safe_load(path.read_text())
    modules = experiment["modules"]
    last = {name: modules.pop(name) for name in ("evaluate", "publish")}
    modules |= {"sft_c": {**copy.deepcopy(modules["sft_b"]), "base": base}} | last
    path.write_text(yaml.safe_dump(experiment, sort_keys=False))


def test_a_training_may_start_from_a_mean_and_is_made_after_its_stages(configs: Path) -> None:
    with_base(configs, {"mean": ["sft_a", "sft_b"], "weights": [0.25, 0.75]})
    plan = make_plan("tiny", configs)
    stage = plan.stage("sft_c")
    assert stage is not None
    assert stage.inputs is not None
    assert stage.inputs.parents == ["pretrain", "sft_a", "sft_b"]
    assert base_mean(stage.run.config) == Mean(("sft_a", "sft_b"), (0.25, 0.75))
    rows = {row.key: row.here for row in plan.inheritance(stage)}
    assert rows["weights"] == "the mean of sft_a (0.25) and sft_b (0.75)"
    console = Console(width=200)
    with console.capture() as captured:
        console.print(plan_table(plan))
    assert "sft_c ← sft_a, sft_b " in captured.get()
    only = make_plan("tiny", configs, overrides=["only=[sft_c]"])
    assert [one.stage for one in only.stages] == ["prepare", "pretrain", "sft_a", "sft_b", "sft_c"]


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ({"mean": ["sft_a", "evaluate"]}, "sft_c.base: found 'evaluate', which is no module before this one"),
        ({"mean": ["sft_a", "sft_c"]}, "sft_c.base: found 'sft_c', which is no module before this one"),
        ({"mean": []}, "sft_c.base: found \\[\\].*two stages or more"),
        ({"mean": "sft_a"}, "sft_c.base: found 'sft_a'.*two stages or more"),
        ({"mean": {"of": "sft_c"}}, "sft_c.base: found {'of': 'sft_c'}.*2 or more checkpoints"),
        ({"weights": [0.5, 0.5]}, "sft_c.base: found {'weights'"),
        ({}, "sft_c.base: found {}"),
        ({"mean": ["sft_a"]}, "sft_c.base: found \\['sft_a'\\].*two stages or more"),
        ({"mean": ["sft_a", "sft_b"], "weights": [1, 1]}, "sft_c.base: found weights"),
        ({"mean": {"of": "pretrain", "last": 3}}, "found the last 3, and pretrain keeps 2 checkpoints"),
    ],
)
def test_a_base_that_is_no_mean_is_refused(configs: Path, base: object, said: str) -> None:
    with_base(configs, base)
    text = refusal(configs)
    assert re.search(said, text, re.DOTALL), text
    assert "tiny.yaml:" in text


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ({"mean": ["a", "b"]}, "the mean of a and b"),
        ({"mean": ["a", "b"], "weights": [0.25, 0.75]}, "the mean of a (0.25) and b (0.75)"),
        ({"mean": {"of": "pretrain", "last": 5}}, "the mean of the last 5 checkpoints of pretrain"),
        ({"best": {"of": "sft", "by": "dev/kind/acc"}}, "the best checkpoint of sft by dev/kind/acc"),
    ],
)
def test_a_mean_in_words(recipe: dict[str, object], told: str) -> None:
    assert str(Mean.of(recipe)) == told


def test_two_names_that_differ_in_case_alone_are_one(configs: Path) -> None:
    mean = {"mean": ["sft_a", "sft_b"]}
    text = refusal(configs, {"avg": mean, "Avg": mean})
    assert "evaluate.means.Avg: differs from avg in case, dashes and underscores alone" in text
