from math import prod

import pytest

KINDS = ("data_parallel_replicate", "data_parallel_shard", "tensor_parallel", "context_parallel", "pipeline_parallel")


def settings(processes: int, nnodes: int = 1, **others: object) -> list[str]:
    given = {"launcher.nproc_per_node": processes, "launcher.nnodes": nnodes}
    if nnodes > 1:
        given["launcher.rdzv_endpoint"] = "node0:29500"
    given |= {
        f"parallelism.{key}_degree" if key in KINDS else key.replace("__", "."): value for key, value in others.items()
    }
    return [f"pretrain.{key}={value}" for key, value in given.items()]


@pytest.mark.parametrize(
    ("processes", "nnodes", "degrees"),
    [
        (1, 1, {}),
        (3, 1, {}),
        (4, 2, {"tensor_parallel": 2}),
        (4, 1, {"data_parallel_shard": 2, "tensor_parallel": 2}),
        (4, 1, {"data_parallel_replicate": 2, "data_parallel_shard": 2}),
        (2, 1, {"data_parallel_replicate": 2}),
        (8, 2, {"pipeline_parallel": 2, "tensor_parallel": 4}),
        (4, 1, {"data_parallel_replicate": 2, "context_parallel": 2}),
    ],
)
def test_degrees_that_fit_as_torchtitan_has_it(write, load, processes: int, nnodes: int, degrees: dict) -> None:
    from torchtitan.distributed import ParallelDims

    load(write(), *settings(processes, nnodes, **degrees))
    names = dict(zip(KINDS, ("dp_replicate", "dp_shard", "tp", "cp", "pp"), strict=True))
    given = {short: degrees.get(kind, -1 if short == "dp_shard" else 1) for kind, short in names.items()}
    dims = ParallelDims(**given, ep=1, etp=1, world_size=processes * nnodes)
    assert prod((dims.dp_replicate, dims.dp_shard, dims.tp, dims.cp, dims.pp)) == processes * nnodes


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (settings(3, tensor_parallel=2), "tensor_parallel_degree=2, and the launcher starts 3"),
        (settings(1, data_parallel_shard=2), "data_parallel_shard_degree=2: 2, and the launcher starts 1"),
        (settings(2, data_parallel_shard=1), "every degree is 1: 1, and the launcher starts 2"),
        (settings(1, tensor_parallel=0), "tensor_parallel_degree: found 0"),
        (settings(1, data_parallel_shard=0), "data_parallel_shard_degree: found 0"),
        (
            settings(4, data_parallel_replicate=2, tensor_parallel=2),
            "replicas can't be combined with other parallelism",
        ),
        (settings(3, tensor_parallel=3), "found 3, and the model's n_heads is 16"),
        (settings(2, tensor_parallel=2, training__seq_len=63), "training.seq_len: found 63"),
        (settings(2, context_parallel=2, training__seq_len=62), "a multiple of 4, which is"),
        (settings(1, training__seq_len=63), "training.seq_len: found 63"),
        (
            settings(2, tensor_parallel=2, validation__enable="true", validation__seq_len=33),
            "validation.seq_len: found",
        ),
        (settings(1, training__enable_cpu_offload="true"), "found true without FSDP, which offloads"),
        (settings(1, activation_checkpoint__mode="memory_budget"), "compile.enable: true, with model among"),
        (
            settings(2, tensor_parallel=2, parallelism__enable_async_tensor_parallel="true"),
            "parallelism.enable_async_tensor_parallel: found true",
        ),
    ],
)
def test_what_doesnt_fit_is_refused(write, mistakes, given: list[str], expected: str) -> None:
    message = mistakes(write(), *given)
    assert expected in message
    assert "--set pretrain." in message


def test_precisions_that_nothing_mixes_are_said_to_have_no_effect(write, load) -> None:
    mixed = "pretrain.training.mixed_precision_param=bfloat16"
    (warning,) = load(write(), *settings(2, tensor_parallel=2), mixed).warnings
    assert "pretrain.training.mixed_precision_param" in warning
    assert "training.dtype sets it for everything" in warning
    assert load(write(), *settings(4, tensor_parallel=2), mixed).warnings == []
    assert load(write(), *settings(1), mixed).warnings == []


def test_half_precision_is_refused_with_what_to_take(write, mistakes) -> None:
    message = mistakes(write(), "pretrain.training.dtype=float16", "sft.training.mixed_precision_param=float16")
    assert "expected: one of bfloat16, float32" in message
    assert "expected: one of auto, bfloat16, float32" in message
    assert message.count("bfloat16 has float32's range") == 2


def test_an_empty_section_has_its_defaults(write, load) -> None:
    config = load(write(modules__base="compile:\nparallelism:\ntraining:\n")).modules["pretrain"].config
    assert config["compile"]["enable"] is False
    assert config["parallelism"]["tensor_parallel_degree"] == 1


@pytest.mark.parametrize("family", ["qwen3", "qwen2"])
def test_tied_embeddings_are_sharded_and_replicated(write, load, family: str) -> None:
    path = write(
        experiments__exp=f"""
            modules:
              pretrain:
                config: pretrain.yaml
                overrides: {{model: {{name: {family}, flavor: debugmodel, enable_weight_tying: true}}}}
            """
    )
    for degrees in ({}, {"data_parallel_replicate": 2}):
        load(path, *settings(2, **degrees))


def test_tied_embeddings_cant_lie_on_two_stages_of_a_pipeline(write, load, mistakes) -> None:
    path = write(
        experiments__exp="""
            modules:
              pretrain:
                config: pretrain.yaml
                overrides: {model: {name: qwen2, flavor: debugmodel, enable_weight_tying: true}}
            """
    )
    message = mistakes(path, *settings(2, pipeline_parallel=2))
    assert "parallelism.pipeline_parallel_degree: found 2: embedding and output are one weight" in message
    load(path, *settings(2, pipeline_parallel=2), "pretrain.model.enable_weight_tying=false")
