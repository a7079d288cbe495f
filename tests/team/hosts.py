"""Machines with a worker each, as far as one machine can be several: see :class:`Host`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import psutil
from tiny_experiment import ROOT
from watching import alive, wait_for

from flows.sign_of_life import BOOT

HANG = 600.0
"""How long anything may take on a machine that others use, too."""
PASSWORD = "team:a-long-one"
"""Without it the server answers nobody."""
NAMESPACES = ("unshare", "--uts", "--pid", "--mount", "--fork", "--kill-child=KILL")


def why_no_hosts() -> str:
    """Why no other machines can be had here; empty if they can."""
    if os.geteuid() != 0:
        return "other machines are namespaces, which need root"
    tried = subprocess.run(
        [*NAMESPACES, "sh", "-c", "hostname x && mount -t proc proc /proc"], capture_output=True, text=True
    )
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else ""


class Host:
    """A host name, a home, processes, mounts and a boot of its own (Linux namespaces); files and network are shared.

    ``private`` files are another, empty one there, as a lock is on storage whose locks count for one machine.
    """

    def __init__(self, name: str, folder: Path, url: str, private: tuple[Path, ...] = ()) -> None:
        self.name, self.folder, self.url, self.private = name, folder / name, url, private
        self.output = self.folder / "output"
        self.first: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> None:
        """Works for the server: ``titanflow serve`` with those arguments, and returns when it does."""
        self._start(*arguments)
        wait_for(lambda: self.has_ended() or "^C" in self.output.read_text(), f"the worker of {self.name}", HANG)
        assert not self.has_ended(), self.output.read_text()

    def _start(self, *arguments: str) -> None:
        self.folder.mkdir(exist_ok=True)
        boot = self.folder / "boot_id"
        boot.write_text(f"{uuid.uuid4()}\n")
        mounts = [f"hostname {self.name}", "mount -t proc proc /proc", f"mount --bind {boot} {BOOT}"]
        for number, path in enumerate(self.private):
            (self.folder / f"private-{number}").touch()
            mounts.append(f"mount --bind {self.folder}/private-{number} {path}")
        serve = f"{sys.executable} -m titanflow.cli.main serve {' '.join(arguments)}"
        env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        with self.output.open("ab") as file:
            self.first = subprocess.Popen(
                # The shell stays, as a machine's first process does; when it ends, so does the machine.
                [*NAMESPACES, "sh", "-c", f"{' && '.join(mounts)} && {{ {serve} & wait $!; }}"],
                env={**env, "HOME": str(self.folder), "OMP_NUM_THREADS": "1"}
                | {"PREFECT_API_URL": self.url, "PREFECT_API_AUTH_STRING": PASSWORD},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def has_ended(self) -> bool:
        return self.first is None or self.first.poll() is not None

    def processes(self) -> list[psutil.Process]:
        """What lives on it, beside its first process."""
        if self.has_ended():
            return []
        family = psutil.Process(self.first.pid).children(recursive=True)
        return [process for process in family[1:] if alive(process.pid)]

    def find(self, words: str) -> psutil.Process:
        return next(process for process in self.processes() if words in " ".join(process.cmdline()))

    def stop(self) -> None:
        """Ends it as its administrator would: its service first."""
        if not self.has_ended():
            self.find("titanflow.cli.main serve").send_signal(signal.SIGTERM)
            self.first.wait(HANG)

    def lose_power(self) -> None:
        """Ends everything on it at once."""
        assert self.first is not None
        psutil.Process(self.first.pid).children()[0].kill()
        self.first.wait(30)

    def logs(self) -> str:
        """All that its processes said."""
        files = [*self.folder.rglob("*.log"), self.output]
        return "\n".join(path.read_text(errors="replace") for path in files)
