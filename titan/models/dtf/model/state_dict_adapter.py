"""Weights of a DTF model between torchtitan's names and those of its modelling file."""

from titan.models.qwen2.model.state_dict_adapter import Qwen2StateDictAdapter, names_in_layers


class DtfStateDictAdapter(Qwen2StateDictAdapter):
    """Qwen2.5's names, and those of the prior and the routers."""

    NAMES = Qwen2StateDictAdapter.NAMES | names_in_layers(
        "prior_norm.weight",
        "prior.gate.weight",
        "prior.up.weight",
        "prior.down.weight",
        "router.o_ce",
        "router.m_cu",
        "router.beta_ce",
        "router.beta_cu",
        "router.slope",
        "router.threshold",
        "causal_router.weight",
        "causal_router.bias",
    )
