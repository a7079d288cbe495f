import pytest

WITH_EXPERTS = """
    modules:
      pretrain: {config: pretrain.yaml, model: tiny.yaml}
      sft: {config: sft.yaml}
      evaluate: {overrides: {tasks: [t], models: [base, sft]}}
      publish: {}
    """
EXPORTABLE = (
    "pretrain.model.norm_eps=1e-6",
    "pretrain.model.moe_args.score_func=sigmoid",
    "pretrain.model.moe_args.num_shared_experts=1",
)


def test_an_evaluation_of_what_cant_be_exported_is_refused_with_the_reason(write, load, mistakes) -> None:
    path, deepseek = write(experiments__exp=WITH_EXPERTS), "pretrain.model.name=deepseek_v3"
    message = mistakes(path, deepseek)
    assert "evaluate.models: found ['base', 'sft'], and base and sft can't be exported: transformers' class" in message
    assert "publish.model: found sft, and sft can't be exported" in message
    for reason in ("norm_eps is 1e-05, expected 1e-06", "moe_args.score_func is 'softmax'"):
        assert reason in message
    assert load(path, deepseek, *EXPORTABLE).modules["publish"]
    forced = mistakes(path, deepseek, *EXPORTABLE, "sft.debug.moe_force_load_balance=true")
    assert "sft can't be exported: transformers' class computes something else: debug.moe_force_load_balance" in forced
    assert "base and sft" not in forced
    assert "gpt_oss': its layers take FlexAttention's masks alone" in mistakes(path, "pretrain.model.name=gpt_oss")


def test_what_is_not_evaluated_needs_no_export(write, load) -> None:
    assert load(write(), "pretrain.model.name=deepseek_v3").modules["pretrain"]
    path = write(experiments__exp=WITH_EXPERTS.replace("publish: {}", ""))
    elsewhere = "evaluate.models={other: somewhere}"
    assert load(path, "pretrain.model.name=deepseek_v3", elsewhere).modules["evaluate"]


def test_adapters_on_layers_that_latent_attention_has_not_are_refused_in_the_plan(write, load, mistakes) -> None:
    path, deepseek = write(), ("pretrain.model.name=deepseek_v3", "sft.lora.rank=4")
    named = [*deepseek, "sft.lora.target_modules=[wq, wk]"]
    assert "lora.target_modules: found 'wk', which no linear layer is called" in mistakes(path, *named)
    assert load(path, *deepseek).modules["sft"], "unset, those that it has"
    attention = [*deepseek, "sft.lora.target_modules=[wq, wkv_a, wkv_b, wo]", "sft.lora.peft_adapter=true"]
    assert load(path, *attention).modules["sft"]
    shared = [*attention, "sft.lora.target_modules=[wo, w2]"]
    assert "lora.peft_adapter: peft takes adapters on feed_forward.w2, moe.shared" in mistakes(path, *shared)
    assert load(path, *shared, "sft.lora.peft_adapter=false").modules["sft"]


@pytest.mark.parametrize("seq_len", [32, 34, 64])
def test_rows_on_either_side_of_the_original_length_have_the_same_rope(write, load, seq_len: int) -> None:
    settings = ["pretrain.model.name=deepseek_v3", "pretrain.model.original_seq_len=32"]
    assert load(write(), *settings, f"sft.training.seq_len={seq_len}").modules["sft"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["rope_factor=0.5"], "rope_factor: found 0.5: it would leave fewer positions"),
        (["original_seq_len=0"], "original_seq_len: found 0"),
        (["beta_fast=0"], "beta_fast: found 0"),
        (["beta_slow=40"], "beta_slow: beta_slow is 40 and beta_fast 32"),
    ],
)
def test_numbers_that_yarn_cant_stretch_by_are_refused(write, mistakes, settings: list[str], expected: str) -> None:
    own = [f"pretrain.model.{setting}" for setting in settings]
    assert expected in mistakes(write(), "pretrain.model.name=deepseek_v3", *own)


