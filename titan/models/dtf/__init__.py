"""DTF (arXiv:2511.21408, there SDT) on Qwen2.5: ``experimental.custom_import: titan.models.dtf``."""

from titan.models.dynamic.register import register_routed
from titan.models.qwen2 import FLAVORS

from .model.args import DtfModelArgs
from .model.model import DtfModel
from .model.state_dict_adapter import DtfStateDictAdapter

dtf_args = {name: DtfModelArgs(**flavor) for name, flavor in FLAVORS.items()}
register_routed(
    "dtf", DtfModel, dtf_args, DtfStateDictAdapter, ("prior_factor", "moving_average_window", "causal_router")
)
