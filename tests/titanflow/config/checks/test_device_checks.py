import pytest

from titanflow.config.checks import device
from titanflow.config.checks.device import device_problems
from titanflow.config.device import Device

CPU = Device("cpu", found="this machine has no GPU")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["model.attn_type=flex"], "model.attn_type: found 'flex', which has no backward pass on a CPU"),
        (["model.attn_type=varlen"], "model.attn_type: found 'varlen', which has no backward pass on a CPU"),
        (
            ["model.name=gpt_oss"],
            "model.name: found 'gpt_oss': the family has only FlexAttention, which has no backward pass",
        ),
        (
            ["training.enable_cpu_offload=true", "launcher.nproc_per_node=2"],
            "training.enable_cpu_offload: found true, and there is no GPU to offload from",
        ),
        (
            ["parallelism.context_parallel_degree=2", "launcher.nproc_per_node=2"],
            "parallelism.context_parallel_degree: found 2: a CPU's attention can't be sharded",
        ),
        (
            ["checkpoint.async_mode=async_with_pinned_mem"],
            "checkpoint.async_mode: found 'async_with_pinned_mem', and there is no GPU to copy from",
        ),
        (["model.converters=[quantize.linear.float8]"], "or quantize.linear.float8.emulate: true"),
        (["model.converters=[quantize.linear.mx]"], "found 'quantize.linear.mx': a CPU can't compute in 8-bit formats"),
    ],
)
def test_what_a_cpu_cant_do(write, load, monkeypatch: pytest.MonkeyPatch, settings: list[str], expected: str) -> None:
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: object())
    path = write(
        experiments__exp="""
            modules:
              pretrain: {config: pretrain.yaml, model: tiny.yaml}
            """
    )
    module = load(path, *(f"pretrain.{setting}" for setting in settings)).modules["pretrain"]
    (problem,) = device_problems(module, CPU)
    assert expected in str(problem)
    assert "(this machine has no GPU)" in problem.message
    assert problem.origin.startswith("--set pretrain.")
    assert device_problems(module, Device("cuda")) == []


@pytest.mark.parametrize(
    ("family", "flavor"), [("deepseek_v3", "debugmodel"), ("qwen3", "debugmodel_moe"), ("llama4", "debugmodel")]
)
def test_a_cpu_trains_mixtures_of_experts(write, load, family: str, flavor: str) -> None:
    module = load(write(), f"pretrain.model.name={family}", f"pretrain.model.flavor={flavor}").modules["pretrain"]
    assert module.model_args["moe_args"]["num_experts"] > 1
    assert device_problems(module, CPU) == []


def test_a_cpu_trains_the_rest(write, load, monkeypatch: pytest.MonkeyPatch) -> None:
    pretrain = load(write(), "pretrain.training.dtype=bfloat16", "pretrain.compile.enable=true").modules["pretrain"]
    monkeypatch.setattr(device.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert device_problems(pretrain, CPU) == []
    monkeypatch.setattr(device.shutil, "which", lambda name: None)
    assert "install g++" in str(device_problems(pretrain, CPU)[0])


def test_a_process_needs_a_gpu_of_its_own(write, load) -> None:
    module = load(write(), "pretrain.launcher.nproc_per_node=4").modules["pretrain"]
    (problem,) = device_problems(module, Device("cuda", 2))
    assert "pretrain.launcher.nproc_per_node: found 4, and this machine shows 2 GPUs" in str(problem)
    assert device_problems(module, Device("cuda", 4)) == []
    assert device_problems(module, Device("cuda", None)) == []


def test_quantised_layers_need_torchao(write, load, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(write(), "pretrain.model.converters=[quantize.linear.float8]").modules["pretrain"]
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: None)
    assert "torchao isn't installed" in str(device_problems(module, Device("cuda"))[0])
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: object())
    assert device_problems(module, Device("cuda")) == []
    emulates = load(
        write(),
        "pretrain.model.converters=[quantize.linear.float8]",
        "pretrain.quantize.linear.float8.emulate=true",
    )
    assert device_problems(emulates.modules["pretrain"], CPU) == []
