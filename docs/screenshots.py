"""Pictures of a finished run's report and of its card, light and dark, for the README: ``make screenshots``.

``python docs/screenshots.py [RUN] [--out docs/images]`` needs Chromium or Chrome on the PATH. The card is the one
that the run published into a folder, shown as the Hub shows it.
"""

from __future__ import annotations

import argparse
import html
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from markdown_it import MarkdownIt
from PIL import Image

from titanflow.common.errors import ConfigError, Problem, TitanflowError
from titanflow.publish.bundle import CARD
from titanflow.report.render import render_report
from titanflow.runs.results import PublishResult, read_result

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
SCHEMES = {"light": "1", "dark": "0"}
"""``prefers-color-scheme``, and its number among Blink's settings."""
WIDTH = 1100
HEIGHTS = {"report": 1910, "card": 2310}
COLOURS = 256
"""Colours that a picture keeps: as good to look at, and half the size."""
CARD_PAGE = """<!doctype html><html><head><meta charset="utf-8"><base href="{base}"><style>
:root {{ color-scheme: light dark; --page: #fff; --text: #1f2328; --muted: #59636e; --line: #d1d9e0; --code: #f4f5f7; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --page: #0b0f19; --text: #e3e6ea; --muted: #9198a1; --line: #313a47; --code: #161c28; }} }}
body {{ margin: 0; background: var(--page); color: var(--text); font: 16px/1.6 system-ui, "Segoe UI", sans-serif; }}
main {{ max-width: 940px; margin: 0 auto; padding: 32px 32px 64px; }}
h1 {{ font-size: 30px; margin: 18px 0 12px; }}
h2 {{ font-size: 22px; margin: 34px 0 10px; padding-bottom: 6px; border-bottom: 1px solid var(--line); }}
h3 {{ font-size: 17px; margin: 24px 0 8px; }}
.chip {{ display: inline-block; border: 1px solid var(--line); border-radius: 8px; padding: 0 9px; margin: 0 6px 6px 0;
  font-size: 13px; color: var(--muted); }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; font-size: 14px; margin: 14px 0; }}
th, td {{ border: 1px solid var(--line); padding: 5px 11px; text-align: left; }}
code {{ background: var(--code); border-radius: 5px; padding: 1px 5px; font: 85% "DejaVu Sans Mono", monospace; }}
pre {{ background: var(--code); border-radius: 8px; padding: 14px; overflow-x: auto; line-height: 1.45; }}
pre code {{ padding: 0; }}
img {{ max-width: 100%; }}
a {{ color: #3b82f6; }}
</style></head><body><main>{chips}{body}</main></body></html>
"""


def card_page(folder: Path) -> str:
    """A published folder's card as a page: its tags, and its text."""
    _, front, text = (folder / CARD).read_text().split("---\n", 2)
    matter: dict[str, Any] = yaml.safe_load(front)
    named = [matter.get("pipeline_tag"), matter.get("library_name"), *matter.get("tags", []), matter.get("license")]
    chips = "".join(f'<span class="chip">{html.escape(str(name))}</span>' for name in named if name)
    # Raw HTML stays text, as nothing in a card needs it but the line breaks in its tables.
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text).replace("&lt;br&gt;", "<br>")
    return CARD_PAGE.format(base=f"{folder.resolve().as_uri()}/", chips=chips, body=body)


def shoot(browser: str, page: Path, scheme: str, height: int, out: Path) -> None:
    """One picture of the top of a page.

    Raises:
        RuntimeError: the browser made none.
    """
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, *QUIET, f"--user-data-dir={profile}", f"--window-size={WIDTH},{height}"]
        command += [f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}", f"--screenshot={out}", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if not out.is_file():
        raise RuntimeError(f"{browser} made no picture (exit status {done.returncode}):\n{done.stderr[-2000:]}")
    with Image.open(out) as picture:
        save_small(picture, out)


def find_browser() -> str | None:
    """The browser on the PATH; without one, says which to install."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        print(f"no browser on the PATH: install one of {', '.join(BROWSERS)}", file=sys.stderr)
    return browser


def save_small(picture: Image.Image, out: Path) -> None:
    """Writes a picture as a PNG of few colours."""
    picture.convert("RGB").quantize(COLOURS).save(out, "png", optimize=True)


def published_folder(run: Path) -> Path:
    """The folder that a run published its model into.

    Raises:
        ConfigError: the run hasn't published, or not into a folder.
    """
    result = read_result(run / "publish") if (run / "publish" / "result.json").is_file() else None
    if isinstance(result, PublishResult) and result.target == "folder" and (Path(result.location) / CARD).is_file():
        return Path(result.location)
    hint = "finish it with `publish.target: folder`"
    raise ConfigError(Problem(f"{run} has published no folder with a card", hint=hint))


def main() -> int:
    """Makes the pictures; the exit status is 2 where something for them is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, default=Path("runs/stdlib/main"), metavar="RUN")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    args = parser.parse_args()
    browser = find_browser()
    if browser is None:
        return 2
    try:
        pages = {"report": render_report(args.run), "card": card_page(published_folder(args.run))}
    except TitanflowError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in pages.items():
            page = Path(folder) / f"{name}.html"
            page.write_text(text)
            for scheme in SCHEMES:
                out = args.out.resolve() / f"{name}-{scheme}.png"
                shoot(browser, page, scheme, HEIGHTS[name], out)
                print(f"{args.out}/{out.name}: {out.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
