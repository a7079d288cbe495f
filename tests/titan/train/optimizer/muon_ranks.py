"""Compares a step of Muon on four ranks with that of one process, to the bit: a script for each rank."""

import torch
import torch.distributed as dist
from muon_models import MATRICES, Model, built, gradients, model_of
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from titan.models.lora import shard_slices
from titan.train.optimizer import muon


def distributed(model: nn.Module, mesh: DeviceMesh, placements: tuple[Replicate | Shard, ...]) -> nn.Module:
    """The model with each parameter as FSDP, HSDP or expert parallelism would place it."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            fits = tuple(one if one.is_replicate() or one.dim < parameter.ndim else Shard(0) for one in placements)
            setattr(module, name, nn.Parameter(distribute_tensor(parameter.data, mesh, fits)))
    return model


def cut_both_ways(model: Model, mesh: DeviceMesh) -> nn.Module:
    """Tensor parallelism and FSDP, which cut the same rows twice."""
    for layer in model.layers.values():
        parallelize_module(layer, mesh["tp"], {"wide": ColwiseParallel(), "router": RowwiseParallel()})
    return fully_shard(model, mesh=mesh["fsdp"])


def steps(model: nn.Module, replicas: DeviceMesh | None = None) -> dict[str, torch.Tensor]:
    """The weights and the momentum after three steps, whole."""
    container = built(model, muon_lr=0.05, replicas=replicas)
    for step in range(3):
        for name, gradient in gradients(model, step).items():
            parameter = model.get_parameter(name)
            if isinstance(parameter, DTensor):
                # torch's own distribute_tensor can't cut rows twice.
                place = {"shape": gradient.shape, "stride": gradient.stride()}
                mesh, placements = parameter.device_mesh, parameter.placements
                gradient = DTensor.from_local(gradient[shard_slices(parameter)], mesh, placements, **place)
            parameter.grad = gradient
        container.step()
    found = dict(model.named_parameters())
    (optimizer,) = container
    found |= {f"{name}.momentum": optimizer.state[found[name]]["momentum_buffer"] for name in MATRICES}
    return {name: one.full_tensor() if isinstance(one, DTensor) else one for name, one in found.items()}


def check(what: str, found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    differing = [name for name, one in expected.items() if not torch.equal(found[name].detach(), one.detach())]
    assert not differing, (what, differing)


def main() -> None:
    dist.init_process_group("gloo")
    flat = init_device_mesh("cpu", (4,), mesh_dim_names=("fsdp",))
    square = init_device_mesh("cpu", (2, 2), mesh_dim_names=("fsdp", "tp"))
    expected = steps(model_of())
    for what, model in {
        "FSDP": distributed(model_of(), flat, (Shard(0),)),
        "experts cut inside": distributed(model_of(), flat, (Shard(1),)),
        "HSDP": distributed(model_of(), square, (Replicate(), Shard(0))),
        "FSDP's own classes": fully_shard(model_of(), mesh=flat),
        "FSDP and tensor parallelism": cut_both_ways(model_of(), square),
    }.items():
        found = steps(model)
        check(what, found, expected)
    computed: list[torch.Size] = []
    orthogonal = muon._orthogonal
    muon._orthogonal = lambda update, group: computed.append(update.shape) or orthogonal(update, group)
    check("DDP", steps(model_of(), flat), expected)
    assert len(computed) == 3 * len(MATRICES) / 4, (
        "each rank computes its share of the matrices, in each of three steps"
    )
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
