"""A small API server on this machine: the paths of a Kubernetes cluster with JobSet that a stage's job needs.

What is posted is held against the published schemas (:mod:`published_schema`), objects live in memory, and a JobSet's
pods run as processes (:mod:`local_pods`). Faults can be planted at any request (:mod:`hub_faults`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from hub_faults import Faults, answer
from local_pods import LocalJobSet, Pod
from local_server import LocalServer
from published_schema import problems
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

REASONS = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "AlreadyExists"}
JOBSETS = "/apis/jobset.x-k8s.io/v1alpha2/namespaces/(?P<namespace>[^/]+)/jobsets"
CORE = "/api/v1/namespaces/(?P<namespace>[^/]+)"


class RefusalError(Exception):
    """An answer that isn't 2xx, as a Status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    def response(self) -> Response:
        body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": self.status}
        return JSONResponse({**body, "message": str(self), "reason": REASONS.get(self.status, "")}, self.status)


class LocalKubernetes(Faults, LocalServer):
    """A context manager. ``waits`` keeps new pods from starting, by a reason and a message; ``forbidden`` has the
    ``verb resource`` that the token may not; ``pod_refusal`` is what admission says of pods."""

    def __init__(self) -> None:
        Faults.__init__(self)
        self.token = "token-of-the-tests"
        self.jobsets: dict[str, LocalJobSet] = {}
        self.claims: set[str] = set()
        self.secrets: dict[str, dict[str, str]] = {}
        self.forbidden: set[str] = set()
        self.waits: tuple[str, str] | None = None
        self.suspended = False
        self.has_jobset = True
        self.pod_refusal = ""
        self.warnings: list[str] = []
        self.log: list[str] = []
        LocalServer.__init__(self, self.app)

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        for jobset in self.jobsets.values():
            jobset.kill()

    def kubeconfig(self, path: Path, token: str | None = None) -> Path:
        """Writes what a user's ``~/.kube/config`` has."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "local",
            "contexts": [{"name": "local", "context": {"cluster": "local", "user": "local"}}],
            "clusters": [{"name": "local", "cluster": {"server": self.url}}],
            "users": [{"name": "local", "user": {"token": token or self.token}}],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    def pods(self) -> list[Pod]:
        """The living pods."""
        return [pod for jobset in self.jobsets.values() for pod in jobset.pods if not pod.ended]

    def let_start(self) -> None:
        """There is room now."""
        self.waits, self.suspended = None, False
        for jobset in self.jobsets.values():
            if not jobset.is_over and all(pod.process is None for pod in jobset.pods):
                self._begin(jobset)

    def evict(self, reason: str = "EvictionByEvictionAPI", message: str = "Eviction API: evicting") -> None:
        """Ends a running pod as a drain of its node does."""
        pod = self.pods()[-1]
        pod.disrupted = (reason, message)
        pod.end(pod.template["spec"]["terminationGracePeriodSeconds"])

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        line = f"{request.method} {request.url.path}"
        self.log.append(line)
        body = await request.body()
        fault = self.met(line)
        try:
            if fault is not None and fault.kind == "refuse":
                raise RefusalError(fault.status, f"planted {fault.status}")
            if request.headers.get("authorization") != f"Bearer {self.token}":
                raise RefusalError(401, "Unauthorized")
            response = self.carry_out(request, json.loads(body or b"{}"))
        except RefusalError as refusal:
            response = refusal.response()
        await answer(response, fault, scope, receive, send)

    def carry_out(self, request: Request, body: dict[str, Any]) -> Response:
        for method, pattern, verb, handler in ROUTES:
            match = re.fullmatch(pattern, request.url.path)
            if match is None or request.method != method:
                continue
            namespace, name = match["namespace"], match.groupdict().get("name", "")
            if "jobsets" in verb and not self.has_jobset:
                return PlainTextResponse("404 page not found", 404)
            what, resource = verb.split()
            if verb in self.forbidden:
                raise RefusalError(403, f'{resource} is forbidden: User "me" cannot {what} resource "{resource}"')
            if namespace != "default":
                raise RefusalError(404, f'namespaces "{namespace}" not found')
            for jobset in list(self.jobsets.values()):
                jobset.look()
                if jobset.deleted and jobset.is_over:
                    del self.jobsets[jobset.name]
            query = dict(request.query_params)
            return JSONResponse(handler(self, name, query, body))
        return PlainTextResponse("404 page not found", 404)

    def create_jobset(self, _: str, query: dict[str, str], body: dict[str, Any]) -> Any:
        # An API server would drop what it doesn't know.
        assert query.get("fieldValidation") == "Strict"
        if found := problems(body):
            raise RefusalError(400, f"strict decoding error: {'; '.join(found)}")
        name = body["metadata"]["name"]
        if name in self.jobsets:
            raise RefusalError(409, f'jobsets.jobset.x-k8s.io "{name}" already exists')
        if query.get("dryRun") != "All":
            self.jobsets[name] = jobset = LocalJobSet.of(body)
            self._begin(jobset)
        return body

    def _begin(self, jobset: LocalJobSet) -> None:
        jobset.suspended = self.suspended
        for pod in jobset.pods:
            pod.waits = self.waits
        if not self.waits and not self.suspended:
            jobset.start(self.secrets)

    def get_jobset(self, name: str, *_: Any) -> Any:
        return self._jobset(name).as_object()

    def delete_jobset(self, name: str, query: dict[str, str], body: dict[str, Any]) -> Any:
        jobset = self._jobset(name)
        assert (query.get("propagationPolicy") or body.get("propagationPolicy")) == "Foreground"
        jobset.deleted = True
        jobset.end()
        return jobset.as_object()

    def _jobset(self, name: str) -> LocalJobSet:
        if name not in self.jobsets:
            raise RefusalError(404, f'jobsets.jobset.x-k8s.io "{name}" not found')
        return self.jobsets[name]

    def _selected(self, query: dict[str, str]) -> list[LocalJobSet]:
        name = query["labelSelector"].removeprefix("jobset.sigs.k8s.io/jobset-name=")
        return [self.jobsets[name]] if name in self.jobsets else []

    def list_pods(self, _: str, query: dict[str, str], __: Any) -> Any:
        # A pod of a suspended job isn't created.
        found = [jobset for jobset in self._selected(query) if not jobset.suspended]
        return _list("Pod", [pod.as_object() for jobset in found for pod in jobset.pods])

    def delete_pods(self, _: str, query: dict[str, str], body: dict[str, Any]) -> Any:
        for jobset in self._selected(query):
            jobset.end(float(query.get("gracePeriodSeconds") or body["gracePeriodSeconds"]))
        return _list("Pod", [])

    def create_pod(self, _: str, query: dict[str, str], body: dict[str, Any]) -> Any:
        assert query == {"dryRun": "All", "fieldValidation": "Strict"}
        if self.pod_refusal:
            raise RefusalError(403, self.pod_refusal)
        return {**body, "status": {}}

    def get_claim(self, name: str, *_: Any) -> Any:
        if name not in self.claims:
            raise RefusalError(404, f'persistentvolumeclaims "{name}" not found')
        return {"metadata": {"name": name}}

    def list_jobs(self, _: str, query: dict[str, str], __: Any) -> Any:
        return _list("Job", [jobset.job_object() for jobset in self._selected(query)])

    def list_events(self, *_: Any) -> Any:
        events = [{"metadata": {}, "involvedObject": {}, "message": message} for message in self.warnings]
        return _list("Event", events)


def _list(kind: str, items: list[Any]) -> dict[str, Any]:
    return {"kind": f"{kind}List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}


ROUTES: list[tuple[str, str, str, Callable[..., Any]]] = [
    ("POST", JOBSETS, "create jobsets", LocalKubernetes.create_jobset),
    ("GET", f"{JOBSETS}/(?P<name>[^/]+)", "get jobsets", LocalKubernetes.get_jobset),
    ("DELETE", f"{JOBSETS}/(?P<name>[^/]+)", "delete jobsets", LocalKubernetes.delete_jobset),
    ("GET", f"{CORE}/pods", "list pods", LocalKubernetes.list_pods),
    ("DELETE", f"{CORE}/pods", "deletecollection pods", LocalKubernetes.delete_pods),
    ("POST", f"{CORE}/pods", "create pods", LocalKubernetes.create_pod),
    (
        "GET",
        f"{CORE}/persistentvolumeclaims/(?P<name>[^/]+)",
        "get persistentvolumeclaims",
        LocalKubernetes.get_claim,
    ),
    ("GET", CORE.replace("/api/v1", "/apis/batch/v1") + "/jobs", "list jobs", LocalKubernetes.list_jobs),
    ("GET", f"{CORE}/events", "list events", LocalKubernetes.list_events),
]
