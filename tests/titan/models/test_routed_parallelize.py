"""What a model with routed layers can be parallelised by, and what FSDP must leave alone."""

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from routed_models import small_model, some_tokens
from torch.distributed.device_mesh import init_device_mesh
from torchtitan.config import JobConfig

from titan.models.dynamic.parallelize import parallelize_routed
from titan.models.parallelize import apply_fsdp


@pytest.fixture
def lone_mesh():
    """Of one rank, in this process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,), mesh_dim_names=("fsdp",))
    dist.destroy_process_group()


@pytest.mark.parametrize("kind", ["tensor", "context", "pipeline"])
def test_rows_layers_and_widths_stay_whole(kind):
    degrees = {"tp": 1, "cp": 1, "pp": 1, {"tensor": "tp", "context": "cp", "pipeline": "pp"}[kind]: 2}
    with pytest.raises(ValueError, match=rf"^parallelism\.{kind}_parallel_degree: "):
        parallelize_routed(small_model("mod"), SimpleNamespace(**degrees), JobConfig())


@pytest.mark.parametrize("family", ["mod", "dtf", "tdtf"])
def test_in_mixed_precision_scores_are_exact(family, lone_mesh):
    """Layers compute in bf16; what they tell each other of a token's change stays fp32."""
    model = small_model(family).float()
    config = JobConfig()
    config.training.mixed_precision_param = "bfloat16"
    gates, given = [], []
    for layer in model.auxiliary_blocks():
        if hasattr(layer, "compute"):
            compute = layer.compute
            layer.compute = lambda x, gate, *rest, compute=compute: gates.append(gate) or compute(x, gate, *rest)
        forward = layer.forward
        layer.forward = lambda *args, forward=forward: given.append(args) or forward(*args)
    apply_fsdp(model, lone_mesh, config, pp_enabled=False)
    logits = model(some_tokens())
    assert logits.dtype == torch.bfloat16
    logits.float().square().mean().backward()
    assert all(args[0].dtype == torch.bfloat16 for args in given)
    assert [gate.dtype for gate in gates] == [torch.float32] * 2
    if family == "dtf":
        dynamic = [args for args in given if len(args) == 5]
        assert [(static.dtype, change.dtype) for _, static, change, *_ in dynamic] == [(torch.float32,) * 2] * 2
    assert all(value.dtype == torch.float32 for value in model.router_statistics().values())
    assert all(parameter.grad.full_tensor().any() for parameter in model.parameters())
