"""Pages and JupyterLab in a headless Chromium, driven by its DevTools protocol over JupyterLab's own websocket client.

    python -m tests.browser runs/report.html --screenshots build/browser    every figure and table at two widths
    python -m tests.browser lab --screenshots build/browser                 the explorer, after `make study`

Chromium is the machine's own (`apt-get install chromium`); where there is none, one sentence says so.
"""

import argparse
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import websocket

from attnsem import StudyError
from attnsem.files import ROOT

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
MISSING = "no Chromium is installed, in which pages could be opened; install one, such as by: apt-get install chromium"
WIDTHS = (1280, 390)  # pixels, of a desktop and of a phone
PIECE = 4000  # pixels, of a screenshot's height

FAULTS = r"""(async width => {
  const faults = [];
  const name = element => {
    const heading = [...document.querySelectorAll('h1, h2, h3')].filter(
      h => h.compareDocumentPosition(element) & Node.DOCUMENT_POSITION_FOLLOWING).pop();
    const words = (element.alt || element.innerText || '').trim().split('\n')[0].slice(0, 40);
    return element.tagName.toLowerCase() + (words && ` "${words}"`)
      + (heading ? ` below "${heading.innerText.replace('¶', '').trim()}"` : '');
  };
  const marks = 'path, rect, circle, line, polyline, polygon, text, image, use';
  const beyond = box => box.left < -1 || box.right > width + 1;
  const isFree = element => element === document.body
    || getComputedStyle(element).overflowX === 'visible' && isFree(element.parentElement);
  const cut = element => {  // the element, and each scroller that it is in, must lie in what holds it
    let box = element.getBoundingClientRect();
    for (let parent = element.parentElement; parent && parent !== document.body; parent = parent.parentElement) {
      const overflow = getComputedStyle(parent).overflowX, frame = parent.getBoundingClientRect();
      if (overflow === 'visible' || box.left >= frame.left - 1 && box.right <= frame.right + 1) continue;
      if (overflow !== 'auto' && overflow !== 'scroll') return true;
      box = frame;
    }
    return beyond(box);
  };
  const images = [...document.images];
  images.forEach(image => { image.loading = 'eager'; });
  await Promise.allSettled(images.map(image => image.decode()));
  const drawings = [...document.querySelectorAll('svg, canvas')].filter(e => !e.parentElement.closest('svg'));
  const tables = [...document.querySelectorAll('table')];
  if (images.length + drawings.length + tables.length === 0) faults.push('the page has no figure and no table');
  for (const figure of [...images, ...drawings]) {
    const box = figure.getBoundingClientRect();
    const isEmpty = figure.tagName === 'IMG' ? !figure.naturalWidth
      : figure.tagName === 'svg' && !figure.querySelector(marks);
    if (isEmpty) faults.push(`${name(figure)} shows nothing`);
    else if (!box.width || !box.height || !figure.checkVisibility({opacityProperty: true, visibilityProperty: true}))
      faults.push(`${name(figure)} is not visible`);
    else if (beyond(box))
      faults.push(`${name(figure)} reaches from ${Math.round(box.left)} to ${Math.round(box.right)} pixels`);
  }
  for (const table of tables) {
    const box = table.getBoundingClientRect();
    if (!box.width || !box.height) faults.push(`${name(table)} is not visible`);
    else if (cut(table)) faults.push(`${name(table)} is cut off: ${Math.round(box.width)} pixels wide`);
    const hidden = [...table.querySelectorAll('td, th')].find(
      cell => cell.scrollWidth > cell.clientWidth + 1 && getComputedStyle(cell).overflowX !== 'visible');
    if (hidden) faults.push(`${name(table)} has a cell that is cut off, ${name(hidden)}`);
  }
  const page = document.scrollingElement.scrollWidth;
  if (page > width + 1) {
    const widest = [...document.body.querySelectorAll('*')].filter(
      e => beyond(e.getBoundingClientRect()) && isFree(e.parentElement)).pop();
    faults.push(`the page is ${page} pixels wide` + (widest ? ` by ${name(widest)}` : ''));
  }
  return faults;
})"""


