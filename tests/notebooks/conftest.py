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
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat
import pytest

from dreamzero.errors import UserError
from dreamzero.report.parameters import read_parameters
from dreamzero.report.site import pdf

START_S, CELL_S, WIDTH_PX = 120, 600, 1280

PAGE = Path(__file__).with_name("page.js")


class Lab:
    """A JupyterLab server over one folder, and a browser that shows it."""

    def __init__(self, root: Path, driver: Any, url: str) -> None:
        self.root, self.driver, self.url = root, driver, url
        driver.set_script_timeout(START_S)
        driver.get(url)
        self.until(lambda: driver.execute_script("return !!window.jupyterapp"), START_S)
        driver.execute_script(PAGE.read_text(encoding="utf-8"))
        self.page("restored")

    def page(self, name: str, *arguments: Any) -> Any:
        """Call a function of ``page.js`` in the page, and wait for what it promises."""
        script = (
            "const done = arguments[arguments.length - 1];"
            "const [name, ...rest] = [...arguments].slice(0, -1);"
            "Promise.resolve(window.lab[name](...rest)).then("
            "  value => done({value}), error => done({error: String(error.stack || error)}))"
        )
        answer = self.driver.execute_async_script(script, name, *arguments)
        assert "error" not in answer, answer["error"]
        return answer.get("value")

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
        self.page("open", path.name)

    def run_all(self) -> None:
        """Every cell, until the kernel rests; an error's traceback fails the test at once."""
        self.page("runAll")
        self.rest()

    def rest(self) -> None:
        def ended() -> bool:
            state = self.page("state")
            assert not state["errors"], state["errors"][0]
            assert state["kernel"] not in ("dead", "restarting", "autorestarting"), state
            return state["kernel"] == "idle" and not state["waiting"] and not state["running"]

        self.until(ended, CELL_S)

    def save(self, path: Path) -> Any:
        """The notebook as JupyterLab wrote it."""
        self.page("save")
        return nbformat.read(path, as_version=4)

    def bars(self) -> list[int]:
        """How many widths each progress bar was seen with."""
        return list(self.page("bars"))

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
        height = 0
        # What was never in sight has a height that is only guessed, until the page is that high.
        while (wanted := self.page("height") + 200) > height:
            height = wanted
            # Chromium draws no picture of more than 16384 pixels.
            size = {"width": WIDTH_PX, "height": height, "mobile": False}
            size |= {"deviceScaleFactor": min(1, 16000 / height)}
            self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            self.page("scrollToTop")
            time.sleep(1)
        path.parent.mkdir(parents=True, exist_ok=True)
        assert self.driver.save_screenshot(str(path))
        self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def close(self) -> None:
        """Close the notebook and its kernel."""
        self.page("close")


@pytest.fixture(scope="session")
def smaller(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Fewer episodes and steps than `quick`; a notebook that is not named here runs as it is."""
    from dreamzero.sim import record

    dataset = tmp_path_factory.mktemp("recording") / "so101"
    record(dataset, "so101", 16, seed=3, progress=False)
    return {
        "00_tour": {"episodes": 4},
        "01_data": {"episodes": 12},
        "02_training": {"steps": 12, "dataset": str(dataset)},
        "03_inference": {"episodes": 4, "chunks": 6},
        "04_robot_control": {"episodes": 1},
        "05_cross_embodiment": {"episodes": 8, "steps": 8},
        "06_generalization": {"cells": "labels/wam-16-s0", "episodes": 4},
    }


@pytest.fixture(scope="session")
def chromium() -> tuple[str, str] | None:
    """The browser and its driver, where both are."""
    try:
        browser, driver = pdf.chromium(), shutil.which("chromedriver")
    except UserError:
        return None
    return (browser, driver) if driver and find_spec("selenium") else None


@pytest.fixture(scope="module")
def lab(
    chromium: tuple[str, str] | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lab]:
    """JupyterLab on a folder of its own, with nobody's settings, in a headless browser."""
    if chromium is None:
        pytest.skip("no Chromium with driver: apt-get install -y chromium chromium-driver")
    from selenium import webdriver

    browser, driver = chromium
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
