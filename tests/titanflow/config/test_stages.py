"""The modules of an experiment are its stages: their kinds, names, bases and order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chain_experiment import write_chain

from titanflow.common.errors import ConfigError
from titanflow.config.experiment import Experiment, load_experiment
from titanflow.config.overrides import parse_settings
from titanflow.config.stages import named_module
from titanflow.planning.evaluation.during import during_modules

Load = Callable[..., Experiment]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Loads the chain with settings, or an experiment of these modules over the tiny one."""
    configs = write_chain(tmp_path)

    def load_chain(*settings: str, modules: str = "") -> Experiment:
        if not modules:
            return load_experiment("chain", configs, parse_settings(settings))
        (configs / "experiments" / "own.yaml").write_text(f"extends: [tiny.yaml]\nmodules:\n{modules}")
        return load_experiment("own", configs, parse_settings(settings))

    return load_chain


def test_a_stage_may_be_written_between_two_of_an_experiment_that_is_extended(load: Load) -> None:
    modules = load().modules
    assert [(one.name, one.kind) for one in modules.values()] == [
        ("pretrain", "pretrain"),
        ("mid", "pretrain"),
        ("sft", "sft"),
        ("sft_b", "sft"),
        ("evaluate", "evaluate"),
        ("publish", "publish"),
    ]
    assert {name: one.base and one.base.stage for name, one in modules.items() if one.trains} == {
        "pretrain": None,
        "mid": "pretrain",
        "sft": "mid",
        "sft_b": "mid",
    }


