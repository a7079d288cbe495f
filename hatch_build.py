"""The package's page: README.md as an index of packages shows it, where no file of the repository lies beside it.

hatchling calls this for each wheel and source distribution.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"\[([^\]]*)\]\((?!\w+:|#)([^)\s]+)\)")
"""A link to a file of the repository."""
PICTURE = re.compile(r"<picture>.*?(<img [^>]*>)</picture>|(<img [^>]*>)", re.DOTALL)
ATTRIBUTE = re.compile(r'(src|alt)="([^"]*)"')
COMMENT = re.compile(r"^<!-- .*? -->\n", re.MULTILINE)
WHERE = "The files that this page names, its documentation among them, lie in the source distribution."


class PackagePage(MetadataHookInterface):
    """Gives the package README.md as its long description."""

    def update(self, metadata: dict[str, Any]) -> None:
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        page = package_page(text, metadata.get("urls", {}).get("Repository", ""))
        metadata["readme"] = {"content-type": "text/markdown", "text": page}


def package_page(text: str, repository: str = "") -> str:
    """README.md without a link that leads nowhere.

    Links and pictures lead to the repository's address. If there is none, a link's words and a picture's description
    stand in their place, and a line at the end says where the files are.
    """
    text = COMMENT.sub("", text)
    if not repository:
        text = PICTURE.sub(lambda found: f"*(A picture: {_attributes(found[0])['alt']})*", text)
        words = LINK.sub(r"\g<1>", text).rstrip()
        return f"{words}\n\n{WHERE}\n"
    text = PICTURE.sub(lambda found: _picture(_attributes(found[0]), repository), text)
    return LINK.sub(rf"[\g<1>]({repository}/blob/HEAD/\g<2>)", text)


def _picture(attributes: dict[str, str], repository: str) -> str:
    return f"![{attributes['alt']}]({repository}/raw/HEAD/{attributes['src']})"


def _attributes(tag: str) -> dict[str, str]:
    return dict(ATTRIBUTE.findall(tag))
