"""The pages of the repository as a site: ``make docs``, or ``python docs/site_pages.py [--out site]``.

The pages are copied into a folder of their own, where README.md is the first one, what a page names outside of docs/
is a page, too, and every key stands in a reference made from the schemas. From there zensical builds the site, which
asks nothing of the internet. A link that leads nowhere ends the build.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from titanflow.config.reference.pages import reference_pages

ROOT = Path(__file__).parent.parent
SETTINGS = Path(__file__).with_name("site.yml")
STYLE = Path(__file__).with_name("site.css")
REFERENCE = PurePosixPath("reference")
SOURCES = PurePosixPath("source")
"""Where a page lies that shows a file of the repository."""
LEVELS = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages beside docs/, by what they are called on the site."""
UNSEARCHED = "---\nsearch: {exclude: true}\n---\n\n"
"""At the top of a page of code, which a search would find before the page that explains it."""
PROGRAM = ("-m", "zensical")
FENCED = re.compile(r"^( *)(```+)[^\n]*\n.*?^\1\2 *$", re.MULTILINE | re.DOTALL)
TARGET = re.compile(r"(?P<before>\]\(|\b(?:src|srcset)=\")(?P<target>[^)\s\"]+)")
PICTURES = re.compile(
    r"<picture><source [^>]*srcset=\"(?P<dark>[^\"]+)\"[^>]*><img src=\"(?P<light>[^\"]+)\"(?P<rest>[^>]*)></picture>"
)
"""A picture with one for a dark page: on the site the reader's choice decides, not the system's."""
NAMED = re.compile(r"\[((?:docs/)?[\w-]+\.md)\]\(")
"""A link that shows a page's file."""
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "json"}


class DeadLink(Exception):
    """A page names a file that isn't there."""


@dataclass
class Pages:
    """The folder that the site is built from; ``todo`` are files that a page named and that aren't written yet."""

    folder: Path
    done: set[str] = field(default_factory=set)
    todo: list[str] = field(default_factory=list)

    def write(self) -> None:
        """Writes every page, and what they name."""
        self.todo = [*LEVELS, *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
        while self.todo:
            name = self.todo.pop(0)
            if name not in self.done:
                self.done.add(name)
                self._write(name)
        for name, text in reference_pages().items():
            self._put(REFERENCE / f"{name}.md", text)
        shutil.copy(STYLE, self.folder)

    def _write(self, name: str) -> None:
        path, place = ROOT / name, placed(name)
        if name.endswith(".md"):
            self._put(place, self.linked(name, path.read_text(encoding="utf-8")))
        elif path.is_dir():
            files = "\n".join(f"- `{one.relative_to(path)}`" for one in sorted(path.rglob("*.py")))
            self._put(place, f"{UNSEARCHED}# {name}\n\nThis folder holds:\n\n{files}\n")
        elif place.suffix == ".md":
            text = path.read_text(encoding="utf-8")
            self._put(place, f"{UNSEARCHED}# {name}\n\n````{LANGUAGES.get(path.suffix, 'text')}\n{text}````\n")
        else:
            (self.folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, self.folder / place)

    def _put(self, place: PurePosixPath, text: str) -> None:
        target = self.folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def linked(self, name: str, text: str) -> str:
        """The text of a page with its links as they are on the site, those in code left alone."""
        parts, end = [], 0
        for fence in FENCED.finditer(text):
            parts += [self._relinked(name, text[end : fence.start()]), fence[0]]
            end = fence.end()
        return "".join([*parts, self._relinked(name, text[end:])])

    def _relinked(self, name: str, text: str) -> str:
        text = PICTURES.sub(r'<img src="\g<light>#only-light"\g<rest>><img src="\g<dark>#only-dark"\g<rest>>', text)
        text = NAMED.sub(lambda found: f"[{title(ROOT / PurePosixPath(name).parent / found[1])}](", text)
        return TARGET.sub(lambda found: found["before"] + self._target(name, found["target"]), text)

    def _target(self, name: str, target: str) -> str:
        file, hash_, anchor = target.partition("#")
        if not file or "://" in target or target.startswith("mailto:"):
            return target
        named = os.path.normpath(PurePosixPath(name).parent / file)
        if not (ROOT / named).exists():
            raise DeadLink(f"{name}: {target} names no file")
        self.todo.append(named)
        return os.path.relpath(placed(named), placed(name).parent) + hash_ + anchor


def title(page: Path) -> str:
    """The heading of a page, or its name where it isn't there."""
    return page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ") if page.is_file() else page.name


def placed(name: str) -> PurePosixPath:
    """Where a file of the repository lies on the site."""
    path = PurePosixPath(name)
    if name in LEVELS:
        return PurePosixPath(LEVELS[name])
    if path.parts[0] == "docs":
        return path.relative_to("docs")
    is_shown = path.suffix in LANGUAGES or not path.suffix or path.suffix == ".service"
    return SOURCES / (path.with_name(f"{path.name}.md") if is_shown else path)


def navigation() -> list[Any]:
    """README.md first, then the pages that its table names, in its order; the reference behind the configuration."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Where to go next\n")[2]
    named = [str(placed(target)) for target in re.findall(r"\]\(([\w/.-]+\.md)\)", text)]
    pages: list[Any] = [{"Start": "index.md"}, *dict.fromkeys(named), "changelog.md"]
    keys = [f"{REFERENCE}/{name}.md" for name in reference_pages()]
    pages.insert(pages.index("configuration.md") + 1, {"Every key": keys})
    return pages


def build(out: Path) -> int:
    """Builds the site into ``out``, which it replaces; the exit status of zensical, or 2 for a link to no file."""
    with tempfile.TemporaryDirectory() as folder:
        pages = Path(folder) / "pages"
        pages.mkdir()
        try:
            Pages(pages).write()
        except DeadLink as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        status = make_site(Path(folder), {"docs_dir": pages.name, "nav": navigation()})
        if status == 0:
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(Path(folder) / "site", out)
        return status


def make_site(folder: Path, added: dict[str, Any]) -> int:
    """Builds the pages of a folder into its ``site``; ``added`` goes to the settings of every site."""
    text = SETTINGS.read_text(encoding="utf-8") + yaml.safe_dump(added, sort_keys=False)
    (folder / "mkdocs.yml").write_text(text, encoding="utf-8")
    return subprocess.run([sys.executable, *PROGRAM, "build", "--strict"], cwd=folder, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "site")
    return build(parser.parse_args().out)


if __name__ == "__main__":
    sys.exit(main())
