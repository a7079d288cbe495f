"""FSDP on one rank computes what a model without it computes: torchtitan's own wrapping, with this project's mends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from place import Place, Row, judged

FAMILIES = {"llama3": {}, "qwen3": {"enable_weight_tying": True}}
ROWS = [f"FSDP on one rank: {family}" for family in FAMILIES]
LIMIT = 1e-6
BATCH, SEQ_LEN, SEED = 2, 128, 7


def check(place: Place, seconds: float) -> Iterator[Row]:
    """Compares loss and gradients of the debug models, in float32."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor

    from titan.patches import apply_patches
    from titan.train.data_parallel import sum_fsdp_gradients

    del seconds
    device = place.device.kind
    dist.init_process_group(
        "nccl" if place.has_cuda else "gloo", init_method=f"file://{place.folder}/meeting", rank=0, world_size=1
    )
    mesh = init_device_mesh(device, (1,), mesh_dim_names=("fsdp",))
    for name, (family, arguments) in zip(ROWS, FAMILIES.items(), strict=True):
        apply_patches(["tied_fsdp"])
        plain, sharded = (built(family, arguments, device) for _ in range(2))
        shard(family, sharded, mesh)
        sum_fsdp_gradients(sharded)
        worst = difference(losses_and_gradients(plain, device), losses_and_gradients(sharded, device))
        tensors = sum(isinstance(parameter, DTensor) for parameter in sharded.parameters())
        found = f"loss and gradients of {tensors} tensors differ by {worst:.1e} of the largest number"
        yield judged(name, f"≤ {LIMIT:.0e}", found, tensors > 0 and worst <= LIMIT, difference=worst)
    dist.destroy_process_group()


def built(family: str, arguments: dict[str, Any], device: str) -> Any:
    import dataclasses

    import torch

    from titan.models.registry import train_spec

    spec = train_spec(family)
    args = dataclasses.replace(spec.model_args["debugmodel"], **arguments)
    torch.manual_seed(SEED)
    model = spec.model_cls(args).to(device)
    with torch.no_grad():
        model.init_weights(buffer_device=torch.device(device))
    return model


def shard(family: str, model: Any, mesh: Any) -> None:
    """As ``parallelize`` of torchtitan does on more than one rank; here in float32."""
    import torch
    from torchtitan.models.llama3.infra import parallelize as llama3
    from torchtitan.models.qwen3.infra import parallelize as qwen3

    float32 = {"param_dtype": torch.float32, "reduce_dtype": torch.float32, "pp_enabled": False}
    {"llama3": llama3, "qwen3": qwen3}[family].apply_fsdp(model, mesh, **float32)


def losses_and_gradients(model: Any, device: str) -> dict[str, Any]:
    import torch
    from torch.distributed.tensor import DTensor
    from torch.nn.functional import cross_entropy

    draw = torch.Generator().manual_seed(SEED)
    tokens = torch.randint(0, model.model_args.vocab_size, (BATCH, SEQ_LEN + 1), generator=draw).to(device)
    loss = cross_entropy(model(tokens[:, :-1]).flatten(0, 1).float(), tokens[:, 1:].flatten())
    loss.backward()
    found = {"loss": loss.detach()}
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        found[name] = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
    return found


def difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest difference of a tensor's numbers, as a share of the largest number in it."""
    return max(float((one[name] - other[name]).abs().max() / one[name].abs().max()) for name in one)
