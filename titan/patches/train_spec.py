"""Hands the Trainer this stage's own ``TrainSpec``: model overrides, data, metrics and validation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from titan.patches.patch import Patch, PatchContext

if TYPE_CHECKING:
    from torchtitan.protocols.train_spec import TrainSpec


def needed() -> bool:
    from torchtitan.protocols import train_spec

    name = "titanflow-probe"
    try:
        train_spec.register_train_spec(name, None)
        train_spec.register_train_spec(name, None)
    except ValueError:
        return True
    finally:
        train_spec._extra_train_specs.pop(name, None)
    return False


def apply(context: PatchContext) -> None:
    """Replaces ``get_train_spec`` for this model only; the registry stays as it was."""
    from torchtitan.protocols import train_spec

    adapt = context.adapt_spec
    if adapt is None:
        return
    upstream = getattr(train_spec.get_train_spec, "__wrapped__", train_spec.get_train_spec)

    def get_train_spec(name: str) -> TrainSpec:
        spec = upstream(name)
        return adapt(spec) if name == context.model_name else spec

    get_train_spec.__wrapped__ = upstream  # type: ignore[attr-defined]
    train_spec.get_train_spec = get_train_spec


PATCH = Patch(
    name="train_spec",
    target="torchtitan.protocols.train_spec.get_train_spec",
    what="the run's own TrainSpec for the run's model: overridden ModelArgs, data loader, metrics, validator",
    why=(
        "register_train_spec refuses a second spec under a name that is taken, and the Trainer looks up "
        "model.name, so that a built-in model can't be given other arguments from a config"
    ),
    versions="==0.2.2",
    needed=needed,
    apply=apply,
)
