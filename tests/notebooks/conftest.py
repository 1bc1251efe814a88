"""JupyterLab in Debian's Chromium, driven as a person would: open, run all, move what moves."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest

from dreamzero.errors import UserError
from dreamzero.report.parameters import read_parameters
from dreamzero.report.site import pdf

# Fewer episodes and steps than `quick`; a notebook that is not named here runs as it is.
SMALLER: dict[str, dict[str, Any]] = {
    "00_tour": {"episodes": 4},
    "01_data": {"episodes": 12},
    "02_training": {"steps": 12},
    "03_inference": {"episodes": 4, "chunks": 6},
    "04_robot_control": {"episodes": 1},
    "05_cross_embodiment": {"episodes": 12, "steps": 12},
}
START_S, CELL_S, WIDTH_PX = 120, 600, 1280

# What the page is asked. A bar's element is gone when its loop is done, so that widths are noted
# as they change.
WATCH = """
window.barWidths = new Map();
new MutationObserver(changes => changes.forEach(({target}) => {
  if (!target.classList || !target.classList.contains('progress-bar')) return;
  if (!window.barWidths.has(target)) window.barWidths.set(target, new Set());
  window.barWidths.get(target).add(target.style.width);
})).observe(document.body, {attributes: true, attributeFilter: ['style'], subtree: true});
"""
OPEN = """
const [path, done] = arguments;
const app = window.jupyterapp;
app.commands.execute('docmanager:open', {path, factory: 'Notebook'}).then(async panel => {
  await panel.revealed;
  await panel.sessionContext.ready;
  window.panel = panel;
  app.shell.activateById(panel.id);
  app.shell.collapseLeft();
  window.barWidths.clear();
  done();
});
"""
STATE = """
const cells = window.panel.content.widgets.map(w => w.model).filter(m => m.type === 'code');
const errors = cells.flatMap(m => m.outputs.toJSON()).filter(o => o.output_type === 'error');
return {
  kernel: window.panel.sessionContext.session?.kernel?.status,
  waiting: cells.filter(m => m.executionCount === null).length,
  running: cells.filter(m => m.executionState === 'running').length,
  errors: errors.map(e => [e.ename + ': ' + e.evalue, ...e.traceback].join('\\n')),
};
"""
BARS = "return [...window.barWidths.values()].map(widths => widths.size)"
SAVE = """
const [done] = arguments;
window.jupyterapp.commands.execute('docmanager:save').then(() => done());
"""
CLOSE = """
const [done] = arguments;
window.panel.sessionContext.shutdown().then(() => { window.panel.dispose(); done(); });
"""
TOP = "window.panel.node.querySelector('.jp-WindowedPanel-outer').scrollTop = 0"
HEIGHT = "return window.panel.node.querySelector('.jp-WindowedPanel-inner').scrollHeight"


class Lab:
    """A JupyterLab server over one folder, and a browser that shows it."""

    def __init__(self, root: Path, driver: Any, url: str) -> None:
        self.root, self.driver, self.url = root, driver, url
        driver.set_script_timeout(START_S)
        driver.get(url)
        self.until(lambda: driver.execute_script("return !!window.jupyterapp"), START_S)
        driver.execute_async_script("window.jupyterapp.restored.then(arguments[0])")
        driver.execute_script(WATCH)

    @staticmethod
    def until(ready: Callable[[], Any], limit_s: float, step_s: float = 0.25) -> Any:
        """What ``ready`` returns as soon as that is true."""
        end = time.monotonic() + limit_s
        while not (value := ready()):
            assert time.monotonic() < end, f"not ready after {limit_s} s"
            time.sleep(step_s)
        return value

    def put(self, notebook: Path, parameters: dict[str, Any]) -> Path:
        """A copy whose parameters cell says ``parameters``, as a person would type them."""
        known = read_parameters(notebook)
        lines = [str(replace(p, default=parameters.get(p.name, p.default))) for p in known.values()]
        book = nbformat.read(notebook, as_version=4)
        (cell,) = [c for c in book.cells if "parameters" in c.metadata.get("tags", [])]
        cell.source = "\n".join(lines)
        nbformat.write(book, self.root / notebook.name)
        return self.root / notebook.name

    def open(self, path: Path) -> None:
        self.driver.execute_async_script(OPEN, path.name)

    def run_all(self) -> None:
        """Every cell, until the kernel rests; an error's traceback fails the test at once."""
        self.driver.execute_script("window.jupyterapp.commands.execute('notebook:run-all-cells')")

        def ended() -> bool:
            state = self.driver.execute_script(STATE)
            assert not state["errors"], state["errors"][0]
            assert state["kernel"] not in ("dead", "restarting", "autorestarting"), state
            return state["kernel"] == "idle" and not state["waiting"] and not state["running"]

        self.until(ended, CELL_S)

    def save(self, path: Path) -> Any:
        """The notebook as JupyterLab wrote it."""
        self.driver.execute_async_script(SAVE)
        return nbformat.read(path, as_version=4)

    def bars(self) -> list[int]:
        """How many widths each progress bar was seen with."""
        return list(self.driver.execute_script(BARS))

    def slides(self) -> list[list[tuple[bytes, bytes]]]:
        """Move every control of every `report.slides`: the picture before and after, as drawn."""
        from selenium.webdriver.common.keys import Keys
        from selenium.webdriver.support.select import Select

        found = []
        for box in self.driver.find_elements(
            "css selector", ".jp-OutputArea-output > .widget-vbox"
        ):

            def drawn(box: Any = box) -> bytes:
                (image,) = box.find_elements("css selector", "img.widget-image")
                self.until(lambda: image.get_property("complete"), 10, 0.05)
                return bytes(image.screenshot_as_png)

            def changed(before: bytes, box: Any = box) -> bytes:
                self.until(lambda: drawn(box) != before, 10, 0.1)
                return drawn(box)

            moves = []
            for handle in box.find_elements("css selector", ".noUi-handle"):
                before = drawn()
                handle.send_keys(Keys.ARROW_RIGHT)
                moves.append((before, changed(before)))
            for choice in box.find_elements("css selector", "select"):
                before = drawn()
                Select(choice).select_by_index(1)
                moves.append((before, changed(before)))
            found.append(moves)
        return found

    def picture(self, path: Path) -> None:
        """The whole notebook, on a page that is as high as it."""
        size = {"width": WIDTH_PX, "deviceScaleFactor": 1, "mobile": False}
        height = min(16000, self.driver.execute_script(HEIGHT) + 200)
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size | {"height": height})
        self.driver.execute_script(TOP)
        time.sleep(1)  # the page is laid out anew, and what was never in sight is drawn
        path.parent.mkdir(parents=True, exist_ok=True)
        assert self.driver.save_screenshot(str(path))
        self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def close(self) -> None:
        """Close the notebook and its kernel."""
        self.driver.execute_async_script(CLOSE)


