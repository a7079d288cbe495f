"""The command line on the tiny experiment, in a process of its own."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from terminal import Terminal

from titanflow.runs.metrics import RECORD_BATCHES


@dataclass(frozen=True)
class Cli:
    """``titanflow … tiny --configs …``."""

    configs: Path
    home: Path
    api: str = ""
    """The address of a Prefect server; without one each run starts its own."""

    @property
    def run_folder(self) -> Path:
        """The run that has no name of its own."""
        return self.configs.parent / "runs" / "tiny" / "main"

    @property
    def environment(self) -> dict[str, str]:
        server = {"PREFECT_API_URL": self.api} if self.api else {}
        return {**os.environ, "PREFECT_HOME": str(self.home), **server, "HF_HUB_OFFLINE": "1", RECORD_BATCHES: "1"}

    def command(self, *arguments: str) -> list[str]:
        named = [arguments[0], "tiny", "--configs", str(self.configs), *arguments[1:]]
        return [sys.executable, "-m", "titanflow.cli.main", *named]

    def in_terminal(self, *arguments: str) -> Terminal:
        """Starts a command as a person does, in a terminal wide enough for a folder's name."""
        return Terminal(self.command(*arguments), self.environment, columns=300, cwd=self.configs.parent)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts a command and returns at once."""
        return subprocess.Popen(
            self.command(*arguments),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.configs.parent,
        )

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end."""
        process = self.start(*arguments)
        out, err = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)
