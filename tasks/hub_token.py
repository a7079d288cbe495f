"""The Hub's token from a Prefect Secret block: only for the environment of the process that pushes."""

from __future__ import annotations

from prefect.blocks.system import Secret

from titanflow.common.errors import ConfigError, Problem
from titanflow.common.hub_endpoint import hub_token
from titanflow.planning.stage_plan import StagePlan


def check_token(plan: StagePlan) -> None:
    """Checks, before anything is trained, that there is a token for the push of a publish stage.

    Raises:
        ConfigError: the named block doesn't exist, or is empty.
        HubError: no block is named, and there is no other token.
    """
    if plan.state == "CACHED" or plan.run.config.get("target") != "hub":
        return
    if not token_environment(plan):
        hub_token()


def token_environment(plan: StagePlan) -> dict[str, str]:
    """``HF_TOKEN`` from the block that ``publish.token_block`` names; nothing if it names none."""
    name = plan.run.config.get("token_block")
    if not name:
        return {}
    hint = "make it in Prefect's UI (Blocks, Secret), or unset the key and set HF_TOKEN"
    try:
        # Without its cause (`from None`): the client's error may quote the block.
        token = str(Secret.load(name).get())
    except ValueError:
        raise ConfigError(problem(plan, f"there is no Secret block {name!r}", hint)) from None
    if not token.strip():
        raise ConfigError(problem(plan, f"the Secret block {name!r} is empty", hint))
    return {"HF_TOKEN": token.strip()}


def problem(plan: StagePlan, found: str, hint: str) -> Problem:
    return Problem(found, f"{plan.stage}.token_block", plan.run.origins.get("token_block", ""), "the Hub's token", hint)