class Browser:
    """One page of a Chromium of its own; a context manager.

    errors: what the page has said on its console since it was opened; addresses: what it has asked the network for.
    """

    def __enter__(self) -> "Browser":
        if CHROMIUM is None:
            raise StudyError(MISSING)
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        flags = ["--headless=new", "--remote-debugging-port=0", "--remote-allow-origins=*", "--disable-gpu"]
        flags += [
            "--no-first-run",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            f"--user-data-dir={self.profile.name}",
        ]
        flags += ["--no-sandbox"] * (getattr(os, "geteuid", lambda: 1)() == 0)  # it refuses root with one
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen([CHROMIUM, *flags, "about:blank"], **quiet)
        try:
            port = wait(self._port, "Chromium does not start")
            pages = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list"))
            address = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
            self.socket = websocket.create_connection(address, timeout=600, suppress_origin=True)
            self.number, self.events, self.errors, self.addresses = 0, [], [], []
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.__exit__()
            raise
        return self

    def _port(self) -> str:
        path = Path(self.profile.name) / "DevToolsActivePort"
        return path.read_text().split()[0] if path.exists() and path.read_text() else ""

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(20)
        self.profile.cleanup()

    def call(self, method: str, **parameters: object) -> dict:
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while (message := json.loads(self.socket.recv())).get("id") != self.number:
            self._note(message)
        if "error" in message:
            raise StudyError(f"{method}: {message['error']['message']}")
        return message["result"]

    def _note(self, event: dict) -> None:
        method, values = event["method"], event["params"]
        self.events.append(method)
        if method == "Network.requestWillBeSent" and values["request"]["url"].startswith(("http:", "https:")):
            self.addresses.append(values["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = values["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]).splitlines()[0])
        elif method == "Runtime.consoleAPICalled" and values["type"] in ("error", "assert"):
            self.errors.append(" ".join(str(part.get("value", part.get("description"))) for part in values["args"]))
        elif method == "Log.entryAdded" and values["entry"]["level"] == "error":
            is_asked = values["entry"].get("url") in self.addresses
            self.errors += [values["entry"]["text"]] * (not is_asked)

    def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)

    def open(self, address: str) -> None:
        """Until its load event."""
        for seen in (self.events, self.errors, self.addresses):
            seen.clear()
        self.call("Page.navigate", url=address)
        wait(lambda: self.run("document.readyState") == "complete" and "Page.loadEventFired" in self.events, address)

    def run(self, program: str) -> object:
        """The value of a JavaScript expression, awaited; StudyError where it throws."""
        options = {"awaitPromise": True, "returnByValue": True, "userGesture": True}
        result = self.call("Runtime.evaluate", expression=program, **options)
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise StudyError(details.get("exception", {}).get("description", details["text"]))
        return result["result"].get("value")

    def screenshots(self, folder: Path, name: str, *, is_whole: bool = True) -> list[Path]:
        """The whole page in pieces from top to bottom, or the window."""
        folder.mkdir(parents=True, exist_ok=True)
        size = self.call("Page.getLayoutMetrics")["cssContentSize" if is_whole else "cssLayoutViewport"]
        width, height = (size.get(side, size.get(f"client{side.title()}")) for side in ("width", "height"))
        paths = []
        for number, top in enumerate(range(0, int(height), PIECE)):
            clip = {"x": 0, "y": top, "width": width, "height": min(PIECE, height - top), "scale": 1}
            image = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=is_whole)["data"]
            paths.append(folder / f"{name}-{number}.png")
            paths[-1].write_bytes(base64.b64decode(image))
        return paths


def wait(condition, what: str, seconds: float = 60):
    """What the condition gives when it gives something."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise StudyError(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(0.1)
    return value


def check(path: str | Path, widths: tuple[int, ...] = WIDTHS, screenshots: Path | None = None) -> list[str]:
    """What is wrong with an HTML file at some widths (pixels), a sentence each, each once and with its widths.

    A figure that is empty, hidden or wider than the window; a table that is cut off; a page that scrolls sideways;
    an error on the console; anything that is asked of the network.
    """
    path, faults = Path(path).resolve(), {}
    if not path.is_file():
        raise StudyError(f"there is no file {path}")
    with Browser() as browser:
        browser.call("Network.setBlockedURLs", urls=["http://*", "https://*"])
        for width in widths:
            browser.size(width, 900)
            browser.open(path.as_uri())
            sentences = browser.run(f"{FAULTS}({width})")
            sentences += [f"an error on the console: {error}" for error in browser.errors]
            sentences += [f"the page asks the network for {address}" for address in browser.addresses]
            for sentence in dict.fromkeys(sentences):
                faults.setdefault(sentence, []).append(width)
            if screenshots:
                browser.screenshots(screenshots, f"{path.stem}-{width}")
    return [f"{sentence} (at {' and '.join(map(str, at))} pixels)" for sentence, at in faults.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", help="an HTML file, or lab")
    parser.add_argument("--screenshots", type=Path, help="a folder for pictures of what was seen")
    given = parser.parse_args()
    try:
        if given.page == "lab":
            from tests.lab import check_lab

            faults = check_lab(given.screenshots or ROOT / "build/browser")
        else:
            faults = check(given.page, screenshots=given.screenshots)
    except StudyError as error:
        sys.exit(str(error))
    print("\n".join(faults) or "nothing is wrong")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
