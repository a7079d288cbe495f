"""The site: built strictly, without a dead link or anchor, and without a request to anything but itself."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt

from titanflow.config.reference.pages import reference_pages

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))
from site_pages import DeadLink, Pages, build, make_site, navigation, placed  # noqa: E402

COUNTED = ("li", "table", "tr", "pre", "h1", "h2", "h3", "blockquote")
FETCHED = {"script": "src", "img": "src", "source": "srcset", "iframe": "src"}
"""What a browser fetches by itself, beside what <link> names."""


@dataclass
class Page(HTMLParser):
    """What a page of the site links to, fetches and can be linked at; ``elements`` are those of its text."""

    path: Path
    links: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    elements: Counter[str] = field(default_factory=Counter)
    in_text: bool = False

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors.add(values.get("id", ""))
        self.in_text = self.in_text or tag == "article"
        self.elements[tag] += self.in_text
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and values.get("rel") != "canonical":
            self.fetched.append(values["href"])
        elif FETCHED.get(tag) in values:
            self.fetched.append(values[FETCHED[tag]])

    def handle_endtag(self, tag: str) -> None:
        self.in_text = self.in_text and tag != "article"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    """Every page by its path."""
    out = tmp_path_factory.mktemp("built") / "site"
    assert build(out) == 0
    return {path: Page(path) for path in sorted(out.rglob("*.html"))}


def local(page: Page, target: str) -> tuple[Path, str]:
    """The file and the anchor that a page's link names."""
    file, _, anchor = target.partition("#")
    here = page.path.parent / unquote(file.partition("?")[0]) if file else page.path
    return (here / "index.html" if here.is_dir() else here).resolve(), unquote(anchor)


def dead(site: dict[Path, Page]) -> Iterator[str]:
    for page in site.values():
        # The page for what isn't there is shown at any address, so that its links begin at the top.
        if page.path.name == "404.html":
            continue
        for target in page.links:
            if "://" in target:
                continue
            file, anchor = local(page, target)
            known = site[file].anchors if file in site else None
            if not file.is_file() or (anchor and known is not None and anchor not in known):
                yield f"{page.path.name}: {target}"


def test_no_link_and_no_anchor_is_dead(site: dict[Path, Page]) -> None:
    assert sum(len(page.links) for page in site.values()) > 1000
    assert list(dead(site)) == []


def test_a_browser_fetches_nothing_from_elsewhere(site: dict[Path, Page]) -> None:
    for page in site.values():
        assert [target for target in page.fetched if "//" in target] == []
        if page.path.name != "404.html":
            assert [one for one in page.fetched if not local(page, one)[0].is_file()] == []
        # The one script that the site has loads these from elsewhere, where a page has such a block.
        assert not re.search(r'class="[^"]*\b(mermaid|arithmatex|glightbox)\b', page.path.read_text(encoding="utf-8"))
    for style in next(iter(site)).parent.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*['\"]?(https?:)?//", style.read_text(encoding="utf-8"))


def test_every_page_is_there_and_in_the_navigation_or_linked(site: dict[Path, Page]) -> None:
    out = next(iter(site)).parent
    assert out.name == "site"
    pages = {(out / placed(f"docs/{path.name}")).with_suffix(".html") for path in DOCS.glob("*.md")}
    keys = {out / "reference" / f"{name}.html" for name in reference_pages()}
    assert (pages | keys) - set(site) == set()
    linked = {local(page, target)[0] for page in site.values() for target in page.links if "://" not in target}
    assert {path.name for path in pages | keys if path.resolve() not in linked} == set()


def test_the_navigation_is_readmes_table() -> None:
    start, *_ = pages = navigation()
    assert start == {"Start": "index.md"}
    assert list(pages[pages.index("configuration.md") + 1]) == ["Every key"]
    assert [page for page in pages if isinstance(page, str)][-3:] == [
        "contributing.md",
        "decisions.md",
        "changelog.md",
    ]


def test_the_site_is_laid_out_as_github_shows_the_pages(site: dict[Path, Page]) -> None:
    """Python-Markdown reads some lists, tables and blocks otherwise than GitHub does."""
    out = next(iter(site)).parent
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(f"docs/{path.name}" for path in DOCS.glob("*.md"))):
        shown = MarkdownIt("commonmark").enable("table").render((ROOT / name).read_text(encoding="utf-8"))
        theirs = Counter({tag: len(re.findall(rf"<{tag}[ >]", shown)) for tag in COUNTED})
        ours = site[(out / placed(name)).with_suffix(".html")].elements
        assert {tag: ours[tag] for tag in COUNTED} == dict(theirs), name


def test_search_knows_the_keys(site: dict[Path, Page]) -> None:
    index = (next(iter(site)).parent / "search.json").read_text(encoding="utf-8")
    assert "nproc_per_node" in index
    assert "better_than_last" in index
    assert "base-job-template.json.html" not in index


@pytest.mark.parametrize("target", ["nowhere.md", "../titan/nothing.py"])
def test_a_link_to_no_file_is_refused(tmp_path: Path, target: str) -> None:
    with pytest.raises(DeadLink, match="names no file"):
        Pages(tmp_path).linked("docs/data.md", f"See [this]({target}).")
    assert Pages(tmp_path).linked("docs/data.md", f"```\n[this]({target})\n```\n") == f"```\n[this]({target})\n```\n"


@pytest.mark.parametrize(("link", "status"), [("#there", 0), ("#nowhere", 1)])
def test_a_dead_anchor_ends_the_build(tmp_path: Path, link: str, status: int) -> None:
    (tmp_path / "pages").mkdir()
    text = f"# A page\n\nSee [this]({link}).\n\n## There\n"
    (tmp_path / "pages" / "index.md").write_text(text, encoding="utf-8")
    (tmp_path / "pages" / "site.css").touch()
    assert make_site(tmp_path, {"docs_dir": "pages"}) == status
