from pathlib import Path

import pytest
from finished_stage import write_outside_base

from titanflow.architectures.families.registry import OWN_FAMILIES

SFT = """
    exp_name: later
    modules:
      sft:
        config: sft.yaml
        base: {base}
    """
# torchtitan would load each of these without a word: no shape differs, or more is there than is asked for.
UNPROTECTED = [("n_layers", 1), ("n_heads", 8), ("norm_eps", 1e-6), ("rope_theta", 10000)]


@pytest.fixture(params=["planned", "finished"])
def with_base(request, write, tmp_path: Path):
    """An experiment whose base is a module of it, and one whose base is another run's folder; two layers both."""
    if request.param == "planned":
        return write()
    folder = write_outside_base(tmp_path / "before", n_layers=2, dim=64)
    return write(experiments__exp=SFT.format(base=folder))


@pytest.mark.parametrize(("key", "value"), [*UNPROTECTED, ("rope_scaling_args.scaling_factor", 2.0)])
def test_what_shapes_cant_protect_is_refused(with_base: Path, mistakes, key: str, value: object) -> None:
    message = mistakes(with_base, f"sft.model.{key}={value}")
    assert f"--set sft.model.{key}={value}: sft.model.{key}: found {value}, and pretrain has" in message
    assert "leave it out here, or change pretrain.model." in message


def test_tied_embeddings_are_refused(write, mistakes, tmp_path: Path) -> None:
    folder = write_outside_base(tmp_path / "before", model="qwen3")
    path = write(experiments__exp=SFT.format(base=folder))
    tied = not load_args(folder)["enable_weight_tying"]
    assert f"found {tied}, and pretrain has {not tied}" in mistakes(path, f"sft.model.enable_weight_tying={tied}")


def load_args(folder: Path) -> dict:
    from titanflow.architectures.base import BaseArchitecture

    return BaseArchitecture.finished(folder).model_args


def test_another_flavor_or_family_is_refused(with_base: Path, mistakes) -> None:
    assert "found '8B', and pretrain has 'debugmodel'" in mistakes(with_base, "sft.model.flavor=8B")
    assert "found 'qwen3', and pretrain has 'llama3'" in mistakes(with_base, "sft.model.name=qwen3")


def test_the_architecture_comes_from_the_base(with_base: Path, load) -> None:
    sft = load(with_base).modules["sft"]
    assert (sft.config["model"]["name"], sft.config["model"]["flavor"]) == ("llama3", "debugmodel")
    assert (sft.model_args["n_layers"], sft.model_args["dim"]) == (2, 64)
    assert sft.model_overrides == {"n_layers": 2, "dim": 64}
    assert sft.origins["model.name"] == "inherited from pretrain"


def test_the_attention_backend_is_the_stages_own(with_base: Path, load, mistakes) -> None:
    sft = load(with_base, "sft.model.attn_type=flex", "sft.model.attn_mask_type=block_causal").modules["sft"]
    assert (sft.model_args["attn_type"], sft.model_args["attn_mask_type"]) == ("flex", "block_causal")
    assert sft.model_overrides["attn_type"] == "flex"
    assert sft.base is not None
    assert sft.base.model_args["attn_type"] == "sdpa"
    assert "found 3" in mistakes(with_base, "sft.model.attn_type=3")


def test_rows_are_longer_than_the_bases_only_with_the_flag(with_base: Path, load, mistakes) -> None:
    message = mistakes(with_base, "sft.training.seq_len=66")
    assert "found 66, and pretrain was trained with 64" in message
    assert "set sft.training.allow_longer_context: true" in message
    sft = load(with_base, "sft.training.seq_len=66", "sft.training.allow_longer_context=true").modules["sft"]
    assert sft.config["training"]["seq_len"] == 66


def test_positions_follow_the_rows(with_base: Path, load, mistakes) -> None:
    load(with_base, "sft.training.seq_len=32", "sft.model.max_seq_len=32")
    assert "sft.model.max_seq_len: found 31" in mistakes(
        with_base, "sft.training.seq_len=32", "sft.model.max_seq_len=31"
    )