def test_what_llama4s_masks_would_do_is_refused(write, load, mistakes) -> None:
    path, irope = write(), ["pretrain.model.name=llama4", "pretrain.model.flavor=debugmodel_irope"]
    assert "pretrain, sft: model.attn_type: found 'flex': torchtitan's llama4 passes two masks" in mistakes(
        path, *irope
    )
    sdpa = [*irope, "pretrain.model.attn_type=sdpa"]
    longer = [*sdpa, "pretrain.model.fixed_attn_block_size=63"]
    assert "pretrain.training.seq_len: found 64, and sdpa attends beyond the blocks" in mistakes(path, *longer)
    assert load(path, *sdpa, "pretrain.model.fixed_attn_block_size=64").modules["pretrain"]
    assert load(path, *longer, "pretrain.model.every_n_layers_nope=null").modules["pretrain"]


@pytest.mark.parametrize("family", ["qwen3", "gpt_oss"])
def test_what_cant_be_cut_into_stages_is_refused(write, mistakes, family: str) -> None:
    degree = "pretrain.parallelism.pipeline_parallel_degree=2"
    message = mistakes(write(), f"pretrain.model.name={family}", "pretrain.launcher.nproc_per_node=2", degree)
    assert f"pipeline_parallel_degree: found 2: torchtitan can't cut {family} into a pipeline's stages" in message


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [
        ({"expert_parallel_degree": 2}, None),
        ({"expert_parallel_degree": 4, "tensor_parallel_degree": 2}, None),
        ({"expert_parallel_degree": 2, "tensor_parallel_degree": 2, "expert_tensor_parallel_degree": 2}, None),
        ({"expert_parallel_degree": 3}, "expert_parallel_degree: found 3, and the model has 8 experts"),
        ({"expert_parallel_degree": 8}, "found 8, with 4 of the processes sharing the weights of a replica"),
        (
            {"expert_parallel_degree": 4, "data_parallel_replicate_degree": 2, "data_parallel_shard_degree": 2},
            "found 4, with 2 of the processes sharing the weights of a replica",
        ),
        (
            {"expert_parallel_degree": 2, "expert_tensor_parallel_degree": 2},
            "expert_tensor_parallel_degree: found 2",
        ),
    ],
)
def test_experts_are_shared_by_ranks_that_share_the_rest(write, load, mistakes, degrees, expected) -> None:
    settings = ["pretrain.model.name=deepseek_v3", "pretrain.launcher.nproc_per_node=4"]
    settings += [f"pretrain.parallelism.{key}={value}" for key, value in degrees.items()]
    if expected is None:
        assert load(write(), *settings).modules["pretrain"]
    else:
        assert expected in mistakes(write(), *settings)


@pytest.mark.parametrize("family", ["deepseek_v3", "llama4", "gpt_oss"])
def test_validation_on_other_rows_than_prepared_ones_is_refused_where_torchtitan_has_none(
    write, load, mistakes, family: str
) -> None:
    settings = [f"pretrain.model.name={family}", "pretrain.validation.enable=true"]
    assert "pretrain.validation.enable: found true, and torchtitan" in mistakes(write(), *settings)
    streamed = [*settings, "pretrain.validation_data.dataset=someone/texts", "pretrain.validation_data.streaming=true"]
    assert "without streaming: those rows have a validator of their own" in mistakes(write(), *streamed)
    assert load(write(), *streamed, "pretrain.validation_data.streaming=false").modules["pretrain"]
    assert load(write(), *settings, "pretrain.training.mock_data=true").modules["pretrain"]
    assert load(write(), *settings, "pretrain.model.name=llama3").modules["pretrain"]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("publish.model=sf", "publish.model: found 'sf', which no module of this experiment trains"),
        ("publish.model=sf", "expected: pretrain or sft\n    did you mean sft?"),
        (
            "evaluate.models=[base]",
            "publish.model: found 'sft', and evaluate scores base\n    add sft to evaluate.models",
        ),
    ],
)
def test_a_published_model_is_trained_and_scored_in_the_experiment(write, load, mistakes, setting, expected) -> None:
    path = write(experiments__exp=WITH_EXPERTS)
    assert expected in mistakes(path, setting)
    for scored in ("[base]", "[pretrain]", "{mine: somewhere}"):
        settings = ("publish.model=pretrain", f"evaluate.models={scored}")
        assert load(path, *settings).modules["publish"]


def test_a_publish_module_alone_has_nothing_to_publish(write, mistakes) -> None:
    message = mistakes(write(experiments__exp="modules: {publish: {}}"))
    assert "publish.model: found 'sft', which no module" in message
    assert "expected: a module that trains" in message
