"""A Slurm cluster of two nodes on this machine: ``python tests/cluster/local_slurm.py start | stop | run COMMAND…``.

Each node has a network, a host name, processes and mounts of its own (Linux namespaces), so that ending its first
process is a power cut. All see the same file system, as on shared storage. The controller lies in a namespace of its
own, in which ``run`` starts a command that may use ``sbatch``; nothing touches the machine's own network. Needs root
and Debian's packages: ``apt-get install slurmctld slurmd slurm-client munge slurm-wlm-basic-plugins``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil

HUB, BRIDGE = "titanflow-hub", "tfbr0"
HUB_ADDRESS = "10.77.0.1"
NODES = {"node1": "10.77.0.11", "node2": "10.77.0.12"}
COMMANDS = ("slurmctld", "slurmd", "sbatch", "munged", "ip", "nsenter", "unshare", "runuser")
DAEMONS = ("slurmd", "slurmstepd", "sh", "unshare", "nsenter", "sleep")
START_SECONDS = 30.0
CLONE_NEWNET = 0x40000000
"""Linux's number of a network namespace, in sched.h."""

# cred_expire: a requeued job waits 120 s for its credentials to expire otherwise. config_overrides: a node has as many
# CPUs as are written here. The rest without cgroups, which a container may not have: Slurm itself looks at a job's
# processes, and ends one that takes more memory than it asked for.
CONFIG = """
ClusterName=titanflow
SlurmctldHost={hub}({hub_address})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/finished-jobs.txt
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerNode=2000
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=5,bf_interval=5
ReturnToService=2
SlurmdTimeout=15
KillWait=10
MinJobAge=600
MpiDefault=none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def why_not() -> str:
    """Why no cluster can be started here; empty if one can."""
    if os.geteuid() != 0:
        return "a cluster in namespaces needs root"
    # Debian keeps daemons outside of a user's PATH.
    missing = [
        name for name in COMMANDS if not shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    ]
    if missing:
        return f"not installed: {', '.join(missing)}"
    links = "ip link add tf0 type bridge && ip link add tf1 type veth peer name tf2"
    inside = f"{links} && hostname x && mount -t proc proc /proc"
    for command in (
        ["unshare", "--net", "--uts", "--pid", "--mount", "--fork", "sh", "-c", inside],
        ["sh", "-c", "ip netns add titanflow-try && ip netns delete titanflow-try"],
    ):
        tried = subprocess.run(command, capture_output=True, text=True)
        if tried.returncode:
            return f"no namespaces here: {tried.stderr.strip()}"
    return ""


class LocalSlurm:
    """The cluster whose files (configuration, state, logs) lie in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{os.environ['PATH']}:/usr/sbin"}

    def start(self) -> None:
        """Starts everything and returns when each node is idle; raises RuntimeError with the logs otherwise."""
        if reason := why_not():
            raise RuntimeError(reason)
        if Path("/run/netns", HUB).exists():
            raise RuntimeError(f"a cluster runs here already: {Path(__file__).name} stop ends it")
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "state").mkdir(parents=True)
        self._write_files()
        self._network()
        self._munged()
        self._daemon("slurmctld", HUB, ["slurmctld", "-D", "-i"])
        for node in NODES:
            self.power_on(node)
        self.wait_until(lambda: self.states() == dict.fromkeys(NODES, "idle"), "two idle nodes")

    def stop(self) -> None:
        """Ends what any :meth:`start` of this machine started, and nothing else."""
        for pid_file in self.folder.glob("*.daemon"):
            self._end(pid_file)
        for name in (HUB, *(f"titanflow-{node}" for node in NODES)):
            for process in _in_namespace(name):
                with contextlib.suppress(psutil.Error):
                    process.kill()
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)

    def power_off(self, node: str) -> None:
        """A power cut: ends the first process of a node, and with it all others."""
        self._end(self.folder / f"{node}.daemon")

    def power_on(self, node: str, hidden: Path | None = None) -> None:
        """Starts a node; a ``hidden`` folder is another, empty one there, as if it weren't shared."""
        # A node's hosts file takes the place of the machine's in its own mounts only. Its first process outlives
        # slurmd, and buries what dies, as an init system does.
        hosts = self.folder / "hosts"
        hide = f"mount -t tmpfs none {hidden} && " if hidden else ""
        start = (
            f"hostname {node} && {hide}mount --bind {hosts} /etc/hosts && mount -t proc proc /proc"
            f" && {{ {self._slurmd(node)} & while :; do wait; sleep 1; done; }}"
        )
        inside = ["unshare", "--uts", "--pid", "--mount", "--fork", "--kill-child=KILL", "sh", "-c", start]
        self._daemon(node, f"titanflow-{node}", inside)

    def kill_slurmd(self, node: str) -> None:
        """Kills a node's daemon alone: what it started lives on."""
        for process in self.of_node(node):
            if process.name() == "slurmd":
                process.kill()

    def start_slurmd(self, node: str) -> None:
        """Starts the daemon of a node that has lost it."""
        first = _started(self.folder / f"{node}.daemon").children()[0]
        place = ["nsenter", f"--target={first.pid}", "--net", "--uts", "--pid", "--mount", "--"]
        self._daemon(f"slurmd-{node}", "", [*place, "sh", "-c", f"exec {self._slurmd(node)}"])

    def stop_controller(self) -> None:
        self._end(self.folder / "slurmctld.daemon")

    def start_controller(self) -> None:
        self._daemon("slurmctld", HUB, ["slurmctld", "-D"])

    def controller(self) -> psutil.Process:
        return _started(self.folder / "slurmctld.daemon")

    def inside(self, command: Sequence[str]) -> list[str]:
        """A command as it runs beside the controller."""
        return ["nsenter", f"--net=/run/netns/{HUB}", "--", *command]

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and what it starts, beside the controller."""
        libc = ctypes.CDLL(None, use_errno=True)
        with Path("/proc/thread-self/ns/net").open() as home, Path("/run/netns", HUB).open() as hub:
            if libc.setns(hub.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"can't enter {HUB}")
            try:
                yield
            finally:
                libc.setns(home.fileno(), CLONE_NEWNET)

    def output(self, *command: str) -> str:
        """What a client of Slurm prints."""
        done = subprocess.run(self.inside(command), env=self.env, capture_output=True, text=True, timeout=20)
        return done.stdout.strip()

    def states(self) -> dict[str, str]:
        with contextlib.suppress(subprocess.TimeoutExpired):
            lines = self.output("sinfo", "--noheader", "--Node", "--partition=main", "--format=%N %t").splitlines()
            return dict(line.split() for line in lines)
        return {}

    def resume_drained(self) -> list[str]:
        """Puts drained nodes back to work, and returns their names."""
        drained = [node for node, state in self.states().items() if state.startswith(("drain", "drng"))]
        for node in drained:
            self.output("scontrol", "update", f"NodeName={node}", "State=RESUME")
        return drained

    def processes(self) -> list[psutil.Process]:
        """The living processes of all nodes, without the daemons of Slurm."""
        found = []
        for process in (process for node in NODES for process in self.of_node(node)):
            with contextlib.suppress(psutil.Error):
                # A zombie has ended: a node's first process, slurmd, reaps none.
                if process.status() != psutil.STATUS_ZOMBIE and not process.name().startswith(DAEMONS):
                    found.append(process)
        return found

    def wait_until(self, is_so: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
        end = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() > end:
                logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in self.folder.glob("*.log"))
                raise RuntimeError(f"no {what} after {seconds:g} s\n{logs}")
            time.sleep(0.1)

    def of_node(self, node: str) -> list[psutil.Process]:
        """All processes of a node; none while it is off."""
        return _in_namespace(f"titanflow-{node}")

    def _slurmd(self, node: str) -> str:
        # A shell has its background jobs ignore SIGINT, which all jobs of the node would inherit.
        return f"env --default-signal=INT,QUIT slurmd -D -N {node} -f {self.folder / 'slurm.conf'}"

    def _write_files(self) -> None:
        nodes = "\n".join(
            f"NodeName={name} NodeAddr={address} CPUs=2 RealMemory=4000 State=UNKNOWN"
            for name, address in NODES.items()
        )
        text = CONFIG.format(hub=os.uname().nodename, hub_address=HUB_ADDRESS, folder=self.folder, nodes=nodes)
        (self.folder / "slurm.conf").write_text(text)
        # GresPlugins and cgroups are off: without this file slurmd looks for /etc/slurm/cgroup.conf.
        (self.folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
        addresses = {"localhost": "127.0.0.1", os.uname().nodename: HUB_ADDRESS, **NODES}
        (self.folder / "hosts").write_text("".join(f"{address} {name}\n" for name, address in addresses.items()))

    def _munged(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        options = [
            f"--{name}={self.folder / file}"
            for name, file in (
                ("key-file", "munge.key"),
                ("socket", "munge.socket"),
                ("pid-file", "munge.pid"),
                ("log-file", "munge.log"),
                ("seed-file", "munge.seed"),
            )
        ]
        # In the hub, by which a later stop finds it, from whatever folder.
        self._daemon("munged", HUB, ["munged", "--foreground", "--force", *options])
        self.wait_until((self.folder / "munge.socket").exists, "socket of munged")

    def _network(self) -> None:
        def ip(*arguments: str, within: str = "") -> None:
            place = ["-n", within] if within else []
            subprocess.run(["ip", *place, *arguments], check=True)

        ip("netns", "add", HUB)
        ip("link", "set", "lo", "up", within=HUB)
        ip("link", "add", BRIDGE, "type", "bridge", within=HUB)
        ip("address", "add", f"{HUB_ADDRESS}/24", "dev", BRIDGE, within=HUB)
        ip("link", "set", BRIDGE, "up", within=HUB)
        for node, address in NODES.items():
            name = f"titanflow-{node}"
            ip("netns", "add", name)
            ip("link", "set", "lo", "up", within=name)
            ip("link", "add", node, "type", "veth", "peer", "name", "eth0", "netns", name, within=HUB)
            ip("link", "set", node, "master", BRIDGE, "up", within=HUB)
            ip("address", "add", f"{address}/24", "dev", "eth0", within=name)
            ip("link", "set", "eth0", "up", within=name)

    def _daemon(self, name: str, namespace: str, command: list[str]) -> None:
        # `ip netns exec` would mount another /sys, which slurmd can't live with.
        place = ["nsenter", f"--net=/run/netns/{namespace}", "--"] if namespace else []
        with (self.folder / f"{name}.out.log").open("ab") as output:
            process = subprocess.Popen(
                [*place, *command],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd="/",
            )
        note = f"{process.pid} {psutil.Process(process.pid).create_time()}"
        (self.folder / f"{name}.daemon").write_text(note)

    def _end(self, pid_file: Path) -> None:
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            process = _started(pid_file)
            family = [process, *process.children(recursive=True)]
            for one in family:
                with contextlib.suppress(psutil.Error):
                    one.send_signal(signal.SIGKILL)
            psutil.wait_procs(family, timeout=10)
        pid_file.unlink(missing_ok=True)


def _started(note: Path) -> psutil.Process:
    """The process that a note is of, which needn't be the one that has its number now."""
    pid, created = note.read_text().split()
    process = psutil.Process(int(pid))
    if process.create_time() != float(created):
        raise psutil.NoSuchProcess(process.pid)
    return process


def _in_namespace(name: str) -> list[psutil.Process]:
    there = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True)
    found = []
    for pid in there.stdout.split():
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(int(pid)))
    return found


def main(arguments: Sequence[str]) -> int:
    cluster = LocalSlurm(Path(os.environ.get("TITANFLOW_SLURM", "/tmp/titanflow-slurm")))
    if arguments[:1] == ["run"] and len(arguments) > 1:
        return subprocess.run(cluster.inside(arguments[1:]), env=cluster.env).returncode
    if arguments not in (["start"], ["stop"]):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        cluster.start() if arguments == ["start"] else cluster.stop()
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
