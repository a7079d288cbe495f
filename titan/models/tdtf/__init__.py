"""TDTF (arXiv:2511.21408, there STT) on Qwen2.5: ``experimental.custom_import: titan.models.tdtf``."""

from titan.models.dynamic.register import register_routed
from titan.models.qwen2 import FLAVORS

from .model.args import TdtfModelArgs
from .model.model import TdtfModel
from .model.state_dict_adapter import TdtfStateDictAdapter

tdtf_args = {name: TdtfModelArgs(**flavor) for name, flavor in FLAVORS.items()}
register_routed("tdtf", TdtfModel, tdtf_args, TdtfStateDictAdapter, ("prior_factor", "moving_average_window"))
