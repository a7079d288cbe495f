"""The API of a Kubernetes cluster, through the official client.

Facts: Kubernetes' pages "API Concepts" and "Organizing Cluster Access Using kubeconfig Files";
the client kubernetes 37.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from titanflow.common.files import expanded
from titanflow.planning.cluster.jobset import GROUP, PLURAL, VERSION

ANSWER_SECONDS = (3.0, 20.0)
"""How long a connection may take, and an answer after it."""
BUSY = (408, 429, 500, 502, 503, 504)
"""Answers of a server that is too busy, restarts, or whose webhooks do."""
INSTALL = "pip install 'titanflow[kubernetes]'"


class ApiError(Exception):
    """The API refused, with its HTTP ``status``; 0 if there was no answer, or none for now."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def can_ask() -> bool:
    """Whether this machine knows a cluster: by a kubeconfig, or as one of the cluster's own pods."""
    return bool(_kubeconfigs()) or "KUBERNETES_SERVICE_HOST" in os.environ


def answer(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What a method of the client returns.

    Raises:
        ApiError: the API refuses, or doesn't answer.
    """
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        return call(*arguments, **options, _request_timeout=ANSWER_SECONDS)
    except ApiException as error:
        # Credentials that have run out are read anew.
        if error.status == 401:
            client.cache_clear()
        told = _told(error)
        raise ApiError(0 if not error.status or error.status in BUSY else error.status, told) from error
    except (HTTPError, OSError) as error:
        raise ApiError(0, f"Kubernetes doesn't answer: {error}") from error


@cache
def client() -> Any:
    """The official client, by this machine's kubeconfig, or by a pod's own account.

    Raises:
        ApiError: neither is there, or it can't be used.
    """
    from kubernetes import config
    from kubernetes.client import ApiClient, Configuration

    settings = Configuration()
    # A call has one try within its seconds: whoever asks knows whether to ask again.
    settings.retries = False
    try:
        if found := _kubeconfigs():
            config.load_kube_config(os.pathsep.join(found), client_configuration=settings)
        else:
            config.load_incluster_config(client_configuration=settings)
    # A kubeconfig may be any text, and names programs that fetch credentials.
    except Exception as error:
        raise ApiError(401, f"no credentials for Kubernetes: {error}") from error
    return ApiClient(settings)


def jobsets(method: str, namespace: str, *arguments: Any, **options: Any) -> Any:
    """What a method of the API for JobSets (``get``, ``create``, ``delete``) returns."""
    from kubernetes.client import CustomObjectsApi

    call = getattr(CustomObjectsApi(client()), f"{method}_namespaced_custom_object")
    return answer(call, GROUP, VERSION, namespace, PLURAL, *arguments, **options)


def create_jobset(body: dict[str, Any], **options: Any) -> Any:
    """Creates a JobSet; a field that the cluster doesn't know is refused, not dropped."""
    return jobsets("create", body["metadata"]["namespace"], body, field_validation="Strict", **options)


def core(method: str, *arguments: Any, **options: Any) -> Any:
    """What a method of Kubernetes' own API for pods, claims and events returns."""
    from kubernetes.client import CoreV1Api

    return answer(getattr(CoreV1Api(client()), method), *arguments, **options)


def jobs(method: str, *arguments: Any, **options: Any) -> Any:
    """What a method of Kubernetes' own API for jobs returns."""
    from kubernetes.client import BatchV1Api

    return answer(getattr(BatchV1Api(client()), method), *arguments, **options)


def _kubeconfigs() -> list[str]:
    given = os.environ.get("KUBECONFIG", "").split(os.pathsep)
    paths = [path for path in given if path] or [str(expanded("~/.kube/config"))]
    return [path for path in paths if Path(path).is_file()]


def _told(error: Any) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return (error.body or error.reason or "").strip() if isinstance(error.body, str | None) else str(error.reason)