@pytest.mark.parametrize("setting", ["dropout=0.1", "n_layer=3"])
def test_an_argument_that_the_family_lacks_is_unknown(with_base: Path, mistakes, setting: str) -> None:
    key = setting.partition("=")[0]
    assert f"sft.model.{key}: unknown key" in mistakes(with_base, f"sft.model.{setting}")


OWNERS = "families that have it: "


@pytest.mark.parametrize(
    ("settings", "found", "hint"),
    [
        (["model.dropout=0.1"], "pretrain.model.dropout: unknown key", f"{OWNERS}dtf, mod, qwen2, tdtf"),
        (["model.n_layer=3"], "pretrain.model.n_layer: unknown key", "did you mean `model.n_layers`?"),
        (["model.nam=x"], "pretrain.model.nam: unknown key", "did you mean `model.name`?"),
        (
            ["model.flavr=x", "model.name=nosuch"],
            "pretrain.model.flavr: unknown key",
            "did you mean `pretrain.model.fl",
        ),
        (
            ["model.name=qwen3", "model.rope_scaling_args.scaling_factor=2.0"],
            "pretrain.model.rope_scaling_args: unknown key",
            f"{OWNERS}llama3, llama4",
        ),
        (["model.zzz=1"], "pretrain.model.zzz: unknown key", "fields: "),
    ],
)
def test_an_unknown_argument_names_the_families_that_have_it(
    write, mistakes, settings: list[str], found: str, hint: str
) -> None:
    message = mistakes(write(), *(f"pretrain.{setting}" for setting in settings))
    assert found in message
    assert hint in message


def test_a_value_in_place_of_a_section_of_arguments_is_told(write, mistakes) -> None:
    message = mistakes(write(), "pretrain.model.rope_scaling_args=3")
    assert "pretrain.model.rope_scaling_args: found 3\n    expected: a mapping of high_freq_factor, " in message


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("dropout", f"'TransformerModelArgs' has no field 'dropout'\n    {OWNERS}dtf, mod, qwen2, tdtf"),
        ("moe_args.num_experts", f"no field 'moe_args.num_experts'\n    {OWNERS}deepseek_v3, gpt_oss, llama4, qwen3"),
    ],
)
def test_so_does_one_of_the_overrides(write, mistakes, key: str, hint: str) -> None:
    overrides = "{model.n_layers: 2, model.dim: 64}"
    path = write()
    text = path.read_text()
    assert overrides in text
    path.write_text(text.replace(overrides, f"{{model.{key}: 1}}"))
    assert hint in mistakes(path)


def test_a_base_that_isnt_there_is_named(write, mistakes) -> None:
    message = mistakes(write(experiments__exp=SFT.format(base="/nowhere/pretrain")))
    assert "exp.yaml:5: sft.base: found '/nowhere/pretrain'" in message
    assert "expected: a training module that is written before this one (there is none), the folder" in message


OWN_FAMILY = """
    modules:
      pretrain:
        overrides:
          model: {name: mine, flavor: small, dropout: 0.1}
          experimental: {custom_import: my_family}
      sft:
        params: {model_overrides: {model.dropout: 0.3}}
        overrides: {data: {kind: chat, path: chats.jsonl}}
    """


def test_a_family_of_ones_own_comes_along(write, load, mistakes) -> None:
    path = write(experiments__exp=OWN_FAMILY)
    sft = load(path).modules["sft"]
    assert sft.config["experimental"]["custom_import"] == "my_family"
    assert sft.origins["experimental.custom_import"] == "inherited from pretrain"
    assert (sft.config["model"]["name"], sft.config["model"]["flavor"]) == ("mine", "small")
    assert load(path).modules["pretrain"].model_overrides == {"dropout": 0.1}
    assert sft.model_overrides == {"dropout": 0.3}
    message = mistakes(path, "pretrain.model.width=8", "sft.model.width=9")
    assert "sft.model.width: found 9, and pretrain has 8" in message