def test_a_module_that_is_null_is_left_out_of_what_is_extended(load: Load) -> None:
    without = "  sft: null\n  evaluate: {overrides: {models: [base]}}\n  publish: {overrides: {model: pretrain}}\n"
    own = load(modules=without)
    assert [*own.modules] == ["pretrain", "evaluate", "publish"]
    assert own.path is not None
    again = own.path.with_name("again.yaml")
    again.write_text("extends: [own.yaml]\nmodules:\n  sft: {stage: sft}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"again\.yaml:3: sft\.data: fine-tuning has nothing to train on"):
        load_experiment("again", own.path.parents[1])  # It is one of its own again.
    with pytest.raises(ConfigError, match=r"modules\.mid: a module is a mapping"):
        load(modules="  mid: null\n")


def test_a_pretraining_with_a_base_takes_its_architecture(load: Load) -> None:
    mid = load().modules["mid"]
    assert mid.model_args["dim"] == 32
    assert mid.origins["model.name"] == "inherited from pretrain"
    with pytest.raises(ConfigError, match="found 64, and pretrain has 32"):
        load("mid.model.dim=64")
    with pytest.raises(ConfigError, match="a training keeps its base's tokenizer"):
        load("mid.tokenizer.vocab_size=400")


def test_adapters_may_be_pretrained_beside_a_base_alone(load: Load) -> None:
    assert load("mid.lora.rank=4").modules["mid"].config["lora"]["rank"] == 4
    with pytest.raises(ConfigError, match="LoRA trains beside a finished base, and pretrain has none"):
        load("pretrain.lora.rank=4")


def test_training_stages_run_as_written_and_others_behind_them(load: Load) -> None:
    modules = (
        "  scores: {stage: evaluate, config: evaluate.yaml}\n"
        "  more: {stage: pretrain, base: pretrain, overrides: {training: {seq_len: 48}}}\n"
        "  evaluate: {stage: evaluate}\n"
    )
    settings = ["scores.models=[more]"]
    assert list(load(*settings, modules=modules).modules) == [
        *("pretrain", "sft", "more", "scores", "evaluate", "publish"),
    ]
    settings += ["modules.evaluate=null", "publish.model=more"]
    assert list(load(*settings, modules=modules).modules) == ["pretrain", "sft", "more", "scores", "publish"]


def test_what_starts_from_several_models_has_no_one_base(load: Load) -> None:
    bases = {
        "mid": (),
        # One that goes on from another fine-tuning has the same beginning.
        "mid ": ("sft_b.base=sft",),
        "": ("sft_b.base=pretrain",),
    }
    for name, settings in bases.items():
        found = named_module("base", load(*settings).modules)
        assert (found.name if found is not None else "") == name.strip()


@pytest.mark.parametrize(
    ("modules", "told"),
    [
        ("  mid: {base: pretrain}\n", r"own.yaml:3: modules.mid: the module's name says no kind.*a key `stage`"),
        ("  sfd: {}\n", "did you mean sft?"),
        ("  mid: {stage: sftt}\n", r"own.yaml:3: modules.mid.stage: found 'sftt'.*did you mean sft\?"),
        ("  prepare: {stage: pretrain}\n", "modules.prepare: the name means something else"),
        ("  base: {stage: pretrain}\n", "modules.base: the name means something else"),
        ("  nightly: {stage: pretrain}\n", "modules.nightly: the name means something else"),
        ("  sft: {stage: pretrain}\n", "modules.sft: the name means something else"),
        ("  a.b: {stage: pretrain}\n", r"modules.a\.b: found 'a\.b'.*digits, dashes and underscores"),
        ("  ../a: {stage: pretrain}\n", r"modules.*found '\.\./a'"),
        ("  'ü b': {stage: pretrain}\n", "found 'ü b'"),
        (f"  {'a' * 60}: {{stage: pretrain}}\n", "at most 40 letters"),
        ("  evaluate: {base: sft}\n", r"modules.evaluate.base: found 'sft'.*nothing is trained here"),
        ("  sft: {base: later}\n  later: {stage: sft}\n", r"sft.base: found 'later'.*before this one \(pretrain\)"),
        ("  a: {stage: sft, base: b}\n  b: {stage: sft, base: a}\n", r"a.base: found 'b'"),
        ("  a: {stage: sft, base: a}\n", r"a.base: found 'a'"),
        ("  a: {stage: sft, base: evaluate}\n", r"a.base: found 'evaluate'"),
        # Among models it means what fine-tunings start from; no module may have the name.
        ("  a: {stage: sft, base: base}\n", r"a.base: found 'base'"),
        ("  a: {stage: sft, base: ''}\n", r"own.yaml:3: a.base: found ''"),
        ("  a: {stage: sft, base: [sft]}\n", r"own.yaml:3: modules.a.base: found \['sft'\] \(list\)"),
        ("  a: {stage: [x]}\n", r"own.yaml:3: modules.a.stage: found \['x'\] \(list\)"),
        ("  a: {}\n", r"own.yaml: modules.a: the module's name says no kind"),
        ("  evaluate: {base: {mean: [sft, pretrain]}}\n", r"modules.evaluate.base: found {'mean'.*nothing is trained"),
        (
            "  sft: {overrides: {base: pretrain}}\n",
            r"own.yaml:3: modules.sft.overrides.base: .*expected: modules.sft.base",
        ),
        (
            "  sft: {overrides: {base_revision: v1}}\n",
            r"modules.sft.overrides.base_revision: .*: modules.sft.base_revision",
        ),
        ("  publish: {base_revision: v1}\n", r"modules.publish.base_revision: found 'v1'.*nothing is trained here"),
        ("  sft: {overrides: {sft: {base: pretrain}}}\n", r"sft.sft: unknown key.*`base:` stands beside `config:`"),
        ("  sft: {overrides: {sft: {change_rope: true}}}\n", r"`sft.change_rope` is `sft.model.change_rope` here"),
        ("  sft: {overrides: {sft: {base_revision: v1}}}\n", r"`base_revision:` stands beside `base:`"),
        (
            "  sft_b: {stage: sft}\n  sft-b: {stage: sft}\n",
            "modules.sft-b: differs from sft_b in case, dashes and underscores alone",
        ),
        ("  SFT: {stage: sft}\n", "modules.SFT: differs from sft in case"),
        ("  pretrain_during: {stage: sft}\n", "modules.pretrain_during: the name means something else"),
        ("  Prepare: {stage: sft}\n", "modules.Prepare: the name means something else"),
        ("  rehearsal: {stage: pretrain}\n", "modules.rehearsal: the name means something else"),
        ("  scored: {stage: pretrain}\n", "modules.scored: the name means something else"),
        ("  Evaluate: {stage: sft}\n", "own.yaml:3: modules.Evaluate: the name means something else"),
        ("  a: {stage: sft, base: Pretrain}\n", r"a.base: found 'Pretrain'.*did you mean pretrain\?"),
    ],
)
def test_a_mistake_in_a_name_a_kind_or_a_base_is_told(load: Load, modules: str, told: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){told}") as refused:
        load(modules=modules)
    assert len(refused.value.problems) == 1


def test_a_base_that_isnt_found_is_the_one_mistake_of_its_stage(load: Load) -> None:
    with pytest.raises(ConfigError) as refused:
        load(modules="  pretrain: {base: sft}\n")
    assert [one.key for one in refused.value.problems] == ["pretrain.base"]


def test_a_setting_gives_a_base_as_a_file_does_and_the_later_one_counts(load: Load) -> None:
    def base(*settings: str) -> Any:
        return load(*settings).modules["sft_b"].config["base"]

    assert base("sft_b.base=sft") == base("sft_b.base=mid", "sft_b.base=sft") == "sft"
    assert base("sft_b.base=sft", "sft_b.base=mid") == "mid"
    assert base("sft_b.base={mean: [mid, sft]}") == base("sft_b.base.mean=[mid, sft]") == {"mean": ["mid", "sft"]}


def test_null_takes_a_mean_away_as_any_base(load: Load) -> None:
    mean = "sft_b.base={mean: [mid, sft]}"
    assert load(mean, "sft_b.base=null").modules["sft_b"].base == load("sft_b.base=pretrain").modules["sft_b"].base


def test_a_name_that_is_written_twice_is_one_mistake(load: Load) -> None:
    with pytest.raises(ConfigError, match=r"own.yaml:4.*mid"):
        load(modules="  mid: {stage: pretrain, base: pretrain}\n  mid: {stage: sft}\n")


def names(experiment: Experiment) -> list[Any]:
    return list(experiment.modules)


def test_only_some_stages_with_what_they_are_made_from(load: Load) -> None:
    assert names(load("only=[sft_b]")) == ["pretrain", "mid", "sft_b"]
    assert names(load("only=[pretrain]")) == ["pretrain"]
    assert names(load("only=[evaluate]", "evaluate.models=[sft]")) == ["pretrain", "mid", "sft", "evaluate"]
    assert names(load("only=[publish]", "evaluate.models=[sft_b]")) == [
        *("pretrain", "mid", "sft_b", "evaluate", "publish"),
    ]
    # Its evaluate module says how checkpoints are scored, also where no evaluation is made.
    scored = load("only=[pretrain]", "pretrain.during.every=2", "pretrain.checkpoint.interval=2")
    assert names(scored) == ["pretrain"]
    assert [one.name for one in during_modules(scored)] == ["pretrain.during"]
    with pytest.raises(ConfigError, match=r"(?s)only: no module is sft_c.*did you mean sft_b\?"):
        load("only=[sft_c]")


def test_a_module_that_is_set_to_null_is_left_out(load: Load) -> None:
    left = load("modules.sft_b=null", "evaluate.models=[sft]", "publish.model=sft")
    assert names(left) == ["pretrain", "mid", "sft", "evaluate", "publish"]
    # Another stage of its kind takes no place of it.
    with pytest.raises(ConfigError, match=r"publish.model: found 'sft', which no module of this experiment trains"):
        load("sft=null", "publish.model=sft")
    with pytest.raises(ConfigError, match="sft=null` leaves the module out"):
        load("sft=3")
