"""Builds titanflow's image with buildah, from a Debian made here: that needs no registry of images.

``buildah`` and ``debootstrap`` are Debian packages; both need root.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

BASE, IMAGE = "localhost/debian:stand-in", "localhost/titanflow:test"
PYTHON = "python3,python3-venv,ca-certificates"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def why_not() -> str:
    """Why no image can be built here; empty if one can."""
    missing = [name for name in ("buildah", "debootstrap") if shutil.which(name) is None]
    if missing:
        return f"an image needs {' and '.join(missing)}: apt-get install buildah debootstrap"
    return "" if os.geteuid() == 0 else "debootstrap needs root"


class Builder:
    """buildah with images in a ``folder`` of its own; ``log`` gets what it says."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        self._options = ["--root", str(folder / "images"), "--runroot", str(folder / "run")]

    def __call__(self, *arguments: str) -> str:
        """What buildah prints; it fails with the end of its log."""
        with self.log.open("a") as log:
            done = subprocess.run(
                ["buildah", *self._options, *arguments], stdout=subprocess.PIPE, stderr=log, text=True, check=False
            )
            log.write(done.stdout)
        assert done.returncode == 0, self.log.read_text()[-4000:]
        return done.stdout.strip()

    def base(self) -> None:
        """Makes Debian with Python, in place of the image that the Dockerfile begins with."""
        debian = self.folder / "debian"
        suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
        command = ["debootstrap", "--variant=minbase", f"--include={PYTHON}", suite, str(debian)]
        with self.log.open("a") as log:
            subprocess.run(command, stdout=log, stderr=log, check=True)
        container = self("from", "scratch")
        self("copy", "--quiet", container, str(debian), "/")
        self("commit", "--quiet", "--rm", container, BASE)

    def build(self, source: Path, *arguments: str) -> None:
        """Builds the image from a folder of the project, with pip configured as it is here."""
        configuration = self.folder / "pip.conf"
        configuration.write_text(pip_configuration())
        options = ["--isolation", "chroot", "--network", "host", "--layers", "--build-arg", f"BASE={BASE}"]
        options += ["--secret", f"id=pip.conf,src={configuration}"]
        for place in {*local_places(configuration.read_text()), CERTIFICATES}:
            options += ["--volume", f"{place}:{place}:ro"] if place.exists() else []
        dockerfile = ["--file", str(source / "deployments" / "Dockerfile"), "--tag", IMAGE]
        self("build", *options, *dockerfile, *arguments, str(source))

    def run(self, command: Sequence[str], user: str, workspace: Path) -> str:
        """What a command prints in a new container."""
        container = self("from", "--pull-never", IMAGE)
        try:
            options = ["--isolation", "chroot", "--user", user, "--volume", f"{workspace}:/workspace"]
            return self("run", *options, container, "--", *command)
        finally:
            self("rm", container)

    def description(self) -> str:
        """All that the image says of itself: its configuration and its history."""
        return self("inspect", "--type", "image", IMAGE)

    def layers(self) -> list[str]:
        """The digests of the image's layers, from below."""
        return list(json.loads(self.description())["OCIv1"]["rootfs"]["diff_ids"])


def pip_configuration() -> str:
    """The configuration of pip here as one file."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    found: dict[str, list[str]] = {}
    for line in listed.stdout.splitlines():
        key, _, value = line.partition("=")
        # A variable is of this section; the lock says what else would.
        name = key.removeprefix(":env:").removeprefix("global").lstrip(".")
        if name != "constraint":
            found.setdefault(name, []).append(value.strip("'"))
    return "[global]\n" + "".join(f"{name} = {' '.join(dict.fromkeys(values))}\n" for name, values in found.items())


def local_places(configuration: str) -> set[Path]:
    """The folders of this machine that a configuration of pip names."""
    words = configuration.replace("=", " ").split()
    paths = {Path(word.removeprefix("file://")) for word in words if word.startswith(("/", "file:///"))}
    return {path.parent if path.name == "simple" else path for path in paths}