@pytest.mark.parametrize("key", ["name=lama3", "flavor=debugmodl"])
def test_a_misspelt_model_is_one_mistake(write, mistakes, key: str) -> None:
    """Its arguments, and an sft's model, can't be judged then."""
    path = write(models__tiny="model: {name: llama3, flavor: debugmodel, dim: 64, rope_scaling_args: {}}")
    message = mistakes(path, f"pretrain.model.{key}", "sft.model.n_layers=2")
    assert message.count("expected:") == message.count("configs") + 1 == 1
    assert "sft" not in message
    assert f"did you mean {'llama3' if 'name' in key else 'debugmodel'}?" in message


def test_a_family_that_the_snapshot_lacks_is_told_how_to_get_into_it(write, mistakes, monkeypatch) -> None:
    monkeypatch.setitem(OWN_FAMILIES, "mine", "titan.models.mine")
    message = mistakes(write(models__tiny="model: {name: mine, flavor: small, dim: 64}"))
    assert message.endswith("the snapshot lacks it: python -m titan.models.snapshot")


def test_rope_is_another_than_the_bases_only_with_the_flag(with_base: Path, load, mistakes) -> None:
    message = mistakes(with_base, "sft.model.rope_theta=300000.0")
    assert "sft.model.rope_theta: found 300000.0, and pretrain has " in message
    assert "for longer rows model.change_rope: true lets it differ" in message
    longer = ("sft.training.seq_len=128", "sft.model.rope_theta=400000.0", "sft.model.change_rope=true")
    scaled = "sft.model.rope_scaling_args.scaling_factor=16.0"
    sft = load(with_base, *longer, scaled).modules["sft"]
    assert (sft.model_args["rope_theta"], sft.model_args["rope_scaling_args"]["scaling_factor"]) == (400000.0, 16.0)
    assert sft.base is not None
    assert sft.base.model_args["rope_theta"] != 400000.0
    assert "sft.model.n_layers: found 3" in mistakes(with_base, *longer, "sft.model.n_layers=3")


SCALED = ["sft.model.change_rope=true"]
RETHETA = ["sft.model.change_rope=true", "sft.model.rope_theta=2e4"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["sft.model.change_rope=true"], "sft.model.change_rope: found true, and each of RoPE's arguments is that of"),
        (["sft.model.change_rope=true", "sft.model.rope_factor=4"], "sft.model.rope_factor: unknown key"),
        (
            ["sft.model.change_rope=true", "sft.model.rope_theta=0"],
            "sft.model.rope_theta: found 0: no position could be",
        ),
        ([*RETHETA, "sft.model.rope_scaling_args.scaling_factor=-1.0"], "scaling_factor: found -1.0: no position"),
        ([*SCALED, "sft.model.rope_scaling_args.scaling_factor=0.5"], "found 0.5: it would leave fewer positions"),
        ([*SCALED, "sft.model.rope_scaling_args.low_freq_factor=0"], "rope_scaling_args.low_freq_factor: found 0\n"),
        ([*SCALED, "sft.model.rope_scaling_args.high_freq_factor=0"], "rope_scaling_args.high_freq_factor: found 0\n"),
        (
            [*SCALED, "sft.model.rope_scaling_args.high_freq_factor=0.5"],
            "low_freq_factor is 1.0 and rope_scaling_args.h",
        ),
        ([*SCALED, "sft.model.rope_scaling_args.original_max_position_embeddings=0"], "position_embeddings: found 0\n"),
        ([*RETHETA, "sft.lora.rank=2", "sft.lora.peft_adapter=true"], "the adapter's base has another RoPE"),
    ],
)
def test_a_change_of_rope_that_cant_be_is_refused(with_base: Path, mistakes, settings, expected) -> None:
    assert expected in mistakes(with_base, *settings)


def test_a_stage_without_a_base_has_no_rope_to_change(write, mistakes) -> None:
    message = mistakes(write(), "pretrain.model.change_rope=true")
    assert "pretrain.model.change_rope: found true, and the stage has no base whose RoPE could change" in message
