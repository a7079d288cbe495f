"""Weights of a Mixture-of-Depths model between torchtitan's names and those of its modelling file."""

from titan.models.qwen2.model.state_dict_adapter import Qwen2StateDictAdapter, names_in_layers


class ModStateDictAdapter(Qwen2StateDictAdapter):
    """Qwen2.5's names, and those of the router and of what predicts its choice."""

    NAMES = Qwen2StateDictAdapter.NAMES | names_in_layers(
        "router.weight",
        "predictor.down.weight",
        "predictor.down.bias",
        "predictor.score.weight",
        "predictor.score.bias",
        "causal_router.weight",
        "causal_router.bias",
    )
