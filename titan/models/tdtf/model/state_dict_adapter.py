"""Weights of a TDTF model between torchtitan's names and those of its modelling file."""

from titan.models.qwen2.model.state_dict_adapter import Qwen2StateDictAdapter, names_in_layers


class TdtfStateDictAdapter(Qwen2StateDictAdapter):
    """Qwen2.5's names, and the transition network's, the router's and the student's own."""

    NAMES = Qwen2StateDictAdapter.NAMES | names_in_layers(
        "transition_norm.weight",
        "transition.gate.weight",
        "transition.up.weight",
        "transition.down.weight",
        "router.o_ce",
        "router.m_cu",
        "student_norm.weight",
        "student.weight",
        "student.bias",
    )
