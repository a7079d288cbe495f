"""The models with routed layers that are tested: each family, and with its own causal router each that has one."""

FAMILIES = ("mod", "dtf", "tdtf")
KINDS = (*FAMILIES, "mod own", "dtf own")


def family_of(kind: str) -> str:
    return kind.partition(" ")[0]


def router_of(kind: str) -> dict[str, str]:
    """The model's arguments that set another causal router than the default."""
    router = kind.partition(" ")[2]
    return {"causal_router": router} if router else {}
