"""The stream between two network namespaces: another address, a key, a real link that is really cut.

Linux's own netem makes the link bad where the kernel has it; elsewhere the emulator's impairments do. Nothing
leaves the namespaces, which the test makes and removes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

DRIVER, ARM = "10.99.0.1", "10.99.0.2"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)


@dataclass
class Link:
    """Two namespaces, joined by a virtual cable. ``netem``: the cable itself is bad."""

    driver: str
    arm: str
    netem: bool

    def cable(self, state: str) -> None:
        run("ip", "-n", self.arm, "link", "set", "cable", state)


@pytest.fixture
def link() -> Iterator[Link]:
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool} (Debian: iproute2)")
    names = [f"dz-{end}-{os.getpid()}" for end in ("driver", "arm")]
    try:
        for name in names:
            run("ip", "netns", "add", name)
        run("ip", "-n", names[0], "link", "add", "cable", "type", "veth",
            "peer", "name", "cable", "netns", names[1])  # fmt: skip
    except subprocess.CalledProcessError as error:
        remove(names)
        pytest.skip(f"may not make network namespaces here: {error.stderr.strip()}")
    try:
        bad = True
        for name, address in zip(names, (DRIVER, ARM), strict=True):
            run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "cable")
            run("ip", "-n", name, "link", "set", "cable", "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
            netem = ["loss", "10%", "delay", "15ms", "10ms"]
            try:
                run("tc", "-n", name, "qdisc", "add", "dev", "cable", "root", "netem", *netem)
            except subprocess.CalledProcessError:
                bad = False
        yield Link(*names, netem=bad)
    finally:
        remove(names)


def remove(names: list[str]) -> None:
    for name in names:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


DRIVE = """
import json, sys, time
from dreamzero import embodiments
from dreamzero.robots import LinkLost
from dreamzero.robots.stream import bench
from dreamzero.robots.stream.driver import StreamRobot
from dreamzero.robots.uri import parse

uri, card = sys.argv[1], embodiments.get("tabletop_franka")
print(json.dumps(bench.run(uri, card, seconds=1.5, hz=30.0).to_dict()), flush=True)
arm = StreamRobot(parse(uri), card)
arm.connect()
print("connected", flush=True)
try:
    while True:
        arm.act(arm.guard.last)
        time.sleep(0.03)
except LinkLost as error:
    print(error, flush=True)
sys.stdin.readline()
arm.reconnect()
print("back", flush=True)
arm.stop()
arm.close()
"""


@contextmanager
def child(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A process with pipes, gone at the end whatever happens."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    """Its next line; what it complained of if there is none."""
    assert process.stdout is not None
    assert process.stderr is not None
    return process.stdout.readline().rstrip() or process.stderr.read()


def test_across_a_link_that_is_bad_and_then_cut(link: Link, tmp_path: Path) -> None:
    key = tmp_path / "arm.key"
    key.write_text("5a" * 32)
    key.chmod(0o600)
    emulate = ["-m", "dreamzero.cli", "robot", "emulate", "franka", "--physics", "lag", "--json"]
    emulate += ["--at", f"udp://{ARM}:47800?key={key}"]
    if not link.netem:
        emulate += ["--loss", "0.1", "--delay-ms", "15", "--jitter-ms", "10"]
    inside = ["ip", "netns", "exec"]
    with child(*inside, link.arm, sys.executable, *emulate) as arm:
        where = json.loads(line(arm))
        assert where["port"] == f"{ARM}:47800"
        uri = f"{where['uri'].split('&camera')[0]}&loss_ms=1000&connect_ms=8000"
        with child(*inside, link.driver, sys.executable, "-c", DRIVE, uri) as driver:
            report = json.loads(line(driver))
            assert report["unsafe"] == 0
            assert report["rtt_p50_ms"] >= 15
            assert report["loss_up"] + report["loss_down"] > 0
            assert line(driver) == "connected"
            link.cable("down")
            assert "no state for 1000 ms" in line(driver)
            link.cable("up")
            assert driver.stdin is not None
            driver.stdin.write("\n")
            driver.stdin.flush()
            assert line(driver) == "back"
        arm.terminate()
        assert arm.stderr is not None
        assert "commands the franka" in arm.stderr.read()