@pytest.fixture(scope="session")
def smaller() -> dict[str, dict[str, Any]]:
    """Parameters of the smallest run of each notebook that says something."""
    return SMALLER


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab on a folder of its own, with nobody's settings, in a headless browser."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    try:
        browser, driver = pdf.chromium(), shutil.which("chromedriver")
    except UserError:
        browser = driver = None
    if not browser or not driver:
        pytest.skip("no Chromium with its driver: apt-get install -y chromium chromium-driver")
    home = tmp_path_factory.mktemp("lab")
    root = home / "notebooks"
    root.mkdir()
    server, url = _serve(root, home)
    try:
        service = webdriver.ChromeService(executable_path=driver)
        window = webdriver.Chrome(options=_options(webdriver, browser, home), service=service)
        try:
            yield Lab(root, window, url)
        finally:
            window.quit()
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _serve(root: Path, home: Path) -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    config = home / "config" / "labconfig" / "page_config.json"
    config.parent.mkdir(parents=True)
    # It would ask whether to fetch news, and cover the page with that.
    news = {"@jupyterlab/apputils-extension:announcements": True}
    config.write_text(json.dumps({"disabledExtensions": news}))
    folders = {"CONFIG_DIR": "config", "DATA_DIR": "data", "RUNTIME_DIR": "runtime"}
    environment = os.environ | {f"JUPYTER_{key}": str(home / name) for key, name in folders.items()}
    environment |= {f"JUPYTERLAB_{key}_DIR": str(home / key) for key in ("SETTINGS", "WORKSPACES")}
    environment |= {"DREAMZERO_WORK": str(home / "work")}
    for name in ("MPLBACKEND", "MUJOCO_GL", "JUPYTER_PREFER_ENV_PATH"):  # of tests, not of people
        environment.pop(name, None)
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser",
        "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={root}",
        "--LabApp.extension_manager=readonly",
    ]  # fmt: skip
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def answers() -> bool:
        assert server.poll() is None, (home / "server.log").read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=5):
                return True
        except urllib.error.URLError:
            return False

    try:
        Lab.until(answers, START_S)
    except BaseException:
        server.kill()
        server.wait()
        raise
    return server, f"http://127.0.0.1:{port}/lab?token={token}"


def _options(webdriver: Any, browser: str, home: Path) -> Any:
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--window-size={WIDTH_PX},1000", f"--user-data-dir={home / 'profile'}",
    ):  # fmt: skip
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium refuses to sandbox root's processes
    return options
