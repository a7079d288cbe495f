"""JobSets whose pods are processes of this machine: what controllers and a kubelet do, as far as a stage sees.

Nothing runs by itself: whoever asks for an object has it brought up to date first.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psutil

EXPANDED = re.compile(r"\$(\$|\((\w+)\))")
OF_THE_IMAGE = ("PATH", "HOME", "PYTHONPATH", "LD_LIBRARY_PATH")
"""Variables that stand for those of an image."""
MARK = "LOCAL_POD"
"""The variable by which a pod's processes are known, also those that outlived their parents."""
PREFIX = "jobset.sigs.k8s.io"


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def expanded(text: str, variables: dict[str, str]) -> str:
    """``$(NAME)`` is a variable's value, if there is one, and two dollars are one."""
    return EXPANDED.sub(lambda found: "$" if found[1] == "$" else variables.get(found[2], found[0]), text)


@dataclass
class Pod:
    """One pod and its first process. ``waits`` is why it doesn't start, ``disrupted`` why the cluster ended it."""

    name: str
    index: int
    template: dict[str, Any]
    labels: dict[str, str]
    waits: tuple[str, str] | None = None
    disrupted: tuple[str, str] | None = None
    process: subprocess.Popen[bytes] | None = None
    ended: str = ""
    end_reason: str = "Error"
    killed_at: float | None = None
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def start(self, env: dict[str, str]) -> None:
        (container,) = self.template["spec"]["containers"]
        command = [expanded(part, env) for part in container["command"]]
        env = {**env, MARK: self.mark}
        self.process = subprocess.Popen(
            command, cwd=container["workingDir"], env=env, stdin=subprocess.DEVNULL, start_new_session=True
        )

    def end(self, seconds: float) -> None:
        """As a kubelet: SIGTERM for the first process alone, and after the grace period SIGKILL for all."""
        if self.process is None or self.process.poll() is not None:
            self.ended = self.ended or now()
            return
        if self.killed_at is None:
            self.process.terminate()
        self.killed_at = min(self.killed_at or float("inf"), time.monotonic() + seconds)

    def look(self) -> None:
        if self.process is None or self.ended:
            return
        if self.killed_at is not None and time.monotonic() > self.killed_at:
            self.kill()
        if self.process.poll() is not None:
            # As in a container, nothing outlives the first process.
            self.kill()
            self.ended = now()

    def processes(self) -> list[psutil.Process]:
        return [one for one in psutil.process_iter() if _mark(one) == self.mark] if self.process is not None else []

    def kill(self) -> None:
        # What a process starts just before it is killed isn't among those that were found before.
        while found := self.processes():
            for process in found:
                with contextlib.suppress(psutil.Error):
                    process.kill()
        if self.process is not None:
            self.process.wait()

    @property
    def status(self) -> int | None:
        """The exit status as a container's runtime says it."""
        code = self.process.poll() if self.process is not None else None
        return 128 - code if code is not None and code < 0 else code

    @property
    def phase(self) -> str:
        if self.process is None:
            return "Failed" if self.ended else "Pending"
        return "Running" if not self.ended else "Failed" if self.status or self.disrupted else "Succeeded"

    def as_object(self) -> dict[str, Any]:
        conditions, state = [], {}
        if self.waits and self.waits[0] == "Unschedulable":
            conditions.append({"type": "PodScheduled", "status": "False", **_because(self.waits)})
        elif self.waits:
            state = {"waiting": _because(self.waits)}
        if self.disrupted:
            conditions.append({"type": "DisruptionTarget", "status": "True", **_because(self.disrupted)})
        if self.process is not None:
            ended = {
                "exitCode": self.status,
                "finishedAt": self.ended,
                "reason": self.end_reason if self.status else "Completed",
            }
            state = {"terminated": ended} if self.ended else {"running": {}}
        (container,) = self.template["spec"]["containers"]
        containers = {"name": container["name"], "image": "", "imageID": "", "ready": False, "restartCount": 0}
        status = {"phase": self.phase, "conditions": conditions}
        if state:
            status["containerStatuses"] = [{**containers, "state": state}]
        return {
            "metadata": {"name": self.name, "labels": self.labels},
            "spec": self.template["spec"],
            "status": status,
        }


