"""JupyterLab as a person uses it, in a real browser: notebooks run and saved, the explorer, what git says after it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from attnsem import StudyError
from attnsem.datasets import scenes
from attnsem.files import ROOT
from tests.browser import Browser, wait

NOTEBOOKS = ("notebooks/09_attention_channels.ipynb", "notebooks/05_table1_voc2007.ipynb")
CONTROLS = r"""window.explorer = {
  text: element => element?.textContent.replaceAll('\u00a0', ' '),
  picture: () => document.querySelector('img.widget-image'),
  control: name => [...explorer.picture().closest('.widget-vbox').querySelectorAll('.widget-label')].find(
    label => label.textContent === name).parentElement,
  chosen: name => explorer.text(explorer.control(name).querySelector('select')?.selectedOptions[0])
    ?? explorer.text(explorer.control(name).querySelector('.mod-active')),
  listed: name => [...explorer.control(name).querySelectorAll('option')].map(explorer.text),
  state: () => ({
    ...Object.fromEntries(['image', 'label', 'stage', 'gate'].map(name => [name, explorer.chosen(name)])),
    labels: explorer.listed('label'), count: explorer.listed('image').length,
    last: explorer.listed('image').pop().split(':')[0],
    picture: explorer.picture().naturalWidth ? explorer.picture().src : '',
    below: explorer.picture().getBoundingClientRect().bottom - panel.content.node.getBoundingClientRect().bottom,
  }),
  choose: (name, text) => {
    const control = explorer.control(name), list = control.querySelector('select');
    if (!list) return [...control.querySelectorAll('button')].find(button => button.textContent === text).click();
    list.value = [...list.options].find(option => explorer.text(option).startsWith(text)).value;
    list.dispatchEvent(new Event('change', {bubbles: true}));
  },
}; true"""


class Lab:
    """JupyterLab of `make lab` in a browser; a context manager. Its settings are its own, not the user's."""

    def __init__(self, browser: Browser, log: Path) -> None:
        self.browser, self.log = browser, log

    def __enter__(self) -> "Lab":
        self.settings = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        home = Path(self.settings.name)
        news = home / "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
        news.parent.mkdir(parents=True)
        news.write_text('{"fetchNews": "false", "checkForUpdates": false}')
        folders = {"RUNTIME_DIR": "runtime", "CONFIG_DIR": "config"}
        folders = {f"JUPYTER_{name}": str(home / folder) for name, folder in folders.items()}
        folders |= {f"JUPYTERLAB_{name}_DIR": str(home / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
        options = "--no-browser --ServerApp.port=0 --LabApp.expose_app_in_browser=True"
        command = ["make", "lab", f"BIN={Path(sys.executable).parent}", "-o", ".venv/ready", f"ARGS={options}"]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("w") as log:
            quiet = {"stdout": log, "stderr": subprocess.STDOUT}
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=os.environ | folders, start_new_session=True, **quiet
            )
        try:
            runtime = home / "runtime"
            path = wait(lambda: next(runtime.glob("jpserver-*.json"), None), f"JupyterLab's start, see {self.log}")
            server = wait(lambda: json.loads(path.read_text() or "{}"), "the server's address")
            self.browser.size(1280, 800)
            self.browser.open(f"{server['url']}?token={server['token']}")
            wait(lambda: self.browser.run("Boolean(window.jupyterapp)"), "JupyterLab's page")
            self.browser.run("jupyterapp.restored.then(() => true)")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Ends make and the server, whose kernels end with it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
            for _ in range(100):
                self.process.poll()
                os.killpg(self.process.pid, 0)
                time.sleep(0.2)
            os.killpg(self.process.pid, signal.SIGKILL)
        self.settings.cleanup()

    def command(self, name: str, **values: object) -> None:
        self.browser.run(f"jupyterapp.commands.execute({name!r}, {json.dumps(values)}).then(() => true)")

    def open(self, path: str) -> None:
        """A notebook, until its kernel is idle."""
        values = json.dumps({"path": path, "factory": "Notebook"})
        self.browser.run(f"""(async () => {{
          window.panel = await jupyterapp.commands.execute('docmanager:open', {values});
          await panel.context.ready;
          jupyterapp.shell.activateById(panel.id);
        }})()""")
        kernel = "panel.sessionContext.session?.kernel"
        wait(lambda: self.browser.run(f"Boolean({kernel}?.status === 'idle')"), f"the kernel of {path}", 300)

    def outputs(self) -> list[dict]:
        """Of the code cells of the open notebook, each with its cell's number."""
        program = """panel.content.widgets.flatMap((cell, number) => cell.model.type !== 'code' ? []
          : cell.model.outputs.toJSON().map(output => ({cell: number, ...output})))"""
        return self.browser.run(program)

    def run_all(self, path: str) -> list[str]:
        """Opens a notebook, runs its cells, saves it; what went wrong, a sentence each."""
        self.open(path)
        self.command("notebook:run-all-cells")
        self.browser.run("panel.context.save().then(() => true)")
        said = {output["cell"]: output.get("evalue", output.get("text")) for output in self.outputs() if is_bad(output)}
        return [f"{path}, cell {number}: {text}" for number, text in said.items()]


def is_bad(output: dict) -> bool:
    return output["output_type"] == "error" or output.get("name") == "stderr"


class Explorer:
    """The explorer of the notebook that is open in JupyterLab, used by what a person uses. faults: a sentence each."""

    def __init__(self, browser: Browser, screenshots: Path) -> None:
        self.browser, self.screenshots, self.faults, self.count = browser, screenshots, [], 0

    def open(self) -> None:
        """As a reader comes to it: its title at the upper edge of the window."""
        picture = "document.querySelector('img.widget-image')?.naturalWidth"
        scroll = "panel.content.widgets.at(-3).node.scrollIntoView({block: 'start'})"
        self.browser.run("panel.content.scrollToItem(panel.content.widgets.length - 3).then(() => true)")
        wait(lambda: self.browser.run(f"Boolean({picture})"), "the explorer's picture")
        self.browser.run(CONTROLS)
        time.sleep(1)  # until nothing moves
        self.browser.run(scroll)
        time.sleep(1)
        self.look("opened")

    def look(self, name: str) -> None:
        self.count += 1
        self.browser.screenshots(self.screenshots, f"explorer-{self.count:02}-{name}", is_whole=False)

    def state(self) -> dict:
        return self.browser.run("explorer.state()")

    def change(self, name: str, do: Callable[[], object], is_right: Callable[[dict], bool]) -> None:
        before = self.state()
        do()
        try:
            wait(lambda: self.state()["picture"] not in ("", before["picture"]), "the picture", 30)
        except StudyError:
            self.faults.append(f"after a change of {name} the picture stays as it was")
        if not is_right(now := self.state()):
            self.faults.append(f"after a change of {name} the explorer stands at {now}, before at {before}")
        self.look(name)

    def choose(self, name: str, text: str, is_right: Callable[[dict], bool] = lambda now: True) -> None:
        click = f"explorer.choose({json.dumps(name)}, {json.dumps(text)})"
        self.change(name, lambda: self.browser.run(click), lambda now: now[name].startswith(text) and is_right(now))

    def search(self, text: str, is_right: Callable[[dict], bool]) -> None:
        def type_in() -> None:
            self.browser.run("explorer.control('search').querySelector('input').select()")
            self.browser.call("Input.insertText", text=text)
            for kind in ("keyDown", "keyUp"):
                self.browser.call(
                    "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r"
                )

        self.change("search", type_in, is_right)


def check_explorer(explorer: Explorer, stage: str, images: int) -> list[str]:
    """Opened at `stage`, of a data set with so many test images, one with birds and kites."""
    explorer.open()
    first = explorer.state()
    label, is_there = first["label"].split(" (")[0], "(in the image)" in first["label"]
    if not is_there or label not in first["image"]:
        explorer.faults.append(f"it opens on the label {label} of the image {first['image']}")
    if first["stage"] != stage:
        explorer.faults.append(f"it opens at {first['stage']}, and {stage} was asked for")
    if first["below"] > 1:
        explorer.faults.append(f"its picture ends {first['below']:.0f} pixels below the window")
    if first["count"] != images:
        explorer.faults.append(f"it lists {first['count']} of {images} test images")
    for name in ("stage 2", "stage 3", "stage 4"):
        if name != explorer.state()["stage"]:
            explorer.choose("stage", name)
    for name in ("confidence", "signed", "logits", "literal"):
        explorer.choose("gate", name)
    absent = next(name for name in first["labels"] if "(in the image)" not in name)
    explorer.choose("label", absent)
    explorer.choose("image", first["last"], lambda now: "(in the image)" in now["label"])
    explorer.search(
        "bird kite",
        lambda now: (
            {"bird", "kite"} <= {*words(now["image"])}
            and now["label"].split()[0] in ("bird", "kite")
            and 0 < now["count"] < images
        ),
    )
    explorer.search(first["last"], lambda now: now["image"].startswith(first["last"]) and now["count"] == 1)
    return explorer.faults


def words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def check_lab(screenshots: Path) -> list[str]:
    """What is wrong with notebooks 09 and 05 run in JupyterLab after `make study`, their explorer, and git after it."""
    if not (ROOT / "runs/scenes/proposed/seed0/stage4/manifest.json").exists():
        raise StudyError("no study of scenes is complete in runs, whose explorer could be opened; run: make study")
    before = changes()
    with Browser() as browser, Lab(browser, screenshots / "lab.log") as lab:
        browser.screenshots(screenshots, "lab", is_whole=False)
        faults = lab.run_all(NOTEBOOKS[0])
        faults += check_explorer(Explorer(browser, screenshots), "stage 4", len(scenes.load().splits["test"]))
        faults += lab.run_all(NOTEBOOKS[1])
        faults += [f"an error on the console: {error}" for error in browser.errors]
        for notebook in NOTEBOOKS:
            lab.open(f"runs/{notebook}")
            if not any("image/png" in output.get("data", {}) for output in lab.outputs()):
                faults.append(f"runs/{notebook} has no figure")
    return faults + [f"git is not as it was before: {line}" for line in changes() if line not in before]


def changes() -> list[str]:
    return subprocess.run(
        ["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True
    ).stdout.splitlines()
