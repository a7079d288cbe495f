"""Mixture-of-Depths (arXiv:2404.02258) on Qwen2.5: ``experimental.custom_import: titan.models.mod``."""

from titan.models.dynamic.register import register_routed
from titan.models.qwen2 import FLAVORS

from .model.args import ModModelArgs
from .model.model import ModModel
from .model.state_dict_adapter import ModStateDictAdapter

mod_args = {name: ModModelArgs(**flavor) for name, flavor in FLAVORS.items()}
register_routed("mod", ModModel, mod_args, ModStateDictAdapter, ("route_every", "causal_router"))