def _mark(process: psutil.Process) -> str | None:
    with contextlib.suppress(psutil.Error):
        return process.environ().get(MARK)
    return None


@dataclass
class LocalJobSet:
    """A JobSet and its pods; ``deleted`` is how its deletion was asked for."""

    body: dict[str, Any]
    pods: list[Pod]
    deleted: bool = False
    failure: tuple[str, str] | None = None
    suspended: bool = False
    port: int = field(default_factory=lambda: _free_port())

    @classmethod
    def of(cls, body: dict[str, Any]) -> LocalJobSet:
        name = body["metadata"]["name"]
        (replicated,) = body["spec"]["replicatedJobs"]
        job = replicated["template"]["spec"]
        labels = {**job["template"]["metadata"]["labels"], f"{PREFIX}/jobset-name": name}
        pods = [
            Pod(f"{name}-{replicated['name']}-0-{index}-abcde", index, job["template"], labels)
            for index in range(job["completions"])
        ]
        return cls(body, pods)

    @property
    def name(self) -> str:
        return str(self.body["metadata"]["name"])

    @property
    def is_over(self) -> bool:
        return bool(self.pods or self.failure) and all(pod.ended for pod in self.pods)

    def start(self, secrets: dict[str, dict[str, str]]) -> None:
        """Starts the pods; all stand on this machine, so that they meet at an address of it."""
        for pod in self.pods:
            (container,) = pod.template["spec"]["containers"]
            env = {name: os.environ[name] for name in OF_THE_IMAGE if name in os.environ}
            for source in container["envFrom"]:
                env |= secrets[source["secretRef"]["name"]]
            for one in container["env"]:
                host, colon, _ = one["value"].rpartition(":")
                is_a_pod = colon and host.split(".")[0].startswith(f"{self.name}-")
                env[one["name"]] = f"127.0.0.1:{self.port}" if is_a_pod else expanded(one["value"], env)
            pod.start({**env, "JOB_COMPLETION_INDEX": str(pod.index)})

    def look(self) -> None:
        """The first pod that fails ends the others, as a job's backoffLimit of 0 does."""
        for pod in self.pods:
            pod.look()
        failed = next((pod for pod in self.pods if pod.phase == "Failed"), None)
        if failed is not None and self.failure is None:
            told = f"Pod {failed.name} has condition DisruptionTarget matching FailJob rule at index 0"
            limit = ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
            self.failure = ("PodFailurePolicy", told) if failed.disrupted else limit
        if self.failure is not None:
            self.end()

    def end(self, seconds: float | None = None) -> None:
        for pod in self.pods:
            grace = pod.template["spec"]["terminationGracePeriodSeconds"] if seconds is None else seconds
            pod.end(grace)

    def as_object(self) -> dict[str, Any]:
        conditions = []
        if self.is_over and not self.deleted:
            ended = "Failed" if self.failure else "Completed"
            conditions.append({"type": ended, "status": "True", "reason": "FailedJobs"})
        if self.suspended:
            conditions.append({"type": "Suspended", "status": "True", "reason": "SuspendedJobs"})
        deleted = {"deletionTimestamp": now()} if self.deleted else {}
        return {
            **self.body,
            "metadata": {**self.body["metadata"], **deleted},
            "status": {"conditions": conditions, "restarts": 0},
        }

    def job_object(self) -> dict[str, Any]:
        (replicated,) = self.body["spec"]["replicatedJobs"]
        conditions = [{"type": "Failed", "status": "True", **_because(self.failure)}] if self.failure else []
        return {
            "metadata": {"name": f"{self.name}-nodes-0", "labels": {f"{PREFIX}/jobset-name": self.name}},
            "spec": replicated["template"]["spec"],
            "status": {"conditions": conditions},
        }

    def kill(self) -> None:
        for pod in self.pods:
            pod.kill()


def _because(why: tuple[str, str]) -> dict[str, str]:
    return {"reason": why[0], "message": why[1]}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def suspend(pods: list[Pod], stands: bool) -> None:
    """Has the pods stand still, or go on."""
    for pod in pods:
        for process in pod.processes():
            process.send_signal(signal.SIGSTOP if stands else signal.SIGCONT)
