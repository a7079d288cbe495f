import pytest
import torch
from tiny_adapters import finished_base, finished_lora
from tiny_exports import model_at, sensitised, tiny_args, write_byte_tokenizer

from titan.export.export import export_checkpoint
from titan.models.lora import is_adapter, merged_state
from titan.models.registry import train_spec
from titan.weights.adapters import TrainedState, load_weights, merge_adapter
from titan.weights.native import load_native
from titan.weights.stage_model import Adapter, Weights, named_weights
from titanflow.common.errors import ConfigError
from titanflow.config.keys.training import Lora
from titanflow.runs.contract import StageRun
from titanflow.runs.manifest import checkpoint_digest

pytestmark = pytest.mark.slow

FIRST = {"rank": 2, "alpha": 3.0, "modules_to_save": ["norm"]}
SECOND = {"rank": 4, "alpha": 8.0, "rslora": True, "target_modules": ["wq", "w1"]}
FAMILY = "llama3"


def step(folder):
    return folder / "checkpoint" / "step-4"


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """A base, a LoRA stage on it, and one on that: their folders."""
    folder, args = tmp_path_factory.mktemp("stages"), tiny_args(FAMILY)
    base = finished_base(folder / "base", FAMILY, args)
    first = finished_lora(folder / "first", base, FAMILY, args, FIRST)
    return base, first, finished_lora(folder / "second", first, FAMILY, args, SECOND)


def by_hand(weight, state, name, factor):
    return weight + factor * state[f"{name}.lora_b"] @ state[f"{name}.lora_a"]


def stored(folder):
    from titan.weights.stage_model import load_quietly
    from titanflow.runs.checkpoints import stored_model

    state = {key: torch.empty(size) for key, size in stored_model(step(folder)).items()}
    load_quietly(state, step(folder))
    return state


def test_a_lora_checkpoint_stands_for_its_base_and_all_adapters_since(stages):
    base, first, second = stages
    assert named_weights(step(base)) == Weights(step(base))
    assert named_weights(step(second)) == Weights(
        step(base), (Adapter(step(first), Lora(**FIRST)), Adapter(step(second), Lora(**SECOND)))
    )


def test_a_checkpoint_outside_of_a_stage_is_a_whole_model(tmp_path):
    assert named_weights(tmp_path / "step-3") == Weights(tmp_path / "step-3")


def test_the_models_weights_are_the_bases_with_every_adapter_merged(stages):
    base, first, second = stages
    model = train_spec(FAMILY).model_cls(tiny_args(FAMILY))
    load_weights([model], named_weights(step(second)), None)
    a, b, found, plain = stored(first), stored(second), model.state_dict(), stored(base)
    name = "layers.1.attention.wq"
    expected = by_hand(by_hand(plain[f"{name}.weight"], a, name, 3.0 / 2), b, name, 8.0 / 2)
    torch.testing.assert_close(found[f"{name}.weight"], expected)
    name = "layers.1.feed_forward.w2"
    torch.testing.assert_close(found[f"{name}.weight"], by_hand(plain[f"{name}.weight"], a, name, 3.0 / 2))
    assert torch.equal(found["norm.weight"], a["norm.weight"])
    assert not torch.equal(found["norm.weight"], plain["norm.weight"])
    assert torch.equal(found["output.weight"], plain["output.weight"])


def test_the_native_model_has_the_last_adapter_beside_the_merged_rest(stages):
    _, first, second = stages
    args = tiny_args(FAMILY)
    native, below = (load_native(model_at(step(folder), FAMILY, args)) for folder in (second, first))
    assert {key for key in native.state_dict() if is_adapter(key)} == set(stored(second))
    assert torch.equal(native.layers["0"].attention.wq.weight, merged_state(below)["layers.0.attention.wq.weight"])
    whole = train_spec(FAMILY).model_cls(args)
    load_weights([whole], named_weights(step(second)), None)
    tokens = torch.arange(50)[None]
    torch.testing.assert_close(native(tokens), whole(tokens), rtol=1e-4, atol=1e-4)


def test_an_adapter_alone_is_saved(stages):
    native = load_native(model_at(step(stages[1]), FAMILY, tiny_args(FAMILY)))
    assert set(TrainedState([native]).state_dict()) == set(stored(stages[1]))


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda state: state.pop("layers.0.attention.wq.weight"), "layers.0.attention.wq.lora_a"),
        (lambda state: state.update({"norm.weight": torch.ones(63)}), "norm.weight"),
        (lambda state: state.update({"layers.1.attention.wo.weight": torch.ones(64, 63)}), "attention.wo.lora_a"),
    ],
)
def test_adapters_of_another_model_are_refused(stages, edit, named):
    state = dict(sensitised(FAMILY, tiny_args(FAMILY)).state_dict())
    edit(state)
    with pytest.raises(ConfigError, match=rf"no adapters of rank 2 for this model: .*{named}"):
        merge_adapter(state, Adapter(step(stages[1]), Lora(**FIRST)))


def test_adapters_of_another_rank_are_refused(stages):
    state = dict(sensitised(FAMILY, tiny_args(FAMILY)).state_dict())
    with pytest.raises(ConfigError, match="no adapters of rank 8"):
        merge_adapter(state, Adapter(step(stages[1]), Lora(**{**FIRST, "rank": 8})))
    with pytest.raises(ConfigError, match="no adapters of rank 2 for this model: it has none"):
        merge_adapter(state, Adapter(step(stages[0]), Lora(**FIRST)))


def test_a_base_of_another_model_is_refused(stages):
    model = train_spec(FAMILY).model_cls(tiny_args(FAMILY, n_layers=2))
    with pytest.raises(ConfigError, match=r"has layers\.2\..*, which the model lacks"):
        load_weights([model], named_weights(step(stages[1])), None)


def test_a_base_that_is_gone_or_was_trained_again_is_refused(stages, tmp_path):
    base, first, _ = stages
    run = StageRun.read(first / "run.yaml")
    moved = run.model_copy(update={"folder": tmp_path / "sft"})

    def write(**fields):
        moved.model_copy(update=fields).write()

    write(base_digest=checkpoint_digest(step(base)))
    assert named_weights(step(moved.folder)).whole == step(base)
    write(base_digest="0" * 64)
    with pytest.raises(ConfigError, match=r"isn't what .*sft was trained on: its files have changed"):
        named_weights(step(moved.folder))
    write(base=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"the base of .*sft isn't there: .*nowhere"):
        named_weights(step(moved.folder))


@pytest.mark.parametrize(("family", "tied"), [("llama3", False), ("qwen3", False), ("qwen3", True), ("qwen2", True)])
def test_a_base_may_be_a_folder_that_transformers_loads(tmp_path, family, tied):
    args = tiny_args(family, **({} if family == "llama3" else {"enable_weight_tying": tied}))
    base = finished_base(tmp_path / "base", family, args, tokenizer=write_byte_tokenizer(tmp_path / "tokenizer"))
    export_checkpoint(base, base / "export")
    stage, other = (
        finished_lora(tmp_path / f"on-{one.name}", one, family, args, FIRST) for one in (base / "export", base)
    )
    assert named_weights(step(stage)).whole == base / "export"
    found, expected = (load_native(model_at(step(folder), family, args)).state_dict() for folder in (stage, other))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)

    spec = train_spec(family)
    models = [spec.model_cls(args) for _ in (stage, other)]
    for model, folder in zip(models, (stage, other), strict=True):
        load_weights([model], named_weights(step(folder)), spec.state_dict_adapter(args, None))
    states = [model.state_dict() for model in models]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[1])
