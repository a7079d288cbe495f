"""A work pool whose stages are pods: ``titanflow serve --pool NAME --job image=IMAGE``.

Prefect's own worker for Kubernetes makes a job of one pod for each stage, from the template in
``kubernetes/base-job-template.json``. The variables of the template are what ``--job`` sets.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.utilities.schema_tools.validation import validate

from flows.pods import TYPE
from titanflow.common.errors import ConfigError, Problem, did_you_mean
from titanflow.config.overrides import parse_settings
from titanflow.planning.launch import is_secret

TEMPLATE = Path(__file__).parent / "kubernetes" / "base-job-template.json"
OPTION = "--job"
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class PodsPool:
    """A pool whose stages are pods.

    ``asked`` are the variables of its deployment, ``variables`` those with the template's defaults.
    """

    asked: dict[str, Any]
    variables: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Where the pods see the shared storage, and stages start."""
        return Path(self.variables.get("claim_path", "/"))

    @property
    def worker_environment(self) -> dict[str, str]:
        """The settings of Prefect's worker."""
        prefix = "PREFECT_INTEGRATIONS_KUBERNETES"
        return {
            # Otherwise the server's key stands in the job's manifest, for all who may read jobs.
            f"{prefix}_WORKER_STORE_ENV_AS_SECRET": "true",
            # By default it watches the whole cluster, which few may.
            f"{prefix}_OBSERVER_NAMESPACES": str(self.variables.get("namespace", "default")),
        }


def ensure_pods_pool(url: str, pool: str, asked: Iterable[str]) -> PodsPool:
    """Makes the pool, unless there is one.

    Args:
        url: The server's address.
        pool: The pool's name. A pool that exists keeps its template.
        asked: Texts as :func:`read_variables` reads them.

    Raises:
        ConfigError: the pool is of another type, Prefect's package for Kubernetes is missing, no pod could reach the
            server, or a variable isn't one of the template or has a wrong value.
    """
    variables = read_variables(asked)
    if importlib.util.find_spec("prefect_kubernetes") is None:
        hint = "pip install 'titanflow[kubernetes]'"
        raise ConfigError(Problem("Prefect's package for Kubernetes isn't installed", OPTION, hint=hint))
    _check_reachable(url, variables)
    template = json.loads(TEMPLATE.read_text(encoding="utf-8"))
    with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
        try:
            found = client.read_work_pool(pool)
        except ObjectNotFound:
            check_variables(variables, template)
            client.create_work_pool(WorkPoolCreate(name=pool, type=TYPE, base_job_template=template))
        else:
            if found.type != TYPE:
                problem = Problem(f"{pool!r} is of type {found.type}", "--pool", expected=f"a pool of type {TYPE}")
                raise ConfigError(problem)
            template = found.base_job_template
            check_variables(variables, template)
    return PodsPool(variables, {**_defaults(template["variables"].get("properties", {})), **variables})


def read_variables(asked: Iterable[str]) -> dict[str, Any]:
    """The variables of texts ``name=value``, each value read as YAML; ``env.NAME=text`` sets one name in a mapping.

    Raises:
        ConfigError: a text without ``=``, or two for one variable.
    """
    variables: dict[str, Any] = {}
    for setting in parse_settings(asked, OPTION):
        # Labels have dots in their names.
        name, dot, inner = setting.key.partition(".")
        if not dot:
            into, value = variables, setting.value
        else:
            into, value = variables.setdefault(name, {}), setting.value if setting.text is None else setting.text
        if not isinstance(into, dict) or (inner or name) in into:
            raise ConfigError(Problem("set twice", f"{OPTION} {setting.key}", expected="each variable once"))
        into[inner or name] = value
    return variables


def check_variables(variables: Mapping[str, Any], template: Mapping[str, Any]) -> None:
    """Checks the variables of pods against the schema in their pool's template.

    Raises:
        ConfigError: an unknown variable, a wrong value, a secret, or nothing where a variable is required.
    """
    schema = template["variables"]
    known = schema.get("properties", {})
    problems = [
        Problem("unknown variable", f"{OPTION} {name}", expected=", ".join(known), hint=did_you_mean(name, known))
        for name in variables
        if name not in known
    ]
    there = {**_defaults(known), **{name: value for name, value in variables.items() if name in known}}
    problems += _secrets(variables)
    for error in validate(there, schema):
        name = ".".join(str(part) for part in error.absolute_path)
        problems.append(Problem(error.message, f"{OPTION} {name}".strip(), hint=_description(known, name)))
    if problems:
        raise ConfigError(problems)


def _secrets(variables: Mapping[str, Any]) -> list[Problem]:
    environment = variables.get("env")
    names = [name for name in environment if is_secret(str(name))] if isinstance(environment, dict) else []
    expected = "a key of the Kubernetes Secret that the variable `secret` names"
    found = "a secret would be stored in Prefect's deployment, for all who can read it"
    return [Problem(found, f"{OPTION} env.{name}", expected=expected) for name in names]


def _check_reachable(url: str, variables: Mapping[str, Any]) -> None:
    environment = variables.get("env")
    given = environment.get("PREFECT_API_URL") if isinstance(environment, dict) else None
    if urlsplit(str(given or url)).hostname in LOOPBACK:
        hint = "start the server with --host 0.0.0.0, and set PREFECT_API_URL to an address that pods reach"
        found = f"a pod can't reach {given or url}, which is this machine's own address"
        raise ConfigError(Problem(found, "PREFECT_API_URL", expected="http://<host>:4200/api", hint=hint))


def _defaults(known: Mapping[str, Any]) -> dict[str, Any]:
    return {name: schema["default"] for name, schema in known.items() if schema.get("default") is not None}


def _description(known: Mapping[str, Any], name: str) -> str:
    return str(known.get(name.partition(".")[0], {}).get("description", ""))
