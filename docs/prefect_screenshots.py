"""Pictures of Prefect's pages for the README: ``python docs/prefect_screenshots.py [http://127.0.0.1:4200]``.

The form of the on-demand deployment and the newest run, of a server that runs (``titanflow serve``). Needs Chromium or
Chrome on the PATH. The pages are alive: what is pictured is what they show a while after they were opened.
"""

from __future__ import annotations

import argparse
import base64
import io
import itertools
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from screenshots import QUIET, find_browser, save_small
from websockets.sync.client import ClientConnection, connect

WIDTH = 1300
HEIGHTS = {"prefect-form": 1900, "prefect-run": 960}
LOADING_SECONDS = 10.0
DEPLOYMENT = "/deployments/name/pretrain-sft/on-demand"


def ask(url: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """What the server's API answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/api{path}", data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def pages(url: str) -> dict[str, str]:
    """The pictures' names and the addresses of what they show; no run where none was started."""
    deployment = ask(url, DEPLOYMENT)["id"]
    started = {"start_time": {"is_null_": False}}
    runs = ask(url, "/flow_runs/filter", {"limit": 1, "sort": "START_TIME_DESC", "flow_runs": started})
    found = {"prefect-form": f"{url}/deployments/deployment/{deployment}/run"}
    if runs:
        found["prefect-run"] = f"{url}/runs/flow-run/{runs[0]['id']}"
    return found


@contextmanager
def opened(browser: str, height: int) -> Iterator[ClientConnection]:
    """A connection to the one page of a browser of this size."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [browser, *QUIET, f"--user-data-dir={profile}", f"--window-size={WIDTH},{height}"]
        command += ["--remote-debugging-port=0", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port_file = Path(profile) / "DevToolsActivePort"
            while not (port_file.is_file() and port_file.read_text()):
                if process.poll() is not None:
                    raise RuntimeError(f"{browser} ended with {process.returncode}")
                time.sleep(0.1)
            port = port_file.read_text().splitlines()[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=30) as answer:
                page = next(target for target in json.load(answer) if target["type"] == "page")
            with connect(page["webSocketDebuggerUrl"], max_size=None) as connection:
                yield connection
        finally:
            process.terminate()
            process.wait(20)


def shoot(browser: str, address: str, height: int, out: Path) -> None:
    """One picture of the top of a page."""
    numbers = itertools.count(1)
    with opened(browser, height) as page:

        def call(method: str, **parameters: Any) -> Any:
            number = next(numbers)
            page.send(json.dumps({"id": number, "method": method, "params": parameters}))
            while (answer := json.loads(page.recv(timeout=60))).get("id") != number:
                pass
            return answer["result"]

        call("Page.navigate", url=address)
        time.sleep(LOADING_SECONDS)
        picture = base64.b64decode(call("Page.captureScreenshot", format="png")["data"])
    with Image.open(io.BytesIO(picture)) as image:
        save_small(image, out)


def main() -> int:
    """Makes the pictures; the exit status is 2 where something for them is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:4200", metavar="URL")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    args = parser.parse_args()
    browser = find_browser()
    if browser is None:
        return 2
    try:
        shown = pages(args.url)
    except OSError as error:
        print(
            f"no server with the on-demand deployment answers at {args.url} ({error}): titanflow serve", file=sys.stderr
        )
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    for name, address in shown.items():
        out = args.out / f"{name}.png"
        shoot(browser, address, HEIGHTS[name], out)
        print(f"{out}: {out.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
