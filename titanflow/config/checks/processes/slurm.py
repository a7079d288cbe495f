"""Checks of ``launcher.slurm``: what Slurm would take amiss, or take in place of what the stage's job sets itself.

Facts: Slurm's manual page of ``sbatch`` (22.05); ``getopt_long`` takes the beginning of an option for the whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from titanflow.common.credentials import is_secret, redact

OWN_OPTIONS = (
    *("nodes", "job-name", "output", "error", "open-mode", "chdir", "workdir", "export", "signal", "parsable"),
    *("ntasks", "ntasks-per-node", "ntasks-per-core", "ntasks-per-gpu", "ntasks-per-socket", "tasks-per-node"),
    *("requeue", "no-requeue", "array", "wrap", "dependency", "wait", "clusters"),
    *("test-only", "help", "usage", "version"),
)
"""Options of sbatch that a stage's job sets itself, or with which it would be no single job of this cluster."""
KEYS = ("partition", "account", "qos", "time", "gres", "constraint", "mem")
"""Options that have a key of their own, whose value is checked."""
SHORT_OPTIONS = {
    **{"N": "nodes", "n": "ntasks", "J": "job-name", "o": "output", "e": "error", "D": "chdir", "a": "array"},
    **{"d": "dependency", "W": "wait", "M": "clusters", "h": "help", "V": "version"},
    **{"p": "partition", "A": "account", "q": "qos", "t": "time", "C": "constraint"},
}
WITHOUT_VALUE = "HQvsO"
"""Short options that others may follow in the same word."""
MEMORY = re.compile(r"\d+[KMGT]?B?", re.ASCII | re.IGNORECASE)
OPTION = re.compile(r"-[A-Za-z].*|--[a-z][-a-z0-9]*(=.*)?", re.DOTALL)
VARIABLE = re.compile(r"(?!(?:ALL|NONE)\Z)[A-Za-z_]\w*", re.ASCII)
ASSIGNMENT = re.compile(r"\b(\w+)=[\"']?([^\s\"'/~$`][^\s\"']{7,})")
"""A variable and its value of eight letters at least, which is no path and isn't read from elsewhere."""
GPUS = ("gpu", "mps", "shard")
"""Generic resources that are GPUs, or shares of one."""
EARLY_SECONDS = 60
"""How much earlier than it is asked to Slurm may send a signal, by the manual page of ``sbatch --signal``."""
TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", re.ASCII)


def slurm_problems(launcher: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Each mistake's key, what was found, what is expected, and what to do."""
    asked = launcher["slurm"]
    yield from _time(asked)
    for key in (*KEYS, "container"):
        if key not in ("time", "mem") and isinstance(asked[key], str) and not asked[key].strip():
            yield key, f"found {asked[key]!r}", "a value, or null"
    if asked["mem"] is not None and not MEMORY.fullmatch(str(asked["mem"])):
        yield "mem", f"found {asked['mem']!r}", "64G, or 0 for all of a node's memory"
    for option in asked["extra"]:
        yield from _option(option)
    for name in asked["export"]:
        if not VARIABLE.fullmatch(name):
            yield "export", f"found {name!r}", "names of environment variables, without values"
    for line in asked["setup"]:
        if line.lstrip().startswith("#SBATCH"):
            yield "setup", f"found {line!r}, which Slurm doesn't read there", "", "put it into launcher.slurm.extra"
    yield from _secrets(asked)
    if launcher.get("device") == "cuda" and asked["gres"]:
        yield from _gpus(asked["gres"], launcher["nproc_per_node"])


def limit_seconds(time: str) -> int | None:
    """A time limit as ``sbatch --time`` takes it, in seconds; None where it is none."""
    found = TIME.fullmatch(time.strip())
    if found is None:
        return None
    days, *others = found.groups()
    parts = [int(part) for part in others if part is not None]
    # 90 are minutes, 1:30 minutes and seconds, 1:30:00 hours first; with days, hours come first.
    scales = (3600, 60, 1) if days or len(parts) == 3 else (60, 1)
    return 86400 * int(days or 0) + sum(part * scale for part, scale in zip(parts, scales, strict=False))


def _time(asked: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    if asked["time"] is None:
        return
    seconds, saving = limit_seconds(str(asked["time"])), asked["save_seconds"]
    if seconds is None:
        yield "time", f"found {asked['time']!r}", "minutes, hours:minutes:seconds or days-hours"
    elif seconds <= (least := saving + EARLY_SECONDS):
        found = f"found {seconds} s, and the stage is told to save {saving} to {least} s before its end"
        yield "time", found, f"more than {least} s", "ask for more time, or lower launcher.slurm.save_seconds"


def _option(option: str) -> Iterator[tuple[str, ...]]:
    if not OPTION.fullmatch(option):
        yield "extra", f"found {option!r}", "options as one word each: --exclusive, --cpus-per-task=8"
        return
    names = [option.removeprefix("--").split("=")[0]] if option.startswith("--") else list(_short(option))
    for name in names:
        if key := next((key for key in KEYS if key.startswith(name)), ""):
            yield "extra", f"found {option!r}, which has a key of its own", "", f"set launcher.slurm.{key}"
        elif any(own.startswith(name) for own in OWN_OPTIONS):
            yield "extra", f"found {option!r}", "options that the stage's job doesn't set itself"


def _short(option: str) -> Iterator[str]:
    """The long names of a word of short options; empty of those that a stage's job leaves alone."""
    for letter in option[1:]:
        if letter in SHORT_OPTIONS:
            yield SHORT_OPTIONS[letter]
        if letter not in WITHOUT_VALUE:
            return


def _secrets(asked: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for key, value in asked.items():
        for text in value if isinstance(value, list) else [value]:
            words = ASSIGNMENT.findall(str(text))
            if redact(str(text)) != str(text) or any(is_secret(name) for name, _ in words):
                found = "what looks like a secret would stand in the job's script or its command"
                hint = "set it in the environment of the flow; launcher.slurm.export hands variables on by name"
                yield key, found, "", hint


def _gpus(gres: str, processes: int) -> Iterator[tuple[str, ...]]:
    found = [words for part in gres.split(",") if (words := part.strip().split(":"))[0] in GPUS]
    if not found:
        hint = f"name all of them: gpu:{processes},{gres}"
        yield "gres", f"found {gres!r}, and launcher.device is cuda", "GPUs among them", hint
        return
    # gpu, gpu:4, gpu:h100 and gpu:h100:4; of one GPU's shares nobody knows how many processes they serve.
    amount = sum(int(words[-1]) if words[-1].isdecimal() else 1 for words in found)
    if amount < processes and all(words[0] == "gpu" for words in found):
        yield "gres", f"found {gres!r}, and launcher.nproc_per_node is {processes}", "a GPU for each process"
